//! Opens a database: locks it for this process, upgrades its tables, and refuses what a newer version wrote.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _};

use super::connection::Options;
use super::file_lock::FileLock;
use super::index_room::{self, IndexRoom};
use super::migrations::{CREATES_APPENDS, NEWEST_VERSION, migrations};
use super::open_files::OpenFiles;
use super::read_only;
use super::readers::Readers;
use super::restored;
use super::stored_state::run_id;
use super::upgrade::{self, UpgradeError};
use super::write_error;
use crate::clock;
use crate::store::check::newer_events_problem;
use crate::store::write_error::WriteError;
use crate::store::{NEW_STORE_RETENTION, Restored, StoreError, StoreIdentity};
use crate::workflow::Event;

/// The parts of an open database.
pub(super) struct Opened {
    pub(super) file_lock: FileLock,
    pub(super) writer: rusqlite::Connection,
    /// Space reserved for `-shm`; `None` unless the file system has blocks of less than 4 KiB.
    pub(super) room: Option<IndexRoom>,
    pub(super) files: Arc<OpenFiles>,
    pub(super) readers: Readers,
    pub(super) constants: Constants,
}

/// The parts of [`Opened`] without the file lock.
struct OpenedToWrite {
    writer: rusqlite::Connection,
    room: Option<IndexRoom>,
    files: Arc<OpenFiles>,
    readers: Readers,
    constants: Constants,
}

/// What was read from the database when it was opened and does not change while it is open.
pub(super) struct Constants {
    pub(super) secret: [u8; 32],
    /// See [`crate::store::Store::default_retention`].
    pub(super) default_retention: Option<Duration>,
    /// See [`crate::store::Store::is_new`].
    pub(super) is_new: bool,
    pub(super) identity: StoreIdentity,
    /// See [`crate::store::Store::restored`].
    pub(super) restored: Option<Restored>,
}

/// The parts of a database that is open for reading.
pub(super) struct OpenedForReading {
    pub(super) file_lock: FileLock,
    pub(super) readers: Readers,
    pub(super) constants: Constants,
}

/// Opens the database at a canonical path, with these options of the writer's connection. If that fails, the files
/// beside the database are as they were.
pub(super) async fn open(path: &Path, options: &Options) -> Result<Opened, StoreError> {
    let file_lock = FileLock::acquire(path).await?;
    // While this connection is open, no other one is the last to close, which would remove the files beside the
    // database.
    let held_open = read_only::open(path).await?;
    let opened = match index_room::allocate(path) {
        Ok(_room) => open_to_write(path, options, &file_lock).await,
        Err(error) => Err(error),
    };
    // Closed before the lock is released, even if the start failed.
    let _ = held_open.close().await; // nothing was written
    let OpenedToWrite { writer, room, files, readers, constants } = opened?;
    Ok(Opened { file_lock, writer, room, files, readers, constants })
}

async fn open_to_write(path: &Path, options: &Options, file_lock: &FileLock) -> Result<OpenedToWrite, StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot open {}: {}", path.display(), write_error::describe(&error)));
    let unreadable = |error: std::io::Error| StoreError(format!("cannot read {}: {error}", path.display()));
    let mut conn = setup_options(path).connect().await.map_err(failed)?;
    let prepared = async {
        let constants = prepare(&mut conn, path).await?;
        // Allocated again, for an index that did not exist before this connection.
        let room = index_room::allocate(path)?;
        let writer = options.open().map_err(|error| {
            StoreError(format!("cannot open {}: {}", path.display(), WriteError::from(error).text()))
        })?;
        let files = OpenFiles::new(path, file_lock.database()).map_err(unreadable)?;
        Ok::<_, StoreError>((constants, writer, room, Arc::new(files)))
    }
    .await;
    let closed = conn.close().await.map_err(failed);
    let (constants, writer, room, files) = prepared?;
    closed?;
    let readers = Readers::open(path, files.clone()).await.map_err(failed)?;
    match file_lock.is_new() {
        true => tracing::info!(path = %path.display(), "the store is new: it knows of no runs, flips or pins"),
        false => tracing::info!(path = %path.display(), "the store is open"),
    }
    Ok(OpenedToWrite { writer, room, files, readers, constants })
}

/// Upgrades the tables, and reads what does not change while the database is open.
async fn prepare(conn: &mut SqliteConnection, path: &Path) -> Result<Constants, StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot open {}: {}", path.display(), write_error::describe(&error)));
    migrate(conn, path).await?;
    check_version(conn, path).await?;
    let (secret, is_new) = match stored_secret(conn).await? {
        Some(secret) => (secret, false),
        None => create_secret(conn).await?,
    };
    let default_retention = default_retention(conn).await.map_err(failed)?;
    let restored = restored::read(conn, clock::now()).await.map_err(failed)?;
    let identity = identity(path).map_err(|error| StoreError(format!("cannot read {}: {error}", path.display())))?;
    Ok(Constants { secret, default_retention, is_new, identity, restored })
}

