//! Opens a database: upgrades its tables, and refuses what a newer version wrote, what belongs to another program, and
//! a standby. Processes that start at the same time upgrade one after the other.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row, SqlSafeStr};

use super::address::{Address, SCHEMA};
use super::columns::run_id;
use super::pooler::refuse_transaction_mode;
use super::upgrade::{self, NEWEST, newer_tables};
use crate::store::check::newer_events_problem;
use crate::store::{NEW_STORE_RETENTION, StoreError, StoreIdentity};
use crate::workflow::Event;

/// The oldest server version that has all features that are used.
const VERSION_MIN: i32 = 130_000;

/// What is read from a database when it is opened.
pub(super) struct Opened {
    pub(super) secret: [u8; 32],
    /// See [`crate::store::Store::default_retention`].
    pub(super) default_retention: Option<Duration>,
    /// See [`crate::store::Store::is_new`].
    pub(super) is_new: bool,
    pub(super) identity: StoreIdentity,
}

/// Prepares the database.
pub(super) async fn open(address: &Address) -> Result<Opened, StoreError> {
    let mut conn = address
        .connect_at_start()
        .await
        .map_err(|error| StoreError(format!("cannot connect to {}: {error}", address.shown)))?;
    refuse_transaction_mode(&mut conn, address).await?;
    check_server(&mut conn, address).await?;
    create_schema(&mut conn, address).await?;
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {}: {error}", address.shown));
    upgrade::migrate(&mut conn, address).await?;
    check_version(&mut conn, address).await?;
    let (secret, is_new) = secret(&mut conn).await?;
    let default_retention = default_retention(&mut conn).await.map_err(failed)?;
    let identity = identity(&mut conn, address).await;
    let _ = address.within(conn.close()).await;
    Ok(Opened { secret, default_retention, is_new, identity })
}

#[cfg(test)]
pub(super) async fn create_older_tables(address: &Address, version: i64) -> Result<(), StoreError> {
    let mut conn = address.connect().await.map_err(|error| StoreError(error.to_string()))?;
    create_schema(&mut conn, address).await?;
    upgrade::migrate_to(&mut conn, address, version).await
}

async fn check_server(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let text = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
                current_setting('transaction_read_only') = 'on', current_setting('fsync'), \
                current_setting('full_page_writes'), current_setting('synchronous_commit')";
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {shown}: {error}"));
    let row = sqlx::query(text).fetch_one(conn).await.map_err(failed)?;
    let version: i32 = row.try_get(0).map_err(failed)?;
    if version < VERSION_MIN {
        return Err(StoreError(format!("{shown} is PostgreSQL {}: this needs 13 or newer", version / 10_000)));
    }
    if row.try_get(1).map_err(failed)? {
        return Err(StoreError(format!("{shown} is a standby, which accepts no writes: name the primary")));
    }
    if row.try_get(2).map_err(failed)? {
        return Err(StoreError(format!("{shown} is read-only")));
    }
    for (index, setting) in [(3, "fsync"), (4, "full_page_writes"), (5, "synchronous_commit")] {
        let value: String = row.try_get(index).map_err(failed)?;
        if value == "off" {
            tracing::warn!("{shown} has {setting} off: acknowledged data can be lost when its machine fails");
        }
    }
    Ok(())
}

