use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use machine::status::Status;
use service::Authenticator;
use service::clock::now;
use tempfile::TempDir;

use super::*;
use crate::file::LogFiles;
use crate::testing::{Foreign, free_address, script, server, sharing_server, version, wait_for};

/// A flag with one version, `v1`, and nothing but its processes. They end with it.
struct World {
    dir: TempDir,
    store: Store,
    supervisor: Supervisor,
    versions: Versions,
}

impl World {
    fn new(how: VersionCommand) -> World {
        World::at(tempfile::tempdir().unwrap(), how)
    }

    fn at(dir: TempDir, how: VersionCommand) -> World {
        let state = dir.path().join("state.json");
        let mut store = Store::open(&state, || Status::new("u-1", "reviews", now())).unwrap();
        let logs = Logs::new("reviews", &LogFiles::default(), &state);
        let supervisor = Supervisor::adopt(logs, Arc::new(Hub::new(Authenticator::listed())), &mut store);
        World { dir, store, supervisor, versions: [("v1".to_owned(), how)].into() }
    }

    /// The controller dies, and another one begins, with or without the state file.
    fn again(self, keeps_state: bool) -> World {
        let World { dir, store, supervisor, mut versions } = self;
        drop((store, supervisor));
        if !keeps_state {
            std::fs::rename(dir.path().join("state.json"), dir.path().join("moved.json")).unwrap();
        }
        World::at(dir, versions.remove("v1").unwrap())
    }

    fn how(&self) -> &VersionCommand {
        &self.versions["v1"]
    }

    fn start(&mut self) {
        let how = self.how().clone();
        self.supervisor.start(now().0, &mut self.store, "v1", &how);
    }

    fn stop(&mut self) -> Result<(), StoreError> {
        let how = self.how().stop.clone();
        self.supervisor.stop(now().0, &mut self.store, "v1", &how)
    }

    fn look(&mut self) -> VersionState {
        self.supervisor.poll(now().0, &mut self.store, &self.versions);
        self.supervisor.workload(now().0, &self.store, "v1", self.versions.get("v1"))
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&VersionState) -> bool) -> VersionState {
        let mut last = VersionState::default();
        wait_for(what, async || {
            last = self.look();
            if is_so(&last) { Ok(()) } else { Err(format!("{last:?}")) }
        })
        .await;
        last
    }

    fn pid(&self) -> i32 {
        self.store.state.processes["v1"].pid.unwrap()
    }

    fn history(&mut self) -> Vec<String> {
        self.supervisor.occurred(|_| false).into_iter().map(|one| one.message).collect()
    }
}

/// Ends all that a test has started, or left behind.
struct Sweep(PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        let mut processes = Processes::default();
        processes.look();
        let started = processes.started_by(&self.0.to_string_lossy());
        for (marks, _) in started {
            let process = Process { id: marks.id, ..Process::default() };
            processes.signal(&processes.members(&process, &Members::new(), false), Signal::SIGKILL);
        }
    }
}

impl World {
    fn sweep(&self) -> Sweep {
        Sweep(self.store.path().to_owned())
    }
}

