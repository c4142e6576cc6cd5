//! Copies a database while a process may be appending to it.
//!
//! Always true: the copy is the database at one moment; nothing stands under the target's name before it is whole and
//! on disk; what stands there already is never overwritten. Meanwhile the log of the original grows by what is appended.
//!
//! What is not whole yet stands beside the target, as `TARGET.part`. A process that is killed leaves it there: it is of no
//! use to anybody, and the next backup to that target writes it over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection as _, Executor, SqlSafeStr};

use super::check::open_read_only;
use super::open;
use crate::store::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// How many bytes the copy has.
pub(super) async fn back_up(from: &Path, to: &Path) -> Result<u64> {
    let mut conn = open_read_only(from).await?;
    // A copy of older tables is what one wants before a newer version brings them up.
    open::refuse_newer_tables(&mut conn, from).await?;
    let failed = |error: String| StoreError(format!("cannot write {}: {error}", to.display()));
    if to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let part = with_suffix(to, ".part");
    // Held until the copy has its name: of two backups to one file the second is refused.
    let lock = create_part_file(&part).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => StoreError(format!("another backup writes {} now", to.display())),
        _ => failed(format!("{}: {error}", part.display())),
    })?;
    let done = async {
        // Only the copy is written; the pragma would hold that back too.
        conn.execute("PRAGMA query_only = OFF".into_sql_str()).await.map_err(|error| failed(error.to_string()))?;
        let name = part.to_str().ok_or_else(|| failed("its path is not UTF-8".into()))?.replace('\'', "''");
        let text = AssertSqlSafe(format!("VACUUM INTO '{name}'")).into_sql_str();
        conn.execute(text).await.map_err(|error| failed(error.to_string()))?;
        move_into_place(&lock, &part, to).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(to),
            _ => failed(error.to_string()),
        })
    }
    .await;
    let _ = conn.close().await; // nothing was written through it
    // What is left of it is of no use.
    remove_part_files(&part);
    done
}

fn exists(to: &Path) -> StoreError {
    StoreError(format!("{} exists already: a backup overwrites nothing; name another file", to.display()))
}

fn with_suffix(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(what);
    name.into()
}

/// The empty file that is written: new, or what a process left that was killed.
fn create_part_file(part: &Path) -> std::io::Result<File> {
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(false);
    // It holds what the store holds, and the store's secret.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
    let file = private.open(part)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })?;
    file.set_len(0)?;
    // What belonged to the other one's half of a copy must not be taken for this one's.
    for what in ["-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(part, what)); // mostly it is not there
    }
    Ok(file)
}

fn remove_part_files(part: &Path) {
    for what in ["", "-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(part, what)); // mostly it is not there
    }
}

/// Puts the whole copy under its name, on disk; never over a file that came there meanwhile.
fn move_into_place(lock: &File, part: &Path, to: &Path) -> std::io::Result<u64> {
    lock.sync_all()?;
    let bytes = lock.metadata()?.len();
    match std::fs::hard_link(part, to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
        // Not every file system has two names for a file.
        Err(_) if to.symlink_metadata().is_ok() => return Err(ErrorKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(part, to)?,
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}