/// Opens the database at a canonical path for reading. Nothing in it is changed: its tables are not upgraded, and a
/// backup that was never started stays one.
pub(super) async fn open_for_reading(path: &Path) -> Result<OpenedForReading, StoreError> {
    let file_lock = FileLock::acquire(path).await?;
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot open {}: {}", path.display(), write_error::describe(&error)));
    let unreadable = |error: std::io::Error| StoreError(format!("cannot read {}: {error}", path.display()));
    let mut conn = read_only::open(path).await?;
    require_current_tables(&mut conn, path).await?;
    refuse_newer_events(&mut conn, path).await?;
    let no_secret = || StoreError(format!("{} has no secret: no pointsman has started with it", path.display()));
    let constants = Constants {
        secret: stored_secret(&mut conn).await?.ok_or_else(no_secret)?,
        default_retention: default_retention(&mut conn).await.map_err(failed)?,
        is_new: false,
        identity: identity(path).map_err(unreadable)?,
        restored: restored::stored(&mut conn).await.map_err(failed)?,
    };
    conn.close().await.map_err(failed)?;
    let files = Arc::new(OpenFiles::new(path, file_lock.database()).map_err(unreadable)?);
    let readers = Readers::open(path, files).await.map_err(failed)?;
    Ok(OpenedForReading { file_lock, readers, constants })
}

fn identity(path: &Path) -> std::io::Result<StoreIdentity> {
    let found = std::fs::metadata(path)?;
    let (device, inode) = (found.dev(), found.ino());
    Ok(StoreIdentity { location: path.display().to_string(), incarnation: format!("{device}:{inode}") })
}

/// The options of the connection that prepares the database.
pub(in crate::store) fn setup_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

fn newer_tables(path: &Path, version: i64) -> StoreError {
    StoreError(format!(
        "{} has tables of version {version}, this binary knows them up to version {}: it was written by a newer \
         pointsman; start that one, or give this one another file with --store",
        path.display(),
        NEWEST_VERSION
    ))
}

async fn migrate(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let shown = path.display().to_string();
    let failed = |error: sqlx::Error| {
        StoreError(format!("cannot upgrade the tables of {shown}: {}", write_error::describe(&error)))
    };
    let found = version(conn).await.map_err(failed)?;
    if upgrade::has_events_table(conn).await.map_err(failed)? {
        let events = upgrade::count(conn).await.map_err(failed)?;
        if events > 0 {
            tracing::warn!(
                store = shown,
                "the store has tables of version {found} and is upgraded to version {NEWEST_VERSION} now: about {events} events are \
                 moved. This may be interrupted at any moment and continues at the next start. An older pointsman refuses \
                 the store from now on: the only way back is a copy that `pointsman store backup` made before"
            );
        }
    }
    if found < CREATES_APPENDS {
        migrate_to(conn, path, CREATES_APPENDS).await?;
    }
    if upgrade::has_events_table(conn).await.map_err(failed)? {
        match upgrade::move_events(conn, &shown).await {
            Ok(()) => {}
            Err(UpgradeError::Database(error)) => return Err(failed(error)),
            Err(UpgradeError::Newer(why)) => return Err(newer_events_error(path, &why)),
        }
    }
    migrate_to(conn, path, NEWEST_VERSION).await
}

/// Runs the migrations up to a version.
pub(in crate::store) async fn migrate_to(
    conn: &mut SqliteConnection,
    path: &Path,
    last: i64,
) -> Result<(), StoreError> {
    match migrations(last).run_direct(None, conn, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(newer_tables(path, version)),
        Err(MigrateError::Execute(error)) => Err(StoreError(format!(
            "cannot upgrade the tables of {}: {}",
            path.display(),
            write_error::describe(&error)
        ))),
        Err(error) => Err(StoreError(format!("cannot upgrade the tables of {}: {error}", path.display()))),
    }
}

/// The version of the tables; 0 if there are none.
async fn version(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    let text = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')";
    if !sqlx::query_as::<_, (bool,)>(text).fetch_one(&mut *conn).await?.0 {
        return Ok(0);
    }
    let text = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    Ok(sqlx::query_as::<_, (i64,)>(text).fetch_one(conn).await?.0)
}

fn newer_events_error(path: &Path, why: &str) -> StoreError {
    let path = path.display();
    StoreError(format!("{path} has {why}; start that one, or give this one another file with --store"))
}

/// Whether the tables have an older version than this binary's.
pub(super) async fn is_older(conn: &mut SqliteConnection, path: &Path) -> Result<bool, StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)));
    Ok(version(conn).await.map_err(failed)? < NEWEST_VERSION)
}

/// Refuses tables of a newer version, which this binary cannot copy safely; older ones are accepted.
pub(super) async fn refuse_newer_tables(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)));
    match version(conn).await.map_err(failed)? {
        0 => Err(StoreError(format!("{} is empty: no pointsman ever wrote to it", path.display()))),
        found if found > NEWEST_VERSION => Err(newer_tables(path, found)),
        _ => Ok(()),
    }
}

