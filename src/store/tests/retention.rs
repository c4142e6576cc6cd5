//! What a purge removes, and what it keeps.

use super::*;
use crate::flag::RetryKey;
use crate::names::JobId;
use crate::store::{Claim, Purged, RunBodies, RunFilter, StoredEvent};

on_every_store! {
    old_runs_are_purged_by_status_in_the_order_of_their_ends,
    a_purged_run_with_a_pin_keeps_its_summary_and_bodies,
    a_run_whose_retry_key_has_not_expired_is_not_purged,
    a_child_is_not_purged_before_its_parent_has_ended,
    a_run_is_not_purged_before_the_earlier_runs_of_its_job,
    purged_runs_stay_purged_after_a_restart,
    large_payloads_are_read_as_they_were_written,
}

/// A time so long ago that the retry key has expired.
fn past(n: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + n).unwrap()
}

/// A run that ended at this time, with this status.
fn ended(run: RunId, status: RunStatus, at: Timestamp) -> Append {
    let append = with_status(append(run, 1, 3), status);
    Append { summary: RunSummary { updated: at, ..append.summary }, ..append }
}

async fn listed_runs(store: &StoreHandle) -> Vec<RunId> {
    let runs = store.runs(RunFilter { limit: 99, ..RunFilter::default() }).await.unwrap();
    runs.into_iter().rev().map(|run| run.run_id).collect()
}

async fn old_runs_are_purged_by_status_in_the_order_of_their_ends(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    for (n, ago) in [(1, 9), (2, 3), (3, 5), (4, 7)] {
        store.append(ended(run_id(n), RunStatus::Completed, past(ago)).into()).await.unwrap();
    }
    store.append(ended(run_id(5), RunStatus::Failed, past(0)).into()).await.unwrap();
    store.append(append(run_id(6), 1, 1).into()).await.unwrap();
    store.append(ended(run_id(7), RunStatus::Completed, at(0)).into()).await.unwrap();
    store.put_command(coordination::command_record(1, run_id(2))).await.unwrap();
    let purge = async |status, before, limit| store.purge(status, before, limit).await.unwrap().runs;
    assert_eq!(purge(RunStatus::Completed, past(3), 9).await, 0);
    assert_eq!(purge(RunStatus::Completed, past(9), 2).await, 2);
    let runs = |of: &[u64]| of.iter().map(|n| run_id(*n)).collect::<Vec<_>>();
    assert_eq!(listed_runs(store).await, runs(&[1, 4, 5, 6, 7]));
    assert_eq!(seqs(store, run_id(2)).await, [0; 0]);
    assert_eq!(store.run(run_id(2)).await.unwrap(), None);
    assert_eq!(store.command(Uuid::from_u128(1)).await.unwrap(), None, "its commands are removed too");
    assert_eq!(purge(RunStatus::Completed, past(9), 2).await, 1);
    assert_eq!(purge(RunStatus::Failed, past(9), 2).await, 1);
    assert_eq!(purge(RunStatus::Running, at(99), 2).await, 0, "a run that has not ended is kept");
    assert_eq!(listed_runs(store).await, runs(&[1, 6, 7]));
    assert_eq!(seqs(store, run_id(1)).await, [1, 2, 3]);
    assert_eq!(store.purged_run_bodies(run_id(1)).await.unwrap(), None);
}

/// A parent that has not recorded the end of its child would create it again.
async fn a_child_is_not_purged_before_its_parent_has_ended(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let mut child = ended(run_id(2), RunStatus::Completed, past(1));
    child.summary.parent = Some(run_id(1));
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    store.append(child.into()).await.unwrap();
    let purge = async || store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs;
    assert_eq!(purge().await, 0);
    assert_eq!(listed_runs(store).await, [run_id(1), run_id(2)]);
    let last = with_status(append(run_id(1), 2, 1), RunStatus::Failed);
    store.append(last.into()).await.unwrap();
    assert_eq!(purge().await, 1);
    assert_eq!(listed_runs(store).await, [run_id(1)]);
}

/// A person could rerun the earlier run a second time if its successor were forgotten.
async fn a_run_is_not_purged_before_the_earlier_runs_of_its_job(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let of_job = |run, status| {
        let mut rerun = ended(run, status, past(2));
        rerun.summary.job = Some(JobId(run_id(1).0));
        rerun
    };
    store.append(ended(run_id(1), RunStatus::Failed, past(1)).into()).await.unwrap();
    store.append(of_job(run_id(2), RunStatus::Failed).into()).await.unwrap();
    store.append(of_job(run_id(3), RunStatus::Completed).into()).await.unwrap();
    store.append(ended(run_id(4), RunStatus::Completed, past(3)).into()).await.unwrap();
    let purge = async |status, limit| store.purge(status, at(0), limit).await.unwrap().runs;
    assert_eq!(purge(RunStatus::Completed, 9).await, 1, "only the run of another job");
    assert_eq!(listed_runs(store).await, [run_id(1), run_id(2), run_id(3)]);
    assert_eq!(purge(RunStatus::Failed, 9).await, 1);
    assert_eq!(listed_runs(store).await, [run_id(2), run_id(3)]);
    assert_eq!(purge(RunStatus::Completed, 9).await, 0);
    assert_eq!(purge(RunStatus::Failed, 9).await, 1);
    assert_eq!(purge(RunStatus::Completed, 9).await, 1);
    assert_eq!(listed_runs(store).await, []);
}

