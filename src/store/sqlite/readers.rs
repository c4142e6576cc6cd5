//! The connections that read.
//!
//! Always true: every connection reads the file that the writer writes. While a file is not at its path, reads are
//! refused as writes are: a new connection would open another file that has been put there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use super::open_files::OpenFiles;
use super::read_only;
use crate::store::StoreError;

/// The number of reading connections, and how long a read waits for one.
const READERS_MAX: u32 = 4;
const READER_WAIT: Duration = Duration::from_secs(5);
/// The most memory that a reader keeps pages in (a negative number is KiB; SQLite's default is four times as much). The
/// file's pages are in the system's memory too.
const READER_CACHE: &str = "-512";

pub(super) struct Readers {
    pool: SqlitePool,
    files: Arc<OpenFiles>,
}

impl Readers {
    pub(super) async fn open(path: &Path, files: Arc<OpenFiles>) -> sqlx::Result<Self> {
        let reader =
            read_only::options(path).pragma("cache_size", READER_CACHE).thread_name(|id| format!("store-reader-{id}"));
        let opened = files.clone();
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .acquire_timeout(READER_WAIT)
            .after_connect(move |conn, _| {
                let files = opened.clone();
                Box::pin(async move {
                    // The first statement opens the log.
                    sqlx::query("SELECT count(*) FROM sqlite_schema").execute(conn).await?;
                    files.find().map(drop).map_err(|missing| sqlx::Error::Configuration(missing.text().into()))
                })
            })
            .connect_with(reader)
            .await?;
        Ok(Self { pool, files })
    }

    /// Connections for one statement.
    ///
    /// # Errors
    /// A file is not at its path.
    pub(super) fn pool(&self) -> Result<&SqlitePool, StoreError> {
        self.files.find().map(|_| &self.pool).map_err(|missing| StoreError(missing.text()))
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
