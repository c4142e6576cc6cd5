//! Tests with a disk that fails: what the result of an append says is true once the process has ended and the store is
//! opened again.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::*;
use crate::store::{AppendError, Store};

const DATABASE: &str = "POINTSMAN_TEST_DISK_DATABASE";
const APPENDS: u64 = 60;

/// The child process: appends to one run after the other while the disk fails, prints the results, and aborts. Does
/// nothing without the variable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    // The opening may fail too; it is then tried again.
    let mut opened = SqliteStore::open(&path, &Limits::default()).await;
    for _ in 0..100 {
        if opened.is_err() {
            opened = SqliteStore::open(&path, &Limits::default()).await;
        }
    }
    let store = opened.unwrap();
    for n in 0..APPENDS {
        let result = match store.append(append(run_id(n), 1, 2).into()).await {
            Ok(()) => "ok",
            Err(AppendError::Refused(_)) => "refused",
            Err(AppendError::Unavailable(_)) => "unavailable",
            Err(AppendError::Conflict(_) | AppendError::Fenced(_) | AppendError::LeaseOver(_)) => "conflict",
        };
        println!("\nresult {n} {result}");
    }
    std::process::abort();
}

/// Runs the child with faults in some of its system calls, and checks that each result is true. Returns how many
/// appends had each result.
async fn with_fault(fault: &str) -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::disk_faults::child", "--nocapture", "--test-threads=1"])
        .env(DATABASE, &path)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().filter_map(|line| line.strip_prefix("result ")?.split_once(' '));
    let result: Vec<(u64, &str)> = result.map(|(n, result)| (n.parse().unwrap(), result)).collect();
    assert_eq!(result.len() as u64, APPENDS, "{fault}: the child did not come to its end");

    let store: StoreHandle = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
    let mut counts = BTreeMap::new();
    for (n, result) in result {
        let seqs = seqs(&store, run_id(n)).await;
        match result {
            "ok" => assert_eq!(seqs, [1, 2], "{fault}: acknowledged {n} is lost"),
            "refused" => assert_eq!(seqs, [0; 0], "{fault}: refused {n} is stored"),
            "unavailable" => assert!(seqs.is_empty() || seqs == [1, 2], "{fault}: {n} is stored in part"),
            other => panic!("{fault}: {n} has the result {other}"),
        }
        *counts.entry(result.to_owned()).or_default() += 1;
    }
    store.close().await;
    counts
}

#[tokio::test]
async fn the_result_of_an_append_is_true_when_the_disk_fails() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("not tried: strace is not installed");
        return;
    }
    // strace counts the calls of each thread. The connection that prepares the database has a thread of its own: faults
    // with low numbers hit it too. A new connection that reads back whether an append was stored is on the writer's
    // thread, where the count goes on.
    let mut faults = 0;
    for fault in [
        "fsync,fdatasync:error=EIO:when=12+5",
        "fsync,fdatasync:error=EIO:when=2+3",
        "fsync,fdatasync:error=EIO:when=14+",
        "pwrite64:error=ENOSPC:when=60+29",
        "pwrite64:error=ENOSPC:when=90+",
        "pwrite64:error=EIO:when=60+13",
    ] {
        let counts = with_fault(fault).await;
        println!("{fault}: {counts:?}, false results 0");
        faults += counts.iter().filter(|(result, _)| *result != "ok").map(|(_, count)| count).sum::<u64>();
    }
    assert!(faults > 0, "no fault took effect");
}
