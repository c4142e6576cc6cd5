//! Who moves a run: fences, taking, releasing, whose turn it is.

use std::time::Duration;

use super::*;
use crate::store::{AppendError, Conflict, OwnedRun, TakeResult};

on_every_store! {
    a_newer_owner_shuts_the_older_out,
    a_batch_that_comes_again_is_recognised_before_the_fence,
    a_run_is_taken_by_one,
    what_has_ended_or_never_was_is_not_taken,
    a_dead_owners_run_is_taken,
    a_run_that_is_released_waits_for_its_turn,
    whose_turn_has_come_is_taken_once_oldest_first,
    two_that_ask_at_once_share_what_is_due,
    who_leaves_leaves_its_runs_to_others,
    what_is_asked_of_a_run_makes_its_turn_come,
    ownership_survives_a_restart,
}

/// As the worker, under this number.
fn by(append: Append, n: u128, fence: u64) -> Append {
    Append { worker: worker(n), fence: Fence(fence), ..append }
}

fn mine(taken: TakeResult) -> OwnedRun {
    match taken {
        TakeResult::Taken(owned) => owned,
        other => panic!("not taken: {other:?}"),
    }
}

/// Nothing of it was heard, or it was not for longer than this.
async fn lives(store: &SharedStore, n: u128) {
    store.heartbeat(worker(n), format!("worker {n}"), Duration::from_secs(60)).await.unwrap();
}

fn ids(owned: &[OwnedRun]) -> Vec<RunId> {
    owned.iter().map(|owned| owned.summary.run_id).collect()
}

fn released(append: Append, status: RunStatus, wake: Option<Timestamp>) -> Append {
    let append = standing(append, status);
    Append { release: true, summary: RunSummary { wake, ..append.summary }, ..append }
}

/// Long ago, by the clock of any machine.
fn over(n: i64) -> Option<Timestamp> {
    Some(Timestamp::from_second(1_600_000_000 + n).unwrap())
}

/// Not in this test's life.
fn far(n: i64) -> Option<Timestamp> {
    Some(Timestamp::from_second(4_000_000_000 + n).unwrap())
}

async fn a_newer_owner_shuts_the_older_out(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let run = run_id(1);
    store.append(by(append(run, 1, 2), 1, 1).into()).await.unwrap();
    let taken = mine(store.take(worker(2), run).await.unwrap());
    assert_eq!(taken, OwnedRun { summary: summary(run, 2), fence: Fence(2) });
    let shut_out = Err(AppendError::Fenced(run));
    assert_eq!(store.append(by(append(run, 3, 1), 1, 1).into()).await, shut_out);
    assert_eq!(store.append(by(append(run, 1, 1), 1, 1).into()).await, shut_out, "before its place is looked at");
    assert_eq!(store.append(by(append(run, 3, 1), 1, 3).into()).await, shut_out, "a number that nobody gave out");
    store.append(by(append(run, 3, 1), 2, 2).into()).await.unwrap();
    let stands = Err(AppendError::Conflict(Conflict::Seq { stored: Seq(3) }));
    assert_eq!(store.append(by(append(run, 3, 1), 2, 2).into()).await, stands);
    let good = store.append(by(append(run_id(2), 1, 1), 1, 1).into());
    let bad = store.append(by(append(run, 4, 1), 1, 1).into());
    assert_eq!(tokio::join!(good, bad), (Ok(()), shut_out.clone()), "alone");
    assert_eq!(mine(store.take(worker(2), run).await.unwrap()).fence, Fence(3), "its own, under a new number");
    assert_eq!(store.append(by(append(run, 4, 1), 2, 2).into()).await, shut_out);
    assert_eq!(seqs(store, run).await, [1, 2, 3]);
}

async fn a_batch_that_comes_again_is_recognised_before_the_fence(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let run = run_id(1);
    let first = by(append(run, 1, 2), 1, 1);
    store.append(first.clone().into()).await.unwrap();
    mine(store.take(worker(2), run).await.unwrap());
    store.append(first.clone().into()).await.unwrap();
    store.append(by(append(run, 3, 1), 2, 2).into()).await.unwrap();
    store.append(first.into()).await.unwrap();
    assert_eq!(seqs(store, run).await, [1, 2, 3]);
    assert_eq!(
        store.append(by(append(run, 4, 1), 1, 1).into()).await,
        Err(AppendError::Fenced(run)),
        "it is not taken back"
    );
}