/// Creates the schema. Refuses a schema that has tables, but none of pointsman: it belongs to another program.
async fn create_schema(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot create the schema in {}: {error}", address.shown));
    let text = "SELECT to_regnamespace($1) IS NOT NULL, count(*), count(*) FILTER (WHERE tablename = '_sqlx_migrations') \
                FROM pg_tables WHERE schemaname = $1";
    let row = sqlx::query(text).bind(SCHEMA).fetch_one(&mut *conn).await.map_err(failed)?;
    let (exists, all, ours): (bool, i64, i64) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
    if all > 0 && ours == 0 {
        return Err(StoreError(format!(
            "{} has a schema `{SCHEMA}` of another program; give this one another database with --store",
            address.shown
        )));
    }
    if !exists {
        // Not tried if the schema exists, because the user may lack the right. Of two processes that start at the same
        // time one gets a unique violation.
        match conn.execute("CREATE SCHEMA IF NOT EXISTS pointsman".into_sql_str()).await {
            Err(error) if error.as_database_error().is_some_and(|text| text.is_unique_violation()) => {}
            done => {
                done.map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Reads what a store that is open for reading needs; changes nothing in the database.
pub(super) async fn open_for_reading(address: &Address) -> Result<Opened, StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {shown}: {error}"));
    let mut conn = open_read_only(address).await?;
    let text = "SELECT convert_from(value, 'UTF8')::int FROM meta WHERE key = 'event_version'";
    let noted = sqlx::query(text).fetch_optional(&mut conn).await.map_err(failed)?;
    let noted = noted.map(|row| row.try_get(0)).transpose().map_err(failed)?;
    refuse_newer_events(&mut conn, address, noted).await?;
    let no_secret = || StoreError(format!("{shown} has no secret: no pointsman has started with it"));
    let secret = stored_secret(&mut conn).await?.ok_or_else(no_secret)?;
    let default_retention = default_retention(&mut conn).await.map_err(failed)?;
    let identity = identity(&mut conn, address).await;
    let _ = address.within(conn.close()).await;
    Ok(Opened { secret, default_retention, is_new: false, identity })
}

/// Opens a read-only session on tables of this binary's version.
pub(super) async fn open_read_only(address: &Address) -> Result<PgConnection, StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {shown}: {error}"));
    let mut conn = address.read_only().connect_at_start().await.map_err(failed)?;
    refuse_transaction_mode(&mut conn, address).await?;
    match upgrade::version(&mut conn).await.map_err(failed)? {
        0 => Err(StoreError(format!("there is no store of pointsman in {shown}"))),
        NEWEST => Ok(conn),
        version if version > NEWEST => Err(newer_tables(shown, version)),
        version => Err(StoreError(format!(
            "{shown} has tables of version {version}, this binary has version {NEWEST}: start it once with `serve`, after \
             a copy (`pg_dump --schema={SCHEMA}`), since an older one refuses the tables afterwards"
        ))),
    }
}

/// Records the version of the events that this binary writes, unless a newer one is recorded; then refuses a database
/// that may contain newer events than this binary reads.
async fn check_version(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let text = "INSERT INTO meta (key, value) VALUES ('event_version', convert_to($1::text, 'UTF8')) \
                ON CONFLICT (key) DO UPDATE SET value = CASE \
                    WHEN convert_from(meta.value, 'UTF8')::int > $1 THEN meta.value ELSE excluded.value END \
                RETURNING convert_from(value, 'UTF8')::int";
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {shown}: {error}"));
    let row = sqlx::query(text).bind(i32::from(Event::VERSION)).fetch_one(&mut *conn).await.map_err(failed)?;
    refuse_newer_events(conn, address, Some(row.try_get(0).map_err(failed)?)).await
}

/// Refuses a database that may contain newer events than this binary reads. `noted` is the recorded version of events.
async fn refuse_newer_events(conn: &mut PgConnection, address: &Address, noted: Option<i32>) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {shown}: {error}"));
    // `version > 3` selects the partial index.
    let text = "SELECT run_id, first, version FROM appends WHERE version > 3 AND version > $1 \
                ORDER BY version DESC, run_id, first LIMIT 1";
    let newest = sqlx::query(text).bind(i32::from(Event::VERSION)).fetch_optional(conn).await.map_err(failed)?;
    let newer_event = newest.map(|row| {
        let run = row.try_get::<&[u8], _>(0).ok().and_then(|id| run_id(id).ok());
        Ok((run, row.try_get::<i64, _>(1)?, i64::from(row.try_get::<i16, _>(2)?)))
    });
    match newer_events_problem(
        noted.and_then(|noted| u16::try_from(noted).ok()),
        newer_event.transpose().map_err(failed)?,
    ) {
        None => Ok(()),
        Some(why) => Err(StoreError(format!(
            "{shown} has {why}; start that one, or give this one another database with --store"
        ))),
    }
}

/// The retention that was stored when the tables were created; `None` if a version created them that stored none.
async fn default_retention(conn: &mut PgConnection) -> sqlx::Result<Option<Duration>> {
    let text = "SELECT value FROM meta WHERE key = 'usual_retention_s'";
    let text = sqlx::query(text).fetch_optional(conn).await?.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose()?;
    Ok(text.and_then(|text| String::from_utf8(text).ok()?.parse().ok()).map(Duration::from_secs))
}

/// The location and incarnation of this database. If the server does not return its system identifier, the address
/// takes the place of the incarnation.
async fn identity(conn: &mut PgConnection, address: &Address) -> StoreIdentity {
    let text = "SELECT system_identifier || ':' || oid FROM pg_control_system(), pg_database \
                WHERE datname = current_database()";
    let found = sqlx::query(text).fetch_one(conn).await.and_then(|row| row.try_get::<String, _>(0));
    let incarnation = found.unwrap_or_else(|error| {
        tracing::debug!(%error, "the database did not return its system identifier; its address is used instead");
        address.shown.clone()
    });
    StoreIdentity { location: address.shown.clone(), incarnation }
}

/// Reads the store's secret, which all processes share; creates it at random on first use, and with it the default
/// retention if the store is new. Also returns whether it is new. The first start may have been interrupted after it
/// created tables, so what makes a store new is that it has neither a secret nor a run.
async fn secret(conn: &mut PgConnection) -> Result<([u8; 32], bool), StoreError> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot read the store's secret: {error}"));
    let mut fresh = [0_u8; 32];
    getrandom::fill(&mut fresh)
        .map_err(|error| StoreError(format!("the system gives no random bytes for the store's secret: {error}")))?;
    let mut write = conn.begin().await.map_err(failed)?;
    let text = "INSERT INTO meta (key, value) VALUES ('secret', $1) ON CONFLICT DO NOTHING \
                RETURNING NOT EXISTS (SELECT FROM runs)";
    let created = sqlx::query(text).bind(fresh.as_slice()).fetch_optional(&mut *write).await.map_err(failed)?;
    let is_new = created.map(|row| row.try_get::<bool, _>(0)).transpose().map_err(failed)?.unwrap_or(false);
    if is_new {
        let text = "INSERT INTO meta (key, value) VALUES ('usual_retention_s', $1) ON CONFLICT DO NOTHING";
        let seconds = NEW_STORE_RETENTION.as_secs().to_string().into_bytes();
        sqlx::query(text).bind(seconds).execute(&mut *write).await.map_err(failed)?;
    }
    write.commit().await.map_err(failed)?;
    let secret = stored_secret(conn).await?.ok_or_else(|| StoreError("the store's secret was removed".into()))?;
    Ok((secret, is_new))
}

/// The store's secret; `None` if no process has finished opening the store.
async fn stored_secret(conn: &mut PgConnection) -> Result<Option<[u8; 32]>, StoreError> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot read the store's secret: {error}"));
    let row = sqlx::query("SELECT value FROM meta WHERE key = 'secret'").fetch_optional(conn).await.map_err(failed)?;
    let secret: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose().map_err(failed)?;
    let wrong_length = |_| StoreError("the store's secret has a wrong length: the database is damaged".into());
    secret.map(|secret| secret.try_into().map_err(wrong_length)).transpose()
}
