//! Appends are in order, stored once, and completely or not at all.

use jiff::SignedDuration;

use super::*;
use crate::store::{AppendConflict, AppendError, Claim, ClaimedRequest, RunFilter, StoreTime};

on_every_store! {
    appended_events_are_read_in_order,
    a_gap_or_a_repeated_seq_is_a_conflict,
    a_repeated_batch_is_recognised,
    an_append_without_events_is_refused,
    a_refused_append_does_not_fail_others_of_its_batch,
    sixty_four_tasks_append_to_their_own_runs,
    of_sixty_four_appends_of_one_seq_one_is_stored,
    the_summary_is_the_last_one_given,
    events_after_an_end_are_stored_in_order,
    runs_are_listed_by_filter_newest_first,
    an_instance_has_one_owner,
    a_retry_key_has_one_run,
    a_retry_key_expires,
    an_append_with_a_conflict_stores_nothing,
    appends_of_both_priorities_are_stored,
    a_large_append_is_stored_completely,
    a_closed_store_refuses_appends,
    everything_is_read_after_a_restart,
    a_store_returns_the_time_that_it_knows,
}

async fn appended_events_are_read_in_order(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let run = run_id(1);
    fixture.store.append(append(run, 1, 3).into()).await.unwrap();
    fixture.store.append(append(run, 4, 2).into()).await.unwrap();
    let events = fixture.store.events(run, Seq::FIRST).await.unwrap();
    assert_eq!(events.iter().map(|e| e.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(events.iter().all(|e| e.event == test_event(e.seq.0) && e.at == at(e.seq.0.cast_signed())));
    assert_eq!(fixture.store.events(run, Seq(4)).await.unwrap(), events[3..]);
    assert_eq!(fixture.store.events(run, Seq(9)).await.unwrap(), []);
    assert_eq!(seqs(&fixture.store, run_id(2)).await, [0; 0]);
}

async fn a_gap_or_a_repeated_seq_is_a_conflict(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let run = run_id(1);
    let conflict = |stored| Err(AppendError::Conflict(AppendConflict::Seq { stored: Seq(stored) }));
    assert_eq!(fixture.store.append(append(run, 2, 1).into()).await, conflict(0));
    fixture.store.append(append(run, 1, 3).into()).await.unwrap();
    for first in [0, 1, 2, 3, 5, 9] {
        assert_eq!(fixture.store.append(append(run, first, 2).into()).await, conflict(3), "first {first}");
    }
    assert_eq!(seqs(&fixture.store, run).await, [1, 2, 3]);
}

async fn a_repeated_batch_is_recognised(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let run = run_id(1);
    let mut first = append(run, 1, 2);
    first.pins = vec![pin("17", Arm::Engine)];
    first.claim = Some(Claim::new(RetryKey([1; 32]), [2; 32]));
    fixture.store.append(first.clone().into()).await.unwrap();
    fixture.store.append(first.clone().into()).await.unwrap();
    fixture.store.append(append(run, 3, 1).into()).await.unwrap();
    fixture.store.append(first.clone().into()).await.unwrap();
    let together = append(run, 4, 1);
    let (one, two) = tokio::join!(fixture.store.append(together.clone().into()), fixture.store.append(together.into()));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(seqs(&fixture.store, run).await, [1, 2, 3, 4]);
    assert_eq!(
        fixture.store.run(run).await.unwrap().unwrap().seq,
        Seq(4),
        "a repeated append does not restore the earlier summary"
    );
}

async fn an_append_without_events_is_refused(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let mut empty = append(run_id(1), 1, 1);
    empty.events.clear();
    assert!(matches!(fixture.store.append(empty.into()).await, Err(AppendError::Refused(_))));
    assert_eq!(fixture.store.run(run_id(1)).await.unwrap(), None);
}

async fn a_refused_append_does_not_fail_others_of_its_batch(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    fixture.store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    let bad = append(run_id(1), 1, 1);
    let pins_first = Append { pins: vec![pin("1", Arm::Engine)], ..append(run_id(4), 1, 1) };
    let pins_again = Append { pins: vec![pin("1", Arm::Engine)], ..append(run_id(5), 1, 1) };
    let done = futures_util::future::join_all([
        fixture.store.append(append(run_id(2), 1, 2).into()),
        fixture.store.append(bad.into()),
        fixture.store.append(append(run_id(3), 1, 1).into()),
        fixture.store.append(pins_first.into()),
        fixture.store.append(pins_again.into()),
        fixture.store.append(append(run_id(2), 3, 1).into()),
    ])
    .await;
    let seq = Err(AppendError::Conflict(AppendConflict::Seq { stored: Seq(1) }));
    assert_eq!(done, [Ok(()), seq, Ok(()), Ok(()), taken("1", Arm::Engine), Ok(())]);
    assert_eq!(seqs(&fixture.store, run_id(2)).await, [1, 2, 3]);
    assert_eq!(fixture.store.run(run_id(5)).await.unwrap(), None);
}

async fn sixty_four_tasks_append_to_their_own_runs(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for first in 1..=10 {
                    store.append(append(run_id(n), first, 1).into()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..64 {
        assert_eq!(seqs(&fixture.store, run_id(n)).await, (1..=10).collect::<Vec<_>>());
    }
}

async fn of_sixty_four_appends_of_one_seq_one_is_stored(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    for first in 1..=3 {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let store = fixture.store.clone();
                tokio::spawn(async move { store.append(append(run_id(1), first, 1).into()).await })
            })
            .collect();
        let mut stored = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(()) => stored += 1,
                Err(error) => assert_eq!(error, AppendError::Conflict(AppendConflict::Seq { stored: Seq(first) })),
            }
        }
        assert_eq!(stored, 1);
    }
    assert_eq!(seqs(&fixture.store, run_id(1)).await, [1, 2, 3]);
}

