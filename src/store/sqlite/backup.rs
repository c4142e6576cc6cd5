//! Copies a database while a process may be appending to it.
//!
//! Always true: the copy is the database at one moment, with the retry keys that waited in files at that moment (and
//! perhaps with some that came after it); the target's name does not exist before the copy is complete
//! and synced; an existing file is never overwritten; the copy is marked as one (`restored`). Meanwhile the WAL of the
//! original grows by what is appended.
//!
//! The incomplete copy is `TARGET.part`. A killed process leaves it behind; the next backup to that target overwrites
//! it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor, SqlSafeStr};

use super::encoded::nanos;
use super::path_with_suffix::path_with_suffix;
use super::{open, read, read_only, restored, upgrade};
use crate::clock;
use crate::flag::{Arm, RetryKey};
use crate::store::bound_keys::is_bound;
use crate::store::{KeyFileRecord, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// The statement that reads the records of the files that hold retry keys.
pub(super) const KEY_FILES: &str = "SELECT value FROM meta WHERE key >= 'key_file:' AND key < 'key_file;' ORDER BY key";

/// The result of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The size of the copy.
    pub bytes: u64,
    /// Retry keys that were not in the database yet, and are in the copy.
    pub waiting_keys: u64,
}

/// Reads the retry keys in these files, whether or not the database has them.
pub(super) type ReadKeyFiles<'a> = &'a mut (dyn FnMut(&[KeyFileRecord]) -> Vec<(RetryKey, Timestamp)> + Send);

/// Makes the copy.
pub(super) async fn back_up(
    from: &Path,
    to: &Path,
    retry_window: Duration,
    read_keys: ReadKeyFiles<'_>,
) -> Result<Copied> {
    let mut conn = read_only::open(from).await?;
    // Older tables are allowed: a copy is wanted before a newer version upgrades them.
    open::refuse_newer_tables(&mut conn, from).await?;
    let key_files = key_files(&mut conn, from).await?;
    let since = newest_expired(&mut conn, from, retry_window).await?;
    let failed = |error: String| StoreError(format!("cannot write {}: {error}", to.display()));
    if to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let part = path_with_suffix(to, ".part");
    // Locked until the copy has its name: the second of two backups to one file is refused.
    let lock = create_part_file(&part).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => StoreError(format!("another backup writes {} now", to.display())),
        _ => failed(format!("{}: {error}", part.display())),
    })?;
    let done = async {
        // With `query_only` SQLite would refuse to write even the copy. Nothing but the copy is written.
        conn.execute("PRAGMA query_only = OFF".into_sql_str()).await.map_err(|error| failed(error.to_string()))?;
        let name = part.to_str().ok_or_else(|| failed("its path is not UTF-8".into()))?.replace('\'', "''");
        let text = AssertSqlSafe(format!("VACUUM INTO '{name}'")).into_sql_str();
        // The files of keys are read before and after the copy: a key that reaches the database only after the copied
        // moment is in its file before or after, unless the whole file, which is a ring buffer, is overwritten
        // meanwhile.
        let mut keys = read_keys(&key_files);
        let at = clock::now();
        conn.execute(text).await.map_err(|error| failed(error.to_string()))?;
        keys.extend(read_keys(&key_files));
        let waiting_keys = complete(&part, at, keys, since).await.map_err(|error| failed(error.to_string()))?;
        let bytes = move_into_place(&lock, &part, to).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(to),
            _ => failed(error.to_string()),
        })?;
        Ok(Copied { bytes, waiting_keys })
    }
    .await;
    let _ = conn.close().await; // nothing was written to the original
    remove_part_files(&part);
    done
}

async fn key_files(conn: &mut SqliteConnection, from: &Path) -> Result<Vec<KeyFileRecord>> {
    let failed = |error: String| StoreError(format!("cannot read {}: {error}", from.display()));
    let found: Vec<(Vec<u8>,)> = sqlx::query_as(KEY_FILES).fetch_all(conn).await.map_err(|e| failed(e.to_string()))?;
    found.iter().map(|(record,)| serde_json::from_slice(record).map_err(|e| failed(e.to_string()))).collect()
}

