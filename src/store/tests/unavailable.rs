//! A database that refuses writes: the store reports why, and recovers when it accepts them again.

use std::time::Duration;

use super::cluster::shared;
use super::*;
use crate::store::AppendError;

#[tokio::test]
async fn a_database_that_refuses_writes_is_reported() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = shared().unwrap().database();
    let limits = Limits { store_connect_ms: 500, ..Limits::default() };
    let store: StoreHandle = Arc::new(PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap());
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    assert_eq!(store.write_failure(), None);
    let set_read_only = |setting: &str| {
        database.query(&format!("ALTER DATABASE {} SET default_transaction_read_only = {setting}", database.name()));
        database.query(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    };
    set_read_only("on");
    let mut refused = store.append(append(run_id(1), 2, 1).into()).await;
    for _ in 0..50 {
        if matches!(&refused, Err(AppendError::Refused(why)) if why.contains("read-only")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        refused = store.append(append(run_id(1), 2, 1).into()).await;
    }
    let write_failure = store.write_failure().unwrap_or_default();
    assert!(!store.healthy() && write_failure.contains("read-only"), "{write_failure:?} after {refused:?}");
    use sqlx::{Connection, Executor, SqlSafeStr};
    let mut conn = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let back = format!("ALTER DATABASE {} SET default_transaction_read_only = off", database.name());
    for text in ["SET default_transaction_read_only = off".to_owned(), back] {
        conn.execute(sqlx::AssertSqlSafe(text).into_sql_str()).await.unwrap();
    }
    conn.close().await.unwrap();
    let recovered = async {
        while store.append(append(run_id(1), 2, 1).into()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("appends succeed again");
    assert_eq!(store.write_failure(), None);
}
