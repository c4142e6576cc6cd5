//! Defaults of a store: its retention, and the pruning of expired retry keys.

use std::time::Duration;

use super::*;
use crate::flag::RetryKey;
use crate::store::{Claim, NEW_STORE_RETENTION};

async fn a_new_store_has_a_default_retention_and_an_older_one_has_none(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    assert_eq!(fixture.store.default_retention(), Some(NEW_STORE_RETENTION));
    assert_eq!(NEW_STORE_RETENTION, Duration::from_secs(30 * 86_400));
    fixture.reopen().await;
    assert_eq!(fixture.store.default_retention(), Some(NEW_STORE_RETENTION));
    // Removes the stored retention, as in a store that an older version created.
    let was_removed = match &fixture.storage {
        Storage::Memory => false,
        Storage::Folder(dir) => {
            fixture.store.close().await;
            let conn = crate::store::sqlite::Options::new(&dir.path().join("test.db")).open().unwrap();
            conn.execute("DELETE FROM meta WHERE key = 'usual_retention_s'", []).unwrap() == 1
        }
        Storage::Database(database) => {
            database.query("DELETE FROM pointsman.meta WHERE key = 'usual_retention_s'");
            true
        }
    };
    if was_removed {
        fixture.reopen().await;
        assert_eq!(fixture.store.default_retention(), None);
    }
}

async fn a_store_is_new_only_when_it_was_just_created(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    assert!(fixture.store.is_new());
    fixture.reopen().await;
    assert_eq!(
        fixture.store.is_new(),
        matches!(fixture.storage, Storage::Memory),
        "a store in memory is never opened again"
    );
}

/// All keys are claimed by runs: pruning does not depend on keys of legacy.
async fn expired_keys_of_runs_are_pruned(which: StoreKind) {
    let limits = Limits { retry_window_s: 1, ..Limits::default() };
    let fixture = StoreFixture::with_limits(which, limits).await;
    let claim = |n: u64, key: u8| Append {
        claim: Some(Claim::new(RetryKey([key; 32]), [0; 32])),
        ..ended_long_ago(append(run_id(n), 1, 1))
    };
    for n in 1..=5 {
        fixture.store.append(claim(n, n as u8).into()).await.unwrap();
    }
    let prune = async |limit| fixture.store.prune_retry_keys(None, limit).await.unwrap().result;
    assert_eq!(prune(10).await, 0);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    fixture.store.append(claim(6, 6).into()).await.unwrap();
    assert_eq!(prune(3).await, 3);
    assert_eq!(prune(10).await, 2);
    assert_eq!(prune(10).await, 0);
    assert!(fixture.store.first_try(RetryKey([6; 32])).await.unwrap().is_some());
}

on_every_store!(
    a_new_store_has_a_default_retention_and_an_older_one_has_none,
    a_store_is_new_only_when_it_was_just_created,
    expired_keys_of_runs_are_pruned,
);