/// Refuses tables of any version but this binary's, for reads that must not upgrade them.
pub(super) async fn require_current_tables(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    match version(conn).await {
        Ok(0) => Err(StoreError(format!("{} is empty: no pointsman ever wrote to it", path.display()))),
        Ok(NEWEST_VERSION) => Ok(()),
        Ok(version) if version > NEWEST_VERSION => Err(newer_tables(path, version)),
        Ok(version) => Err(StoreError(format!(
            "{} has tables of version {version}, this binary reads tables of version {NEWEST_VERSION}: start it once with `serve`, \
             which upgrades them; make a copy by `pointsman store backup` before, since an older pointsman refuses them \
             afterwards",
            path.display()
        ))),
        Err(error) => Err(StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)))),
    }
}

/// Refuses tables or events that a newer version wrote; older ones are upgraded by a start.
pub(super) async fn refuse_newer(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    match version(conn).await {
        Ok(version) if version > NEWEST_VERSION => Err(newer_tables(path, version)),
        Ok(NEWEST_VERSION) => refuse_newer_events(conn, path).await.map(drop),
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)))),
    }
}

/// Refuses a file that may contain newer events than this binary reads; else returns the recorded version of the events
/// in it.
async fn refuse_newer_events(conn: &mut SqliteConnection, path: &Path) -> Result<Option<u16>, StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)));
    let noted: Option<(Vec<u8>,)> = sqlx::query_as("SELECT value FROM meta WHERE key = 'event_version'")
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed)?;
    let noted = noted.and_then(|(text,)| String::from_utf8(text).ok()?.parse::<u16>().ok());
    // `version > 3` selects the partial index.
    let text = "SELECT run_id, first, version FROM appends WHERE version > 3 AND version > ? \
                ORDER BY version DESC, run_id, first LIMIT 1";
    let newest: Option<(Vec<u8>, i64, i64)> =
        sqlx::query_as(text).bind(i64::from(Event::VERSION)).fetch_optional(conn).await.map_err(failed)?;
    let newer_event = newest.map(|(run, seq, version)| (run_id(run), seq, version));
    if let Some(why) = newer_events_problem(noted, newer_event) {
        return Err(newer_events_error(path, &why));
    }
    Ok(noted)
}

/// Does what [`refuse_newer_events`] does, then records the version of the events that this binary writes.
async fn check_version(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)));
    if refuse_newer_events(conn, path).await? != Some(Event::VERSION) {
        sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES ('event_version', ?)")
            .bind(Event::VERSION.to_string().into_bytes())
            .execute(conn)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// The retention that was stored when the store was created; `None` if a version created it that stored none.
async fn default_retention(conn: &mut SqliteConnection) -> sqlx::Result<Option<Duration>> {
    let text = "SELECT value FROM meta WHERE key = 'usual_retention_s'";
    let text: Option<(Vec<u8>,)> = sqlx::query_as(text).fetch_optional(conn).await?;
    Ok(text.and_then(|(text,)| String::from_utf8(text).ok()?.parse().ok()).map(Duration::from_secs))
}

/// The store's secret; `None` if no process has finished opening the store.
async fn stored_secret(conn: &mut SqliteConnection) -> Result<Option<[u8; 32]>, StoreError> {
    let stored: Option<(Vec<u8>,)> = sqlx::query_as("SELECT value FROM meta WHERE key = 'secret'")
        .fetch_optional(conn)
        .await
        .map_err(|error| StoreError(format!("cannot read the store's secret: {}", write_error::describe(&error))))?;
    let of_bytes = |(secret,): (Vec<u8>,)| {
        secret.try_into().map_err(|_| StoreError("the store's secret has a wrong length: the file is damaged".into()))
    };
    stored.map(of_bytes).transpose()
}

/// Creates the store's secret at random, and with it the default retention if the store is new. Also returns whether it
/// is new. The first start may have been interrupted after it created tables, so what makes a store new is that it has
/// neither a secret nor a run.
async fn create_secret(conn: &mut SqliteConnection) -> Result<([u8; 32], bool), StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot create the store's secret: {}", write_error::describe(&error)));
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| StoreError(format!("the system gives no random bytes for the store's secret: {error}")))?;
    let mut write = conn.begin().await.map_err(failed)?;
    let (is_new,): (bool,) =
        sqlx::query_as("SELECT NOT EXISTS (SELECT 1 FROM runs)").fetch_one(&mut *write).await.map_err(failed)?;
    let text = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING";
    if is_new {
        let seconds = NEW_STORE_RETENTION.as_secs().to_string().into_bytes();
        let retention = sqlx::query(text).bind("usual_retention_s").bind(seconds);
        retention.execute(&mut *write).await.map_err(failed)?;
    }
    sqlx::query(text).bind("secret").bind(secret.as_slice()).execute(&mut *write).await.map_err(failed)?;
    write.commit().await.map_err(failed)?;
    Ok((secret, is_new))
}
