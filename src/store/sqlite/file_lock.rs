//! One file belongs to one process at a time.
//!
//! The question it answers: "may this process open that database?" Always true: while an [`FileLock`] lives, nobody
//! else gets one for the same file; the kernel takes it back when the process dies, however it dies. Whoever comes
//! while it is held waits a second, so that a quick restart goes through, and is then refused by name. The lock stands
//! beside the database, never on it: closing a second handle to the database would drop SQLite's own locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// How long a start waits for the process before it; nothing else is served yet.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(1);

/// The right to use one database file.
pub(super) struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock of a database.
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
        // The number is only for the message above, so a disk that is too full for it does not matter.
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::warn!(%error, path = %path.display(), "the lock file does not say whose it is");
        }
        Ok(Self { file })
    }
}

/// Once the process that was killed a moment ago is gone, its place is free: that takes the kernel a little.
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
        // The file stays: removing it while another process waits for it would make two locks of one name.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// The path by which every process knows the file, so that two names of it meet at one lock.
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
        .map_err(|error| StoreError(format!("cannot look at the file system of {}: {error}", folder.display())))?
        .f_type;
    // Kernels write the number as signed or not, wide or not: only its low 32 bits are the name.
    match network_file_system_name(kind as u32) {
        None => Ok(()),
        Some(name) => Err(StoreError(format!(
            "{} stands on {name}: SQLite's locks and shared memory do not hold there, and events could be lost; put \
             the store on a local disk",
            database.display()
        ))),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_database: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// The numbers are those of `statfs(2)`.
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
    async fn a_second_owner_waits_a_little_is_refused_by_name_and_comes_in_when_the_first_is_gone() {
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
    fn two_names_of_one_file_are_one() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let straight = canonical_path(&dir.path().join("a.db")).unwrap();
        assert_eq!(canonical_path(&dir.path().join("link/a.db")).unwrap(), straight);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_have_names() {
        assert_eq!(network_file_system_name(0x6969), Some("NFS"));
        assert_eq!(network_file_system_name(0xef53), None, "ext4");
    }
}
