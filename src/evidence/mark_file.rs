//! The file that says of routes that the store does not have all of their evidence: its layout.
//!
//! Always true: the file has its full size before the first mark is written, so that writing a mark needs no space; it is
//! locked to one process; each slot has a checksum of its own, and a torn one counts as a mark of every route, since the
//! route that it named is lost. A mark is written with a plain `pwrite` and not synced: it survives the end of the process
//! and a full disk, and a power cut may lose one of the last seconds.
//!
//! Layout, in slots of 64 bytes: slot 0 names the format; the last slot stands for every route; those between have one
//! route each. A slot of zeros is free.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::names::RouteId;

const SLOT: usize = 64;
const SLOTS: u64 = 128;
const ANY_SLOT: u64 = SLOTS - 1;
const MAGIC: &[u8; 8] = b"PMEVID01";

type Slot = [u8; SLOT];

/// A route as the file knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MarkedRoute {
    Hash([u8; 16]),
    /// Every route.
    Any,
}

impl MarkedRoute {
    pub(super) fn of(route: &RouteId) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(route.as_str().as_bytes()).as_bytes()[..16]);
        Self::Hash(hash)
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkFileError {
    /// Another process has it.
    #[error("the file of evidence marks {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A newer version wrote it, or it is another file.
    #[error("the file of evidence marks {} is not one that this version can read; move it away: then evidence may be incomplete, and is better gathered again (change a compare rule)", .0.display())]
    Unknown(PathBuf),
    /// It cannot be made, read or written.
    #[error("the file of evidence marks {} cannot be {what}: {source}; it takes {bytes} bytes in a directory that this process may write", .path.display(), bytes = SLOTS * SLOT as u64)]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The file, open and locked.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    /// For each slot, whether a mark stands in it.
    used: Vec<bool>,
}

impl MarkFile {
    /// Opens the file, or makes it where that is wanted; returns the marks that stand in it, with their slots.
    pub(super) fn open(path: &Path, make: bool) -> Result<(Self, Vec<(MarkedRoute, u64)>), MarkFileError> {
        let failed = |what| move |source| MarkFileError::Io { path: path.to_owned(), what, source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path).map_err(failed("opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(MarkFileError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("locked")(error)),
        }
        let mut whole = vec![0; SLOTS as usize * SLOT];
        let is_whole = file.metadata().map_err(failed("read"))?.len() >= whole.len() as u64;
        if is_whole {
            file.read_exact_at(&mut whole, 0).map_err(failed("read"))?;
        } else {
            // A process that was killed while it made the file had marked nothing yet.
            whole[8..16].copy_from_slice(MAGIC);
            seal(&mut whole[..SLOT]);
            file.write_all_at(&whole, 0).and_then(|()| file.sync_all()).map_err(failed("made"))?;
        }
        let mut slots = whole.chunks_exact(SLOT);
        if slots.next().is_none_or(|head| !is_sealed(head) || &head[8..16] != MAGIC) {
            return Err(MarkFileError::Unknown(path.to_owned()));
        }
        let mut opened = Self { file, used: vec![false; SLOTS as usize] };
        opened.used[0] = true;
        let mut marks = Vec::new();
        for (slot, bytes) in (1..).zip(slots).filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
            let mut hash = [0; 16];
            hash.copy_from_slice(&bytes[8..24]);
            let route = if is_sealed(bytes) && slot < ANY_SLOT { MarkedRoute::Hash(hash) } else { MarkedRoute::Any };
            opened.used[slot as usize] = true;
            marks.push((route, slot));
        }
        Ok((opened, marks))
    }

    /// Writes a mark; where no slot is left for the route, one of every route. Returns what it marked, and where.
    pub(super) fn write(&mut self, route: MarkedRoute) -> io::Result<(MarkedRoute, u64)> {
        let free = self.used[..ANY_SLOT as usize].iter().position(|used| !used);
        let (route, slot, hash) = match (route, free) {
            (MarkedRoute::Hash(hash), Some(slot)) => (route, slot as u64, hash),
            _ => (MarkedRoute::Any, ANY_SLOT, [0; 16]),
        };
        let mut bytes = [0; SLOT];
        bytes[8..24].copy_from_slice(&hash);
        bytes[24] = 1; // no slot that is used is all zeros
        seal(&mut bytes);
        self.put(slot, &bytes)?;
        self.used[slot as usize] = true;
        Ok((route, slot))
    }

    /// Takes a mark away.
    pub(super) fn clear(&mut self, slot: u64) -> io::Result<()> {
        self.put(slot, &[0; SLOT])?;
        self.used[slot as usize] = false;
        Ok(())
    }

    fn put(&self, slot: u64, bytes: &Slot) -> io::Result<()> {
        self.file.write_all_at(bytes, slot * SLOT as u64)
    }
}

fn sum(slot: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(&slot[8..]).as_bytes()[..8]);
    sum
}

fn seal(slot: &mut [u8]) {
    let sum = sum(slot);
    slot[..8].copy_from_slice(&sum);
}

fn is_sealed(slot: &[u8]) -> bool {
    slot[..8] == sum(slot)
}