async fn a_run_is_taken_by_one(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let run = run_id(1);
    for n in 1..=9 {
        lives(store, n).await;
    }
    store.append(by(released(append(run, 1, 1), RunStatus::Paused, None), 1, 1).into()).await.unwrap();
    let asks = (2..=9).map(|n| store.take(worker(n), run));
    let taken = futures_util::future::join_all(asks).await;
    let mut fences = Vec::new();
    for taken in taken {
        match taken.unwrap() {
            TakeResult::Taken(owned) => fences.push(owned.fence.0),
            TakeResult::Elsewhere { worker, name } => assert_eq!(name, format!("worker {}", worker.0.as_u128())),
            other => panic!("{other:?}"),
        }
    }
    fences.sort_unstable();
    // Where there is one process all others are dead, and each takes it from the one before.
    let expected: Vec<u64> = if store.is_shared() { vec![2] } else { (2..=9).collect() };
    assert_eq!(fences, expected);
}

async fn what_has_ended_or_never_was_is_not_taken(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let run = run_id(1);
    let last = standing(append(run, 1, 1), RunStatus::Completed);
    store.append(last.clone().into()).await.unwrap();
    assert_eq!(store.take(worker(2), run).await.unwrap(), TakeResult::Ended(last.summary));
    assert_eq!(store.take(worker(2), run_id(2)).await.unwrap(), TakeResult::Unknown);
    assert_eq!(store.take_due(worker(2), 9).await.unwrap(), []);
    assert_eq!(store.due_times(9).await.unwrap(), []);
}

async fn a_dead_owners_run_is_taken(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    // Nobody ever heard of this one.
    store.append(by(append(run_id(1), 1, 1), 1, 1).into()).await.unwrap();
    assert_eq!(mine(store.take(worker(2), run_id(1)).await.unwrap()).fence, Fence(2));
    // Of this one, once.
    store.heartbeat(worker(3), "three".into(), Duration::from_millis(1)).await.unwrap();
    store.append(by(append(run_id(2), 1, 1), 3, 1).into()).await.unwrap();
    lives(store, 2).await;
    let taken = async {
        loop {
            let taken = store.take_due(worker(2), 9).await.unwrap();
            if !taken.is_empty() {
                break taken;
            }
        }
    };
    let taken = tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
    assert_eq!((ids(&taken), taken[0].fence), (vec![run_id(2)], Fence(2)));
    assert_eq!(store.take_due(worker(2), 9).await.unwrap(), [], "its own are not due");
}

async fn a_run_that_is_released_waits_for_its_turn(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let wait = |n, status, wake| by(released(append(run_id(n), 1, 1), status, wake), 1, 1);
    store.append(wait(1, RunStatus::Running, far(2)).into()).await.unwrap();
    store.append(wait(2, RunStatus::WaitingSignal, far(1)).into()).await.unwrap();
    store.append(wait(3, RunStatus::Paused, None).into()).await.unwrap();
    store.append(wait(4, RunStatus::Running, None).into()).await.unwrap();
    store.append(wait(5, RunStatus::Completed, far(1)).into()).await.unwrap();
    store.append(by(append(run_id(6), 1, 1), 1, 1).into()).await.unwrap();
    store.append(wait(7, RunStatus::Queued, None).into()).await.unwrap();
    let epoch = Timestamp::UNIX_EPOCH;
    let wakes = [(epoch, run_id(7)), (far(1).unwrap(), run_id(2)), (far(2).unwrap(), run_id(1))];
    assert_eq!(store.due_times(9).await.unwrap(), wakes);
    assert_eq!(store.due_times(1).await.unwrap(), wakes[..1]);
    let taken = store.take_due(worker(1), 9).await.unwrap();
    assert_eq!((ids(&taken), taken[0].fence), (vec![run_id(7)], Fence(2)));
    assert_eq!(store.due_times(9).await.unwrap(), wakes[1..], "what is taken wakes nobody");
    // By hand it is taken before its time.
    assert_eq!(mine(store.take(worker(1), run_id(2)).await.unwrap()).fence, Fence(2));
    assert_eq!(store.due_times(9).await.unwrap(), wakes[2..]);
    // The number of whoever released it still stands, and an append without a release makes it the worker's again.
    store.append(by(append(run_id(1), 2, 1), 1, 1).into()).await.unwrap();
    assert_eq!(store.due_times(9).await.unwrap(), []);
}

async fn whose_turn_has_come_is_taken_once_oldest_first(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    for n in [4_u8, 2, 5, 1, 3] {
        let wait = released(append(run_id(n.into()), 1, 1), RunStatus::Running, over(9 - i64::from(n)));
        store.append(by(wait, 1, 1).into()).await.unwrap();
    }
    let first = store.take_due(worker(2), 2).await.unwrap();
    assert_eq!(ids(&first), [run_id(1), run_id(2)]);
    let owned = OwnedRun { summary: RunSummary { wake: over(8), ..summary(run_id(1), 1) }, fence: Fence(2) };
    assert_eq!(first[0], owned);
    assert_eq!(ids(&store.take_due(worker(2), 9).await.unwrap()), [run_id(3), run_id(4), run_id(5)]);
    assert_eq!(store.take_due(worker(2), 9).await.unwrap(), []);
    store.append(by(append(run_id(1), 2, 1), 2, 2).into()).await.unwrap();
    assert_eq!(store.append(by(append(run_id(2), 2, 1), 1, 1).into()).await, Err(AppendError::Fenced(run_id(2))));
}

