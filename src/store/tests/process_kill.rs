//! A process that appends is killed at a random time: all acknowledged appends are stored, complete and contiguous.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::store::{AcquireResult, LockChange, RunCoordination, RunFilter, Store};

const DATABASE: &str = "POINTSMAN_TEST_KILL_DATABASE";
const CALLERS: u64 = 8;

/// Every third event has a payload large enough to be stored separately.
fn large_event(n: u64) -> Event {
    let output = json!("x".repeat(if n.is_multiple_of(3) { 20_000 } else { 10 }));
    Event::Step(StepEvent::Computed { step: format!("step-{n}").as_str().into(), output: output.into() })
}

/// The child process: appends until it is killed, and prints a line for each acknowledgement. Does nothing without the
/// variable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let store = Arc::new(SqliteStore::open(path, &Limits::default()).await.unwrap());
    store.put_plan("plan_1".into(), json!({})).await.unwrap();
    let runs_before = store.runs(RunFilter { limit: 100_000, ..RunFilter::default() }).await.unwrap().len() as u64;
    let callers = (0..CALLERS).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let run = run_id(runs_before + n + 1);
            let mut all = vec![run_started(run, at(0))];
            let mut fence = Fence::FIRST;
            loop {
                let first = all.len() as u64;
                let count = 1 + first % 3;
                all.extend((first..first + count).map(large_event));
                let skip = if first == 1 { 0 } else { all.len() - count as usize };
                let events: Vec<_> = all[skip..].iter().map(|event| (at(0), event.clone())).collect();
                let summary = fold(&all).unwrap().summary(at(0));
                let locks = vec![LockChange::Queue { name: "a".into(), step: "s".into(), item: None }];
                let append = Append { events, summary, locks, fence, ..append(run, skip as u64 + 1, 1) };
                store.append(append.into()).await.unwrap();
                writeln!(std::io::stdout().lock(), "ack {run} {}", all.len()).unwrap();
                if let AcquireResult::Acquired(owned) = store.acquire(worker(1), run).await.unwrap() {
                    fence = owned.fence;
                }
                store
                    .put_command(coordination::command_record(
                        u128::from(runs_before * 1_000_000 + n * 10_000 + first),
                        run,
                    ))
                    .await
                    .unwrap();
            }
        })
    });
    futures_util::future::join_all(callers).await;
}

#[tokio::test]
async fn acknowledged_appends_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let mut acknowledged: BTreeMap<RunId, u64> = BTreeMap::new();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let kills = 12;
    for _ in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::process_kill::child", "--nocapture", "--test-threads=1"])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acks_until_kill = random.u64(1..400);
        // Lines that the child printed before it died are acknowledgements too: they are read to the end.
        while let Some(Ok(line)) = lines.next() {
            // The test runner prints the test's name without a line break before the first line.
            if let Some((_, ack)) = line.split_once("ack ")
                && let Some((run, seq)) = ack.split_once(' ')
            {
                acknowledged.insert(run.parse().unwrap(), seq.parse().unwrap());
                acks_until_kill = acks_until_kill.saturating_sub(1);
                if acks_until_kill == 0 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
    }

    let store: StoreHandle = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
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
    let checked = SqliteStore::check(&path, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(checked.findings, [], "seed {seed}");
    println!("checked after {kills} kills: {} runs, {} events, findings 0", checked.runs, checked.events);
}
