//! Connections that only read.
//!
//! Always true: when the last one closes, the files beside the database are there if they were there before. The next
//! start needs them if the disk is full by then (see [`super::connection`]). SQLite removes them when the last
//! connection closes, unless that one may not write the database. Such a connection also leaves the files that it had
//! to create, so it is used only where they are there already.

use std::path::Path;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::{foreign_log, write_error};
use crate::store::StoreError;

/// The options of a connection that only reads.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    let is_there = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).symlink_metadata().is_ok()
    };
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        // Such a connection cannot roll back what is in a journal.
        .read_only((is_there("-wal") || is_there("-shm")) && !is_there("-journal"))
        .pragma("query_only", "ON")
        .row_buffer_size(1_000)
        .disable_statement_logging()
}

/// Opens a database, whatever version its tables have.
pub(super) async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)));
    if !path.is_file() {
        return Err(StoreError(format!("there is no database at {}", path.display())));
    }
    foreign_log::refuse(path)?;
    let mut conn = options(path).connect().await.map_err(failed)?;
    refuse_foreign_database(&mut conn, path).await?;
    Ok(conn)
}

/// Refuses a database that has tables, but none of pointsman: it belongs to another program and was named by mistake.
async fn refuse_foreign_database(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed =
        |error: sqlx::Error| StoreError(format!("cannot read {}: {}", path.display(), write_error::describe(&error)));
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
