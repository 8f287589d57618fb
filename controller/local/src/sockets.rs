//! Who listens on an address. I/O: /proc/net/tcp and /proc/PID/fd, and a connection where those leave it open.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::group::{Members, Processes, describe};

/// The state of a socket that listens, as /proc/net/tcp writes it.
const LISTEN: &str = "0A";
/// How long a connection on this machine may take.
const CONNECT: Duration = Duration::from_millis(200);

/// Whose the listener of an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The version's own.
    Own,
    /// Somebody else's: who, in words.
    Other(String),
    /// It cannot be told: why, in words.
    Unknown(String),
}

/// Sockets that take connections to an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Listening {
    /// On exactly this address.
    exact: BTreeSet<u64>,
    /// On all addresses of its kind.
    all: BTreeSet<u64>,
    /// On all addresses by IPv6, which may or may not be those of IPv4 too.
    perhaps: BTreeSet<u64>,
}

impl Listening {
    fn take(&mut self, table: &str, address: SocketAddr) {
        // A busy machine has many connections, and few of them are to this port.
        let port = format!(":{:04X} ", address.port());
        let lines = table.lines().filter(|line| line.contains(&port));
        for (local, inode) in lines.filter_map(listener).filter(|(local, _)| local.port() == address.port()) {
            match (local.ip(), address.ip()) {
                (ip, wanted) if ip.to_canonical() == wanted.to_canonical() => self.exact.insert(inode),
                (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_)) => self.all.insert(inode),
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(_)) => self.all.insert(inode),
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(_)) => self.perhaps.insert(inode),
                _ => false,
            };
        }
    }

    fn of(tables: &[String], address: SocketAddr) -> Listening {
        let mut found = Listening::default();
        tables.iter().for_each(|table| found.take(table, address));
        found
    }

    fn read(address: SocketAddr) -> std::io::Result<Listening> {
        Ok(Listening::of(&tables()?, address))
    }

    /// Those that get the connections: the more exact an address is, the sooner.
    fn inodes(self) -> BTreeSet<u64> {
        [self.exact, self.all, self.perhaps].into_iter().find(|some| !some.is_empty()).unwrap_or_default()
    }
}

/// All sockets of this machine, of IPv4 and of IPv6.
fn tables() -> std::io::Result<[String; 2]> {
    // A machine without IPv6 has no such table.
    Ok([std::fs::read_to_string("/proc/net/tcp")?, std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default()])
}

/// A line of such a table, if it is a socket that listens: its address and inode.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, inode) = (socket_address(fields.get(1)?)?, fields.get(9)?.parse().ok()?);
    (fields.get(3) == Some(&LISTEN)).then_some((local, inode))
}

