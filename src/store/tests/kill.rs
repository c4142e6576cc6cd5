//! A process that appends is killed at some moment: what it had acknowledged is there, whole and contiguous.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::store::{RunFilter, Store};

const DATABASE: &str = "POINTSMAN_TEST_KILL_DATABASE";
const CALLERS: u64 = 8;

/// The child: appends until it is killed, one line for each acknowledgement. Does nothing where nobody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let store = Arc::new(SqliteStore::open(path, &Limits::default()).await.unwrap());
    let born = store.runs(RunFilter { limit: 100_000, ..RunFilter::default() }).await.unwrap().len() as u64;
    let callers = (0..CALLERS).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let run = run_id(born + n + 1);
            let mut first = 1;
            loop {
                let count = 1 + first % 3;
                store.append(append(run, first, count)).await.unwrap();
                first += count;
                writeln!(std::io::stdout().lock(), "ack {run} {}", first - 1).unwrap();
            }
        })
    });
    futures_util::future::join_all(callers).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let mut acknowledged: BTreeMap<RunId, u64> = BTreeMap::new();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let kills = 12;
    for _ in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::kill::child", "--nocapture", "--test-threads=1"])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = random.u64(1..400);
        // Lines that were on their way when it died are acknowledgements too: read to the end.
        while let Some(Ok(line)) = lines.next() {
            // The harness writes the test's name without an end of line before the first of ours.
            if let Some((_, ack)) = line.split_once("ack ")
                && let Some((run, seq)) = ack.split_once(' ')
            {
                acknowledged.insert(run.parse().unwrap(), seq.parse().unwrap());
                left = left.saturating_sub(1);
                if left == 0 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
    }

    let store: SharedStore = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
    let mut events = 0;
    for (run, last) in &acknowledged {
        let seqs = seqs(&store, *run).await;
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{run} (seed {seed})");
        assert!(seqs.len() as u64 >= *last, "{run} lost events: {} of {last} (seed {seed})", seqs.len());
        assert_eq!(store.run(*run).await.unwrap().unwrap().seq.0, seqs.len() as u64, "{run} (seed {seed})");
        events += last;
    }
    assert!(!acknowledged.is_empty());
    println!("kills {kills}, runs {}, events acknowledged {events}, lost 0 (seed {seed})", acknowledged.len());
    store.close().await;
}
