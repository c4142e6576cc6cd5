//! The units of systemd, and what the program does with a service manager.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixDatagram;

use super::{read, run, stdout, stop_s_max};
use crate::support::continuous_load::ContinuousLoad;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{BINARY, Start};
use crate::support::test_system::TestSystem;
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX};

const UNITS: [&str; 2] = ["pointsman.service", "pointsman.socket"];

/// Writes the units into a directory, with the binary under test, and has systemd check them: what it says.
fn verified(dir: &Path, change: impl Fn(String) -> String) -> String {
    let files = UNITS.map(|unit| {
        let text = read(&format!("systemd/{unit}"));
        assert!(unit.ends_with(".socket") || text.contains("/usr/bin/pointsman serve"), "{text}");
        std::fs::write(dir.join(unit), change(text.replace("/usr/bin/pointsman", BINARY))).expect("written");
        dir.join(unit)
    });
    run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(files)).1
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(verified(dir.path(), |text| text), "");
    let slip = verified(dir.path(), |text| text.replace("WatchdogSec", "WatchDogSec"));
    assert!(slip.contains("WatchDogSec"), "{slip}");
}

#[test]
fn the_exposure_of_the_service_is_at_most_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let unit = dir.path().join(UNITS[0]);
    std::fs::write(&unit, read("systemd/pointsman.service")).expect("written");
    let text = stdout(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit));
    let overall = text.split("Overall exposure level for pointsman.service: ").nth(1).expect("a level");
    let level: f64 = overall.split_whitespace().next().and_then(|level| level.parse().ok()).expect("a number");
    assert!(level <= 2.0, "{overall}\n{text}");
}

#[test]
fn the_service_gets_more_time_than_a_stop_takes() {
    let text = read("systemd/pointsman.service");
    let seconds = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.parse::<u64>().ok());
    assert!(seconds.expect("a limit in seconds") > stop_s_max(), "a stop takes {} s", stop_s_max());
}

