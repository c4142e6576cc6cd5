//! Tests of power cuts: every append that was acknowledged before the cut is on the disk, whichever unsynced writes are
//! lost.
//!
//! A process appends while every write and sync of its files is recorded. Then the disk is rebuilt as it may be after a
//! power cut at a random time: it has the synced writes, and of the later ones none, all, some in any order, or some
//! sectors. Each such image has to open, has to hold every acknowledged append completely, and the events of each run
//! have to fold. The same with `synchronous=NORMAL` shows that the test can fail.

mod disk;

use std::path::Path;
use std::process::{Command, Stdio};

use self::disk::{Action, Disk};
use super::*;
use crate::store::Store;

const DATABASE: &str = "POINTSMAN_TEST_POWER_DATABASE";
/// Enough for several checkpoints.
const APPENDS: u64 = 500;
/// The size of the output in each append.
const BYTES: usize = 16_000;
/// How many images are tried, unless `POINTSMAN_IMAGES` says otherwise.
const IMAGES: usize = 48;

/// The first append of a run, with a large output.
fn large(n: u64) -> Append {
    let run = run_id(n);
    let output = json!(format!("{n}:{}", "x".repeat(BYTES)));
    let all =
        [run_started(run, at(0)), Event::Step(StepEvent::Computed { step: "step".into(), output: output.into() })];
    let summary = fold(&all).unwrap().summary(at(0));
    Append { events: all.map(|event| (at(0), event)).into(), summary, ..append(run, 1, 1) }
}

/// The child process: appends one run after the other and prints each acknowledgement. Does nothing without the
/// variable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    store.put_plan("plan_1".into(), json!({})).await.unwrap();
    for n in 0..APPENDS {
        store.append(large(n).into()).await.unwrap();
        println!("\nacknowledged {n}");
    }
    std::process::abort();
}

/// The recorded actions of a child process.
fn recorded(synchronous: &str) -> Vec<Action> {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let done = Command::new("strace")
        .args(["-f", "-qq", "-y", "-xx", "-s", "10000000"])
        .args(["-e", "trace=pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat", "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::power::child", "--nocapture", "--test-threads=1"])
        .env(DATABASE, dir.path().join("test.db"))
        .env(crate::store::sqlite::SYNCHRONOUS, synchronous)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!done.success(), "the child dies at its end");
    disk::read(&std::fs::read_to_string(&trace).unwrap())
}

/// Checks an image: returns the number of lost acknowledged runs, and all other findings.
async fn check_image(dir: &Path, acknowledged: &[u64]) -> (usize, Vec<String>) {
    let path = dir.join("test.db");
    let store: StoreHandle = match SqliteStore::open(&path, &Limits::default()).await {
        Ok(store) => Arc::new(store),
        Err(error) => return (0, vec![format!("it does not open: {error}")]),
    };
    let mut lost = 0;
    for n in acknowledged {
        lost += usize::from(seqs(&store, run_id(*n)).await != [1, 2]);
    }
    store.close().await;
    let checked = SqliteStore::check(&path, std::time::Duration::from_secs(60)).await.unwrap();
    (lost, checked.findings.iter().map(|found| format!("{:?} {}", found.run, found.what)).collect())
}

/// Cuts the power at this many random times; returns how many images lost an acknowledged append, and all other
/// findings.
async fn cut_power(actions: &[Action], images: usize, random: &mut fastrand::Rng) -> (usize, Vec<String>) {
    let (mut losing, mut wrong) = (0, Vec::new());
    let first = disk::first_acknowledged(actions);
    for _ in 0..images {
        let at = random.usize(first..=actions.len());
        let mut disk = Disk::default();
        let acknowledged: Vec<u64> = actions[..at].iter().filter_map(|action| disk.apply(action)).collect();
        let dir = tempfile::tempdir().unwrap();
        let unsynced = disk.cut_power(dir.path(), random);
        let (lost, found) = check_image(dir.path(), &acknowledged).await;
        losing += usize::from(lost > 0);
        wrong.extend(found.into_iter().map(|found| format!("cut at {at}, {unsynced:?}: {found}")));
    }
    (losing, wrong)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn acknowledged_appends_survive_a_power_cut() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("not tried: strace is not installed");
        return;
    }
    let seed = number("POINTSMAN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let images = number("POINTSMAN_IMAGES").map_or(IMAGES, |images| images as usize);
    let mut random = fastrand::Rng::with_seed(seed);
    let full = recorded("full");
    let (losing, wrong) = cut_power(&full, images, &mut random).await;
    let normal = recorded("normal");
    let (control_losing, control_wrong) = cut_power(&normal, images, &mut random).await;
    let violations = losing + wrong.len();
    println!("FULL: {images} images of {} actions, {losing} lost something, {} broken", full.len(), wrong.len());
    println!(
        "NORMAL: {images} images of {} actions, {control_losing} lost something, {} broken",
        normal.len(),
        control_wrong.len()
    );
    println!(
        "{images} cuts, {violations} violations; again: POINTSMAN_SEED={seed} POINTSMAN_IMAGES={images} cargo test --lib store::tests::power"
    );
    assert!(violations == 0, "seed {seed}: {losing} images lost something\n{}", wrong.join("\n"));
    assert!(control_losing > 0, "seed {seed}: without a sync before the acknowledgement something has to be lost");
}
