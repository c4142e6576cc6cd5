//! Ownership of runs: fencing tokens, acquiring, releasing, and which runs are due.

use std::time::Duration;

use super::*;
use crate::store::{AcquireResult, AppendConflict, AppendError, OwnedRun};

on_every_store! {
    appends_of_the_former_owner_are_refused_as_fenced,
    a_repeated_batch_is_recognised_before_the_fence_is_checked,
    a_run_is_acquired_by_one_worker,
    an_ended_or_unknown_run_is_not_acquired,
    the_run_of_a_dead_owner_is_acquired,
    a_released_run_is_due_at_its_wake_time,
    due_runs_are_acquired_once_oldest_first,
    concurrent_workers_share_the_due_runs,
    the_runs_of_a_deregistered_worker_are_due_at_once,
    a_command_makes_a_released_run_due,
    ownership_survives_a_restart,
    a_run_that_was_given_up_is_acquired_by_another_worker,
}

/// The same append by this worker, with this fencing token.
fn by(append: Append, n: u128, fence: u64) -> Append {
    Append { worker: worker(n), fence: Fence(fence), ..append }
}

fn expect_acquired(taken: AcquireResult) -> OwnedRun {
    match taken {
        AcquireResult::Acquired(owned) => owned,
        other => panic!("not acquired: {other:?}"),
    }
}

/// Registers a worker for a minute.
async fn heartbeat(store: &StoreHandle, n: u128) {
    store.heartbeat(worker(n), format!("worker {n}"), Duration::from_secs(60)).await.unwrap();
}

fn ids(owned: &[OwnedRun]) -> Vec<RunId> {
    owned.iter().map(|owned| owned.summary.run_id).collect()
}

fn released(append: Append, status: RunStatus, wake: Option<Timestamp>) -> Append {
    let append = with_status(append, status);
    Append { release: true, summary: RunSummary { wake, ..append.summary }, ..append }
}

/// A time in the past, by the clock of any machine.
fn past(n: i64) -> Option<Timestamp> {
    Some(Timestamp::from_second(1_600_000_000 + n).unwrap())
}

/// A time in the far future.
fn future(n: i64) -> Option<Timestamp> {
    Some(Timestamp::from_second(4_000_000_000 + n).unwrap())
}

async fn appends_of_the_former_owner_are_refused_as_fenced(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let run = run_id(1);
    store.append(by(append(run, 1, 2), 1, 1).into()).await.unwrap();
    let taken = expect_acquired(store.acquire(worker(2), run).await.unwrap());
    assert_eq!(taken, OwnedRun { summary: summary(run, 2), fence: Fence(2) });
    let fenced = Err(AppendError::Fenced(run));
    assert_eq!(store.append(by(append(run, 3, 1), 1, 1).into()).await, fenced);
    assert_eq!(store.append(by(append(run, 1, 1), 1, 1).into()).await, fenced, "the fence is checked before the seq");
    assert_eq!(store.append(by(append(run, 3, 1), 1, 3).into()).await, fenced, "a token that was never issued");
    store.append(by(append(run, 3, 1), 2, 2).into()).await.unwrap();
    let conflict = Err(AppendError::Conflict(AppendConflict::Seq { stored: Seq(3) }));
    assert_eq!(store.append(by(append(run, 3, 1), 2, 2).into()).await, conflict);
    let good = store.append(by(append(run_id(2), 1, 1), 1, 1).into());
    let bad = store.append(by(append(run, 4, 1), 1, 1).into());
    assert_eq!(tokio::join!(good, bad), (Ok(()), fenced.clone()), "the other append succeeds");
    assert_eq!(
        expect_acquired(store.acquire(worker(2), run).await.unwrap()).fence,
        Fence(3),
        "its own run, with a new token"
    );
    assert_eq!(store.append(by(append(run, 4, 1), 2, 2).into()).await, fenced);
    assert_eq!(seqs(store, run).await, [1, 2, 3]);
}

async fn a_repeated_batch_is_recognised_before_the_fence_is_checked(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let run = run_id(1);
    let first = by(append(run, 1, 2), 1, 1);
    store.append(first.clone().into()).await.unwrap();
    expect_acquired(store.acquire(worker(2), run).await.unwrap());
    store.append(first.clone().into()).await.unwrap();
    store.append(by(append(run, 3, 1), 2, 2).into()).await.unwrap();
    store.append(first.into()).await.unwrap();
    assert_eq!(seqs(store, run).await, [1, 2, 3]);
    assert_eq!(
        store.append(by(append(run, 4, 1), 1, 1).into()).await,
        Err(AppendError::Fenced(run)),
        "the run stays with its new owner"
    );
}

