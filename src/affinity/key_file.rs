//! The layout of the file that keeps first tries of legacy until the store has them, and how it is read back.
//!
//! The question it answers: "which first tries had legacy taken when the last process ended?" Always true: the file has
//! its full size, filled with zeros, before the first record is written, so that writing a record needs no space; it is
//! locked by one process; each slot has a checksum, and a slot whose checksum is wrong is skipped and counted. Deciding
//! which record may be overwritten is left to `key_log`.
//!
//! A record is written with a plain `pwrite` and not synced: it survives the end of the process and a full disk. Records
//! of the last second before a power cut may be lost.
//!
//! Layout, in slots of 64 bytes: slot 0 names the format, this file and the store that uses it; slot 1 says up to which
//! number all records are in the store; each of the slots 2 to 63 has the hash of a route and the time at which legacy
//! last served a request of it whose key could not be noted; the rest is a ring buffer of records.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::key_file_tag::Tag;
use crate::clock;
use crate::flag::RetryKey;
use crate::names::RouteId;
use crate::store::StoreError;

const SLOT: usize = 64;
/// Slots before the ring.
const HEAD_SLOTS: u64 = 64;
const STORED_SLOT: u64 = 1;
const UNNOTED_SLOTS: std::ops::Range<u64> = 2..HEAD_SLOTS - 1;
/// Counts for every route; used when all other such slots are taken.
const UNNOTED_ANY_SLOT: u64 = HEAD_SLOTS - 1;
const UNNOTED_ROUTES: usize = (UNNOTED_SLOTS.end - UNNOTED_SLOTS.start) as usize;
const MAGIC: &[u8; 8] = b"PMKEYS01";
/// Zeros are written in pieces of this size, and the file is read in such pieces.
const PIECE: usize = 1 << 20;

type Slot = [u8; SLOT];

/// A first try that legacy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub seq: u64,
    pub at: Timestamp,
    pub key: RetryKey,
}

/// The file, open and locked.
pub(super) struct KeyFile {
    file: File,
    path: PathBuf,
    records: u64,
    /// The routes that have one of the slots 2 to 62; `None` for a free slot.
    unnoted: [Option<[u8; 16]>; UNNOTED_ROUTES],
}

/// An open file with its content.
pub(super) struct Opened {
    pub file: KeyFile,
    /// `None` if an older version created the file.
    pub tag: Option<Tag>,
    /// All records up to this number are in the store.
    pub stored: u64,
    /// Records that may not be in the store, in order.
    pub waiting: Vec<Record>,
    /// The highest number of any record.
    pub last: u64,
    /// When legacy last served a request of a route whose key could not be noted.
    pub unnoted: Vec<(UnnotedRoute, Timestamp)>,
    /// Slots that could not be read.
    pub skipped: u64,
}

/// A route in one of the slots 2 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum UnnotedRoute {
    Hash([u8; 16]),
    Any,
}

impl UnnotedRoute {
    pub(super) fn of(route: &RouteId) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(route.as_str().as_bytes()).as_bytes()[..16]);
        Self::Hash(hash)
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Another process has it.
    #[error("the file of retry keys {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// It has keys of another store.
    #[error("the file of retry keys {} has keys that another store does not have yet; move it back to that store, or move it away", .0.display())]
    AnotherStores(PathBuf),
    /// The store does not say which files it has.
    #[error("the store's list of files of retry keys cannot be read: {0}")]
    Store(#[source] StoreError),
    /// A newer version wrote it.
    #[error("the file of retry keys {} was written by a newer version; start that version, or move the file away once its keys are in the store (they are, unless that version was killed)", .0.display())]
    Newer(PathBuf),
    /// It cannot be made, read or written.
    #[error("the file of retry keys {} cannot be {what}: {source}; it takes {bytes} bytes on disk (limits: retry_keys_file_bytes_max) in a directory that this process may write (`retry_keys_dir`)", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its whole size.
        bytes: u64,
        /// Why it failed.
        source: io::Error,
    },
}

