//! Finds out whether the files of an open database are still at their paths.
//!
//! SQLite does not notice when they are removed, moved or replaced. It goes on with the files that it has open, and
//! after the end of the process nothing finds what was written to them.
//!
//! Only inode numbers are read, never times. A file whose times were read gets a new time at its next write (since Linux
//! 6.13, multigrain timestamps), which the next sync then has to commit to the file system's journal: on ext4, a write
//! with its sync took 120 us, and 190 us with a `stat` before it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

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
        Ok(Self::read(file, Path::new(""), AtFlags::EMPTY_PATH)?)
    }

    fn at(path: &Path) -> Result<Self, Errno> {
        Self::read(CWD, path, AtFlags::empty())
    }

    fn read(folder: impl AsFd, path: &Path, flags: AtFlags) -> Result<Self, Errno> {
        let found = statx(folder, path, flags, StatxFlags::INO)?;
        Ok(Self { device_major: found.stx_dev_major, device_minor: found.stx_dev_minor, inode: found.stx_ino })
    }
}

/// The files of an open database.
pub(super) struct OpenFiles {
    database: PathBuf,
    database_id: FileId,
    log: PathBuf,
    /// `None` until [`OpenFiles::note_log`] has found it.
    log_id: Option<FileId>,
}

impl OpenFiles {
    /// The files of the database at a path, which is open as `file`.
    pub(super) fn new(path: &Path, file: &File) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let database_id = FileId::of(file)?;
        let mut files = Self { database: path.to_owned(), database_id, log: log.into(), log_id: None };
        files.note_log();
        Ok(files)
    }

    /// Remembers the write-ahead log of a connection that was just opened. It stays the same file while a connection is
    /// open.
    pub(super) fn note_log(&mut self) {
        self.log_id = FileId::at(&self.log).ok();
    }

    /// Says which file is no longer at its path, and what to do; `None` if both are. Without a connection
    /// (`has_connection`) SQLite may have removed the log.
    pub(super) fn missing(&self, has_connection: bool) -> Option<String> {
        let text = |path: &Path, remedy: &str| {
            format!(
                "the file {} was removed or replaced while it is open, so that what is written now would be lost when \
                 this process ends: {remedy}",
                path.display()
            )
        };
        if !is_at(&self.database, self.database_id) {
            let remedy =
                "move it back with the files beside it, or stop this process, restore a backup and start again";
            return Some(text(&self.database, remedy));
        }
        let log_id = self.log_id.filter(|_| has_connection)?;
        (!is_at(&self.log, log_id)).then(|| text(&self.log, "stop this process (SIGTERM) and start it again"))
    }
}

/// Whether a path names this file. `true` if that cannot be found out: SQLite's own errors tell about a broken disk.
fn is_at(path: &Path, id: FileId) -> bool {
    match FileId::at(path) {
        Ok(found) => found == id,
        Err(error) => !matches!(error, Errno::NOENT | Errno::NOTDIR),
    }
}
