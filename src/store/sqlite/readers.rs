//! The connections that read.
//!
//! Always true: every connection reads the file that the writer writes. While a file is not at its path, reads are
//! refused as writes are: a new connection would open another file that has been put there. Threads of lower priority,
//! which may be suspended for seconds on a busy machine, have connections of their own: nobody else waits for a
//! connection that such a thread uses, nor for the thread of a connection that it has opened, which has its priority.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use super::open_files::OpenFiles;
use super::read_only;
use crate::priority;
use crate::store::StoreError;

/// The number of reading connections, also of those for threads of lower priority, and how long a read waits for one.
const READERS_MAX: u32 = 4;
const LOW_PRIORITY_READERS_MAX: u32 = 2;
const READER_WAIT: Duration = Duration::from_secs(5);
/// The most memory that a reader keeps pages in (a negative number is KiB; SQLite's default is four times as much). The
/// file's pages are in the system's memory too.
const READER_CACHE: &str = "-512";

pub(super) struct Readers {
    pool: SqlitePool,
    /// For threads of lower priority.
    low_priority: SqlitePool,
    files: Arc<OpenFiles>,
}

impl Readers {
    pub(super) async fn open(path: &Path, files: Arc<OpenFiles>) -> sqlx::Result<Self> {
        let reader =
            read_only::options(path).pragma("cache_size", READER_CACHE).thread_name(|id| format!("store-reader-{id}"));
        let pool = pool_of(READERS_MAX, files.clone()).connect_with(reader.clone()).await?;
        let low_priority = pool_of(LOW_PRIORITY_READERS_MAX, files.clone()).connect_lazy_with(reader);
        Ok(Self { pool, low_priority, files })
    }

    /// Connections for one statement.
    ///
    /// # Errors
    /// A file is not at its path.
    pub(super) fn pool(&self) -> Result<&SqlitePool, StoreError> {
        let pool = if priority::is_lowered() { &self.low_priority } else { &self.pool };
        self.files.find().map(|_| pool).map_err(|missing| StoreError(missing.text()))
    }

    pub(super) async fn close(&self) {
        tokio::join!(self.pool.close(), self.low_priority.close());
    }
}

fn pool_of(connections_max: u32, files: Arc<OpenFiles>) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections_max).acquire_timeout(READER_WAIT).after_connect(
        move |conn, _| {
            let files = files.clone();
            Box::pin(async move {
                // The first statement opens the log.
                sqlx::query("SELECT count(*) FROM sqlite_schema").execute(conn).await?;
                files.find().map(drop).map_err(|missing| sqlx::Error::Configuration(missing.text().into()))
            })
        },
    )
}
