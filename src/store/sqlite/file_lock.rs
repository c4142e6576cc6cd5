//! The lock by which a database file belongs to one process at a time.
//!
//! Always true: while a [`FileLock`] exists, no other process gets one for the same database, under whatever name; the
//! kernel releases it when the process ends in any way. If it is held, a start waits for a second, so that a quick
//! restart succeeds, and then fails with the id of the other process, if that is known.
//!
//! There are two locks. The one on `PATH.lock` comes first, and that file contains the id of the process. The other is
//! on the database file itself, which may have several names (hard links, bind mounts): beside each of them SQLite
//! would keep a log of its own, and two processes would damage the file. It is a `flock`, which is independent of
//! SQLite's own locks (`fcntl`). Those are released when any descriptor of the file is closed, so this one is closed
//! after the last connection.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// How long a start waits for another process to release the lock.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(1);

/// The lock on one database file.
pub(super) struct FileLock {
    /// `PATH.lock`.
    by_name: File,
    /// The database. Nothing is read or written through this descriptor.
    database: File,
    is_new: bool,
}

impl FileLock {
    /// Acquires the lock of a database; creates the file if it does not exist.
    pub(super) async fn acquire(database: &Path) -> Result<Self, StoreError> {
        refuse_network_file_system(database)?;
        let path = lock_path(database);
        let cannot_open = |error| StoreError(format!("cannot open the lock file {}: {error}", path.display()));
        let mut by_name = open_private(&path).map_err(cannot_open)?;
        if let Err(error) = lock(&by_name).await {
            let mut owner = String::new();
            let owner = match by_name.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
                Ok(_) | Err(_) => "another process".to_owned(),
            };
            return Err(refused(error, database, &owner, "stop that one first"));
        }
        let file = open_private(database)
            .map_err(|error| StoreError(format!("cannot open {}: {error}", database.display())))?;
        lock(&file).await.map_err(|error| {
            let owner = "another process, which has opened it by another name (a hard link, a bind mount) or whose lock \
                         file was removed";
            refused(error, database, owner, &format!("stop that one first (`fuser {}` finds it)", database.display()))
        })?;
        // The id is only for the message above: a full disk does not matter.
        let pid = std::process::id();
        let noted = by_name.set_len(0).and_then(|()| by_name.rewind()).and_then(|()| write!(by_name, "{pid}"));
        if let Err(error) = noted {
            tracing::warn!(%error, path = %path.display(), "the process id was not written to the lock file; the lock is held all the same");
        }
        let found =
            file.metadata().map_err(|error| StoreError(format!("cannot read {}: {error}", database.display())))?;
        warn_of_exposure(database, &found);
        Ok(Self { by_name, database: file, is_new: found.len() == 0 })
    }

    /// The database file, to identify it: nothing is read or written through this descriptor.
    pub(super) fn database(&self) -> &File {
        &self.database
    }

    /// Whether the database file was empty when it was opened.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Opens a file, or creates it readable by its owner only. A database contains what callers sent, and the store's
/// secret; SQLite gives its other files the same permissions.
fn open_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn refused(error: TryLockError, database: &Path, owner: &str, remedy: &str) -> StoreError {
    let shown = database.display();
    match error {
        TryLockError::WouldBlock => StoreError(format!(
            "{shown} is in use by {owner}: a database belongs to one process at a time; {remedy}, or give this one \
             another file with --store"
        )),
        TryLockError::Error(error) => StoreError(format!("cannot lock {shown}: {error}")),
    }
}

/// Warns of a database that other users may read, or that has several names.
fn warn_of_exposure(database: &Path, found: &std::fs::Metadata) {
    let path = database.display();
    if found.mode() & 0o007 != 0 {
        tracing::warn!(
            %path,
            "all users of this machine may read the store, which contains what callers sent: run `chmod o=` on it"
        );
    }
    if found.nlink() > 1 {
        tracing::warn!(
            %path, names = found.nlink(),
            "the store's file has several names (hard links): keep only this one. After a crash, a start by another name \
             would not find the newest events, because they are in a log beside this name"
        );
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
        let _ = self.by_name.set_len(0);
        let _ = self.database.unlock();
        let _ = self.by_name.unlock();
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Whether a process has the lock by the name of a database.
pub(super) fn is_held(database: &Path) -> bool {
    let opened = canonical_path(database).ok().and_then(|path| File::open(lock_path(&path)).ok());
    opened.is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
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
    let name = match kind as u32 {
        FUSE => network_fuse_type(folder),
        kind => network_file_system_name(kind).map(str::to_owned),
    };
    match name {
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

/// `statfs` gives this number for every file system in user space; `/proc/self/mountinfo` tells them apart.
#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Types of FUSE file systems whose files other machines may use at the same time.
#[cfg(target_os = "linux")]
const NETWORK_FUSE_TYPES: [&str; 14] = [
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.s3fs",
    "fuse.goofys",
    "fuse.mount-s3",
    "fuse.gcsfuse",
    "fuse.blobfuse",
    "fuse.blobfuse2",
    "fuse.rclone",
    "fuse.juicefs",
    "fuse.mfs",
    "fuse.seaweedfs",
];

/// The type of the FUSE file system of a folder, if it is one of [`NETWORK_FUSE_TYPES`].
#[cfg(target_os = "linux")]
fn network_fuse_type(folder: &Path) -> Option<String> {
    let device = std::fs::metadata(folder).ok()?.dev();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let kind = mount_type(&mounts, &device)?;
    NETWORK_FUSE_TYPES.contains(&kind).then(|| kind.to_owned())
}

/// The file system type of a device (`MAJOR:MINOR`), as the lines of `/proc/self/mountinfo` give it.
#[cfg(target_os = "linux")]
fn mount_type<'m>(mounts: &'m str, device: &str) -> Option<&'m str> {
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(device);
    let line = mounts.lines().find(of_device)?;
    line.split_once(" - ")?.1.split(' ').next()
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

    #[tokio::test]
    async fn a_database_is_locked_under_all_of_its_names_and_without_its_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a.db"), dir.path().join("b.db"));
        let first = FileLock::acquire(&path).await.unwrap();
        assert!(first.is_new());
        std::fs::hard_link(&path, &link).unwrap();
        let refused = FileLock::acquire(&link).await.map(|_| ()).unwrap_err().0;
        assert!(refused.contains("b.db is in use by another process") && refused.contains("hard link"), "{refused}");
        assert!(refused.contains(&format!("`fuser {}`", link.display())), "{refused}");
        std::fs::remove_file(lock_path(&path)).unwrap();
        let refused = FileLock::acquire(&path).await.map(|_| ()).unwrap_err().0;
        assert!(refused.contains("whose lock file was removed") && refused.contains("--store"), "{refused}");
        drop(first);
        FileLock::acquire(&link).await.unwrap();
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
        let mounts = "22 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
                      90 22 0:51 / /mnt/a rw,nosuid shared:7 master:2 - fuse.glusterfs server:/volume rw\n\
                      91 22 0:52 / /mnt/b rw - fuse.encfs encfs rw\n";
        let kinds = ["8:1", "0:51", "0:52", "0:53"].map(|device| mount_type(mounts, device));
        assert_eq!(kinds, [Some("ext4"), Some("fuse.glusterfs"), Some("fuse.encfs"), None]);
        assert!(NETWORK_FUSE_TYPES.contains(&"fuse.glusterfs") && !NETWORK_FUSE_TYPES.contains(&"fuse.encfs"));
    }
}