impl KeyFile {
    /// Opens and reads the file. With `make` it is opened for use: it is created with its full size if it does not exist,
    /// and resized if it has another size, no record in it waits for the store, and the disk has room.
    pub(super) fn open(path: &Path, bytes_max: u64, make: bool) -> Result<Opened, KeyFileError> {
        let wanted = (bytes_max / SLOT as u64).max(HEAD_SLOTS + 1);
        let failed =
            |what| move |source| KeyFileError::Io { path: path.to_owned(), what, bytes: wanted * SLOT as u64, source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path).map_err(failed("opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(KeyFileError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("locked")(error)),
        }
        let slots = file.metadata().map_err(failed("read"))?.len() / SLOT as u64;
        if slots <= HEAD_SLOTS && !make {
            return Err(failed("read")(io::ErrorKind::UnexpectedEof.into()));
        }
        if slots <= HEAD_SLOTS {
            if let Err(error) =
                fill(&file, 0, wanted).and_then(|()| write_header(&file, None)).and_then(|()| file.sync_all())
            {
                let _not_there_either = std::fs::remove_file(path);
                return Err(failed("made")(error));
            }
            let file = Self::new(file, path, wanted);
            let unnoted = Vec::new();
            return Ok(Opened { file, tag: None, stored: 0, waiting: Vec::new(), last: 0, unnoted, skipped: 0 });
        }
        let mut opened = Self::new(file, path, slots).read().map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => KeyFileError::Newer(path.to_owned()),
            _ => failed("read")(error),
        })?;
        if make && slots != wanted && opened.waiting.is_empty() {
            opened.resize(slots, wanted);
        }
        Ok(opened)
    }

    fn new(file: File, path: &Path, slots: u64) -> Self {
        Self { file, path: path.to_owned(), records: slots - HEAD_SLOTS, unnoted: [None; UNNOTED_ROUTES] }
    }

    fn read(mut self) -> io::Result<Opened> {
        let mut head = vec![0; SLOT * HEAD_SLOTS as usize];
        self.file.read_exact_at(&mut head, 0)?;
        let head: Vec<&[u8]> = head.chunks_exact(SLOT).collect();
        if &head[0][8..14] == b"PMKEYS" && checked(head[0]).is_some() && &head[0][8..16] != MAGIC {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let stored = checked(head[STORED_SLOT as usize]).map_or(0, |slot| number(slot, 8));
        let mut skipped = head.iter().filter(|slot| checked(slot).is_none() && !is_empty(slot)).count() as u64;
        let tag = checked(head[0]).and_then(Tag::read);
        let (mut unnoted, mut torn) = (Vec::new(), Vec::new());
        for (index, slot) in head[UNNOTED_SLOTS.start as usize..].iter().enumerate() {
            let mark = checked(slot).and_then(|slot| Some((first_16(&slot[8..]), time(slot, 24)?)));
            match (mark, self.unnoted.get_mut(index)) {
                (Some((hash, at)), Some(place)) => {
                    *place = Some(hash);
                    unnoted.push((UnnotedRoute::Hash(hash), at));
                }
                (Some((_, at)), None) => unnoted.push((UnnotedRoute::Any, at)),
                (None, _) if !is_empty(slot) => torn.push(UNNOTED_SLOTS.start + index as u64),
                (None, _) => {}
            }
        }
        if !torn.is_empty() {
            // The route and the time of a torn slot are lost: it counts for every route, as of now.
            let now = clock::now();
            unnoted.push((UnnotedRoute::Any, now));
            self.write_unnoted(UnnotedRoute::Any, now)?;
            for slot in torn.into_iter().filter(|slot| *slot != UNNOTED_ANY_SLOT) {
                self.file.write_all_at(&[0; SLOT], slot * SLOT as u64)?;
            }
        }
        let (mut waiting, mut last) = (Vec::new(), stored);
        skipped += read_ring(&self.file, self.records, |record| {
            last = last.max(record.seq);
            if record.seq > stored {
                waiting.push(record);
            }
        })?;
        waiting.sort_by_key(|record| record.seq);
        Ok(Opened { file: self, tag, stored, waiting, last, unnoted, skipped })
    }

    /// Reads the tag and all records of a file that a process may be writing to, also records that the store has.
    pub(super) fn peek(path: &Path) -> io::Result<(Option<Tag>, Vec<Record>)> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut head = [0; SLOT];
        file.read_exact_at(&mut head, 0)?;
        let slots = file.metadata()?.len() / SLOT as u64;
        let mut records = Vec::new();
        // A record that is being written at this moment has a wrong checksum and is skipped.
        read_ring(&file, slots.saturating_sub(HEAD_SLOTS), |record| records.push(record))?;
        Ok((checked(&head).and_then(Tag::read), records))
    }

    /// How many records it holds.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle of the file, with which a thread can sync it while others write.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Writes the tag.
    pub(super) fn write_tag(&self, tag: &Tag) -> io::Result<()> {
        write_header(&self.file, Some(tag))
    }

    /// After this returns, a power cut loses nothing that was written before.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes a record in its slot of the ring.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let mut slot = [0; SLOT];
        slot[8..16].copy_from_slice(&record.seq.to_le_bytes());
        slot[16..24].copy_from_slice(&millis(record.at));
        slot[24..56].copy_from_slice(&record.key.0);
        self.put(HEAD_SLOTS + (record.seq - 1) % self.records, slot)
    }

    /// Writes up to which number all records are in the store.
    pub(super) fn write_stored(&self, seq: u64) -> io::Result<()> {
        let mut slot = [0; SLOT];
        slot[8..16].copy_from_slice(&seq.to_le_bytes());
        self.put(STORED_SLOT, slot)
    }

    /// Writes when legacy last served a request of a route whose key could not be noted.
    pub(super) fn write_unnoted(&mut self, route: UnnotedRoute, at: Timestamp) -> io::Result<()> {
        let (place, hash) = match route {
            UnnotedRoute::Any => (UNNOTED_ANY_SLOT, [0; 16]),
            UnnotedRoute::Hash(hash) => {
                let position = |wanted| self.unnoted.iter().position(|place| *place == wanted);
                match position(Some(hash)).or_else(|| position(None)) {
                    Some(index) => {
                        self.unnoted[index] = Some(hash);
                        (UNNOTED_SLOTS.start + index as u64, hash)
                    }
                    None => (UNNOTED_ANY_SLOT, [0; 16]),
                }
            }
        };
        let mut slot = [0; SLOT];
        slot[8..24].copy_from_slice(&hash);
        slot[24..32].copy_from_slice(&millis(at));
        self.put(place, slot)
    }

    fn put(&self, place: u64, mut slot: Slot) -> io::Result<()> {
        let sum = checksum(&slot);
        slot[..8].copy_from_slice(&sum);
        self.file.write_all_at(&slot, place * SLOT as u64)
    }
}

