//! The power goes: what had been acknowledged by then is on the disk, whatever became of the writes in between.
//!
//! A process appends while every write and sync of its files is recorded. For a moment drawn by lot the disk is rebuilt
//! as it may look then: what was synced is there, and of what was written since, nothing, all, some writes in any
//! order, or some sectors. Each image has to open, to hold every append that had been acknowledged, whole, and nothing
//! that does not fold. The same with `synchronous=NORMAL` shows that the test can fail.

mod disk;

use std::path::Path;
use std::process::{Command, Stdio};

use self::disk::{Disk, Moment};
use super::*;
use crate::store::Store;

const DATABASE: &str = "POINTSMAN_TEST_POWER_DATABASE";
/// Enough for several checkpoints.
const APPENDS: u64 = 500;
/// What each of them carries.
const BYTES: usize = 16_000;
/// Moments that are tried, where nobody says how many (`POINTSMAN_IMAGES`).
const IMAGES: usize = 48;

/// A run that is born and has a large output.
fn large(n: u64) -> Append {
    let run = run_id(n);
    let output = json!(format!("{n}:{}", "x".repeat(BYTES)));
    let all = [born(run, at(0)), Event::Step(StepEvent::Computed { step: "step".into(), output: Arc::new(output) })];
    let summary = fold(&all).unwrap().summary(at(0));
    Append { events: all.map(|event| (at(0), event)).into(), summary, ..append(run, 1, 1) }
}

/// The child: appends one run after the other and says so. Does nothing where nobody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    store.put_plan("plan_1".into(), json!({})).await.unwrap();
    for n in 0..APPENDS {
        store.append(large(n).into()).await.unwrap();
        println!("\nkept {n}");
    }
    std::process::abort();
}

/// What a process did to its files, until it had said everything.
fn recorded(synchronous: &str) -> Vec<Moment> {
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

/// What is wrong with the disk as it is found: acknowledged runs that are not there, and anything else.
async fn looked_at(dir: &Path, kept: &[u64]) -> (usize, Vec<String>) {
    let path = dir.join("test.db");
    let store: SharedStore = match SqliteStore::open(&path, &Limits::default()).await {
        Ok(store) => Arc::new(store),
        Err(error) => return (0, vec![format!("it does not open: {error}")]),
    };
    let mut lost = 0;
    for n in kept {
        lost += usize::from(seqs(&store, run_id(*n)).await != [1, 2]);
    }
    store.close().await;
    let checked = SqliteStore::check(&path, std::time::Duration::from_secs(60)).await.unwrap();
    (lost, checked.findings.iter().map(|found| format!("{:?} {}", found.run, found.what)).collect())
}

/// Cuts the power at so many moments; how many images lost something acknowledged, and what else is wrong.
async fn cut(moments: &[Moment], images: usize, random: &mut fastrand::Rng) -> (usize, Vec<String>) {
    let (mut losing, mut wrong) = (0, Vec::new());
    let begun = disk::begun(moments);
    for _ in 0..images {
        let at = random.usize(begun..=moments.len());
        let mut disk = Disk::default();
        let kept: Vec<u64> = moments[..at].iter().filter_map(|moment| disk.take_in(moment)).collect();
        let dir = tempfile::tempdir().unwrap();
        let how = disk.cut(dir.path(), random);
        let (lost, found) = looked_at(dir.path(), &kept).await;
        losing += usize::from(lost > 0);
        wrong.extend(found.into_iter().map(|found| format!("cut at {at}, {how:?}: {found}")));
    }
    (losing, wrong)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_power() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("not tried: strace is not installed");
        return;
    }
    let seed = number("POINTSMAN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let images = number("POINTSMAN_IMAGES").map_or(IMAGES, |images| images as usize);
    let mut random = fastrand::Rng::with_seed(seed);
    let full = recorded("full");
    let (losing, wrong) = cut(&full, images, &mut random).await;
    let normal = recorded("normal");
    let (control, broken) = cut(&normal, images, &mut random).await;
    let violations = losing + wrong.len();
    println!("FULL: {images} images of {} moments, {losing} lost something, {} broken", full.len(), wrong.len());
    println!("NORMAL: {images} images of {} moments, {control} lost something, {} broken", normal.len(), broken.len());
    println!(
        "{images} cuts, {violations} violations; again: POINTSMAN_SEED={seed} POINTSMAN_IMAGES={images} cargo test --lib store::tests::power"
    );
    assert!(violations == 0, "seed {seed}: {losing} images lost something\n{}", wrong.join("\n"));
    assert!(control > 0, "seed {seed}: without a sync before the acknowledgement something has to be lost");
}
