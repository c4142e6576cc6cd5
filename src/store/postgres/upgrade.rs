//! Upgrades an older database: in one process at a time, and only when no older process is alive.
//!
//! Events of an older database are moved in batches from the table `events` to the table `appends`.
//!
//! Always true: each batch is moved in one transaction. A process that ends at any moment leaves every event in exactly
//! one of the two tables, and the next start continues. The database gets a newer version before the first batch, and
//! the functions that an older process calls then fail and say that it is too old.

use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, SqlSafeStr, SqlStr};

use super::address::{Address, SCHEMA};
use super::columns::run_id;
use crate::store::StoreError;
use crate::store::check::newer_events_problem;
use crate::workflow::Event;

/// The migration that creates the table of appends. The events of an older database are moved after it.
const CREATES_APPENDS: i64 = 5;
/// The migration that drops the table of events: all of them are moved before it.
const DROPS_EVENTS: i64 = 6;
/// The last migration.
pub(super) const NEWEST: i64 = 24;
/// The migration after which the index of the retry keys of runs is made. At first it made the index itself.
const BEFORE_INDEX: i64 = 22;
/// The migration from which on requests are recognised by other keys and digests than before.
const OTHER_KEYS: i64 = 11;
/// The advisory lock of the process that upgrades the tables.
const LOCK: i64 = 20_254;
/// The interval of checks whether other processes have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Events that one transaction moves.
const EVENTS_AT_ONCE: i64 = 2_000;
/// The interval of progress messages.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// The migrations up to a version, in order.
fn migrations(last: i64) -> Migrator {
    let first = include_str!("../schema/postgres/0001_first.sql").into_sql_str();
    let lists = include_str!("../schema/postgres/0002_lists.sql").into_sql_str();
    let flips = include_str!("../schema/postgres/0003_flips.sql").into_sql_str();
    let births = include_str!("../schema/postgres/0004_births.sql").into_sql_str();
    let appends = include_str!("../schema/postgres/0005_appends.sql").into_sql_str();
    let moved = include_str!("../schema/postgres/0006_events_moved.sql").into_sql_str();
    let run_snapshots = include_str!("../schema/postgres/0007_run_snapshots.sql").into_sql_str();
    let legacy_claims = include_str!("../schema/postgres/0008_legacy_claims.sql").into_sql_str();
    let event_version_3 = include_str!("../schema/postgres/0009_event_version_3.sql").into_sql_str();
    let flips_after = include_str!("../schema/postgres/0010_flips_after.sql").into_sql_str();
    let request_digests = include_str!("../schema/postgres/0011_request_digests.sql").into_sql_str();
    let samples_once = include_str!("../schema/postgres/0012_samples_once.sql").into_sql_str();
    let record = include_str!("../schema/postgres/0013_record.sql").into_sql_str();
    let instances = include_str!("../schema/postgres/0014_instances.sql").into_sql_str();
    let adoptions = include_str!("../schema/postgres/0015_adoptions.sql").into_sql_str();
    let callers = include_str!("../schema/postgres/0016_service_callers.sql").into_sql_str();
    let captures = include_str!("../schema/postgres/0017_captures.sql").into_sql_str();
    let sample_runs = include_str!("../schema/postgres/0018_sample_runs.sql").into_sql_str();
    let pin_collisions = include_str!("../schema/postgres/0019_pin_collisions.sql").into_sql_str();
    let processes = include_str!("../schema/postgres/0020_processes.sql").into_sql_str();
    let created = include_str!("../schema/postgres/0021_created_instances.sql").into_sql_str();
    let lease_terms = include_str!("../schema/postgres/0022_lease_terms.sql").into_sql_str();
    let lost_flips = include_str!("../schema/postgres/0023_lost_flips.sql").into_sql_str();
    let claims_wait = include_str!("../schema/postgres/0024_claims_wait.sql").into_sql_str();
    let mut migrations = vec![
        Migration::new(1, "first".into(), MigrationType::Simple, first, false),
        Migration::new(2, "lists".into(), MigrationType::Simple, lists, false),
        Migration::new(3, "flips".into(), MigrationType::Simple, flips, false),
        Migration::new(4, "births".into(), MigrationType::Simple, births, false),
        Migration::new(CREATES_APPENDS, "appends".into(), MigrationType::Simple, appends, false),
        Migration::new(DROPS_EVENTS, "events moved".into(), MigrationType::Simple, moved, false),
        Migration::new(7, "run snapshots".into(), MigrationType::Simple, run_snapshots, false),
        Migration::new(8, "legacy claims".into(), MigrationType::Simple, legacy_claims, false),
        Migration::new(9, "event version 3".into(), MigrationType::Simple, event_version_3, false),
        Migration::new(10, "flips after".into(), MigrationType::Simple, flips_after, false),
        Migration::new(OTHER_KEYS, "request digests".into(), MigrationType::Simple, request_digests, false),
        Migration::new(12, "samples once".into(), MigrationType::Simple, samples_once, false),
        Migration::new(13, "record".into(), MigrationType::Simple, record, false),
        Migration::new(14, "instances".into(), MigrationType::Simple, instances, false),
        Migration::new(15, "adoptions".into(), MigrationType::Simple, adoptions, false),
        Migration::new(16, "service callers".into(), MigrationType::Simple, callers, false),
        Migration::new(17, "captures".into(), MigrationType::Simple, captures, false),
        Migration::new(18, "sample runs".into(), MigrationType::Simple, sample_runs, false),
        Migration::new(19, "pin collisions".into(), MigrationType::Simple, pin_collisions, false),
        Migration::new(20, "processes".into(), MigrationType::Simple, processes, false),
        Migration::new(21, "created instances".into(), MigrationType::Simple, created, false),
        Migration::new(BEFORE_INDEX, "lease terms".into(), MigrationType::Simple, lease_terms, false),
        Migration::new(23, "lost flips".into(), MigrationType::Simple, lost_flips, false),
        Migration::new(NEWEST, "claims wait".into(), MigrationType::Simple, claims_wait, false),
    ];
    migrations.retain(|step| step.version <= last);
    Migrator::with_migrations(migrations)
}

