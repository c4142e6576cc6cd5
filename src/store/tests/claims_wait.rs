//! Two processes take one request that comes under two credentials, one for its engine and one for legacy, at the same
//! moment: one of them finds the key of the other.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

use super::cluster::{Database, shared};
use super::*;
use crate::store::{AppendConflict, AppendError, Claim, Store as _};

const ANY_CALLER: RetryKey = RetryKey([9; 32]);
const DIGEST: [u8; 32] = [1; 32];

/// The claim of the request under the credential with this number.
fn claim(credential: u8) -> Claim {
    Claim {
        of_request: Some(ANY_CALLER.of_request(&DIGEST)),
        legacy_keys: [Some(ANY_CALLER), None],
        ..Claim::new(RetryKey([credential; 32]), DIGEST)
    }
}

/// Waits until this finds something in the database.
async fn until_found(database: &Database, what: &str) {
    let text = format!("SELECT count(*) > 0 FROM {what} AND datname = current_database()");
    let begun = Instant::now();
    while database.query(&text).trim() != "t" {
        assert!(begun.elapsed() < Duration::from_secs(30), "no session: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The append has looked for legacy's key and is not committed. Legacy's key is committed meanwhile: its look-up waits.
#[tokio::test]
async fn a_look_up_for_legacy_waits_for_appends_that_have_not_found_its_key() {
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    // Another default of the database changes nothing.
    let name = database.name();
    database.query(&format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"));
    let url = Secret::new(database.url());
    let limits = Limits { store_lock_ms: 60_000, store_statement_ms: 60_000, ..Limits::default() };
    let open = async || Arc::new(PostgresStore::open(&url, None, &limits).await.unwrap());
    let (one, two) = (open().await, open().await);
    // What the append inserts after it has looked for legacy's key.
    let mut other = PgConnection::connect(&database.url()).await.unwrap();
    other.execute("BEGIN").await.unwrap();
    let insert = "INSERT INTO pointsman.retry_keys (key, arm, run_id, at) VALUES ($1, 'engine', '\\x01', 1)";
    sqlx::query(insert).bind(RetryKey([1; 32]).0.as_slice()).execute(&mut other).await.unwrap();
    let appending = {
        let (one, append) = (one.clone(), Append { claim: Some(claim(1)), ..append(run_id(1), 1, 1) });
        tokio::spawn(async move { one.append(append.into()).await })
    };
    until_found(&database, "pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%append_runs%'").await;

    two.note_legacy_tries(taken_now(vec![RetryKey([2; 32]), ANY_CALLER])).await.unwrap();
    let range = ANY_CALLER.range_of_request(&DIGEST, false);
    assert!(!two.engine_took_any(range.clone()).await.unwrap(), "nothing is committed");
    let look = || {
        let (two, range) = (two.clone(), range.clone());
        tokio::spawn(async move { two.engine_took_any_after(ANY_CALLER, range).await })
    };
    look().await.unwrap().unwrap_err(); // the append takes too long
    let looking = look();
    until_found(&database, "pg_stat_activity WHERE state = 'active' AND query LIKE '%took_any_after%'").await;
    // An append that comes later waits for nothing, and finds legacy's key.
    let later = Claim { of_request: None, ..claim(3) };
    let later = two.append(Append { claim: Some(later), ..append(run_id(2), 1, 1) }.into()).await;
    assert_eq!(later, Err(AppendError::Conflict(AppendConflict::LegacyClaim)));
    assert!(!appending.is_finished());
    other.execute("ROLLBACK").await.unwrap();
    appending.await.unwrap().unwrap();
    // On a slow machine it may have waited for too long.
    assert_ne!(looking.await.unwrap(), Ok(false), "the engine has the request");
    assert_eq!(look().await.unwrap(), Ok(true));
    let other_keys = RetryKey([7; 32]);
    assert!(!two.engine_took_any_after(other_keys, other_keys.range()).await.unwrap());
    one.close().await;
    two.close().await;
}
