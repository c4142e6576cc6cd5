//! The layout of the file that keeps first tries of legacy until the store has them, and how it is read back.
//!
//! The question it answers: "which first tries had legacy taken when the last process ended?" Always true: the file has
//! its full size, filled with zeros, before the first record is written, so that writing a record needs no space; it is
//! locked by one process; each slot has a checksum, and a slot whose checksum is wrong is skipped and counted. Deciding
//! which record may be overwritten is left to `key_log`; recognising that records are missing, to `key_file_damage`. Where
//! some are, the slot of all routes says that a key could not be noted: which key it was is not known.
//!
//! A record is written with a plain `pwrite` and not synced: it survives the end of the process and a full disk. Records
//! of the last second before a power cut may be lost.
//!
//! Layout, in slots of 64 bytes: slot 0 names the format, this file and the store that uses it; slot 1 says up to which
//! number all records are in the store, how many slots the file has, and which number was noted last (the last two are 0 in
//! a file of an earlier version, which is taken to have its full length); each of the slots 2 to 63 has the hash of a
//! route and the time at which legacy last served a request of it whose key could not be noted; the rest is a ring buffer
//! of records.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::key_file_damage::RingContent;
pub(super) use super::key_file_slots::Record;
use super::key_file_slots::{
    HEAD_SLOTS, SLOT, Slot, checked, checksum, fill, first_16, is_empty, millis, number, read_ring, time,
};
use super::key_file_tag::Tag;
use crate::clock;
use crate::names::RouteId;
use crate::store::StoreError;