pub(super) fn newer_tables(shown: &str, version: i64) -> StoreError {
    StoreError(format!(
        "{shown} has tables of version {version}, this binary knows them up to version {NEWEST}: it was written by a \
         newer pointsman; start that one, or give this one another database with --store"
    ))
}

/// Upgrades the tables. Returns without waiting for the lock if they have the newest version.
pub(super) async fn migrate(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot upgrade the tables of {shown}: {error}"));
    if version(conn).await.map_err(failed)? == NEWEST {
        return migrate_to(conn, address, NEWEST).await;
    }
    lock(conn, address).await?;
    let done = migrate_alone(conn, address).await;
    let unlocked = conn.execute(format_lock("pg_advisory_unlock")).await.map_err(failed);
    done.and(unlocked.map(drop))
}

async fn migrate_alone(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot upgrade the tables of {shown}: {error}"));
    let found = version(conn).await.map_err(failed)?;
    if (1..CREATES_APPENDS).contains(&found) {
        let events: i64 = sqlx::query("SELECT count(*) FROM events")
            .fetch_one(&mut *conn)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed)?;
        if events > 0 {
            tracing::warn!(
                store = shown,
                "the store has tables of version {found} and is upgraded to version {NEWEST} now: {events} events are moved. \
                 This may be interrupted at any moment and continues at the next start. An older pointsman refuses the \
                 store from now on: the only way back is a copy that `pg_dump --schema={SCHEMA}` made before"
            );
        }
    }
    if (1..OTHER_KEYS).contains(&found) {
        wait_for_older(conn, address, found).await?;
    }
    if found < CREATES_APPENDS {
        migrate_to(conn, address, CREATES_APPENDS).await?;
    }
    if found < DROPS_EVENTS {
        move_events(conn, address).await?;
    }
    if (1..BEFORE_INDEX).contains(&found) {
        migrate_to(conn, address, BEFORE_INDEX).await?;
    }
    if (1..=BEFORE_INDEX).contains(&found) {
        make_index(conn, address).await?;
    }
    if found == BEFORE_INDEX {
        accept_first_form(conn).await.map_err(failed)?;
    }
    migrate_to(conn, address, NEWEST).await
}

/// Tables that were upgraded by the first form of the migration [`BEFORE_INDEX`] have the index that it made.
async fn accept_first_form(conn: &mut PgConnection) -> sqlx::Result<()> {
    let all = migrations(BEFORE_INDEX);
    let Some(present) = all.iter().find(|migration| migration.version == BEFORE_INDEX) else { return Ok(()) };
    let query = sqlx::query("UPDATE _sqlx_migrations SET checksum = $1 WHERE version = $2");
    query.bind(&present.checksum[..]).bind(BEFORE_INDEX).execute(conn).await.map(drop)
}

/// `is_there`: an index that was interrupted is dropped first.
async fn create_index(conn: &mut PgConnection, is_there: bool) -> sqlx::Result<()> {
    if is_there {
        conn.execute("DROP INDEX CONCURRENTLY retry_keys_of_runs").await?;
    }
    let text = "CREATE INDEX CONCURRENTLY retry_keys_of_runs ON retry_keys (at, key) WHERE run_id IS NOT NULL";
    conn.execute(text).await.map(drop)
}