async fn a_run_is_acquired_by_one_worker(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let run = run_id(1);
    for n in 1..=9 {
        heartbeat(store, n).await;
    }
    store.append(by(released(append(run, 1, 1), RunStatus::Paused, None), 1, 1).into()).await.unwrap();
    let requests = (2..=9).map(|n| store.acquire(worker(n), run));
    let taken = futures_util::future::join_all(requests).await;
    let mut fences = Vec::new();
    for taken in taken {
        match taken.unwrap() {
            AcquireResult::Acquired(owned) => fences.push(owned.fence.0),
            AcquireResult::Elsewhere { worker, name } => assert_eq!(name, format!("worker {}", worker.0.as_u128())),
            other => panic!("{other:?}"),
        }
    }
    fences.sort_unstable();
    // On a store of one process all other workers count as dead, and each acquires the run from the one before.
    let expected: Vec<u64> = if store.is_shared() { vec![2] } else { (2..=9).collect() };
    assert_eq!(fences, expected);
}

async fn an_ended_or_unknown_run_is_not_acquired(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let run = run_id(1);
    let last = with_status(append(run, 1, 1), RunStatus::Completed);
    store.append(last.clone().into()).await.unwrap();
    assert_eq!(store.acquire(worker(2), run).await.unwrap(), AcquireResult::Ended(last.summary));
    assert_eq!(store.acquire(worker(2), run_id(2)).await.unwrap(), AcquireResult::Unknown);
    assert_eq!(store.acquire_due(worker(2), 9).await.unwrap(), []);
    assert_eq!(store.due_times(9).await.unwrap(), []);
}

async fn the_run_of_a_dead_owner_is_acquired(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    // Its owner has never sent a heartbeat.
    store.append(by(append(run_id(1), 1, 1), 1, 1).into()).await.unwrap();
    assert_eq!(expect_acquired(store.acquire(worker(2), run_id(1)).await.unwrap()).fence, Fence(2));
    // The lease of its owner has expired.
    store.heartbeat(worker(3), "three".into(), Duration::from_millis(1)).await.unwrap();
    store.append(by(append(run_id(2), 1, 1), 3, 1).into()).await.unwrap();
    heartbeat(store, 2).await;
    let taken = async {
        loop {
            let taken = store.acquire_due(worker(2), 9).await.unwrap();
            if !taken.is_empty() {
                break taken;
            }
        }
    };
    let taken = tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
    assert_eq!((ids(&taken), taken[0].fence), (vec![run_id(2)], Fence(2)));
    assert_eq!(store.acquire_due(worker(2), 9).await.unwrap(), [], "its own runs are not due");
}

async fn a_released_run_is_due_at_its_wake_time(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let wait = |n, status, wake| by(released(append(run_id(n), 1, 1), status, wake), 1, 1);
    store.append(wait(1, RunStatus::Running, future(2)).into()).await.unwrap();
    store.append(wait(2, RunStatus::WaitingSignal, future(1)).into()).await.unwrap();
    store.append(wait(3, RunStatus::Paused, None).into()).await.unwrap();
    store.append(wait(4, RunStatus::Running, None).into()).await.unwrap();
    store.append(wait(5, RunStatus::Completed, future(1)).into()).await.unwrap();
    store.append(by(append(run_id(6), 1, 1), 1, 1).into()).await.unwrap();
    store.append(wait(7, RunStatus::Queued, None).into()).await.unwrap();
    let epoch = Timestamp::UNIX_EPOCH;
    let wakes = [(epoch, run_id(7)), (future(1).unwrap(), run_id(2)), (future(2).unwrap(), run_id(1))];
    assert_eq!(store.due_times(9).await.unwrap(), wakes);
    assert_eq!(store.due_times(1).await.unwrap(), wakes[..1]);
    let taken = store.acquire_due(worker(1), 9).await.unwrap();
    assert_eq!((ids(&taken), taken[0].fence), (vec![run_id(7)], Fence(2)));
    assert_eq!(store.due_times(9).await.unwrap(), wakes[1..], "a run that is acquired is not due");
    // A call of `acquire` gets the run before its time.
    assert_eq!(expect_acquired(store.acquire(worker(1), run_id(2)).await.unwrap()).fence, Fence(2));
    assert_eq!(store.due_times(9).await.unwrap(), wakes[2..]);
    // The token of the worker that released it is still valid: an append without a release makes it the owner again.
    store.append(by(append(run_id(1), 2, 1), 1, 1).into()).await.unwrap();
    assert_eq!(store.due_times(9).await.unwrap(), []);
}

