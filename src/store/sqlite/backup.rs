//! Copies a database while a process may be appending to it.
//!
//! Always true: the copy is the database at one moment; the target's name does not exist before the copy is complete
//! and synced; an existing file is never overwritten. Meanwhile the WAL of the original grows by what is appended.
//!
//! The incomplete copy is `TARGET.part`. A killed process leaves it behind; the next backup to that target overwrites
//! it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection as _, Executor, SqlSafeStr};

use super::check::open_read_only;
use super::open;
use crate::store::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Makes the copy; returns its size in bytes.
pub(super) async fn back_up(from: &Path, to: &Path) -> Result<u64> {
    let mut conn = open_read_only(from).await?;
    // Older tables are allowed: a copy is wanted before a newer version upgrades them.
    open::refuse_newer_tables(&mut conn, from).await?;
    let failed = |error: String| StoreError(format!("cannot write {}: {error}", to.display()));
    if to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let part = with_suffix(to, ".part");
    // Locked until the copy has its name: the second of two backups to one file is refused.
    let lock = create_part_file(&part).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => StoreError(format!("another backup writes {} now", to.display())),
        _ => failed(format!("{}: {error}", part.display())),
    })?;
    let done = async {
        // The pragma would also refuse to write the copy. Nothing else is written.
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
    let _ = conn.close().await; // nothing was written to the original
    remove_part_files(&part);
    done
}

fn exists(to: &Path) -> StoreError {
    StoreError(format!("{} exists already: a backup overwrites nothing; name another file", to.display()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
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
    // SQLite would take leftovers of the earlier copy for this one's.
    for suffix in ["-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(part, suffix)); // usually there is none
    }
    Ok(file)
}

fn remove_part_files(part: &Path) {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(part, suffix)); // usually there is none
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