/// The system calls of a group, with those of the groups in it.
fn system_calls(group: &str) -> BTreeSet<String> {
    let text = stdout(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", group]));
    let names = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.flat_map(|name| if name.starts_with('@') { system_calls(name) } else { [name.to_owned()].into() }).collect()
}

/// systemd itself does not run here, so the calls of a process that serves, reloads and stops are held against the
/// filter.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_makes_only_system_calls_that_the_service_may_make() {
    let unit = read("systemd/pointsman.service");
    assert!(unit.contains("\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n"), "{unit}");
    assert!(unit.contains("\nMemoryDenyWriteExecute=yes\n"), "{unit}");
    let privileged = system_calls("@privileged");
    let allowed = &system_calls("@system-service") - &privileged;
    assert!(allowed.contains("openat") && privileged.contains("chroot"), "the groups were read");

    let mut system = TestSystem::start().await;
    assert_eq!(system.pointsman.stop().await, Some(0));
    let dir = tempfile::tempdir().expect("a directory");
    let trace = dir.path().join("trace").display().to_string();
    let launcher = ["strace", "-f", "-qq", "-o", &trace, "-s", "0"];
    let started = Pointsman::try_start_by(&system.arguments(), &launcher).await;
    system.pointsman = started.unwrap_or_else(|log| panic!("{log}"));
    system.climb_to("shadow").await;
    system.create_read_cancel().await;
    system.flags.edit("pointsman.yaml", |text| text + "\n# changed\n");
    assert!(system.pointsman.cli(&["reload"]).await.status.success());
    system.wait_for_shadow_idle().await;
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", system.pointsman.pid()));
    let traced: i32 = children.expect("readable").trim().parse().expect("one child");
    kill_process(Pid::from_raw(traced).expect("a pid"), Signal::TERM).expect("the signal could be sent");
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0));

    let text = std::fs::read_to_string(dir.path().join("trace")).expect("a trace");
    let mut calls = BTreeSet::new();
    for line in text.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let Some((name, arguments)) = call.trim_start_matches("<... ").split_once(['(', ' ']) else { continue };
        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            calls.insert(name.to_owned());
            let writes_code =
                arguments.contains("PROT_EXEC") && (arguments.contains("PROT_WRITE") || name == "mprotect");
            // The loader of shared libraries maps code without the right to write.
            assert!(!writes_code, "MemoryDenyWriteExecute would refuse it: {line}");
        }
    }
    assert!(calls.len() > 40 && calls.contains("accept4"), "the calls were read: {calls:?}");
    // SQLite gives its files to the owner of the database, only where it runs as root: not in the service.
    let refused: Vec<_> = calls.difference(&allowed).filter(|call| *call != "fchown").collect();
    assert!(refused.is_empty(), "the filter of the service would refuse {refused:?}");
    system.pointsman = Pointsman::start(&system.arguments()).await;
    system.finish().await;
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// Waits until a message has this line; messages before it are skipped.
    async fn until(&mut self, wanted: &str) -> String {
        let mut buffer = [0; 4_096];
        loop {
            let received = tokio::time::timeout(WAIT_MAX, self.socket.recv(&mut buffer)).await;
            let length = received.unwrap_or_else(|_| panic!("no `{wanted}` after {:?}", self.heard)).expect("received");
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(message.clone());
            if message.lines().any(|line| line == wanted) {
                return message;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_that_the_process_is_ready_works_reloads_and_stops() {
    let legacy = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::passthrough(&legacy.url());
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("notify");
    let mut manager = Manager { socket: UnixDatagram::bind(&at).expect("a socket"), heard: Vec::new() };
    let mut start = Start::on_sqlite(flags.path(), dir.path());
    let microseconds = Duration::from_millis(200).as_micros().to_string();
    start.env =
        vec![("NOTIFY_SOCKET".to_owned(), at.display().to_string()), ("WATCHDOG_USEC".to_owned(), microseconds)];
    let mut pointsman = Pointsman::start(&start).await;

    let ready = manager.until("READY=1").await;
    let (listen, admin) = (pointsman.listen, pointsman.admin);
    assert!(ready.contains(&format!("STATUS=serving on {listen}, API on {admin}\n")), "{ready}");
    for _ in 0..3 {
        manager.until("WATCHDOG=1").await;
    }
    pointsman.signal(Signal::HUP);
    let reloading = manager.until("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let ready = manager.until("READY=1").await;
    assert!(ready.contains("STATUS=serving; the flag files are in force\n"), "{ready}");
    flags.edit("pointsman.yaml", |text| text + "\nno_such_key: 1\n");
    pointsman.signal(Signal::HUP);
    manager.until("RELOADING=1").await;
    let ready = manager.until("READY=1").await;
    assert!(ready.contains("the flag files are refused, and the last good set stays in force"), "{ready}");

    pointsman.terminate();
    manager.until("STOPPING=1").await;
    assert_eq!(pointsman.wait_for_exit().await, Some(0));
}

/// Executes a command on the sockets that were passed, again whenever it ends, until there is a file `stop`: what
/// systemd does for a service with a socket unit. `systemd-socket-activate` executes a command only once.
const KEEPER: &str = r#"
while [ ! -e "$1/stop" ]; do
    bash -c 'export LISTEN_PID=$$; echo "pid $$"; exec "$@"' service "${@:2}"
done
"#;
/// How many times the service is restarted under load.
const RESTARTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_on_activated_sockets_refuses_nobody() {
    let legacy = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::passthrough(&legacy.url());
    let dir = tempfile::tempdir().expect("a directory");
    let [listen, admin] = [free_address(), free_address()];
    let sockets = [format!("--listen={listen}"), format!("--listen={admin}"), "--fdname=listen:admin".to_owned()];
    let log = std::fs::File::create(dir.path().join("log")).expect("a log");
    let mut keeper = tokio::process::Command::new("systemd-socket-activate")
        .args(&sockets)
        .args(["bash", "-c", KEEPER, "keeper"])
        .arg(dir.path())
        .args([BINARY, "serve", "--listen", &listen.to_string(), "--admin", &admin.to_string(), "--flags"])
        .arg(flags.path())
        .args(["--store", &format!("sqlite:{}", dir.path().join("db").display())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("systemd-socket-activate (Debian: systemd)");
    let mut lines = BufReader::new(keeper.stdout.take().expect("a pipe")).lines();
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    // The process that serves, once it does.
    let mut next_process = async || {
        let (mut pid, mut serves) = (0, false);
        while !serves {
            let line = tokio::time::timeout(WAIT_MAX, lines.next_line()).await.unwrap_or_else(|_| panic!("{}", log()));
            let line = line.expect("readable").unwrap_or_else(|| panic!("it ended: {}", log()));
            pid = line.strip_prefix("pid ").and_then(|pid| pid.parse().ok()).unwrap_or(pid);
            serves = line.contains(&format!("\"listen\":\"{listen}\""));
        }
        Pid::from_raw(pid).expect("a pid")
    };
    // It executes the command at the first connection, for which it has to listen.
    let first =
        crate::support::until("the sockets", || async { tokio::net::TcpStream::connect(listen).await.ok() }).await;
    let mut process = next_process().await;
    drop(first);
    let mut load = ContinuousLoad::start(listen, "/things", 4);
    for number in 0..RESTARTS {
        let before = load.kinds().map(|(_, seen)| answered(seen));
        crate::support::until_true("every kind of client to be answered", || {
            load.kinds().iter().zip(before).all(|((_, seen), before)| answered(seen) > before + 20)
        })
        .await;
        if number == RESTARTS - 1 {
            std::fs::write(dir.path().join("stop"), "").expect("written");
            load.end().await;
        }
        kill_process(process, Signal::TERM).expect("the signal could be sent");
        if number < RESTARTS - 1 {
            process = next_process().await;
        }
    }
    // An idle connection is closed at any stop; a request that its client sends at that very moment was not begun.
    let is_idle_closed =
        |kind: &str, failure: &str| kind == "keep-alive" && failure == "closed after 0 bytes of a reply";
    for (kind, seen) in load.kinds() {
        let failures = seen.failures().into_iter().filter(|failure| !is_idle_closed(kind, failure)).collect::<Vec<_>>();
        assert_eq!(failures, Vec::<String>::new(), "{kind}: {}", log());
    }
    let ended = tokio::time::timeout(WAIT_MAX, keeper.wait()).await.expect("in time").expect("waited for");
    assert!(ended.success(), "{ended}: {}", log());
}

fn answered(seen: &crate::support::continuous_load::Seen) -> u64 {
    seen.answered.load(std::sync::atomic::Ordering::SeqCst)
}

fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind(LOCAL).and_then(|socket| socket.local_addr()).expect("a free port")
}
