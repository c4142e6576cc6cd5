//! Room on the disk for the index of the write-ahead log (`-shm`), which SQLite maps to memory.
//!
//! SQLite writes one byte to each 4 KiB of a new index. On a file system with smaller blocks, the blocks between those
//! bytes are allocated only when they are first written through the mapping. If the disk is full by then, the kernel
//! ends the process (SIGBUS). So they are allocated when the index is opened, and before it grows: each 32 KiB of it
//! describe 4,096 pages of the log.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::path_with_suffix::path_with_suffix;
use crate::store::StoreError;

/// The size of a mapped page. SQLite writes one byte to each page of a new index.
const PAGE_BYTES: u64 = 4_096;

/// The index grows by this much, for this many pages of the log.
const BLOCK_BYTES: u64 = 32 << 10;
const BLOCK_PAGES: u64 = 4_096;

/// The index of an open database on a file system with small blocks.
pub(super) struct IndexRoom {
    /// Closing any descriptor of the file would release SQLite's locks on it (`fcntl`): this one stays open until the
    /// process ends.
    file: &'static File,
    /// How much is allocated from the start of the file, also beyond its end.
    bytes: u64,
}

impl IndexRoom {
    /// Allocates, if there is room, what the index of a log of this many pages needs, and one block more: for its
    /// growth, and for the next start. SQLite empties the file then and writes it again, in more extents than before,
    /// for which the file system may need one more block.
    pub(super) fn reserve(&mut self, log_pages: u64) {
        let bytes = (log_pages / BLOCK_PAGES + 2) * BLOCK_BYTES;
        if self.bytes < bytes && fallocate(self.file, FallocateFlags::KEEP_SIZE, 0, bytes).is_ok() {
            self.bytes = bytes;
        }
    }
}

/// Allocates the index of an open database on a file system with small blocks, if it has one.
pub(super) fn allocate(database: &Path) -> Result<Option<IndexRoom>, StoreError> {
    let index = &path_with_suffix(database, "-shm");
    if statvfs(index).is_ok_and(|found| found.f_frsize >= PAGE_BYTES) {
        return Ok(None);
    }
    let failed = |error: std::io::Error| StoreError(format!("cannot allocate {}: {error}", index.display()));
    let file = match OpenOptions::new().read(true).write(true).open(index) {
        Ok(file) => file,
        // A process that may not write the file, or a file system that is read-only: then this process never writes
        // through the mapping either, so it needs no blocks.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let bytes = file.metadata().map_err(failed)?.len();
    let mut room = IndexRoom { file: Box::leak(Box::new(file)), bytes: 0 };
    let allocated = fallocate(room.file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1));
    room.reserve(0);
    // A log keeps its size when it is reused, and grows within it even on a full disk: the index must cover all of it.
    room.reserve(std::fs::metadata(path_with_suffix(database, "-wal")).map_or(0, |log| log.len() / PAGE_BYTES));
    match allocated {
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(StoreError(format!(
            "cannot allocate {}: {error}: the disk is full; make room and start again; nothing was changed",
            index.display()
        ))),
        // The file system may not support it.
        Ok(()) | Err(_) => Ok(Some(room)),
    }
}

#[cfg(test)]
impl IndexRoom {
    /// Creates it for any file, which need not be an index.
    pub(super) fn of(file: File) -> Self {
        Self { file: Box::leak(Box::new(file)), bytes: 0 }
    }
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_next_block_of_an_index_is_always_allocated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut room = IndexRoom::of(file.reopen().unwrap());
        for (pages, blocks) in [(0, 2), (4_000, 2), (4_096, 3), (8_200, 4), (1, 4)] {
            room.reserve(pages);
            let found = file.as_file().metadata().unwrap();
            assert_eq!((found.len(), room.bytes()), (0, blocks * BLOCK_BYTES), "{pages} pages");
            assert!(found.blocks() * 512 >= room.bytes(), "{pages} pages: {} blocks", found.blocks());
        }
    }
}