/// T34: while a switch rests on its answers, nobody else answers in a version's place unseen: not one who came later, and
/// shares its address.
#[tokio::test]
async fn who_shares_the_address_of_a_version_is_seen() {
    let address = free_address();
    let mut world = World::new(version(&sharing_server(address), address, ""));
    let _sweep = world.sweep();
    world.store.state.status.phase = Phase::Coexisting;
    world.start();
    world.until("v1 is ready", |v1| v1.ready).await;
    let foreign = Foreign::start(&sharing_server(address));
    let pid = foreign.pid().to_string();
    let others = |v1: &VersionState| v1.lacks.as_ref().is_some_and(|lacks| lacks.contains(&pid));
    world.until("it is not only v1 that answers", |v1| !v1.ready && others(v1)).await;
    drop(foreign);
    world.until("v1 answers alone", |v1| v1.ready).await;
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// A shell that waits for a server that does not end when it is told to.
fn wrapped(dir: &TempDir, address: SocketAddr) -> Vec<String> {
    let path = dir.path().join("server.sh");
    script(&path, "trap '' TERM", address);
    ["sh", "-c", &format!("sh '{}'; true", path.display())].map(str::to_owned).to_vec()
}

/// T7: the shell ends at once, and the server that it started has the port until it is killed after the grace.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_stopped_when_nothing_of_it_runs() {
    let (dir, address) = (tempfile::tempdir().unwrap(), free_address());
    let how = version(&wrapped(&dir, address), address, ", stop: {grace: 700ms}");
    let mut world = World::at(dir, how);
    let _sweep = world.sweep();
    world.start();
    world.until("ready", |seen| seen.ready).await;
    let (told, shell) = (now(), world.pid());
    world.stop().unwrap();
    world.until("the end of the shell", |seen| start_ticks(shell).is_none() || !seen.running).await;
    let seen = world.look();
    assert!(seen.running && seen.stopped && !seen.ready, "its server still has the port: {seen:?}");
    assert_eq!(seen.ending.len(), 1, "{:?}", seen.ending);
    world.until("the end", |seen| !seen.running).await;
    assert!(now().since(told).0 >= 700, "it was killed before the grace was over");
    assert!(is_free(address), "somebody still has the port");
}

/// T7: the shell dies, and its server lives: it is ended, and shows nothing for what is started next.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_version_is_ended_before_its_next_start() {
    let (dir, address) = (tempfile::tempdir().unwrap(), free_address());
    let how = version(&wrapped(&dir, address), address, ", stop: {grace: 300ms}");
    let mut world = World::at(dir, how);
    let _sweep = world.sweep();
    world.start();
    world.until("ready", |seen| seen.ready).await;
    let (first, all) = (world.pid(), world.supervisor.live["v1"].members.clone());
    assert!(all.len() > 1, "{all:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let seen = world.until("its end", |seen| seen.exited.is_some()).await;
    assert!(seen.running && !seen.ready, "{seen:?}");
    assert!(seen.lacks.as_ref().is_some_and(|why| why.contains("left behind")), "{seen:?}");
    world.start();
    assert_eq!(world.pid(), first, "it was started beside what is left of it");
    world.until("the end of the rest", |seen| !seen.running).await;
    assert!(all.iter().all(|(pid, ticks)| start_ticks(*pid) != Some(*ticks)));
    world.until("the next start", |seen| seen.next_start.is_none()).await;
    world.start();
    assert_ne!(world.pid(), first);
    world.until("ready again", |seen| seen.ready).await;
    assert!(world.history()[0].contains("v1 ended by itself: signal: 9"), "{:?}", world.history());
}

/// T7: what leaves its session, and whose parent ended, still belongs to the version.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_session_still_belongs_to_the_version() {
    let (dir, address) = (tempfile::tempdir().unwrap(), free_address());
    let path = dir.path().join("server.sh");
    script(&path, "unset VERSIONFLAG_ID VERSIONFLAG_STATE VERSIONFLAG_VERSION", address);
    let away = format!("setsid sh '{}' & sleep 600", path.display());
    let mut world = World::at(dir, version(&["sh", "-c", &away].map(str::to_owned), address, ""));
    let _sweep = world.sweep();
    world.start();
    world.until("ready", |seen| seen.ready).await;
    world.stop().unwrap();
    world.until("the end", |seen| !seen.running).await;
    assert!(is_free(address), "somebody still has the port");
}

