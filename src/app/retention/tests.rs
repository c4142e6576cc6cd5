use super::*;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::store::tests::{append, run_id, taken_now, with_status};
use crate::store::{Append, Claim, MemoryStore, RunFilter, SqliteStore};
use crate::workflow::{RunStatus, RunSummary};

/// A run that ended `ago_s` seconds ago.
fn ended(n: u64, status: RunStatus, ago_s: i64) -> Append {
    let append = with_status(append(run_id(n), 1, 1), status);
    let updated = clock::now().checked_sub(SignedDuration::from_secs(ago_s)).unwrap();
    Append { summary: RunSummary { updated, ..append.summary }, ..append }
}

#[tokio::test]
async fn runs_beyond_their_age_are_purged_and_a_changed_age_applies_in_the_next_round() {
    let limits = Limits { retry_window_s: 0, ..Limits::default() };
    let store: StoreHandle = Arc::new(MemoryStore::with_limits(&limits));
    for n in 0..120 {
        store.append(ended(n, RunStatus::Completed, 7_200).into()).await.unwrap();
    }
    store.append(ended(200, RunStatus::Completed, -3_600).into()).await.unwrap();
    store.append(ended(201, RunStatus::Failed, 7_200).into()).await.unwrap();
    store.append(append(run_id(202), 1, 1).into()).await.unwrap();
    // A round begins after a tenth of the shortest age, here a second, which is also the shortest interval.
    let age = Some(Duration::from_secs(10));
    let retention = Arc::new(ArcSwap::from_pointee(Retention { completed: age, ..Retention::default() }));
    let until_left = async |count: usize| {
        let left = async {
            loop {
                let left = store.runs(RunFilter { limit: 999, ..RunFilter::default() }).await.unwrap();
                if left.len() == count {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(300), left).await;
        waited.unwrap_or_else(|_| panic!("{count} runs should be left"));
    };
    let purging = tokio::spawn(purge_periodically(store.clone(), retention.clone(), Duration::ZERO));
    until_left(3).await;
    retention.store(Arc::new(Retention { failed: age, ..Retention::default() }));
    until_left(2).await;
    let left = store.runs(RunFilter { limit: 999, ..RunFilter::default() }).await.unwrap();
    assert_eq!(left.iter().map(|run| run.run_id).collect::<Vec<_>>(), [run_id(202), run_id(200)]);
    purging.abort();
}

#[tokio::test]
async fn retention_in_the_files_overrides_the_default_of_the_store() {
    let store: StoreHandle = Arc::new(MemoryStore::new());
    let month = Some(Duration::from_secs(30 * 86_400));
    assert_eq!(in_force(None, &store), Retention::all(month));
    assert_eq!(in_force(Some(Retention::default()), &store).ages().count(), 0, "`retention: forever`");
    let failed = Retention { failed: Some(Duration::from_secs(60)), ..Retention::default() };
    assert_eq!(in_force(Some(failed), &store), failed);
}

#[tokio::test(start_paused = true)]
async fn expired_keys_are_removed_without_a_purge_of_runs_and_without_new_keys() {
    let store = MemoryStore::with_limits(&Limits { retry_window_s: 0, ..Limits::default() });
    let store: StoreHandle = Arc::new(store);
    let keys = (0..2_500_u32).map(|n| RetryKey([n.to_le_bytes(); 8].as_flattened().try_into().unwrap()));
    store.note_legacy_tries(taken_now(keys)).await.unwrap();
    let pruning = tokio::spawn(prune_periodically(store.clone()));
    tokio::time::sleep(ROUND_MAX + Duration::from_secs(1)).await;
    assert_eq!(store.prune_retry_keys(None, 5_000).await.unwrap().result, 0, "none is left");
    pruning.abort();
}

/// Otherwise the key would be bound to a run that is gone, if a restart follows with a longer window, or one after
/// which less of the window counts as passed than before.
#[tokio::test]
async fn the_retry_key_of_a_run_is_deleted_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let open = async |retry_window_s| {
        let limits = Limits { retry_window_s, ..Limits::default() };
        let store: StoreHandle = Arc::new(SqliteStore::open(dir.path().join("test.db"), &limits).await.unwrap());
        store
    };
    let store = open(0).await;
    let key = RetryKey([1; 32]);
    let claim = Some(Claim::new(key, [1; 32]));
    store.append(Append { claim, ..ended(1, RunStatus::Completed, 7_200) }.into()).await.unwrap();
    let (retention, mut all) = (Retention::all(Some(Duration::from_secs(3_600))), Purged::default());
    purge(&store, &retention, Duration::ZERO, &mut all, &metrics::Counter::noop()).await.unwrap();
    assert_eq!(all.runs, 1);
    store.close().await;
    drop(store);
    let store = open(86_400).await;
    assert_eq!(store.first_try(key).await.unwrap(), None);
    store.close().await;
}
