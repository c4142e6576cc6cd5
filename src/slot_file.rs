//! A file of slots of 64 bytes, each with a checksum. A process writes to it what must survive a kill or a full disk
//! and is not in the store yet.
//!
//! The question it answers: "what had the last process written, whenever it was killed?" Always true: one process at a
//! time has the file's lock; the first 8 bytes of a used slot are the beginning of the BLAKE3 hash of the other 56, and
//! a slot of zeros is free; the file gets its full size, filled with zeros, before any slot but the header is written,
//! so that writing a slot needs no disk space.
//!
//! A slot is written with a plain `pwrite` and not synced: it survives the end of the process. A power cut may lose or
//! tear what was written since the last sync: `affinity` syncs its file every second, `evidence` never syncs its slots.
//!
//! What the slots hold and what follows from a torn slot is defined by the two modules that have such files: `affinity`
//! keeps retry keys that legacy took, `evidence` keeps the routes whose evidence in the store is incomplete.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::names::RouteId;

/// The size of a slot.
pub const SLOT_BYTES: usize = 64;
/// The content of a slot. The first 8 bytes are its checksum.
pub type FileSlot = [u8; SLOT_BYTES];

/// The most files of one kind that the processes on one store use in one directory.
pub const FILES_MAX: usize = 64;
/// How long a start waits in total for files that are locked.
pub const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(1);
/// The size of the pieces in which the file is read, and zeros are written.
const PIECE_BYTES: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub struct SlotFile(File);

impl Drop for SlotFile {
    /// Unlocks the file even if a thread still has a handle of it, for a sync.
    fn drop(&mut self) {
        let _ = self.0.unlock(); // the end of the process unlocks it too
    }
}

/// Why a file cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has locked it.
    Locked,
    /// The operating system refused to open or lock it.
    Io {
        /// What was refused: "opened" or "locked".
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The route that a slot names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotRoute {
    /// The start of the hash of the route's id.
    Hash([u8; 16]),
    /// Every route. Written if all slots for single routes are taken; a torn slot is read as this too.
    Any,
}

impl SlotRoute {
    /// The value for the route with this id.
    pub fn of(route: &RouteId) -> Self {
        Self::Hash(bytes_at(blake3::hash(route.as_str().as_bytes()).as_bytes(), 0))
    }
}

impl SlotFile {
    /// Opens and locks the file; with `create` it is created, empty, if it does not exist.
    ///
    /// # Errors
    /// Another process has locked it, or the operating system refuses.
    pub fn open(path: &Path, create: bool) -> Result<Self, OpenError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path).map_err(|source| OpenError::Io { what: "opened", source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
            Err(TryLockError::Error(source)) => Err(OpenError::Io { what: "locked", source }),
        }
    }

    /// Opens the file for reading only, even while another process has locked it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// The number of whole slots in the file.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn slots(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len() / SLOT_BYTES as u64)
    }

    /// Reads slots in order; calls `found` for each with its index and content.
    ///
    /// # Errors
    /// The file is shorter than the range, or cannot be read.
    pub fn read(&self, slots: Range<u64>, mut found: impl FnMut(u64, &FileSlot)) -> io::Result<()> {
        let mut piece = vec![0; piece_bytes(&slots)];
        let mut at = slots.start;
        while at < slots.end {
            let bytes = piece_bytes(&(at..slots.end));
            self.0.read_exact_at(&mut piece[..bytes], at * SLOT_BYTES as u64)?;
            for slot in piece[..bytes].as_chunks().0 {
                found(at, slot);
                at += 1;
            }
        }
        Ok(())
    }

    /// Writes a slot, and its checksum.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn write(&self, index: u64, mut slot: FileSlot) -> io::Result<()> {
        let sum = checksum(&slot);
        slot[..8].copy_from_slice(&sum);
        self.0.write_all_at(&slot, index * SLOT_BYTES as u64)
    }

    /// Frees slots: fills them with zeros, even beyond the end of the file, so that their disk space is allocated.
    ///
    /// # Errors
    /// The operating system refuses, for instance because the disk is full.
    pub fn fill_with_zeros(&self, slots: Range<u64>) -> io::Result<()> {
        let zeros = vec![0; piece_bytes(&slots)];
        let mut at = slots.start;
        while at < slots.end {
            let bytes = piece_bytes(&(at..slots.end));
            self.0.write_all_at(&zeros[..bytes], at * SLOT_BYTES as u64)?;
            at += (bytes / SLOT_BYTES) as u64;
        }
        Ok(())
    }

    /// Shortens the file to this many slots.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn truncate(&self, slots: u64) -> io::Result<()> {
        self.0.set_len(slots * SLOT_BYTES as u64)
    }

    /// After this returns, a power cut loses neither what was written before nor the size of the file.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// After this returns, a power cut loses nothing that was written before.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Another handle of the file, with which a thread can sync it while others write.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn handle(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

