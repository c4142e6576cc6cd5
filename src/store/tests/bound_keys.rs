//! Until when a retry key that a run claimed stays bound to that run.

use std::time::Duration;

use super::*;
use crate::flag::RetryKey;
use crate::names::JobId;
use crate::store::{AppendError, Claim, Conflict};

on_every_store! {
    a_retry_key_is_bound_while_a_run_of_its_job_is_open,
    a_retry_key_is_bound_for_the_window_after_the_end_of_its_run,
}

const KEY: RetryKey = RetryKey([1; 32]);

fn claiming(append: Append) -> Append {
    Append { claim: Some(Claim { key: KEY, request: [1; 32], any_caller: None }), ..append }
}

/// Asserts that the key is run 1's, whoever else wants it.
async fn assert_bound(store: &SharedStore) {
    assert_eq!(store.first_try(KEY).await.unwrap().and_then(|first| first.run), Some(run_id(1)));
    store.note_legacy_tries(vec![KEY]).await.unwrap();
    let taken = AppendError::Conflict(Conflict::Claim { run: run_id(1), same_request: true });
    assert_eq!(store.append(claiming(append(run_id(9), 1, 1)).into()).await, Err(taken));
    assert_eq!(store.prune_retry_keys(9).await.unwrap(), 0);
    assert_eq!(store.first_try(KEY).await.unwrap().and_then(|first| first.run), Some(run_id(1)));
    assert_eq!(store.long_bound_keys(Duration::ZERO, None, 9).await.unwrap(), [KEY]);
    assert_eq!(store.long_bound_keys(Duration::ZERO, Some(KEY), 9).await.unwrap(), []);
}

async fn a_retry_key_is_bound_while_a_run_of_its_job_is_open(which: StoreKind) {
    // With a retry window of 0 it is over as soon as the key is stored.
    let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: 0, ..Limits::default() }).await;
    let store = &fixture.store;
    store.append(claiming(append(run_id(1), 1, 1)).into()).await.unwrap();
    assert_bound(store).await;

    // Its successor is open.
    let mut successor = append(run_id(2), 1, 1);
    successor.summary.job = Some(JobId(run_id(1).0));
    store.append(successor.clone().into()).await.unwrap();
    store.append(ended_long_ago(append(run_id(1), 2, 1)).into()).await.unwrap();
    assert_bound(store).await;

    let mut end = ended_long_ago(append(run_id(2), 2, 1));
    end.summary.job = successor.summary.job;
    store.append(end.into()).await.unwrap();
    assert_eq!(store.first_try(KEY).await.unwrap(), None);
    assert_eq!(store.long_bound_keys(Duration::ZERO, None, 9).await.unwrap(), []);
    store.append(claiming(append(run_id(9), 1, 1)).into()).await.unwrap();
    assert_eq!(store.first_try(KEY).await.unwrap().and_then(|first| first.run), Some(run_id(9)));
}

async fn a_retry_key_is_bound_for_the_window_after_the_end_of_its_run(which: StoreKind) {
    let fixture = StoreFixture::with_limits(which, Limits { retry_window_s: 0, ..Limits::default() }).await;
    let store = &fixture.store;
    store.append(claiming(append(run_id(1), 1, 1)).into()).await.unwrap();
    // It ends in the future, so that the window after its end is not over.
    let mut end = with_status(append(run_id(1), 2, 1), RunStatus::Completed);
    end.summary.updated = jiff::Timestamp::from_second(4_000_000_000).unwrap();
    store.append(end.into()).await.unwrap();
    assert_bound(store).await;
}