/// The newest time of a first try whose retry window is over; only a run may keep the keys of such tries bound. Time in
/// which no process ran does not count, as for a process that starts now. When processes ran is read from the store.
async fn newest_expired(conn: &mut SqliteConnection, from: &Path, retry_window: Duration) -> Result<i64> {
    let failed = |error: sqlx::Error| StoreError(format!("cannot read {}: {error}", from.display()));
    let newest = match upgrade::has_events_table(conn).await.map_err(failed)? {
        true => read::newest_older_event(&mut *conn).await?,
        false => read::newest_event(&mut *conn).await?,
    };
    let (mut times, now) = (read::running_times(conn).await?, clock::now());
    times.start(now, newest, retry_window);
    Ok(nanos(times.window_start(now, retry_window)))
}

/// The statement that adds a key that legacy took, unless the copy has the key and it is bound there (`bound_keys`).
macro_rules! add_key {
    ($($is_bound:tt)*) => {
        concat!(
            "INSERT INTO retry_keys (key, arm, at) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE \
             SET arm = excluded.arm, run_id = NULL, request = NULL, at = excluded.at WHERE excluded.at > ?4 AND NOT ",
            $($is_bound)*
        )
    };
}

/// Records in the copy that it is a backup of this time, and adds first tries that legacy took; returns how many the
/// copy did not have.
async fn complete(part: &Path, at: Timestamp, keys: Vec<(RetryKey, Timestamp)>, since: i64) -> sqlx::Result<u64> {
    // Written without syncs and without a journal on disk: a crash leaves no copy at all, and the file is synced before
    // it gets its name.
    let options = SqliteConnectOptions::new().filename(part).create_if_missing(false).disable_statement_logging();
    let options = options.journal_mode(SqliteJournalMode::Memory).synchronous(SqliteSynchronous::Off);
    let mut conn = options.connect().await?;
    let text = match has_jobs(&mut conn).await? {
        true => add_key!(is_bound!("retry_keys", "?4")),
        false => add_key!(
            "(retry_keys.at > ?4 OR EXISTS \
             (SELECT 1 FROM runs WHERE runs.run_id = retry_keys.run_id AND NOT runs.ended))"
        ),
    };
    let mut write = conn.begin().await?;
    restored::mark_as_backup(&mut write, at).await?;
    let mut added = 0;
    for (key, at) in keys.into_iter().filter(|(_, at)| nanos(*at) > since) {
        let row = sqlx::query(text).bind(key.0.to_vec()).bind(Arm::Legacy.as_str()).bind(nanos(at)).bind(since);
        added += row.execute(&mut *write).await?.rows_affected();
    }
    write.commit().await?;
    conn.close().await?;
    Ok(added)
}

/// Whether the tables know jobs and when runs ended. Those of the first versions do not.
async fn has_jobs(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let text = "SELECT count(*) FROM pragma_table_info('runs') WHERE name IN ('job', 'updated')";
    Ok(sqlx::query_as::<_, (i64,)>(text).fetch_one(conn).await?.0 == 2)
}

fn exists(to: &Path) -> StoreError {
    StoreError(format!("{} exists already: a backup overwrites nothing; name another file", to.display()))
}

/// Creates and locks the empty file that is written, or empties the one that a killed process left.
fn create_part_file(part: &Path) -> std::io::Result<File> {
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(false);
    // Readable by its owner only: it will contain what callers sent, and the store's secret.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
    let file = private.open(part)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })?;
    file.set_len(0)?;
    // Otherwise SQLite would use files of the earlier copy as those of the new one.
    for suffix in ["-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(path_with_suffix(part, suffix)); // usually there is none
    }
    Ok(file)
}

fn remove_part_files(part: &Path) {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(path_with_suffix(part, suffix)); // usually there is none
    }
}

/// Syncs the complete copy and gives it its name, unless a file with that name was created meanwhile.
fn move_into_place(lock: &File, part: &Path, to: &Path) -> std::io::Result<u64> {
    lock.sync_all()?;
    let bytes = lock.metadata()?.len();
    match std::fs::hard_link(part, to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
        // The file system may not support hard links.
        Err(_) if to.symlink_metadata().is_ok() => return Err(ErrorKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(part, to)?,
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}