async fn due_runs_are_acquired_once_oldest_first(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    for n in [4_u8, 2, 5, 1, 3] {
        let wait = released(append(run_id(n.into()), 1, 1), RunStatus::Running, past(9 - i64::from(n)));
        store.append(by(wait, 1, 1).into()).await.unwrap();
    }
    let first = store.acquire_due(worker(2), 2).await.unwrap();
    assert_eq!(ids(&first), [run_id(1), run_id(2)]);
    let owned = OwnedRun { summary: RunSummary { wake: past(8), ..summary(run_id(1), 1) }, fence: Fence(2) };
    assert_eq!(first[0], owned);
    assert_eq!(ids(&store.acquire_due(worker(2), 9).await.unwrap()), [run_id(3), run_id(4), run_id(5)]);
    assert_eq!(store.acquire_due(worker(2), 9).await.unwrap(), []);
    store.append(by(append(run_id(1), 2, 1), 2, 2).into()).await.unwrap();
    assert_eq!(store.append(by(append(run_id(2), 2, 1), 1, 1).into()).await, Err(AppendError::Fenced(run_id(2))));
}

async fn concurrent_workers_share_the_due_runs(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let workers = if store.is_shared() { 4 } else { 1 };
    for n in 1..=workers {
        heartbeat(store, n).await;
    }
    let count = 60;
    for n in 0..count {
        store.append(by(released(append(run_id(n), 1, 1), RunStatus::Running, past(0)), 9, 1).into()).await.unwrap();
    }
    let requests: Vec<_> = (0..24)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.acquire_due(worker(1 + n % workers), 5).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for request in requests {
        let owned_runs = request.await.unwrap();
        assert!(owned_runs.len() <= 5 && owned_runs.iter().all(|owned| owned.fence == Fence(2)));
        taken.extend(ids(&owned_runs));
    }
    // A worker skips runs that another one is acquiring at that moment: the rest is left for the next call.
    loop {
        let rest = store.acquire_due(worker(1), 5).await.unwrap();
        if rest.is_empty() {
            break;
        }
        taken.extend(ids(&rest));
    }
    taken.sort();
    assert_eq!(taken, (0..count).map(run_id).collect::<Vec<_>>());
}

async fn the_runs_of_a_deregistered_worker_are_due_at_once(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    heartbeat(store, 1).await;
    heartbeat(store, 2).await;
    for n in 1..=3 {
        store.append(by(append(run_id(n), 1, 1), 1, 1).into()).await.unwrap();
    }
    store.append(by(append(run_id(4), 1, 1), 2, 1).into()).await.unwrap();
    store.append(with_status(by(append(run_id(5), 1, 1), 1, 1), RunStatus::Failed).into()).await.unwrap();
    store.deregister(worker(1)).await.unwrap();
    let wakes = store.due_times(9).await.unwrap();
    assert_eq!(wakes, [1, 2, 3].map(|n| (Timestamp::UNIX_EPOCH, run_id(n))));
    assert_eq!(ids(&store.acquire_due(worker(2), 9).await.unwrap()), [1, 2, 3].map(run_id));
}

async fn a_command_makes_a_released_run_due(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    for n in 1..=3 {
        store.append(by(released(append(run_id(n), 1, 1), RunStatus::Paused, None), 1, 1).into()).await.unwrap();
    }
    assert_eq!(store.acquire_due(worker(2), 9).await.unwrap(), []);
    store.put_command(coordination::command_record(1, run_id(2))).await.unwrap();
    store.put_command(coordination::command_record(2, run_id(2))).await.unwrap();
    assert_eq!(ids(&store.acquire_due(worker(2), 9).await.unwrap()), [run_id(2)]);
    assert_eq!(store.acquire_due(worker(2), 9).await.unwrap(), []);
    store.answer_command(Uuid::from_u128(1), json!("done")).await.unwrap();
    let paused = released(append(run_id(2), 2, 1), RunStatus::Paused, None);
    store.append(by(paused, 2, 2).into()).await.unwrap();
    assert_eq!(ids(&store.acquire_due(worker(2), 9).await.unwrap()), [run_id(2)], "one command is still open");
    store.answer_command(Uuid::from_u128(2), json!("done")).await.unwrap();
    let paused = released(append(run_id(2), 3, 1), RunStatus::Paused, None);
    store.append(by(paused, 2, 3).into()).await.unwrap();
    assert_eq!(store.acquire_due(worker(2), 9).await.unwrap(), []);
}

