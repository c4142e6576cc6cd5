//! The backup of a store, for other rooms.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::backup::back_up;
use super::{Copied, SqliteStore};
use crate::flag::RetryKey;
use crate::store::{KeyFileRecord, StoreError};

impl SqliteStore {
    /// Copies a database to a new file and syncs it to disk; another process may be writing to the database. The copy
    /// also gets the retry keys that are not in the database yet and have not expired: `read_keys` reads them from the
    /// given key files.
    ///
    /// # Errors
    /// The new file exists, is written by another backup or cannot be written; the database does not exist, is empty,
    /// or is of another program or a newer version. No new file is left then.
    pub async fn back_up(
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        retry_window: Duration,
        mut read_keys: impl FnMut(&[KeyFileRecord]) -> Vec<(RetryKey, Timestamp)> + Send,
    ) -> Result<Copied, StoreError> {
        back_up(from.as_ref(), to.as_ref(), retry_window, &mut read_keys).await
    }
}