/// An address of /proc/net: hexadecimal words in the order of this machine.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len() / 8)
        .map(|word| Some(u32::from_str_radix(ip.get(word * 8..word * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = words?.concat();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Who has the sockets of an address.
#[derive(Debug, Default)]
struct Holders {
    pids: BTreeSet<i32>,
    held: BTreeSet<u64>,
    unreadable: bool,
}

/// Which of these processes have which of these sockets.
fn holders(inodes: &BTreeSet<u64>, pids: impl Iterator<Item = i32>) -> Holders {
    let mut found = Holders::default();
    for pid in pids {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        // One that is gone has none.
        found.unreadable |= files.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        for file in files.into_iter().flatten().flatten() {
            let target = std::fs::read_link(file.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.pids.insert(pid);
                found.held.insert(inode);
            }
        }
    }
    found
}

/// Whether all sockets that take connections to this address are of these processes.
pub(crate) fn owner(address: SocketAddr, members: &Members, processes: &Processes) -> Owner {
    let unknown = || Owner::Unknown(format!("it cannot be read which process listens on {address}"));
    let Ok(listening) = Listening::read(address) else { return unknown() };
    let inodes = listening.inodes();
    if inodes.is_empty() {
        return unknown();
    }
    let own = holders(&inodes, members.keys().copied());
    if own.held == inodes {
        return Owner::Own;
    }
    if own.unreadable {
        return unknown();
    }
    let rest = inodes.difference(&own.held).copied().collect();
    Owner::Other(named(&holders(&rest, processes.pids()).pids))
}

/// Who listens on an address, whoever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nobody does.
    Free,
    /// These processes; none: they cannot be read.
    By(BTreeSet<i32>),
}

/// Where these processes take connections, if nobody does at this address.
pub(crate) fn elsewhere(address: SocketAddr, members: &Members) -> BTreeSet<SocketAddr> {
    let Ok(tables) = tables() else { return BTreeSet::new() };
    if !Listening::of(&tables, address).inodes().is_empty() {
        return BTreeSet::new();
    }
    let all: BTreeMap<u64, SocketAddr> =
        tables.iter().flat_map(|table| table.lines()).filter_map(listener).map(|(at, inode)| (inode, at)).collect();
    let own = holders(&all.keys().copied().collect(), members.keys().copied());
    own.held.iter().filter_map(|inode| all.get(inode).copied()).collect()
}

/// Who takes connections to an address now.
pub(crate) fn taken(address: SocketAddr, processes: &Processes) -> Taken {
    // What cannot be read is found out by the version itself, which ends where it cannot listen.
    let Ok(listening) = Listening::read(address) else { return Taken::Free };
    let surely = !listening.exact.is_empty() || !listening.all.is_empty();
    let inodes = listening.inodes();
    if inodes.is_empty() || (!surely && TcpStream::connect_timeout(&address, CONNECT).is_err()) {
        return Taken::Free;
    }
    Taken::By(holders(&inodes, processes.pids()).pids)
}

/// Processes in words.
pub(crate) fn named(pids: &BTreeSet<i32>) -> String {
    if pids.is_empty() {
        return "a process that this controller may not look into".to_owned();
    }
    pids.iter().take(3).map(|pid| describe(*pid)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0\n"
        )
    }

    /// T7: the most exact listener gets the connections; who is only connected is none.
    #[rstest]
    #[case::exact(&[("0100007F:2329", "0A", 1), ("00000000:2329", "0A", 2)], &[1])]
    #[case::all(&[("00000000:2329", "0A", 2), ("0200007F:2329", "0A", 3)], &[2])]
    #[case::another_port(&[("0100007F:232A", "0A", 1)], &[])]
    #[case::a_connection(&[("0100007F:2329", "01", 1)], &[])]
    #[case::all_by_ipv6(&[("00000000000000000000000000000000:2329", "0A", 4)], &[4])]
    #[case::mapped(&[("0000000000000000FFFF00000100007F:2329", "0A", 5)], &[5])]
    #[case::garbage(&[("nonsense", "0A", 5)], &[])]
    fn a_listener_is_found_by_its_address(#[case] lines: &[(&str, &str, u64)], #[case] inodes: &[u64]) {
        // As a machine writes it whose words begin with the lowest byte.
        if cfg!(target_endian = "big") {
            return;
        }
        let table: String = lines.iter().map(|(local, state, inode)| line(local, state, *inode)).collect();
        let mut found = Listening::default();
        found.take(&format!("{HEAD}{table}"), "127.0.0.1:9001".parse().unwrap());
        assert_eq!(found.inodes(), inodes.iter().copied().collect());
    }

    #[test]
    fn who_listens_is_read_from_the_machine() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut processes = Processes::default();
        processes.look();
        let me = std::process::id().cast_signed();
        assert_eq!(taken(address, &processes), Taken::By([me].into()));
        assert_eq!(owner(address, &[(me, 0)].into(), &processes), Owner::Own);
        assert_eq!(owner(address, &Members::new(), &processes), Owner::Other(describe(me)));
        let free = SocketAddr::from(([127, 0, 0, 2], address.port()));
        assert!(elsewhere(free, &[(me, 0)].into()).contains(&address));
        assert_eq!(elsewhere(address, &[(me, 0)].into()), BTreeSet::new(), "it listens there");
        assert_eq!(elsewhere(free, &Members::new()), BTreeSet::new());
        drop(socket);
        assert_eq!(taken(address, &processes), Taken::Free);
        assert!(matches!(owner(address, &Members::new(), &processes), Owner::Unknown(_)));
    }
}