/// How many bytes of these slots are read or written at once: at most [`PIECE_BYTES`].
fn piece_bytes(slots: &Range<u64>) -> usize {
    let slots = usize::try_from(slots.end.saturating_sub(slots.start)).unwrap_or(usize::MAX);
    slots.min(PIECE_BYTES / SLOT_BYTES) * SLOT_BYTES
}

/// Calls `open` again while the file is locked, until `retry_lock_until` at most. The kernel releases the locks of a
/// killed process one after another, so that its successor may already have the store's lock, but not this file's.
///
/// # Errors
/// Those of `open`.
pub async fn wait_while_locked<T, E>(
    retry_lock_until: Instant,
    open: impl Fn() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    loop {
        match open() {
            Err(error) if is_locked(&error) && Instant::now() < retry_lock_until => {
                tokio::time::sleep(WAIT_FOR_PREDECESSOR / 50).await;
            }
            done => return done,
        }
    }
}

fn checksum(slot: &FileSlot) -> [u8; 8] {
    bytes_at(blake3::hash(&slot[8..]).as_bytes(), 0)
}

/// Whether the slot is free.
pub fn is_free(slot: &FileSlot) -> bool {
    slot.iter().all(|byte| *byte == 0)
}

/// Whether the slot is used and not torn: its checksum matches its content.
pub fn is_whole(slot: &FileSlot) -> bool {
    !is_free(slot) && slot[..8] == checksum(slot)
}

/// `N` bytes of a slot, or of a hash, from the position `at`.
///
/// # Panics
/// There are fewer bytes. Callers pass constant positions, so that input cannot cause it.
pub fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}

/// The number in the 8 bytes of a slot from the position `at`.
///
/// # Panics
/// See [`bytes_at`].
pub fn number_at(slot: &FileSlot, at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(slot, at))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::SLOT_BYTES;

    /// The bytes of a file with this many slots. `used` has the index and the content, in hex, of each used slot; zeros
    /// at the end of a slot may be left out.
    pub(crate) fn file_of(slots: u64, used: &[(u64, &str)]) -> Vec<u8> {
        let mut file = vec![0; slots as usize * SLOT_BYTES];
        for (index, hex) in used {
            for (at, digits) in hex.as_bytes().chunks_exact(2).enumerate() {
                let byte = u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
                file[*index as usize * SLOT_BYTES + at] = byte;
            }
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_back_in_order_and_torn_ones_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let file = SlotFile::open(&path, true).unwrap();
        assert!(matches!(SlotFile::open(&path, false), Err(OpenError::Locked)));
        // Writes and reads more than one piece.
        let slots = (PIECE_BYTES / SLOT_BYTES) as u64 + 10;
        file.fill_with_zeros(0..slots).unwrap();
        assert_eq!(file.slots().unwrap(), slots);
        let used = [0, 1, slots - 11, slots - 10, slots - 1];
        for index in used {
            file.write(index, [u8::try_from(index % 250).unwrap() + 1; SLOT_BYTES]).unwrap();
        }
        let (mut next, mut found) = (0, Vec::new());
        SlotFile::open_read_only(&path)
            .unwrap()
            .read(0..slots, |index, slot| {
                assert_eq!(index, next);
                next += 1;
                if !is_free(slot) {
                    assert!(is_whole(slot));
                    assert_eq!(u64::from(slot[63]), index % 250 + 1);
                    found.push(index);
                }
            })
            .unwrap();
        assert_eq!((next, found), (slots, used.to_vec()));

        file.0.write_all_at(&[0], SLOT_BYTES as u64 + 30).unwrap();
        let mut torn = Vec::new();
        file.read(0..3, |_, slot| torn.push(!is_free(slot) && !is_whole(slot))).unwrap();
        assert_eq!(torn, [false, true, false]);
        assert!(file.read(0..slots + 1, |_, _| {}).is_err(), "the file is shorter");
        file.truncate(2).unwrap();
        assert_eq!(file.slots().unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_file_is_tried_again_until_the_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let (is_locked, open) =
            (|error: &OpenError| matches!(error, OpenError::Locked), || SlotFile::open(&path, true));
        let first = std::cell::RefCell::new(Some(open().unwrap()));
        assert!(wait_while_locked(Instant::now(), open, is_locked).await.is_err(), "there is no time left");
        // The lock is released after the first attempt to open the file again.
        let tries = std::cell::Cell::new(0);
        let opened = wait_while_locked(
            Instant::now() + Duration::from_secs(600),
            || {
                let tried = open();
                tries.set(tries.get() + 1);
                first.borrow_mut().take();
                tried
            },
            is_locked,
        );
        assert!(opened.await.is_ok());
        assert_eq!(tries.get(), 2);
    }
}