/// T7: who answers has to be of the version.
#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_somebody_else_show_nothing() {
    let address = free_address();
    let mut world = World::new(version(&["sleep", "600"].map(str::to_owned), address, ""));
    let _sweep = world.sweep();
    world.start();
    let seen = world.until("no answer", |seen| seen.lacks.is_some()).await;
    assert!(seen.lacks.as_ref().is_some_and(|why| why.contains("refused")), "{seen:?}");
    let foreign = Foreign::start(&server(address));
    let who = format!("process {} ", foreign.pid());
    let named = |seen: &VersionState| seen.lacks.as_ref().is_some_and(|why| why.contains(&who));
    let seen = world.until("who it is", named).await;
    assert!(!seen.ready, "{seen:?}");
    drop(foreign);
    world.versions.get_mut("v1").unwrap().ready.listener = crate::file::ListenerOf::Any;
    let _foreign = Foreign::start(&server(address));
    world.until("ready, where anybody may answer", |seen| seen.ready).await;
}

/// T7: a version is not started where somebody else listens, who is named.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_version_listens_instead_is_said() {
    let (address, other) = (free_address(), free_address());
    let mut world = World::new(version(&server(other), address, ""));
    world.start();
    let instead = format!("listens on {other}, which is not its address");
    world.until("the word of it", |state| state.lacks.as_ref().is_some_and(|lacks| lacks.contains(&instead))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_said_before_the_start() {
    let address = free_address();
    let mut world = World::new(version(&server(address), address, ""));
    let _sweep = world.sweep();
    let foreign = Foreign::start(&server(address));
    wait_for("the foreign server", async || if is_free(address) { Err(String::new()) } else { Ok(()) }).await;
    world.start();
    let seen = world.look();
    let why = seen.barred.clone().unwrap_or_default();
    assert!(why.contains(&format!("process {} (", foreign.pid())) && why.contains("adopt"), "{why}");
    assert!(!seen.running && world.history()[0].contains(&why), "{:?}", world.history());
    drop(foreign);
    world.supervisor.forgive(now(), None);
    world.start();
    let seen = world.until("ready", |seen| seen.ready).await;
    assert_eq!(seen.barred, None);
}

/// T11: a state file that was moved away has what runs found again, and nothing is started twice.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_state_a_controller_finds_what_it_started() {
    let address = free_address();
    let mut world = World::new(version(&server(address), address, ""));
    let _sweep = world.sweep();
    world.start();
    world.until("ready", |seen| seen.ready).await;
    let first = world.pid();
    for keeps_state in [false, true] {
        world = world.again(keeps_state);
        world.start();
        assert_eq!(world.pid(), first, "it was started again");
        world.until("ready", |seen| seen.ready).await;
    }
    world.stop().unwrap();
    world.until("the end", |seen| !seen.running).await;
    assert!(is_free(address));
}

/// T11: a version that somebody else has started is adopted, by its listener or by a pid file, and stopped like others.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_started_is_adopted() {
    for by_pid_file in [false, true] {
        let (dir, address) = (tempfile::tempdir().unwrap(), free_address());
        let foreign = Foreign::start(&server(address));
        wait_for("the foreign server", async || if is_free(address) { Err(String::new()) } else { Ok(()) }).await;
        let pid_file = dir.path().join("v1.pid");
        std::fs::write(&pid_file, format!("{}\n", foreign.pid())).unwrap();
        let adopt = match by_pid_file {
            true => format!(", adopt: {{pidFile: '{}'}}", pid_file.display()),
            false => ", adopt: Listener".to_owned(),
        };
        let mut world = World::at(dir, version(&server(address), address, &adopt));
        let _sweep = world.sweep();
        world.start();
        assert_eq!(world.pid(), foreign.pid(), "{:?}", world.history());
        world.until("ready", |seen| seen.ready).await;
        world = world.again(true);
        world.until("ready again", |seen| seen.ready).await;
        world.stop().unwrap();
        world.until("the end", |seen| !seen.running).await;
        assert!(is_free(address));
    }
}

