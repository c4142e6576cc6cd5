//! The lock by which a database file belongs to one process at a time.
//!
//! Always true: while a [`FileLock`] exists, no other process gets one for the same database; the kernel releases it
//! when the process ends in any way. If it is held, a start waits for a second, so that a quick restart succeeds, and
//! then fails with the id of the other process. The lock is on a file of its own: closing a second handle to the
//! database would release SQLite's locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// How long a start waits for another process to release the lock.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(1);

/// The lock on one database file.
pub(super) struct FileLock {
    file: File,
}

impl FileLock {
    /// Acquires the lock of a database.
    pub(super) async fn acquire(database: &Path) -> Result<Self, StoreError> {
        refuse_network_file_system(database)?;
        let path = lock_path(database);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options
            .open(&path)
            .map_err(|error| StoreError(format!("cannot open the lock file {}: {error}", path.display())))?;
        match lock(&file).await {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let owner = match file.read_to_string(&mut owner) {
                    Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
                    Ok(_) | Err(_) => "another process".to_owned(),
                };
                return Err(StoreError(format!(
                    "{} is in use by {owner}: a database belongs to one process at a time; stop that one first, or \
                     give this one another file with --store",
                    database.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(StoreError(format!("cannot lock {}: {error}", path.display())));
            }
        }
        // The id is only for the message above: a full disk does not matter.
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::warn!(%error, path = %path.display(), "the process id was not written to the lock file; the lock is held all the same");
        }
        Ok(Self { file })
    }
}

/// Tries for a while: the kernel needs a moment to release the lock of a process that was just killed.
async fn lock(file: &File) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < WAIT_FOR_PREDECESSOR => {
                tokio::time::sleep(WAIT_FOR_PREDECESSOR / 20).await
            }
            done => return done,
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // The file is not removed: another process may wait for its lock, and a third would lock a new file of that
        // name.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// The canonical path of a file, so that two names of it get the same lock.
pub(super) fn canonical_path(path: &Path) -> Result<PathBuf, StoreError> {
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let (Some(name), folder) = (path.file_name(), path.parent().unwrap_or(Path::new(""))) else {
        return Err(StoreError(format!("{} does not name a file", path.display())));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder
        .canonicalize()
        .map_err(|error| StoreError(format!("cannot use the folder {}: {error}", folder.display())))?;
    Ok(folder.join(name))
}

#[cfg(target_os = "linux")]
fn refuse_network_file_system(database: &Path) -> Result<(), StoreError> {
    let folder = database.parent().unwrap_or(Path::new("."));
    let kind = rustix::fs::statfs(folder)
        .map_err(|error| StoreError(format!("cannot read the file system type of {}: {error}", folder.display())))?
        .f_type;
    // The type's width and sign differ between architectures: only the low 32 bits identify the file system.
    match network_file_system_name(kind as u32) {
        None => Ok(()),
        Some(name) => Err(StoreError(format!(
            "{} is on {name}: SQLite's locks and shared memory do not work there, and events could be lost; put the \
             store on a local disk",
            database.display()
        ))),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_database: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// The name of a network file system; `None` for all others. The numbers are those of `statfs(2)`.
#[cfg(target_os = "linux")]
fn network_file_system_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x0000_6969 => "NFS",
        0x0000_517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB",
        0x5346_414f => "AFS",
        0x7375_7245 => "Coda",
        0x0000_564c => "NCP",
        0x0102_1997 => "9p",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_lock_waits_then_fails_with_the_process_id_and_succeeds_after_a_release() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let first = FileLock::acquire(&path).await.unwrap();
        let refused = FileLock::acquire(&path).await.map(|_| ()).unwrap_err();
        assert!(refused.0.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.0.contains("--store"), "{refused}");
        let next = FileLock::acquire(&path);
        let release = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (next, ()) = tokio::join!(next, release);
        next.unwrap();
    }

    #[test]
    fn two_names_of_one_file_have_one_canonical_path() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let straight = canonical_path(&dir.path().join("a.db")).unwrap();
        assert_eq!(canonical_path(&dir.path().join("link/a.db")).unwrap(), straight);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_recognised() {
        assert_eq!(network_file_system_name(0x6969), Some("NFS"));
        assert_eq!(network_file_system_name(0xef53), None, "ext4");
    }
}