/// Makes the index of the retry keys of runs while older processes read and write them. That may take minutes.
async fn make_index(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot upgrade the tables of {shown}: {error}"));
    let text = "SELECT count(*) > 0, coalesce(bool_and(i.indisvalid), true) FROM pg_index i \
                JOIN pg_class c ON c.oid = i.indexrelid \
                WHERE i.indrelid = 'retry_keys'::regclass AND c.relname = 'retry_keys_of_runs'";
    let row = sqlx::query(text).fetch_one(&mut *conn).await.map_err(failed)?;
    let (exists, is_valid): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if exists && is_valid {
        return Ok(());
    }
    let began = Instant::now();
    tracing::info!(store = shown, "the store is upgraded: an index of the retry keys is made, which may take minutes");
    // It waits for transactions of other programs too.
    let text = "SELECT before.statement, before.lock, set_config('statement_timeout', '0', false), \
                set_config('lock_timeout', '0', false) FROM (SELECT current_setting('statement_timeout') AS statement, \
                current_setting('lock_timeout') AS lock OFFSET 0) AS before";
    let row = sqlx::query(text).fetch_one(&mut *conn).await.map_err(failed)?;
    let before: (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let made = create_index(conn, exists).await;
    let text = "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false)";
    sqlx::query(text).bind(before.0).bind(before.1).execute(&mut *conn).await.map_err(failed)?;
    made.map_err(failed)?;
    tracing::info!(store = shown, took = ?began.elapsed(), "the store is upgraded: the index is made");
    Ok(())
}

/// Runs the migrations up to a version.
pub(in crate::store) async fn migrate_to(
    conn: &mut PgConnection,
    address: &Address,
    last: i64,
) -> Result<(), StoreError> {
    let shown = &address.shown;
    match migrations(last).run_direct(None, conn, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(newer_tables(shown, version)),
        Err(error) => Err(StoreError(format!("cannot upgrade the tables of {shown}: {error}"))),
    }
}

/// The version of the tables; 0 if there are none.
pub(super) async fn version(conn: &mut PgConnection) -> sqlx::Result<i64> {
    let text = "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = $1 AND tablename = '_sqlx_migrations'";
    if !sqlx::query(text).bind(SCHEMA).fetch_one(&mut *conn).await?.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let text = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    sqlx::query(text).fetch_one(conn).await?.try_get(0)
}

fn format_lock(function: &str) -> SqlStr {
    AssertSqlSafe(format!("SELECT {function}({LOCK})")).into_sql_str()
}

/// Acquires the lock within the connect timeout.
async fn lock(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot upgrade the tables of {shown}: {error}"));
    let began = Instant::now();
    loop {
        let row = sqlx::query(format_lock("pg_try_advisory_lock")).fetch_one(&mut *conn).await.map_err(failed)?;
        if row.try_get(0).map_err(failed)? {
            return Ok(());
        }
        if began.elapsed() > address.connect {
            return Err(StoreError(format!(
                "another process is upgrading the tables of {shown}: start this one when that is done"
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until no older process is alive, because they cannot read the new tables. One that was killed counts as alive
/// until its lease expires.
async fn wait_for_older(conn: &mut PgConnection, address: &Address, found: i64) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {shown}: {error}"));
    let began = Instant::now();
    loop {
        let text = "SELECT name FROM workers WHERE alive_until > clock_timestamp() ORDER BY name";
        let rows = sqlx::query(text).fetch_all(&mut *conn).await.map_err(failed)?;
        let names: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let names = names.map_err(failed)?;
        if names.is_empty() {
            return Ok(());
        }
        if began.elapsed() > address.lease * 2 {
            return Err(StoreError(format!(
                "{shown} has tables of version {found}, which older processes still use ({}): this process would upgrade \
                 them to version {NEWEST}, which those cannot read. Make a copy (`pg_dump --schema={SCHEMA}`), stop the \
                 older processes, and start this one again; nothing was changed",
                names.join(", ")
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn move_events(conn: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let shown = &address.shown;
    let failed = |error: sqlx::Error| StoreError(format!("cannot upgrade the tables of {shown}: {error}"));
    // `version > 2` selects the partial index.
    let text = "SELECT run_id, seq, version FROM events WHERE version > 2 AND version > $1 \
                ORDER BY version DESC, run_id, seq LIMIT 1";
    let newest = sqlx::query(text).bind(i32::from(Event::VERSION)).fetch_optional(&mut *conn).await.map_err(failed)?;
    let newer_event = newest.map(|row| {
        let run = row.try_get::<&[u8], _>(0).ok().and_then(|id| run_id(id).ok());
        Ok((run, row.try_get::<i64, _>(1)?, i64::from(row.try_get::<i16, _>(2)?)))
    });
    if let Some(why) = newer_events_problem(None, newer_event.transpose().map_err(failed)?) {
        return Err(StoreError(format!(
            "{shown} has {why}; start that one, or give this one another database with --store"
        )));
    }
    let (began, mut logged, mut moved_total) = (Instant::now(), Instant::now(), 0);
    loop {
        let row =
            sqlx::query("SELECT move_events($1)").bind(EVENTS_AT_ONCE).fetch_one(&mut *conn).await.map_err(failed)?;
        let moved: i64 = row.try_get(0).map_err(failed)?;
        if moved == 0 {
            break;
        }
        moved_total += moved;
        if logged.elapsed() >= LOG_INTERVAL {
            logged = Instant::now();
            tracing::info!(store = shown, "upgrading the store: {moved_total} events moved");
        }
    }
    if moved_total > 0 {
        tracing::info!(store = shown, took = ?began.elapsed(), "the store is upgraded: {moved_total} events moved");
    }
    Ok(())
}
