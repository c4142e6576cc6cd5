//! Opens a database: takes it for this process, brings its tables up, and refuses what a newer program wrote.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, SqlSafeStr};

use super::fault;
use super::lock::Ownership;
use super::look::run_id;
use crate::store::StoreError;
use crate::store::check::newer_events;
use crate::workflow::Event;

/// Connections that read at the same time; more wait, and for no longer than this.
const READERS_MAX: u32 = 4;
const READER_WAIT: Duration = Duration::from_secs(5);

/// An open database.
pub(super) struct Opened {
    pub(super) ownership: Ownership,
    pub(super) writer: SqliteConnection,
    pub(super) readers: SqlitePool,
    pub(super) secret: [u8; 32],
}

/// Opens the database at a real path, the writer's connection by these options.
pub(super) async fn open(path: &Path, options: &SqliteConnectOptions) -> Result<Opened, StoreError> {
    let ownership = Ownership::take(path).await?;
    let new = make_private(path)?;
    let failed = |error: sqlx::Error| StoreError(format!("cannot open {}: {}", path.display(), fault::told(&error)));
    let mut writer = options.connect().await.map_err(failed)?;
    refuse_another_programs(&mut writer, path).await?;
    migrate(&mut writer, path).await?;
    check_version(&mut writer, path).await?;
    let secret = secret(&mut writer).await?;
    let reader = SqliteConnectOptions::new()
        .filename(path)
        .pragma("query_only", "ON")
        .row_buffer_size(1_000)
        .thread_name(|id| format!("store-reader-{id}"))
        .disable_statement_logging();
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(READER_WAIT)
        .connect_with(reader)
        .await
        .map_err(failed)?;
    match new {
        true => tracing::info!(path = %path.display(), "the store is new: it knows of no runs, flips or pins"),
        false => tracing::info!(path = %path.display(), "the store is open"),
    }
    Ok(Opened { ownership, writer, readers, secret })
}

/// Makes the file where it is not there, for its owner alone: it holds what callers sent, and the store's secret. SQLite
/// gives its other files the same rights. Whether nothing was ever written to it.
fn make_private(path: &Path) -> Result<bool, StoreError> {
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
    let failed = |error: std::io::Error| StoreError(format!("cannot open {}: {error}", path.display()));
    let file = private.open(path).map_err(failed)?.metadata().map_err(failed)?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o007 != 0 {
        tracing::warn!(
            path = %path.display(),
            "everybody on this machine may read the store, and what callers sent is in it: `chmod o=` it"
        );
    }
    Ok(file.len() == 0)
}

/// A database with tables of which none is ours is somebody else's, named by mistake: it is left as it is.
pub(super) async fn refuse_another_programs(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), fault::told(&error)));
    let (ours, all): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE name = '_sqlx_migrations'), count(*) FROM sqlite_schema \
         WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_one(conn)
    .await
    .map_err(failed)?;
    if ours == 0 && all > 0 {
        return Err(StoreError(format!(
            "{} is the database of another program: it has tables, and none is pointsman's; give this one another \
             file with --store",
            path.display()
        )));
    }
    Ok(())
}

/// The steps that bring the tables up, in order.
fn steps() -> Migrator {
    let first = include_str!("../schema/0001_first.sql").into_sql_str();
    let run_keys = include_str!("../schema/0002_run_keys.sql").into_sql_str();
    let work = include_str!("../schema/0003_work.sql").into_sql_str();
    let carried = include_str!("../schema/0004_carried.sql").into_sql_str();
    let lists = include_str!("../schema/0005_lists.sql").into_sql_str();
    let births = include_str!("../schema/0006_births.sql").into_sql_str();
    Migrator::with_migrations(vec![
        Migration::new(1, "first".into(), MigrationType::Simple, first, false),
        Migration::new(2, "run_keys".into(), MigrationType::Simple, run_keys, false),
        Migration::new(3, "work".into(), MigrationType::Simple, work, false),
        Migration::new(4, "carried".into(), MigrationType::Simple, carried, false),
        Migration::new(5, "lists".into(), MigrationType::Simple, lists, false),
        Migration::new(6, "births".into(), MigrationType::Simple, births, false),
    ])
}

