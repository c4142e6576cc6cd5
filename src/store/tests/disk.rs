//! A disk that fails: what each append was told is true, in the process and after its end.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::*;
use crate::store::{AppendError, Store};

const DATABASE: &str = "POINTSMAN_TEST_DISK_DATABASE";
const APPENDS: u64 = 60;

/// The child: appends to run after run while the disk fails, says what it was told, and dies without closing. Does
/// nothing where nobody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    // The fault may hit the opening too: that is refused, and tried again.
    let mut opened = SqliteStore::open(&path, &Limits::default()).await;
    for _ in 0..100 {
        if opened.is_err() {
            opened = SqliteStore::open(&path, &Limits::default()).await;
        }
    }
    let store = opened.unwrap();
    for n in 0..APPENDS {
        let told = match store.append(append(run_id(n), 1, 2).into()).await {
            Ok(()) => "ok",
            Err(AppendError::Refused(_)) => "refused",
            Err(AppendError::Unavailable(_)) => "unavailable",
            Err(AppendError::Conflict(_) | AppendError::Fenced(_)) => "conflict",
        };
        println!("\ntold {n} {told}");
    }
    std::process::abort();
}

/// Runs the child with a fault in some of its system calls, and returns how often each answer was true.
async fn with_fault(fault: &str) -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::disk::child", "--nocapture", "--test-threads=1"])
        .env(DATABASE, &path)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = text.lines().filter_map(|line| line.strip_prefix("told ")?.split_once(' '));
    let told: Vec<(u64, &str)> = told.map(|(n, told)| (n.parse().unwrap(), told)).collect();
    assert_eq!(told.len() as u64, APPENDS, "{fault}: the child did not come to its end");

    let store: SharedStore = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
    let mut counts = BTreeMap::new();
    for (n, told) in told {
        let seqs = seqs(&store, run_id(n)).await;
        match told {
            "ok" => assert_eq!(seqs, [1, 2], "{fault}: acknowledged {n} is lost"),
            "refused" => assert_eq!(seqs, [0; 0], "{fault}: refused {n} is there"),
            "unavailable" => assert!(seqs.is_empty() || seqs == [1, 2], "{fault}: {n} is there by half"),
            other => panic!("{fault}: {n} was told {other}"),
        }
        *counts.entry(told.to_owned()).or_default() += 1;
    }
    store.close().await;
    counts
}

#[tokio::test]
async fn what_an_append_was_told_is_true() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("not tried: strace is not installed");
        return;
    }
    // Calls are counted by thread, and every reopened connection has a new one: low numbers hit the looking back too.
    let mut felt = 0;
    for fault in [
        "fsync,fdatasync:error=EIO:when=12+5",
        "fsync,fdatasync:error=EIO:when=2+3",
        "fsync,fdatasync:error=EIO:when=14+",
        "pwrite64:error=ENOSPC:when=60+29",
        "pwrite64:error=ENOSPC:when=90+",
        "pwrite64:error=EIO:when=60+13",
    ] {
        let counts = with_fault(fault).await;
        println!("{fault}: {counts:?}, false answers 0");
        felt += counts.iter().filter(|(told, _)| *told != "ok").map(|(_, count)| count).sum::<u64>();
    }
    assert!(felt > 0, "no fault was felt");
}
