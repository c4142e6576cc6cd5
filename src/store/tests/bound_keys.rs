//! Until when a retry key stays bound to the arm that took it, and to its run.

use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::clock::RunningTimes;
use crate::names::JobId;
use crate::store::{AppendConflict, AppendError, Claim, ClaimedRequest, Store};

on_every_store! {
    a_retry_key_is_bound_while_a_run_of_its_job_is_open,
    a_retry_key_is_bound_for_the_window_after_the_end_of_its_run,
    a_page_of_old_keys_examines_no_more_than_its_limit,
    a_retry_key_of_legacy_is_bound_from_its_first_try,
    a_run_is_refused_while_legacy_has_a_key_that_it_does_not_claim,
    a_key_of_an_abandoned_run_is_legacys_once_legacy_has_taken_it,
}

const KEY: RetryKey = RetryKey([1; 32]);

fn claiming(append: Append) -> Append {
    claiming_key(append, KEY)
}

fn claiming_key(append: Append, key: RetryKey) -> Append {
    Append { claim: Some(Claim::new(key, [1; 32])), ..append }
}

async fn long_bound(store: &StoreHandle) -> Vec<RetryKey> {
    let page = store.long_bound_keys(Duration::ZERO, None, 9).await.unwrap();
    assert_eq!(page.next, None);
    page.result
}

/// Asserts that the key is run 1's, whoever else wants it.
async fn assert_bound(store: &StoreHandle) {
    assert_eq!(store.first_try(KEY).await.unwrap().and_then(|first| first.run), Some(run_id(1)));
    store.note_legacy_tries(taken_now(vec![KEY])).await.unwrap();
    let taken = AppendError::Conflict(AppendConflict::Claim { run: run_id(1), request: ClaimedRequest::Same });
    assert_eq!(store.append(claiming(append(run_id(9), 1, 1)).into()).await, Err(taken));
    assert_eq!(store.prune_retry_keys(None, 9).await.unwrap().result, 0);
    assert_eq!(store.first_try(KEY).await.unwrap().and_then(|first| first.run), Some(run_id(1)));
    assert_eq!(long_bound(store).await, [KEY]);
}

async fn a_retry_key_is_bound_while_a_run_of_its_job_is_open(which: StoreKind) {
    // A retry window of 0 is over as soon as the key is stored.
    let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: 0, ..Limits::default() }).await;
    let store = &fixture.store;
    store.append(claiming(append(run_id(1), 1, 1)).into()).await.unwrap();
    assert_bound(store).await;

    // The successor of the run is open.
    let mut successor = append(run_id(2), 1, 1);
    successor.summary.job = Some(JobId(run_id(1).0));
    store.append(successor.clone().into()).await.unwrap();
    store.append(ended_long_ago(append(run_id(1), 2, 1)).into()).await.unwrap();
    assert_bound(store).await;

    let mut end = ended_long_ago(append(run_id(2), 2, 1));
    end.summary.job = successor.summary.job;
    store.append(end.into()).await.unwrap();
    assert_eq!(store.first_try(KEY).await.unwrap(), None);
    assert_eq!(long_bound(store).await, []);
    store.append(claiming(append(run_id(9), 1, 1)).into()).await.unwrap();
    assert_eq!(store.first_try(KEY).await.unwrap().and_then(|first| first.run), Some(run_id(9)));
}

async fn a_retry_key_is_bound_for_the_window_after_the_end_of_its_run(which: StoreKind) {
    let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: 0, ..Limits::default() }).await;
    let store = &fixture.store;
    store.append(claiming(append(run_id(1), 1, 1)).into()).await.unwrap();
    // The run ends in the future, so that the window after its end is not over.
    let mut end = with_status(append(run_id(1), 2, 1), RunStatus::Completed);
    end.summary.updated = jiff::Timestamp::from_second(4_000_000_000).unwrap();
    store.append(end.into()).await.unwrap();
    assert_bound(store).await;
}

/// The window begins with the first try, however late the store gets the key.
async fn a_retry_key_of_legacy_is_bound_from_its_first_try(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let (store, key) = (&fixture.store, RetryKey([1; 32]));
    let hours_ago = |hours| clock::now().checked_sub(SignedDuration::from_hours(hours)).unwrap();
    let taken = async || store.first_try(key).await.unwrap().map(|first| (first.arm, first.at));
    store.note_legacy_tries(vec![(key, hours_ago(25))]).await.unwrap();
    assert_eq!(taken().await, None, "its window was over when the store got it");
    let at = hours_ago(1);
    for at in [at, hours_ago(0)] {
        store.note_legacy_tries(vec![(key, at)]).await.unwrap();
    }
    assert_eq!(taken().await, Some((Arm::Legacy, at)), "a retry does not extend the window");
}