impl Opened {
    /// Gives the file another size. Only for a file in which no record waits for the store.
    fn resize(&mut self, slots: u64, wanted: u64) {
        let file = &self.file.file;
        let resized = match wanted > slots {
            true => fill(file, slots, wanted).inspect_err(|_| {
                let _stays_too_long = file.set_len(slots * SLOT as u64);
            }),
            false => file.set_len(wanted * SLOT as u64),
        };
        // In the new ring old records are in wrong slots: with this number they count as stored and are ignored.
        match resized.and_then(|()| self.file.write_stored(self.last)) {
            Ok(()) => {
                self.file.records = wanted - HEAD_SLOTS;
                self.stored = self.last;
            }
            Err(error) => {
                let (path, bytes) = (self.file.path.display(), slots * SLOT as u64);
                tracing::warn!(%path, %error, bytes, "the file of retry keys could not be resized; it keeps its size");
            }
        }
    }
}

/// Reads the ring; returns how many slots could not be read.
fn read_ring(file: &File, records: u64, mut found: impl FnMut(Record)) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let (mut at, end) = (HEAD_SLOTS * SLOT as u64, (HEAD_SLOTS + records) * SLOT as u64);
    let mut skipped = 0;
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        file.read_exact_at(&mut piece[..bytes], at)?;
        for slot in piece[..bytes].chunks_exact(SLOT).filter(|slot| !is_empty(slot)) {
            match checked(slot).and_then(|slot| Some((number(slot, 8), time(slot, 16)?, key(slot)))) {
                Some((seq, at, key)) => found(Record { seq, at, key }),
                None => skipped += 1,
            }
        }
        at += bytes as u64;
    }
    Ok(skipped)
}

/// Writes zeros from one slot to another: space that is allocated cannot run out later.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    let (mut at, end) = (from * SLOT as u64, to * SLOT as u64);
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        file.write_all_at(&zeros[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

fn write_header(file: &File, tag: Option<&Tag>) -> io::Result<()> {
    let mut slot = [0; SLOT];
    slot[8..16].copy_from_slice(MAGIC);
    if let Some(tag) = tag {
        tag.write(&mut slot);
    }
    let sum = checksum(&slot);
    slot[..8].copy_from_slice(&sum);
    file.write_all_at(&slot, 0)
}

fn checksum(slot: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(&slot[8..]).as_bytes()[..8]);
    sum
}

fn checked(slot: &[u8]) -> Option<&[u8]> {
    (!is_empty(slot) && checksum(slot) == slot[..8]).then_some(slot)
}

fn is_empty(slot: &[u8]) -> bool {
    slot.iter().all(|byte| *byte == 0)
}

fn number(slot: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&slot[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    first
}

fn millis(at: Timestamp) -> [u8; 8] {
    at.as_millisecond().to_le_bytes()
}

fn time(slot: &[u8], at: usize) -> Option<Timestamp> {
    Timestamp::from_millisecond(number(slot, at).cast_signed()).ok()
}

fn key(slot: &[u8]) -> RetryKey {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&slot[24..56]);
    RetryKey(bytes)
}

#[cfg(test)]
mod tests;