async fn two_that_ask_at_once_share_what_is_due(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let workers = if store.is_shared() { 4 } else { 1 };
    for n in 1..=workers {
        lives(store, n).await;
    }
    let count = 60;
    for n in 0..count {
        store.append(by(released(append(run_id(n), 1, 1), RunStatus::Running, over(0)), 9, 1).into()).await.unwrap();
    }
    let asks: Vec<_> = (0..24)
        .map(|ask| {
            let store = store.clone();
            tokio::spawn(async move { store.take_due(worker(1 + ask % workers), 5).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for ask in asks {
        let some = ask.await.unwrap();
        assert!(some.len() <= 5 && some.iter().all(|owned| owned.fence == Fence(2)));
        taken.extend(ids(&some));
    }
    // Who skips what another is just taking may come away with less: the rest is there for the next ask.
    loop {
        let rest = store.take_due(worker(1), 5).await.unwrap();
        if rest.is_empty() {
            break;
        }
        taken.extend(ids(&rest));
    }
    taken.sort();
    assert_eq!(taken, (0..count).map(run_id).collect::<Vec<_>>());
}

async fn who_leaves_leaves_its_runs_to_others(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    lives(store, 1).await;
    lives(store, 2).await;
    for n in 1..=3 {
        store.append(by(append(run_id(n), 1, 1), 1, 1).into()).await.unwrap();
    }
    store.append(by(append(run_id(4), 1, 1), 2, 1).into()).await.unwrap();
    store.append(standing(by(append(run_id(5), 1, 1), 1, 1), RunStatus::Failed).into()).await.unwrap();
    store.deregister(worker(1)).await.unwrap();
    let wakes = store.due_times(9).await.unwrap();
    assert_eq!(wakes, [1, 2, 3].map(|n| (Timestamp::UNIX_EPOCH, run_id(n))));
    assert_eq!(ids(&store.take_due(worker(2), 9).await.unwrap()), [1, 2, 3].map(run_id));
}

async fn what_is_asked_of_a_run_makes_its_turn_come(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    for n in 1..=3 {
        store.append(by(released(append(run_id(n), 1, 1), RunStatus::Paused, None), 1, 1).into()).await.unwrap();
    }
    assert_eq!(store.take_due(worker(2), 9).await.unwrap(), []);
    store.put_order(between::order(1, run_id(2))).await.unwrap();
    store.put_order(between::order(2, run_id(2))).await.unwrap();
    assert_eq!(ids(&store.take_due(worker(2), 9).await.unwrap()), [run_id(2)]);
    assert_eq!(store.take_due(worker(2), 9).await.unwrap(), []);
    store.settle_order(Uuid::from_u128(1), json!("done")).await.unwrap();
    let paused = released(append(run_id(2), 2, 1), RunStatus::Paused, None);
    store.append(by(paused, 2, 2).into()).await.unwrap();
    assert_eq!(ids(&store.take_due(worker(2), 9).await.unwrap()), [run_id(2)], "one is open still");
    store.settle_order(Uuid::from_u128(2), json!("done")).await.unwrap();
    let paused = released(append(run_id(2), 3, 1), RunStatus::Paused, None);
    store.append(by(paused, 2, 3).into()).await.unwrap();
    assert_eq!(store.take_due(worker(2), 9).await.unwrap(), []);
}

async fn ownership_survives_a_restart(which: Which) {
    let mut place = Place::new(which).await;
    place.store.append(by(append(run_id(1), 1, 1), 1, 1).into()).await.unwrap();
    mine(place.store.take(worker(1), run_id(1)).await.unwrap());
    let wait = released(append(run_id(2), 1, 1), RunStatus::Running, far(1));
    place.store.append(by(wait, 1, 1).into()).await.unwrap();
    place.reopen().await;
    let store = &place.store;
    assert_eq!(store.append(by(append(run_id(1), 2, 1), 1, 1).into()).await, Err(AppendError::Fenced(run_id(1))));
    assert_eq!(store.due_times(9).await.unwrap(), [(far(1).unwrap(), run_id(2))]);
    let taken = store.take_due(worker(2), 9).await.unwrap();
    assert_eq!((ids(&taken), taken[0].fence), (vec![run_id(1)], Fence(3)));
}