/// T11: what cannot be adopted safely is left alone, and it is said what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_safe_to_adopt_is_left_alone() {
    let mine = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mine.local_addr().unwrap();
    let mut world = World::new(version(&server(address), address, ", adopt: Listener"));
    world.start();
    let why = world.look().barred.unwrap_or_default();
    assert!(why.contains("would stop this controller"), "{why}");
    let sleeper = Foreign::start(&["sleep", "600"].map(str::to_owned));
    let pid_file = world.dir.path().join("v1.pid");
    std::fs::write(&pid_file, sleeper.pid().to_string()).unwrap();
    let adopt = format!(", adopt: {{pidFile: '{}'}}", pid_file.display());
    world.versions.insert("v1".to_owned(), version(&server(address), address, &adopt));
    world.supervisor.forgive(now(), None);
    world.start();
    let why = world.look().barred.unwrap_or_default();
    assert!(why.contains("put the right pid there"), "{why}");
    drop(mine);
    world.supervisor.forgive(now(), None);
    world.start();
    let why = world.look().barred.unwrap_or_default();
    assert!(why.contains("does not listen"), "{why}");
    assert!(start_ticks(sleeper.pid()).is_some() && !world.look().running);
}

/// T14: when it is tried again is shown, and whoever edits it or asks does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_is_shown_and_may_be_asked_for() {
    let address = free_address();
    let mut world = World::new(version(&["false".to_owned()], address, ""));
    let _sweep = world.sweep();
    // The waits double, until one is longer than a look of a busy machine.
    wait_for("a long wait", async || {
        world.start();
        let seen = world.look();
        let long = seen.next_start.is_some_and(|next| next.since(now()).0 > 2_000);
        if long { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    world.start();
    assert!(!world.look().running, "it was started before its time");
    world.versions.insert("v1".to_owned(), version(&server(address), address, ""));
    world.supervisor.forgive(now(), Some("v1"));
    assert_eq!(world.look().next_start, None);
    world.start();
    world.until("ready", |seen| seen.ready).await;
}

/// T8: what cannot be written keeps nobody from running, and nobody is stopped on what is not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_nobody() {
    let address = free_address();
    let mut world = World::new(version(&server(address), address, ", stop: {grace: 300ms}"));
    let _sweep = world.sweep();
    // Nobody can write there, root included.
    let in_the_way = world.dir.path().canonicalize().unwrap().join("state.json.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    world.start();
    world.until("ready", |seen| seen.ready).await;
    assert!(world.store.unwritten().is_some() && world.store.failures() > 0);
    let first = world.pid();
    world.stop().unwrap_err();
    let seen = world.look();
    assert!(seen.ready && !seen.stopped, "it was stopped on nothing: {seen:?}");
    world = world.again(true);
    assert_eq!(world.pid(), first, "what could not be written is found again");
    std::fs::remove_dir(&in_the_way).unwrap();
    world.stop().unwrap();
    assert_eq!(world.store.unwritten(), None);
    world.until("the end", |seen| !seen.running).await;
}

/// T8: a version runs without a log, and it is said. What changed in the file since its start is said too.
#[tokio::test(flavor = "multi_thread")]
async fn what_people_should_know_of_a_version_is_said() {
    let address = free_address();
    let mut world = World::new(version(&server(address), address, ""));
    let _sweep = world.sweep();
    let file = world.dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let how = LogFiles { directory: Some(file.join("logs")), ..LogFiles::default() };
    world.supervisor.set_logs(Logs::new("reviews", &how, world.store.path()));
    world.start();
    let seen = world.until("ready", |seen| seen.ready).await;
    assert!(seen.notes.iter().any(|note| note.contains("what it prints is lost")), "{seen:?}");
    let mut changed = world.how().clone();
    (changed.address, changed.command) = (free_address(), vec!["other".to_owned()]);
    changed.env.insert("LEVEL".to_owned(), "2".to_owned());
    world.versions.insert("v1".to_owned(), changed);
    let seen = world.look();
    assert!(seen.notes.iter().any(|note| note.contains("its command, address, env in the file changed")), "{seen:?}");
    assert!(seen.ready, "it is asked where it listens: {seen:?}");
}
