//! Finds out whether the files of an open database are still at their paths.
//!
//! SQLite does not notice when they are removed, moved or replaced. It goes on with the files that it has open, and
//! after the end of the process nothing finds what was written to them.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Identifies a file whatever its name.
#[derive(Clone, Copy, PartialEq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
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
        let database_id = FileId::of(&file.metadata()?);
        let mut files = Self { database: path.to_owned(), database_id, log: log.into(), log_id: None };
        files.note_log();
        Ok(files)
    }

    /// Remembers the write-ahead log of a connection that was just opened. It stays the same file while a connection is
    /// open.
    pub(super) fn note_log(&mut self) {
        self.log_id = std::fs::metadata(&self.log).ok().map(|found| FileId::of(&found));
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
    match std::fs::metadata(path) {
        Ok(found) => FileId::of(&found) == id,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}