async fn a_purged_run_with_a_pin_keeps_its_summary_and_bodies(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let one = Append { pins: vec![pin("17", Arm::Engine)], ..completed_run(run_id(1), past(1)) };
    store.append(one.clone().into()).await.unwrap();
    let two = Append { pins: vec![pin("18", Arm::Engine)], ..append(run_id(2), 1, 1) };
    store.append(two.into()).await.unwrap();
    // The pin is from an earlier append than the last one.
    let last = with_status(append(run_id(2), 2, 1), RunStatus::Completed);
    store
        .append(Arc::new(Append { summary: RunSummary { updated: past(2), ..last.summary.clone() }, ..last }))
        .await
        .unwrap();
    store.append(completed_run(run_id(3), past(3)).into()).await.unwrap();
    let purged = store.purge(RunStatus::Completed, past(9), 9).await.unwrap();
    assert_eq!(purged, Purged { runs: 3, pinned: 2, payloads: 0 });
    assert_eq!(listed_runs(store).await, [run_id(1), run_id(2)]);
    assert_eq!(store.run(run_id(1)).await.unwrap(), Some(one.summary));
    assert_eq!(seqs(store, run_id(1)).await, [0; 0]);
    let (input, output) = (Some(json!({ "items": [1] })), Some(json!({ "id": "17" })));
    let bodies = RunBodies { input, output, headers: Vec::new() };
    assert_eq!(store.purged_run_bodies(run_id(1)).await.unwrap(), Some(bodies));
    assert_eq!(store.purged_run_bodies(run_id(2)).await.unwrap(), None, "its events hold no input and no answer");
    assert_eq!(store.purged_run_bodies(run_id(3)).await.unwrap(), None);
    assert_eq!(store.pin(pin("17", Arm::Engine).key).await.unwrap().unwrap().run, Some(run_id(1)));
    assert_eq!(
        store.purge(RunStatus::Completed, past(9), 9).await.unwrap(),
        Purged::default(),
        "a second purge finds nothing"
    );
}

async fn a_run_whose_retry_key_has_not_expired_is_not_purged(which: StoreKind) {
    let claim = Some(Claim::new(RetryKey([1; 32]), [2; 32]));
    let now = Timestamp::now();
    for (window, purged) in [(3_600, 0), (0, 1)] {
        let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: window, ..Limits::default() }).await;
        let store = &fixture.store;
        store.append(Arc::new(Append { claim, ..ended(run_id(1), RunStatus::Completed, now) })).await.unwrap();
        assert_eq!(store.purge(RunStatus::Completed, at(99), 9).await.unwrap().runs, purged);
    }
}

async fn purged_runs_stay_purged_after_a_restart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let pins = vec![pin("17", Arm::Engine)];
    fixture.store.append(Arc::new(Append { pins, ..completed_run(run_id(1), past(1)) })).await.unwrap();
    fixture.store.append(completed_run(run_id(2), past(1)).into()).await.unwrap();
    fixture.store.append(completed_run(run_id(3), at(1)).into()).await.unwrap();
    fixture.store.purge(RunStatus::Completed, past(9), 9).await.unwrap();
    fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(listed_runs(store).await, [run_id(1), run_id(3)]);
    assert!(store.purged_run_bodies(run_id(1)).await.unwrap().is_some());
    let events: Vec<StoredEvent> = store.events(run_id(3), Seq::FIRST).await.unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(store.purge(RunStatus::Completed, past(9), 9).await.unwrap(), Purged::default());
}

/// An event with a large output.
fn large(n: u64, text: &str) -> (Timestamp, Event) {
    let output = json!({ "n": n, "null": null, "body": text, "items": [text, { "a/b~c": text }] });
    (past(1), Event::Step(StepEvent::Computed { step: format!("step-{n}").as_str().into(), output: output.into() }))
}

async fn large_payloads_are_read_as_they_were_written(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let text = "0123456789".repeat(10_000);
    let of = |run, count: u64, text: &str| {
        let append = ended(run, RunStatus::Completed, past(1));
        Append { events: (1..=count).map(|n| large(n, text)).collect(), ..append }
    };
    fixture.store.append(of(run_id(1), 700, &text).into()).await.unwrap();
    fixture.store.append(of(run_id(2), 3, &text).into()).await.unwrap();
    fixture.store.append(of(run_id(3), 3, &text.replace('0', "x")).into()).await.unwrap();
    fixture.reopen().await;
    let store = &fixture.store;
    let read = async |run, from| store.events(run, Seq(from)).await.unwrap();
    let events = read(run_id(1), 1).await;
    assert_eq!(events.len(), 700);
    assert!(events.iter().all(|stored| (stored.at, stored.event.clone()) == large(stored.seq.0, &text)));
    assert_eq!(read(run_id(1), 699).await, events[698..]);
    if let Some(file) = fixture.file() {
        let wal = std::path::PathBuf::from(format!("{}-wal", file.display()));
        let bytes = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let bytes = bytes(&file) + bytes(&wal);
        assert!(bytes < 5_000_000, "a body of 100 kB that is stored 2,100 times takes {bytes} bytes");
    }
    // One of two runs with the same payload is purged: the payload is kept.
    let purge = async |limit| store.purge(RunStatus::Completed, past(2), limit).await.unwrap();
    purge(1).await;
    assert_eq!(read(run_id(1), 1).await, []);
    assert_eq!(read(run_id(2), 1).await, (1..=3).map(|n| events[n - 1].clone()).collect::<Vec<_>>());
    let rest = purge(9).await;
    assert_eq!(rest.runs, 2);
    if fixture.file().is_some() {
        assert_eq!(rest.payloads, 2, "each payload is removed with its last run");
    }
}