fn newest(steps: &Migrator) -> i64 {
    steps.iter().map(|step| step.version).max().unwrap_or(0)
}

fn newer_tables(path: &Path, version: i64) -> StoreError {
    StoreError(format!(
        "{} has tables of version {version}, this binary knows them up to version {}: it was written by a newer \
         pointsman; start that one, or give this one another file with --store",
        path.display(),
        newest(&steps())
    ))
}

async fn migrate(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    match steps().run_direct(None, conn, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(newer_tables(path, version)),
        Err(MigrateError::Execute(error)) => {
            Err(StoreError(format!("cannot bring up the tables of {}: {}", path.display(), fault::told(&error))))
        }
        Err(error) => Err(StoreError(format!("cannot bring up the tables of {}: {error}", path.display()))),
    }
}

/// For whoever only looks, and cannot bring the tables up.
pub(super) async fn refuse_other_tables(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let text = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    let found: Result<(i64,), sqlx::Error> = sqlx::query_as(text).fetch_one(conn).await;
    let newest = newest(&steps());
    match found {
        Ok((version,)) if version == newest => Ok(()),
        Ok((version,)) if version > newest => Err(newer_tables(path, version)),
        Ok((version,)) => Err(StoreError(format!(
            "{} has tables of version {version}, this binary looks at tables of version {newest}: start this pointsman \
             with it once, which brings them up",
            path.display()
        ))),
        Err(error) if error.to_string().contains("no such table") => {
            Err(StoreError(format!("{} is empty: no pointsman ever wrote to it", path.display())))
        }
        Err(error) => Err(StoreError(format!("cannot read {}: {}", path.display(), fault::told(&error)))),
    }
}

/// Notes which events may stand here from now on, and refuses a file in which newer ones may stand.
async fn check_version(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), fault::told(&error)));
    let noted: Option<(Vec<u8>,)> = sqlx::query_as("SELECT value FROM meta WHERE key = 'event_version'")
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed)?;
    let noted = noted.and_then(|(text,)| String::from_utf8(text).ok()?.parse::<u16>().ok());
    // The first condition is its index's.
    let text = "SELECT run_id, seq, version FROM events WHERE version > 2 AND version > ? \
                ORDER BY version DESC, run_id, seq LIMIT 1";
    let newest: Option<(Vec<u8>, i64, i64)> =
        sqlx::query_as(text).bind(i64::from(Event::VERSION)).fetch_optional(&mut *conn).await.map_err(failed)?;
    let standing = newest.map(|(run, seq, version)| (run_id(run), seq, version));
    if let Some(why) = newer_events(noted, standing) {
        let path = path.display();
        return Err(StoreError(format!(
            "{path} has {why}; start that one, or give this one another file with --store"
        )));
    }
    if noted != Some(Event::VERSION) {
        sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES ('event_version', ?)")
            .bind(Event::VERSION.to_string().into_bytes())
            .execute(conn)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// The secret: made at random on first use, the same ever after.
async fn secret(conn: &mut SqliteConnection) -> Result<[u8; 32], StoreError> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot read the store's secret: {error}"));
    let mut fresh = [0_u8; 32];
    getrandom::fill(&mut fresh).map_err(|error| StoreError(format!("no random numbers: {error}")))?;
    sqlx::query("INSERT INTO meta (key, value) VALUES ('secret', ?) ON CONFLICT DO NOTHING")
        .bind(fresh.as_slice())
        .execute(&mut *conn)
        .await
        .map_err(failed)?;
    let (kept,): (Vec<u8>,) =
        sqlx::query_as("SELECT value FROM meta WHERE key = 'secret'").fetch_one(conn).await.map_err(failed)?;
    kept.try_into().map_err(|_| StoreError("the store's secret has a wrong length: the file is damaged".into()))
}
