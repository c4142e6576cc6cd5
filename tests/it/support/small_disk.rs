//! A file system that can be filled.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system of a fixed size, until it is dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// In memory, of this size (`8m`). `None` where this user may not mount.
    pub fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
    /// A file system with blocks of 1 KiB, which is smaller than a page of memory.
    pub fn mount_with_small_blocks() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let image = tempfile::NamedTempFile::new().expect("a file");
        image.as_file().set_len(24 << 20).expect("a size");
        let made = Command::new("mkfs.ext4").args(["-q", "-b", "1024"]).arg(image.path()).output();
        made.is_ok_and(|output| output.status.success()).then_some(())?;
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
    /// Mounts it again, read-only (`ro`) or writable (`rw`).
    pub fn remount(&self, how: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "{how}");
    }
    /// Fills the disk, also if it has been filled before. Returns the file that fills it.
    pub fn fill(&self) -> PathBuf {
        fill(self.path())
    }
}

/// Fills the file system of a directory. Returns the file that fills it.
pub fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let filler = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let mut filler = filler.expect("a file");
    for piece in [1 << 16, 1 << 12, 1] {
        while filler.write_all(&vec![1; piece]).is_ok() {}
    }
    path
}

impl AsRef<Path> for SmallDisk {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _stays_mounted = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