/// Keys 1 to 4 are bound by open runs, legacy's keys 5 to 7 have expired.
async fn a_page_of_old_keys_examines_no_more_than_its_limit(which: StoreKind) {
    let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: 0, ..Limits::default() }).await;
    let store = &fixture.store;
    let key = |n: u8| RetryKey([n; 32]);
    for n in 1..=4 {
        store.append(claiming_key(append(run_id(n.into()), 1, 1), key(n)).into()).await.unwrap();
    }
    store.note_legacy_tries(taken_now(vec![key(5), key(6), key(7)])).await.unwrap();

    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = store.long_bound_keys(Duration::ZERO, after, 3).await.unwrap();
        found.push((page.result, page.next.map(|next| next.key)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected = [(vec![key(1), key(2), key(3)], Some(key(3))), (vec![key(4)], Some(key(6))), (Vec::new(), None)];
    assert_eq!(found, expected);

    let first = store.prune_retry_keys(None, 3).await.unwrap();
    assert_eq!((first.result, first.next.map(|next| next.key)), (0, Some(key(3))));
    let second = store.prune_retry_keys(first.next, 3).await.unwrap();
    assert_eq!((second.result, second.next.map(|next| next.key)), (2, Some(key(6))));
    let third = store.prune_retry_keys(second.next, 3).await.unwrap();
    assert_eq!((third.result, third.next), (1, None));
    assert_eq!(long_bound(store).await, [key(1), key(2), key(3), key(4)]);
}

/// Time in which no process ran does not count towards the window. The store has recorded when processes ran; where it
/// has not, its newest event shows when the last one did.
#[tokio::test]
async fn a_backup_after_a_long_stop_has_the_keys_that_wait_beside_the_store() {
    const DAY: Duration = Duration::from_secs(86_400);
    let now = crate::clock::now();
    let ago = |hours| now.checked_sub(SignedDuration::from_hours(hours)).unwrap();
    for is_noted in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("test.db"), dir.path().join("copy.db"));
        let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
        match is_noted {
            true => {
                let mut times = RunningTimes::default();
                times.start(ago(100), None, DAY);
                times.note(ago(48));
                store.put_running_times(times).await.unwrap();
            }
            false => store.append(completed_run(run_id(1), ago(48)).into()).await.unwrap(),
        }
        store.close().await;
        let key = |n| RetryKey([n; 32]);
        let waiting = |_: &[_]| vec![(key(1), ago(48 + 23)), (key(2), ago(48 + 25))];
        let copied = SqliteStore::back_up(&path, &copy, DAY, waiting).await.unwrap();
        assert_eq!(copied.waiting_keys, 1, "noted: {is_noted}");
        let checked = SqliteStore::check_copy(&copy, DAY).await.unwrap();
        assert!(checked.findings.iter().all(|finding| finding.what.contains("plan")), "{:?}", checked.findings);
    }
}

/// Legacy took a try of the same request with another credential, in another process.
async fn a_run_is_refused_while_legacy_has_a_key_that_it_does_not_claim(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let [legacys, engines, nobodys] = [2, 3, 4].map(|n| RetryKey([n; 32]));
    store.note_legacy_tries(taken_now(vec![legacys])).await.unwrap();
    store.append(claiming_key(append(run_id(1), 1, 1), engines).into()).await.unwrap();
    let claim_excluding = |other: RetryKey| {
        let claim = Claim {
            key: KEY,
            request: [1; 32],
            of_request: None,
            legacy_keys: [Some(nobodys), Some(other)],
            decided_in: None,
        };
        Append { claim: Some(claim), ..append(run_id(9), 1, 1) }
    };
    // Perhaps in one batch with another run.
    let other = store.append(claiming_key(append(run_id(2), 1, 1), RetryKey([5; 32])).into());
    let (refused, other) = tokio::join!(store.append(claim_excluding(legacys).into()), other);
    assert_eq!((refused, other), (Err(AppendError::Conflict(AppendConflict::LegacyClaim)), Ok(())));
    assert_eq!(store.first_try(KEY).await.unwrap(), None, "the refused append stored nothing");
    store.append(claim_excluding(engines).into()).await.unwrap();
    let [found, unclaimed] = [KEY, nobodys].map(|key| store.first_try(key));
    assert_eq!(found.await.unwrap().and_then(|first| first.run), Some(run_id(9)));
    assert_eq!(unclaimed.await.unwrap(), None);
}

/// The engine gave the request back. Keys that runs have keep their runs, and are returned where another process may
/// have begun them.
async fn a_key_of_an_abandoned_run_is_legacys_once_legacy_has_taken_it(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let [engines, new] = [2, 3].map(|n| RetryKey([n; 32]));
    store.append(claiming(append(run_id(1), 1, 1)).into()).await.unwrap();
    let mut abandoned = append(run_id(1), 2, 1);
    abandoned.summary.status = RunStatus::Abandoned;
    store.append(abandoned.into()).await.unwrap();
    store.append(claiming_key(append(run_id(2), 1, 1), engines).into()).await.unwrap();
    let of_runs = store.note_legacy_tries(taken_now(vec![KEY, engines, new])).await.unwrap();
    assert!(of_runs.is_empty() || of_runs == [engines], "{which:?}: {of_runs:?}");
    assert_eq!(of_runs.is_empty(), matches!(which, StoreKind::Sqlite), "{which:?}");
    let arm = async |key| store.first_try(key).await.unwrap().map(|first| (first.arm, first.run));
    assert_eq!(arm(KEY).await, Some((Arm::Legacy, None)));
    assert_eq!(arm(engines).await, Some((Arm::Engine, Some(run_id(2)))));
    assert_eq!(arm(new).await, Some((Arm::Legacy, None)));
    // No run takes it again.
    let refused = store.append(claiming(append(run_id(3), 1, 1)).into()).await;
    assert_eq!(refused, Err(AppendError::Conflict(AppendConflict::LegacyClaim)));
}
