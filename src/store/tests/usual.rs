//! What a store does by itself where nobody says anything: how long it keeps runs, and that old keys go.

use std::time::Duration;

use super::*;
use crate::flag::RetryKey;
use crate::store::{Claim, NEW_STORE_RETENTION};

async fn a_new_store_has_a_retention_that_ends_and_an_older_one_keeps_what_it_has(which: Which) {
    let mut place = Place::new(which).await;
    assert_eq!(place.store.usual_retention(), Some(NEW_STORE_RETENTION));
    assert_eq!(NEW_STORE_RETENTION, Duration::from_secs(30 * 86_400));
    place.reopen().await;
    assert_eq!(place.store.usual_retention(), Some(NEW_STORE_RETENTION));
    // As an older version left it.
    let gone = match &place.home {
        Home::Process => false,
        Home::Folder(dir) => {
            place.store.close().await;
            let conn = crate::store::sqlite::Options::new(&dir.path().join("test.db")).open().unwrap();
            conn.execute("DELETE FROM meta WHERE key = 'usual_retention_s'", []).unwrap() == 1
        }
        Home::Database(database) => {
            database.query("DELETE FROM pointsman.meta WHERE key = 'usual_retention_s'");
            true
        }
    };
    if gone {
        place.reopen().await;
        assert_eq!(place.store.usual_retention(), None);
    }
}

/// Nobody but runs takes keys here.
async fn keys_that_have_run_out_go_though_legacy_never_takes_one(which: Which) {
    let limits = Limits { retry_window_s: 1, ..Limits::default() };
    let place = Place::with(which, limits).await;
    let claim = |n: u64, key: u8| Append {
        claim: Some(Claim { key: RetryKey([key; 32]), request: [0; 32], any_caller: None }),
        ..append(run_id(n), 1, 1)
    };
    for n in 1..=5 {
        place.store.append(claim(n, n as u8).into()).await.unwrap();
    }
    assert_eq!(place.store.prune_retry_keys(10).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    place.store.append(claim(6, 6).into()).await.unwrap();
    assert_eq!(place.store.prune_retry_keys(3).await.unwrap(), 3);
    assert_eq!(place.store.prune_retry_keys(10).await.unwrap(), 2);
    assert_eq!(place.store.prune_retry_keys(10).await.unwrap(), 0);
    assert!(place.store.first_try(RetryKey([6; 32])).await.unwrap().is_some());
}

on_every_store!(
    a_new_store_has_a_retention_that_ends_and_an_older_one_keeps_what_it_has,
    keys_that_have_run_out_go_though_legacy_never_takes_one,
);
