//! Refuses a database beside which the write-ahead log of another one lies.
//!
//! SQLite applies every log that has the right name. If a backup is copied to the place of a store whose process was
//! killed, the log of that store is still there, and its pages would overwrite pages of the backup. The header of the
//! database shows that the log is not its own: SQLite marks a database as one that uses a log before it writes its
//! first log, and a backup (`VACUUM INTO`) is not marked until a process has opened it
//! (<https://www.sqlite.org/fileformat2.html#file_format_version_numbers>).

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::path_with_suffix::path_with_suffix;
use crate::store::StoreError;

/// The first bytes of a database, as far as the two that say whether it uses a log.
const HEADER_BYTES: usize = 20;
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The two bytes of a database that does not use a log.
const USES_NO_LOG: [u8; 2] = [1, 1];
/// The size of the header of a log. A log of at most this size has no pages.
const LOG_HEADER_BYTES: u64 = 32;

/// Refuses the database if it uses no log, and there is one with pages.
pub(super) fn refuse(path: &Path) -> Result<(), StoreError> {
    let log = path_with_suffix(path, "-wal");
    let has_pages = log.metadata().is_ok_and(|found| found.len() > LOG_HEADER_BYTES);
    if !has_pages || !uses_no_log(path) {
        return Ok(());
    }
    Err(StoreError(format!(
        "{path} has never been opened by a pointsman (it is a backup, or another copy), but {log} has changes of the \
         database that was in its place, and SQLite would write them into this one and destroy it: move {log} and \
         {index} elsewhere, then start again; to \
         get the earlier store back instead, put its database back in place of {path} and leave the two where they are",
        path = path.display(),
        log = log.display(),
        index = path_with_suffix(path, "-shm").display(),
    )))
}

fn uses_no_log(path: &Path) -> bool {
    let mut header = [0; HEADER_BYTES];
    let is_read = File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok();
    is_read && header.starts_with(MAGIC) && header.ends_with(&USES_NO_LOG)
}