async fn ownership_survives_a_restart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    fixture.store.append(by(append(run_id(1), 1, 1), 1, 1).into()).await.unwrap();
    expect_acquired(fixture.store.acquire(worker(1), run_id(1)).await.unwrap());
    let wait = released(append(run_id(2), 1, 1), RunStatus::Running, future(1));
    fixture.store.append(by(wait, 1, 1).into()).await.unwrap();
    fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(store.append(by(append(run_id(1), 2, 1), 1, 1).into()).await, Err(AppendError::Fenced(run_id(1))));
    assert_eq!(store.due_times(9).await.unwrap(), [(future(1).unwrap(), run_id(2))]);
    let taken = store.acquire_due(worker(2), 9).await.unwrap();
    assert_eq!((ids(&taken), taken[0].fence), (vec![run_id(1)], Fence(3)));
}

async fn a_run_that_was_given_up_is_acquired_by_another_worker(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    if !store.is_shared() {
        return; // there is no other worker
    }
    for n in 1..=3 {
        heartbeat(store, n).await;
    }
    let run = run_id(1);
    store.append(by(append(run, 1, 1), 1, 1).into()).await.unwrap();
    store.give_up(worker(2), run, Fence(1)).await.unwrap();
    store.give_up(worker(1), run, Fence(2)).await.unwrap();
    assert!(
        store.acquire_due(worker(2), 9).await.unwrap().is_empty(),
        "one caller was not the owner, the other had a wrong token"
    );
    store.give_up(worker(1), run, Fence(1)).await.unwrap();
    assert_eq!(store.due_times(9).await.unwrap(), []);
    assert!(
        store.acquire_due_except(worker(1), 9, vec![run_id(7), run]).await.unwrap().is_empty(),
        "worker 1 cannot read the run"
    );
    assert_eq!(ids(&store.acquire_due_except(worker(2), 9, vec![run_id(7)]).await.unwrap()), [run]);
    let fenced = Err(AppendError::Fenced(run));
    assert_eq!(store.append(by(append(run, 2, 1), 1, 1).into()).await, fenced);
    // The run is given up again. While there is a command for it, even a worker that cannot read it acquires it.
    store.give_up(worker(2), run, Fence(2)).await.unwrap();
    store.put_command(coordination::command_record(1, run)).await.unwrap();
    assert_eq!(ids(&store.acquire_due_except(worker(1), 9, vec![run]).await.unwrap()), [run]);
    store.give_up(worker(1), run, Fence(3)).await.unwrap();
    assert_eq!(expect_acquired(store.acquire(worker(3), run).await.unwrap()).fence, Fence(4));
}

/// The reply to a request for due runs is lost; meanwhile older runs become due. The next request gets the runs that
/// the lost reply had.
#[tokio::test]
async fn runs_whose_reply_was_lost_come_with_the_next_request() {
    use futures_util::FutureExt;
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let fixture = StoreFixture::new(StoreKind::Postgres).await;
    let store = &fixture.store;
    let becomes_due = async |n: u64| {
        let due = released(append(run_id(n), 1, 1), RunStatus::Running, past(1));
        store.append(by(due, 1, 1).into()).await.unwrap();
    };
    for n in [6, 7, 8] {
        becomes_due(n).await;
    }
    heartbeat(store, 2).await;
    // The request is sent when it is first polled, and nobody receives the reply.
    assert!(store.acquire_due(worker(2), 2).now_or_never().is_none());
    while store.owner(run_id(6)).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    for n in [1, 2] {
        becomes_due(n).await;
    }
    assert_eq!(ids(&store.acquire_due(worker(2), 2).await.unwrap()), [6, 7].map(run_id));
    assert_eq!(ids(&store.acquire_due(worker(2), 2).await.unwrap()), [1, 2].map(run_id));
    assert_eq!(ids(&store.acquire_due(worker(2), 2).await.unwrap()), [8].map(run_id));
}
