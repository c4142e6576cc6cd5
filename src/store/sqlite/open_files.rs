//! Finds out whether the files of an open database are still at their paths.
//!
//! SQLite does not notice when the files are removed, moved or replaced. It goes on with the files that it has open,
//! and after the end of the process nothing finds what was written to them. A connection that is opened afterwards
//! opens the other file.
//!
//! Only inode numbers and sizes are read, never times. A file whose times were read gets a new time at its next write
//! (since Linux 6.13, multigrain timestamps), which the next sync then has to commit to the file system's journal: on
//! ext4, a write with its sync took 120 us, and 190 us with a `stat` before it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

/// Identifies a file whatever its name.
#[derive(Clone, Copy, PartialEq)]
struct FileId {
    device_major: u32,
    device_minor: u32,
    inode: u64,
}

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        Ok(Self::read(file, Path::new(""), AtFlags::EMPTY_PATH)?.0)
    }

    /// The file that a path names, and its size.
    fn at(path: &Path) -> Result<(Self, u64), Errno> {
        Self::read(CWD, path, AtFlags::empty())
    }

    fn read(folder: impl AsFd, path: &Path, flags: AtFlags) -> Result<(Self, u64), Errno> {
        let found = statx(folder, path, flags, StatxFlags::INO | StatxFlags::SIZE)?;
        let (device_major, device_minor) = (found.stx_dev_major, found.stx_dev_minor);
        Ok((Self { device_major, device_minor, inode: found.stx_ino }, found.stx_size))
    }
}

/// The files of an open database.
pub(super) struct OpenFiles {
    database: PathBuf,
    database_id: FileId,
    log: PathBuf,
    /// `None` while the writer has no connection: SQLite may remove the log then.
    log_id: Mutex<Option<FileId>>,
}

/// A file that is no longer at its path.
pub(super) enum MovedFile {
    Database(String),
    Log(String),
}

impl MovedFile {
    /// Which file it is, and what to do.
    pub(super) fn text(self) -> String {
        match self {
            MovedFile::Database(text) | MovedFile::Log(text) => text,
        }
    }
}

impl OpenFiles {
    /// The files of the database at a path, which is open as `file`.
    pub(super) fn new(path: &Path, file: &File) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let database_id = FileId::of(file)?;
        let files = Self { database: path.to_owned(), database_id, log: log.into(), log_id: Mutex::new(None) };
        files.note_log();
        Ok(files)
    }

    /// The path of the write-ahead log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Remembers the write-ahead log of a connection that the writer has just opened. It stays the same file while a
    /// connection is open.
    pub(super) fn note_log(&self) {
        self.set_log(FileId::at(&self.log).ok().map(|(id, _)| id));
    }

    /// Forgets the log of a connection that is closed.
    pub(super) fn forget_log(&self) {
        self.set_log(None);
    }

    fn set_log(&self, id: Option<FileId>) {
        *self.log_id.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    /// The size of the log, if it and the database are at their paths; `None` if it is unknown.
    pub(super) fn find(&self) -> Result<Option<u64>, MovedFile> {
        let text = |path: &Path, remedy: &str| {
            format!(
                "the file {} was removed or replaced while it is open, so that what is written now would be lost when \
                 this process ends: {remedy}",
                path.display()
            )
        };
        if !matches!(find(&self.database, self.database_id), FileLookup::AtPath(_) | FileLookup::Unknown) {
            let remedy =
                "move it back with the files beside it, or stop this process, restore a backup and start again";
            return Err(MovedFile::Database(text(&self.database, remedy)));
        }
        let log_id = *self.log_id.lock().unwrap_or_else(PoisonError::into_inner);
        match log_id.map(|id| find(&self.log, id)) {
            Some(FileLookup::AtPath(size)) => Ok(Some(size)),
            Some(FileLookup::Gone) => {
                Err(MovedFile::Log(text(&self.log, "stop this process (SIGTERM) and start it again")))
            }
            Some(FileLookup::Unknown) | None => Ok(None),
        }
    }
}

enum FileLookup {
    /// The file is at the path, and has this size.
    AtPath(u64),
    /// The path names no file, or another one.
    Gone,
    /// The path cannot be read. If the disk is broken, SQLite's own errors say so.
    Unknown,
}

fn find(path: &Path, id: FileId) -> FileLookup {
    match FileId::at(path) {
        Ok((found, size)) if found == id => FileLookup::AtPath(size),
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => FileLookup::Gone,
        Err(_) => FileLookup::Unknown,
    }
}