async fn the_summary_is_the_last_one_given(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let run = run_id(1);
    fixture.store.append(append(run, 1, 1).into()).await.unwrap();
    let mut last = append(run, 2, 1);
    last.summary.status = RunStatus::Failed;
    last.summary.note = Some("the bank said no".into());
    fixture.store.append(last.clone().into()).await.unwrap();
    assert_eq!(fixture.store.run(run).await.unwrap(), Some(last.summary));
}

/// Whether a run may go on after its end is decided by `workflow`, not by the store.
async fn events_after_an_end_are_stored_in_order(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let run = run_id(1);
    let ends = |first| with_status(append(run, first, 1), RunStatus::Completed);
    // In one batch, where the store makes batches: none is awaited in between.
    let steps = [append(run, 1, 1), ends(2), append(run, 3, 1), ends(4)];
    let done = futures_util::future::join_all(steps.map(|step| fixture.store.append(step.into()))).await;
    assert_eq!(done, [Ok(()), Ok(()), Ok(()), Ok(())]);
    fixture.store.append(append(run, 5, 2).into()).await.unwrap();
    assert_eq!(seqs(&fixture.store, run).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(fixture.store.run(run).await.unwrap().map(|run| run.status), Some(RunStatus::Running));
    let open = RunFilter { statuses: vec![RunStatus::Running], limit: 9, ..RunFilter::default() };
    assert_eq!(fixture.store.runs(open).await.unwrap().len(), 1);
    let gap = fixture.store.append(append(run, 8, 1).into()).await.unwrap_err();
    assert!(matches!(gap, AppendError::Conflict(AppendConflict::Seq { stored: Seq(6) })), "{gap}");
}

async fn runs_are_listed_by_filter_newest_first(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    for n in 1..=6 {
        let mut one = append(run_id(n), 1, 1);
        one.summary.status = if n % 2 == 0 { RunStatus::Completed } else { RunStatus::Running };
        one.summary.mode = if n == 3 { Mode::Dark } else { Mode::Real };
        one.summary.route = (n != 5).then(|| RouteId::new("orders.create"));
        one.summary.workflow = WorkflowName::new(if n == 6 { "campaign" } else { "create-order" });
        fixture.store.append(one.into()).await.unwrap();
    }
    let list = async |filter: RunFilter| {
        let runs = fixture.store.runs(filter).await.unwrap();
        runs.iter().map(|run| (1..=6).find(|n| run_id(*n) == run.run_id).unwrap()).collect::<Vec<_>>()
    };
    let all = RunFilter { limit: 100, ..RunFilter::default() };
    assert_eq!(list(all.clone()).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(list(RunFilter { limit: 2, ..all.clone() }).await, [6, 5]);
    assert_eq!(list(RunFilter { limit: 2, before: Some(run_id(4)), ..all.clone() }).await, [3, 2]);
    assert_eq!(list(RunFilter { statuses: vec![RunStatus::Running], ..all.clone() }).await, [5, 3, 1]);
    let both = vec![RunStatus::Running, RunStatus::Completed];
    assert_eq!(list(RunFilter { statuses: both, before: Some(run_id(3)), ..all.clone() }).await, [2, 1]);
    assert_eq!(list(RunFilter { mode: Some(Mode::Dark), ..all.clone() }).await, [3]);
    assert_eq!(list(RunFilter { workflow: Some("campaign".into()), ..all.clone() }).await, [6]);
    assert_eq!(list(RunFilter { route: Some(RouteId::new("orders.create")), limit: 3, ..all }).await, [6, 4, 3]);
}

/// The refusal of an append whose pin another run has.
fn taken(id: &str, owner: Arm) -> Result<(), AppendError> {
    Err(AppendError::Conflict(AppendConflict::Pin { key: pin(id, Arm::Engine).key, owner, made_by: owner }))
}

async fn an_instance_has_one_owner(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let with = |run, pins: Vec<NewPin>| Append { pins, ..append(run, 1, 1) };
    store.append(with(run_id(1), vec![pin("1", Arm::Engine), pin("2", Arm::Legacy)]).into()).await.unwrap();
    assert_eq!(store.append(with(run_id(2), vec![pin("1", Arm::Engine)]).into()).await, taken("1", Arm::Engine));
    assert_eq!(
        store.append(with(run_id(2), vec![pin("3", Arm::Engine), pin("2", Arm::Engine)]).into()).await,
        taken("2", Arm::Legacy)
    );
    let twice = vec![pin("4", Arm::Engine), pin("4", Arm::Legacy)];
    assert_eq!(store.append(with(run_id(2), twice).into()).await, taken("4", Arm::Engine));
    let again = Append { pins: vec![pin("1", Arm::Engine), pin("5", Arm::Engine)], ..append(run_id(1), 2, 1) };
    store.append(again.into()).await.unwrap();
    let one = store.pin(pin("1", Arm::Engine).key).await.unwrap().unwrap();
    assert_eq!((one.arm, one.run, one.at), (Arm::Engine, Some(run_id(1)), at(1)));
    assert_eq!(store.pin(pin("3", Arm::Engine).key).await.unwrap(), None);
    let ids = async |arm, limit| {
        let pins = store.pins(RouteId::new("orders.create"), arm, limit).await.unwrap();
        pins.iter().map(|pin| pin.key.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(Arm::Engine, 9).await, ["5", "1"]);
    assert_eq!(ids(Arm::Engine, 1).await, ["5"]);
    assert_eq!(ids(Arm::Legacy, 9).await, ["2"]);
    let family = RouteId::new("orders.create");
    let counts = [(family.clone(), Arm::Legacy, 1), (family, Arm::Engine, 2)];
    assert_eq!(store.pin_counts().await.unwrap(), counts);
}

async fn a_retry_key_has_one_run(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let claim = |key: u8, request: u8| Some(Claim::new(RetryKey([key; 32]), [request; 32]));
    store.append(Arc::new(Append { claim: claim(1, 1), ..append(run_id(1), 1, 1) })).await.unwrap();
    for (request, compared) in [(1, ClaimedRequest::Same), (2, ClaimedRequest::Other)] {
        let held = AppendConflict::Claim { run: run_id(1), request: compared };
        let second = Append { claim: claim(1, request), ..append(run_id(2), 1, 1) };
        assert_eq!(store.append(second.into()).await, Err(AppendError::Conflict(held)));
    }
    store.append(Arc::new(Append { claim: claim(1, 1), ..append(run_id(1), 2, 1) })).await.unwrap();

    let two = Append { claim: claim(2, 1), ..append(run_id(3), 1, 1) };
    let three = Append { claim: claim(2, 1), ..append(run_id(4), 1, 1) };
    let (two, three) = tokio::join!(store.append(two.into()), store.append(three.into()));
    assert_eq!(two, Ok(()));
    let held = AppendConflict::Claim { run: run_id(3), request: ClaimedRequest::Same };
    assert_eq!(three, Err(AppendError::Conflict(held)));

    // The answer of a run is not given to another caller, nor to the same one under another credential.
    let two_keys = |key: u8, of_request: u8| {
        Some(Claim { of_request: Some(RetryKey([of_request; 32])), ..Claim::new(RetryKey([key; 32]), [1; 32]) })
    };
    store.append(Arc::new(Append { claim: two_keys(30, 31), ..append(run_id(5), 1, 1) })).await.unwrap();
    let request = ClaimedRequest::UnderAnotherCredential;
    let held = |run| Err(AppendError::Conflict(AppendConflict::Claim { run, request }));
    let other = Append { claim: two_keys(32, 31), ..append(run_id(6), 1, 1) };
    assert_eq!(store.append(other.into()).await, held(run_id(5)));
    assert_eq!(store.first_try(RetryKey([32; 32])).await.unwrap(), None, "the refused append stored nothing");
    assert_eq!(store.first_try(RetryKey([31; 32])).await.unwrap().unwrap().run, Some(run_id(5)));
    let one = Append { claim: two_keys(33, 35), ..append(run_id(7), 1, 1) };
    let other = Append { claim: two_keys(34, 35), ..append(run_id(8), 1, 1) };
    let (one, other) = tokio::join!(store.append(one.into()), store.append(other.into()));
    assert_eq!((one, other), (Ok(()), held(run_id(7))));

    store.note_legacy_tries(taken_now(vec![RetryKey([1; 32]), RetryKey([9; 32])])).await.unwrap();
    let first = store.first_try(RetryKey([1; 32])).await.unwrap().unwrap();
    assert_eq!((first.arm, first.run, first.request), (Arm::Engine, Some(run_id(1)), Some([1; 32])));
    let first = store.first_try(RetryKey([9; 32])).await.unwrap().unwrap();
    assert_eq!((first.arm, first.run, first.request), (Arm::Legacy, None, None));
    assert_eq!(store.first_try(RetryKey([8; 32])).await.unwrap(), None);
    // No run can claim a key whose first try legacy took within the window, neither as `key` nor as `of_request`.
    let legacys = Err(AppendError::Conflict(AppendConflict::LegacyClaim));
    assert_eq!(store.append(Append { claim: claim(9, 1), ..append(run_id(9), 1, 1) }.into()).await, legacys);
    assert_eq!(store.append(Append { claim: two_keys(36, 9), ..append(run_id(9), 1, 1) }.into()).await, legacys);
    let first = store.first_try(RetryKey([9; 32])).await.unwrap().unwrap();
    assert_eq!((first.arm, first.run), (Arm::Legacy, None));
    assert_eq!(store.first_try(RetryKey([36; 32])).await.unwrap(), None, "the refused append stored nothing");
    store.append(Append { claim: claim(10, 1), ..append(run_id(9), 1, 1) }.into()).await.unwrap();

    store.note_legacy_tries(taken_now(vec![RetryKey([7; 32])])).await.unwrap();
    let all = store.engine_tries(None, 10).await.unwrap();
    let keys = [1, 2, 10, 30, 31, 33, 35].map(|key| RetryKey([key; 32]));
    assert_eq!(all.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys, "those that runs claimed, in order");
    let first = store.engine_tries(None, 2).await.unwrap();
    assert_eq!(first, all[..2]);
    assert_eq!(store.engine_tries(Some(keys[1]), 2).await.unwrap(), all[2..4]);
    assert_eq!(store.engine_tries(Some(keys[6]), 2).await.unwrap(), []);
    for (range, taken) in [(1..=1, true), (3..=9, false), (3..=10, true), (10..=11, true), (36..=255, false)] {
        let range = RetryKey([*range.start(); 32])..=RetryKey([*range.end(); 32]);
        assert_eq!(store.engine_took_any(range.clone()).await.unwrap(), taken, "{range:?}");
    }
    // Runs of two verified callers with one request claim keys that a retry without a verified token finds.
    let any_caller = RetryKey([40; 32]);
    for n in [41, 42_u8] {
        let key = RetryKey([n; 32]);
        let of_request = Some(any_caller.of_verified_request(&[1; 32], &key));
        let claim = Some(Claim { key, request: [1; 32], of_request, legacy_keys: [None; 2], decided_in: None });
        store.append(Append { claim, ..append(run_id(n.into()), 1, 1) }.into()).await.unwrap();
    }
    for (digest, is_verified, taken) in [(1, false, true), (1, true, false), (2, false, false)] {
        let range = any_caller.range_of_request(&[digest; 32], is_verified);
        assert_eq!(store.engine_took_any(range).await.unwrap(), taken, "{digest}, {is_verified}");
    }
}

async fn a_retry_key_expires(which: StoreKind) {
    // With a retry window of 0 every key has expired as soon as it is stored.
    let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: 0, ..Limits::default() }).await;
    let store = &fixture.store;
    let claim = Some(Claim::new(RetryKey([1; 32]), [1; 32]));
    store.append(Arc::new(Append { claim, ..ended_long_ago(append(run_id(1), 1, 1)) })).await.unwrap();
    assert_eq!(store.first_try(RetryKey([1; 32])).await.unwrap(), None);
    store.append(Arc::new(Append { claim, ..ended_long_ago(append(run_id(2), 1, 1)) })).await.unwrap();
    store.note_legacy_tries(taken_now(vec![RetryKey([1; 32])])).await.unwrap();
    assert_eq!(store.first_try(RetryKey([1; 32])).await.unwrap(), None);
    store
        .append(Arc::new(Append { claim, ..append(run_id(3), 1, 1) }))
        .await
        .expect("legacy's claim of the key has expired too");
}

async fn an_append_with_a_conflict_stores_nothing(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    let claim = Some(Claim::new(RetryKey([7; 32]), [1; 32]));
    let bad = Append { pins: vec![pin("7", Arm::Engine)], claim, ..append(run_id(1), 1, 4) };
    assert!(store.append(bad.into()).await.is_err());
    assert_eq!(seqs(store, run_id(1)).await, [1]);
    assert_eq!(store.pin(pin("7", Arm::Engine).key).await.unwrap(), None);
    assert_eq!(store.first_try(RetryKey([7; 32])).await.unwrap(), None);
    assert_eq!(store.run(run_id(1)).await.unwrap().unwrap().seq, Seq(1));
}

async fn appends_of_both_priorities_are_stored(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let appends = (0..300).map(|n| {
        let priority = if n % 3 == 0 { Priority::Real } else { Priority::Dark };
        fixture.store.append(Arc::new(Append { priority, ..append(run_id(n), 1, 2) }))
    });
    let done = futures_util::future::join_all(appends).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(fixture.store.runs(RunFilter { limit: 1_000, ..RunFilter::default() }).await.unwrap().len(), 300);
}

async fn a_large_append_is_stored_completely(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    fixture.store.append(append(run_id(1), 1, 1_300).into()).await.unwrap();
    fixture.store.append(append(run_id(1), 1_301, 513).into()).await.unwrap();
    assert_eq!(seqs(&fixture.store, run_id(1)).await, (1..=1_813).collect::<Vec<_>>());
}

async fn a_closed_store_refuses_appends(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let enqueued = fixture.store.append(append(run_id(1), 1, 1).into());
    fixture.store.close().await;
    enqueued.await.unwrap();
    assert!(!fixture.store.healthy());
    assert!(matches!(fixture.store.append(append(run_id(1), 2, 1).into()).await, Err(AppendError::Refused(_))));
    fixture.store.close().await;
}

/// A store in a file returns when its newest event happened, a store in memory nothing, and a shared store its server's
/// current time.
async fn a_store_returns_the_time_that_it_knows(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    fixture.store.append(append(run_id(1), 1, 5).into()).await.unwrap();
    match (which, fixture.store.time().await.unwrap()) {
        (StoreKind::Memory, StoreTime::NewestEvent(None)) => {} // it is empty when its process starts
        (StoreKind::Sqlite, StoreTime::NewestEvent(Some(newest))) => assert_eq!(newest, at(5)),
        (StoreKind::Postgres, StoreTime::Now(server_time)) => {
            let difference = server_time.duration_since(Timestamp::now()).abs();
            assert!(difference < SignedDuration::from_secs(10), "{server_time}: the server is on the same machine");
        }
        (_, other) => panic!("{other:?}"),
    }
}

async fn everything_is_read_after_a_restart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let claim = Some(Claim::new(RetryKey([1; 32]), [2; 32]));
    let first = Append { pins: vec![pin("17", Arm::Engine)], claim, ..append(run_id(1), 1, 2) };
    fixture.store.append(first.clone().into()).await.unwrap();
    let secret = fixture.store.secret().await.unwrap();
    fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(seqs(store, run_id(1)).await, [1, 2]);
    assert_eq!(store.run(run_id(1)).await.unwrap(), Some(first.summary.clone()));
    assert_eq!(store.pin(pin("17", Arm::Engine).key).await.unwrap().unwrap().run, Some(run_id(1)));
    assert_eq!(store.first_try(RetryKey([1; 32])).await.unwrap().unwrap().run, Some(run_id(1)));
    assert_eq!(store.secret().await.unwrap(), secret);
    store.append(first.into()).await.unwrap();
    store.append(append(run_id(1), 3, 1).into()).await.unwrap();
    assert_eq!(seqs(store, run_id(1)).await, [1, 2, 3]);
}
