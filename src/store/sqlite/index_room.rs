//! Room on the disk for the index of the write-ahead log (`-shm`), which SQLite maps to memory.
//!
//! SQLite writes one byte to each 4 KiB of a new index. On a file system with smaller blocks, the blocks between those
//! bytes are allocated only when they are first written through the mapping. If the disk is full by then, the kernel
//! ends the process (SIGBUS). So they are allocated when the index is opened.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::store::StoreError;

/// The size of a mapped page. SQLite writes one byte to each page of a new index.
const PAGE_BYTES: u64 = 4_096;

/// How much of the file is allocated if there is room, from its start and also beyond its end: for the growth of the
/// index, and for the next start. SQLite empties the file then and writes it again, in more extents than before, for
/// which the file system may need one more block.
const RESERVED_BYTES: u64 = 64 << 10;

/// Allocates the index of an open database on a file system with small blocks, if it has one.
pub(super) fn allocate(database: &Path) -> Result<(), StoreError> {
    let mut index = database.as_os_str().to_owned();
    index.push("-shm");
    let index = Path::new(&index);
    if statvfs(index).is_ok_and(|found| found.f_frsize >= PAGE_BYTES) {
        return Ok(());
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
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    // Closing any descriptor of the file would release SQLite's locks on it (`fcntl`): this one stays open until the
    // process ends.
    let file: &'static std::fs::File = Box::leak(Box::new(file));
    let bytes = file.metadata().map_err(failed)?.len();
    let allocated = fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1));
    // Only if there is room.
    let _ = fallocate(file, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES);
    match allocated {
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(StoreError(format!(
            "cannot allocate {}: {error}: the disk is full; make room and start again; nothing was changed",
            index.display()
        ))),
        // The file system may not support it.
        Ok(()) | Err(_) => Ok(()),
    }
}
