//! What the tests of this crate begin with: a server that is this program itself, and waiting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::ReusePort;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket};

use super::file::VersionCommand;

/// Where [`serves`] listens, if it is meant to.
const SERVE: &str = "VERSIONFLAG_TEST_SERVE";
/// Whether it lets others listen there, too.
const SHARE: &str = "VERSIONFLAG_TEST_SHARE";
/// The longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An address of loopback that only this test uses, where nobody connects from.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 1 + high % 200, low, NEXT.fetch_add(1, Ordering::Relaxed)], 9_001))
}

/// A command that serves.
pub(crate) fn server(address: SocketAddr) -> Vec<String> {
    let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let serve = format!("{SERVE}={address}");
    ["env", &serve, &program, "--exact", "testing::serves", "--nocapture"].map(str::to_owned).to_vec()
}

/// The same where others may listen, too.
pub(crate) fn sharing_server(address: SocketAddr) -> Vec<String> {
    let mut command = server(address);
    command.insert(1, format!("{SHARE}=1"));
    command
}

fn shared_listener(address: &str) -> TcpListener {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    setsockopt(&socket, ReusePort, &true).unwrap();
    bind(socket.as_raw_fd(), &address.parse::<SockaddrIn>().unwrap()).unwrap();
    listen(&socket, Backlog::MAXCONN).unwrap();
    TcpListener::from(socket)
}

/// The same from a script, which a shell runs as `sh SCRIPT`, with words before it.
pub(crate) fn script(path: &Path, before: &str, address: SocketAddr) {
    let words: Vec<String> = server(address).iter().map(|word| format!("'{word}'")).collect();
    std::fs::write(path, format!("{before}\nexec {}\n", words.join(" "))).unwrap();
}

/// A version that serves, or what else this command does.
pub(crate) fn version(command: &[String], address: SocketAddr, more: &str) -> VersionCommand {
    let command = serde_json::to_string(command).unwrap();
    let yaml = format!("{{command: {command}, address: '{address}', ready: {{interval: 20ms}} {more}}}");
    serde_saphyr::from_str(&yaml).unwrap()
}

/// Not a test: the server that tests start.
#[test]
fn serves() {
    let Ok(address) = std::env::var(SERVE) else { return };
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT * 3);
        std::process::exit(1);
    });
    let shares = std::env::var(SHARE).is_ok();
    let listener = if shares { shared_listener(&address) } else { TcpListener::bind(address).unwrap() };
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let _ = connection.read(&mut [0; 4_096]);
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    }
}

/// A process of somebody else, which ends with the test.
#[derive(Debug)]
pub(crate) struct Foreign(pub(crate) Child);

impl Foreign {
    pub(crate) fn start(command: &[String]) -> Foreign {
        let mut started = Command::new(&command[0]);
        started.args(&command[1..]).process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Foreign(started.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
pub(crate) async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> Result<(), String>) {
    let begin = Instant::now();
    loop {
        match is_so().await {
            Ok(()) => return,
            Err(why) => assert!(begin.elapsed() < LIMIT, "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
