//! Copies a database while a process may be appending to it.
//!
//! Always true: the copy is the database at one moment; nothing stands under the target's name before it is whole and
//! on disk; what stands there already is never overwritten. Meanwhile the log of the original grows by what is appended.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection as _, Executor, SqlSafeStr};

use super::check::look_at;
use crate::store::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// How many bytes the copy has.
pub(super) async fn back_up(from: &Path, to: &Path) -> Result<u64> {
    let mut conn = look_at(from).await?;
    let failed = |error: String| StoreError(format!("cannot write {}: {error}", to.display()));
    let mut private = OpenOptions::new();
    private.write(true).create_new(true);
    // It holds what the store holds, and the store's secret.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
    // Takes the name, so that of two backups to one file the second is refused.
    private.open(to).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            StoreError(format!("{} exists already: a backup overwrites nothing; name another file", to.display()))
        }
        _ => failed(error.to_string()),
    })?;
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let done = async {
        private.open(&part).map_err(|error| failed(format!("{}: {error}", part.display())))?;
        // Only the copy is written; the pragma would hold that back too.
        conn.execute("PRAGMA query_only = OFF".into_sql_str()).await.map_err(|error| failed(error.to_string()))?;
        let name = part.to_str().ok_or_else(|| failed("its path is not UTF-8".into()))?.replace('\'', "''");
        let text = AssertSqlSafe(format!("VACUUM INTO '{name}'")).into_sql_str();
        conn.execute(text).await.map_err(|error| failed(error.to_string()))?;
        settle(&part, to).map_err(|error| failed(error.to_string()))
    }
    .await;
    let _ = conn.close().await; // nothing was written through it
    if done.is_err() {
        // What is left of it is of no use, and in the way of the next try.
        let _ = std::fs::remove_file(&part);
        let _ = std::fs::remove_file(to);
    }
    done
}

/// Puts the whole copy under its name, on disk.
fn settle(part: &Path, to: &Path) -> std::io::Result<u64> {
    let file = File::open(part)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    std::fs::rename(part, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}
