//! Poolers in transaction mode, where a connection is a session of the server only while a transaction lasts: what they
//! cannot serve is refused when a store is opened.
//!
//! Always true: statements here use the simple protocol, which such a pooler passes on as it is.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row, SqlSafeStr};

use super::address::Address;
use crate::store::{StoreError, StoreIdentity};

/// How often two connections are compared: a pooler that is in use may give them different sessions.
const TRIES: u32 = 3;

/// Refuses an address at which a connection is not a session of its own.
pub(super) async fn refuse_transaction_mode(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot connect to {shown}: {error}"));
    let mut second = address.connect().await.map_err(failed)?;
    let mut shares_session = false;
    for _ in 0..TRIES {
        // The first has no transaction, so that a pooler gives its session to the next that begins one.
        let first = session(conn, address, "SELECT pg_backend_pid()").await.map_err(failed)?;
        let other = session(&mut second, address, "BEGIN; SELECT pg_backend_pid()").await.map_err(failed)?;
        address.within(second.execute("ROLLBACK".into_sql_str())).await.map_err(failed)?;
        shares_session |= first == other;
    }
    let _ = address.within(second.close()).await;
    match shares_session {
        false => Ok(()),
        true => Err(StoreError(format!(
            "{shown} is a pooler in transaction mode, which cannot serve LISTEN, the writer and leases: name the \
             PostgreSQL server itself as `store_direct`, and the pooler as `store` (`pointsman help scale`)"
        ))),
    }
}

/// The process id of the server's session.
async fn session(conn: &mut PgConnection, address: &Address, text: &'static str) -> sqlx::Result<i32> {
    address.within(conn.fetch_one(text.into_sql_str())).await?.try_get(0)
}

/// Refuses a pooler that leads to another database than the one that was opened, or to a standby of it.
pub(super) async fn check(
    through: &Address,
    direct: &Address,
    (own_secret, identity): (&[u8; 32], &StoreIdentity),
) -> Result<(), StoreError> {
    let (pooler, server) = (&through.shown, &direct.shown);
    let failed = |error: sqlx::Error| {
        StoreError(format!("cannot read {pooler} (`store`), which should be a pooler before {server}: {error}"))
    };
    let elsewhere = |what: &str| {
        Err(StoreError(format!(
            "{pooler} (`store`) {what}, and {server} (`store_direct`) is the store: both must lead to one database"
        )))
    };
    let mut conn = through.retry_at_start(|| through.connect_without_settings()).await.map_err(failed)?;
    let text = "SELECT pg_is_in_recovery(), current_database(), to_regclass('pointsman.meta') IS NOT NULL";
    let row = through.within(conn.fetch_one(text.into_sql_str())).await.map_err(failed)?;
    let is_standby: bool = row.try_get(0).map_err(failed)?;
    let database: String = row.try_get(1).map_err(failed)?;
    if is_standby {
        return elsewhere("leads to a standby");
    }
    if !row.try_get::<bool, _>(2).map_err(failed)? {
        return elsewhere(&format!("leads to the database `{database}`, which has no store"));
    }
    let text = "SELECT value FROM pointsman.meta WHERE key = 'secret'";
    let secret = through.within(conn.fetch_optional(text.into_sql_str())).await.map_err(failed)?;
    let secret = secret.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose().map_err(failed)?;
    if secret.as_deref() != Some(&own_secret[..]) {
        return elsewhere(&format!("leads to the database `{database}`, which has another store"));
    }
    // A copy has the same secret, but not the same identifier. A server may refuse to tell it.
    let text = "SELECT system_identifier || ':' || oid FROM pg_control_system(), pg_database \
                WHERE datname = current_database()";
    let incarnation = through.within(conn.fetch_one(text.into_sql_str())).await.and_then(|row| row.try_get(0));
    let incarnation: Option<String> = incarnation.ok();
    let known = &identity.incarnation;
    if incarnation.is_some_and(|found| found != *known && known != server) {
        return elsewhere(&format!("leads to the database `{database}`, which is a copy of the store"));
    }
    let _ = through.within(conn.close()).await;
    Ok(())
}