const STORED_SLOT: u64 = 1;
const UNNOTED_SLOTS: std::ops::Range<u64> = 2..HEAD_SLOTS - 1;
/// Counts for every route; used when all other such slots are taken.
const UNNOTED_ANY_SLOT: u64 = HEAD_SLOTS - 1;
const UNNOTED_ROUTES: usize = (UNNOTED_SLOTS.end - UNNOTED_SLOTS.start) as usize;
const MAGIC: &[u8; 8] = b"PMKEYS01";
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
    /// What shows that records are missing which the store may not have.
    pub damage: Option<String>,
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
        let there = file.metadata().map_err(failed("read"))?.len() / SLOT as u64;
        if there <= HEAD_SLOTS && !make {
            return Err(failed("read")(io::ErrorKind::UnexpectedEof.into()));
        }
        if there <= HEAD_SLOTS {
            let new = Self::new(file, path, wanted);
            let made = fill(&new.file, 0, wanted).and_then(|()| write_header(&new.file, None));
            if let Err(error) = made.and_then(|()| new.write_progress(0, 0)).and_then(|()| new.file.sync_all()) {
                let _not_there_either = std::fs::remove_file(path);
                return Err(failed("made")(error));
            }
            let (waiting, unnoted) = (Vec::new(), Vec::new());
            return Ok(Opened { file: new, tag: None, stored: 0, waiting, last: 0, unnoted, skipped: 0, damage: None });
        }
        let mut opened = Self::new(file, path, there).read(there).map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => KeyFileError::Newer(path.to_owned()),
            _ => failed("read")(error),
        })?;
        if make {
            opened.restore_size(there, wanted);
            // From now on the file says how long it is, and what was lost is not found again.
            opened.file.write_progress(opened.stored, opened.last).map_err(failed("written"))?;
        }
        Ok(opened)
    }

    fn new(file: File, path: &Path, slots: u64) -> Self {
        Self { file, path: path.to_owned(), records: slots - HEAD_SLOTS, unnoted: [None; UNNOTED_ROUTES] }
    }

    fn read(mut self, there: u64) -> io::Result<Opened> {
        let mut head = vec![0; SLOT * HEAD_SLOTS as usize];
        self.file.read_exact_at(&mut head, 0)?;
        let head: Vec<&[u8]> = head.chunks_exact(SLOT).collect();
        if &head[0][8..14] == b"PMKEYS" && checked(head[0]).is_some() && &head[0][8..16] != MAGIC {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let progress = checked(head[STORED_SLOT as usize]);
        let said = |at| progress.map_or(0, |slot| number(slot, at));
        let (stored, slots, noted) = (said(8), said(16), said(24));
        if slots > HEAD_SLOTS {
            self.records = slots - HEAD_SLOTS;
        }
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
        let (mut waiting, mut last, mut unreadable) = (Vec::new(), stored, Vec::new());
        let readable = self.records.min(there.saturating_sub(HEAD_SLOTS));
        read_ring(&self.file, readable, |found| match found {
            Ok(record) => {
                last = last.max(record.seq);
                if record.seq > stored {
                    waiting.push(record);
                }
            }
            Err(index) => unreadable.push(index),
        })?;
        skipped += unreadable.len() as u64;
        waiting.sort_by_key(|record| record.seq);
        // A file whose creation was interrupted is empty.
        let is_unwritten = is_empty(head[0]) && last == 0;
        let content = RingContent {
            is_head_readable: (checked(head[0]).is_some() || is_unwritten)
                && (progress.is_some() || is_empty(head[STORED_SLOT as usize])),
            missing_bytes: (HEAD_SLOTS + self.records).saturating_sub(there) * SLOT as u64,
            records: self.records,
            stored,
            last: last.max(noted),
            waiting: waiting.len() as u64,
            unreadable: &unreadable,
        };
        let damage = content.damage();
        if !torn.is_empty() || damage.is_some() {
            // Which routes the lost keys belong to is not known: all may be concerned, until now.
            let now = clock::now();
            unnoted.push((UnnotedRoute::Any, now));
            self.write_unnoted(UnnotedRoute::Any, now)?;
        }
        // Only after that: the next process must not find less than this one.
        let torn = torn.into_iter().filter(|slot| *slot != UNNOTED_ANY_SLOT);
        for slot in torn.chain(unreadable.iter().map(|index| HEAD_SLOTS + index)) {
            self.file.write_all_at(&[0; SLOT], slot * SLOT as u64)?;
        }
        Ok(Opened { file: self, tag, stored, waiting, last, unnoted, skipped, damage })
    }

    /// Reads the tag and all records of a file that a process may be writing to, also records that the store has.
    ///
    /// # Errors
    /// The file cannot be read, or it is shorter than it was made.
    pub(super) fn peek(path: &Path) -> io::Result<(Option<Tag>, Vec<Record>)> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut head = [0; 2 * SLOT];
        file.read_exact_at(&mut head, 0)?;
        let (header, progress) = head.split_at(SLOT);
        let there = file.metadata()?.len() / SLOT as u64;
        if checked(progress).is_some_and(|slot| number(slot, 16) > there) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut records = Vec::new();
        // A record that is being written at this moment has a wrong checksum and is skipped.
        read_ring(&file, there.saturating_sub(HEAD_SLOTS), |found| records.extend(found))?;
        Ok((checked(header).and_then(Tag::read), records))
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
        self.put(HEAD_SLOTS + (record.seq - 1) % self.records, record.slot())
    }

    /// Writes up to which number all records are in the store, and which number was noted last.
    pub(super) fn write_progress(&self, stored: u64, noted: u64) -> io::Result<()> {
        let mut slot = [0; SLOT];
        for (at, number) in [(8, stored), (16, HEAD_SLOTS + self.records), (24, noted)] {
            slot[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
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
    /// Gives the file the size that it says it has, and then the wanted one if nothing in it waits for the store.
    /// Interrupted at any moment, it leaves a file that is not shorter than it says.
    fn restore_size(&mut self, there: u64, wanted: u64) {
        let slots = HEAD_SLOTS + self.file.records;
        let restored = match there < slots {
            true => fill(&self.file.file, there, slots),
            false => Ok(()),
        };
        let is_other = wanted != slots || there > slots;
        let resized = match self.waiting.is_empty() && is_other {
            true => restored.and_then(|()| self.resize(slots, wanted)),
            false => restored,
        };
        if let Err(error) = resized {
            let (path, bytes) = (self.file.path.display(), slots * SLOT as u64);
            tracing::warn!(%path, %error, bytes, "the file of retry keys could not be resized; it keeps its size");
        }
    }

    fn resize(&mut self, slots: u64, wanted: u64) -> io::Result<()> {
        let file = &self.file.file;
        if wanted > slots {
            let filled = fill(file, slots, wanted).and_then(|()| file.sync_all());
            filled.inspect_err(|_| {
                let _stays_too_long = file.set_len(slots * SLOT as u64);
            })?;
        }
        self.file.records = wanted - HEAD_SLOTS;
        // In the new ring old records are in wrong slots: with this number they count as stored and are ignored.
        if let Err(error) = self.file.write_progress(self.last, self.last).and_then(|()| self.file.sync()) {
            self.file.records = slots - HEAD_SLOTS;
            return Err(error);
        }
        self.stored = self.last;
        self.file.file.set_len(wanted * SLOT as u64)
    }
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

#[cfg(test)]
mod tests;
