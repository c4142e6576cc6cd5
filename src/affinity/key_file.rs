//! The layout of the file that keeps first tries of legacy until the store has them, and how it is read back.
//!
//! The question it answers: "which first tries had legacy taken when the last process ended?" Always true: each
//! record is in a slot of its own ([`slot_file`](crate::slot_file)), and survives the end of the process and a full
//! disk; a torn slot is skipped and counted. Deciding which record may be overwritten is left to `key_log`; recognising
//! that records are missing, to `key_file_damage`. Where some are, the slot of all routes says that a key could not be
//! noted: which key it was is not known.
//!
//! Layout, in slots of 64 bytes: slot 0 names the format, this file and the store that uses it; slot 1 says up to which
//! number all records are in the store, how many slots the file has, and which number was noted last (the last two are
//! 0 in a file of an earlier version, which is taken to have its full length); each of the slots 2 to 63 has the hash
//! of a route and the time at which legacy last served a request of it whose key could not be noted; the rest is a ring
//! buffer of records.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::key_file_damage::RingContent;
pub(super) use super::key_file_records::Record;
use super::key_file_records::{HEAD_SLOTS, millis, read_ring, time_at};
use super::key_file_tag::Tag;
use crate::clock;
use crate::slot_file::{OpenError, SLOT_BYTES, SlotFile, SlotRoute, bytes_at, is_free, is_whole, number_at};
use crate::store::StoreError;

const STORED_SLOT: u64 = 1;
const UNNOTED_SLOTS: std::ops::Range<u64> = 2..HEAD_SLOTS - 1;
/// Counts for every route; used when all other such slots are taken.
const UNNOTED_ANY_SLOT: u64 = HEAD_SLOTS - 1;
const UNNOTED_ROUTES: usize = (UNNOTED_SLOTS.end - UNNOTED_SLOTS.start) as usize;
const MAGIC: &[u8; 8] = b"PMKEYS01";

/// The file, open and locked.
pub(super) struct KeyFile {
    slots: SlotFile,
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
    pub unnoted: Vec<(SlotRoute, Timestamp)>,
    /// Slots that could not be read.
    pub skipped: u64,
    /// What shows that records are missing which the store may not have.
    pub damage: Option<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Another process has it.
    #[error("the file of retry keys {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// It has keys of another store.
    #[error("the file of retry keys {} has keys that another store does not have yet; move it back to that store, or move it away", .0.display())]
    OfAnotherStore(PathBuf),
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
    /// Opens and reads the file. With `make` it is opened for use: it is created with its full size if it does not
    /// exist, and resized if it has another size, no record in it waits for the store, and the disk has room.
    pub(super) fn open(path: &Path, bytes_max: u64, make: bool) -> Result<Opened, KeyFileError> {
        let wanted = (bytes_max / SLOT_BYTES as u64).max(HEAD_SLOTS + 1);
        let bytes = wanted * SLOT_BYTES as u64;
        let failed = |what| move |source| KeyFileError::Io { path: path.to_owned(), what, bytes, source };
        let slots = SlotFile::open(path, make).map_err(|error| match error {
            OpenError::Locked => KeyFileError::Locked(path.to_owned()),
            OpenError::Io { what, source } => failed(what)(source),
        })?;
        let there = slots.slots().map_err(failed("read"))?;
        if there <= HEAD_SLOTS && !make {
            return Err(failed("read")(io::ErrorKind::UnexpectedEof.into()));
        }
        if there <= HEAD_SLOTS {
            let new = Self::new(slots, path, wanted);
            let made = new.slots.fill_with_zeros(0..wanted).and_then(|()| new.write_header(None));
            if let Err(error) = made.and_then(|()| new.write_progress(0, 0)).and_then(|()| new.slots.sync_all()) {
                let _not_there_either = std::fs::remove_file(path);
                return Err(failed("made")(error));
            }
            let (waiting, unnoted) = (Vec::new(), Vec::new());
            return Ok(Opened { file: new, tag: None, stored: 0, waiting, last: 0, unnoted, skipped: 0, damage: None });
        }
        let mut opened = Self::new(slots, path, there).read(there).map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => KeyFileError::Newer(path.to_owned()),
            _ => failed("read")(error),
        })?;
        if make {
            opened.restore_size(there, wanted);
            // From now on the file says how long it is, and a loss that was reported is not reported again.
            opened.file.write_progress(opened.stored, opened.last).map_err(failed("written"))?;
        }
        Ok(opened)
    }

    fn new(slots: SlotFile, path: &Path, count: u64) -> Self {
        Self { slots, path: path.to_owned(), records: count - HEAD_SLOTS, unnoted: [None; UNNOTED_ROUTES] }
    }

    fn read(mut self, there: u64) -> io::Result<Opened> {
        let mut head = [[0; SLOT_BYTES]; HEAD_SLOTS as usize];
        self.slots.read(0..HEAD_SLOTS, |place, slot| head[place as usize] = *slot)?;
        let (header, progress) = (&head[0], &head[STORED_SLOT as usize]);
        if &header[8..14] == b"PMKEYS" && is_whole(header) && &header[8..16] != MAGIC {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let said = |at| if is_whole(progress) { number_at(progress, at) } else { 0 };
        let (stored, slots, noted) = (said(8), said(16), said(24));
        if slots > HEAD_SLOTS {
            self.records = slots - HEAD_SLOTS;
        }
        let mut skipped = head.iter().filter(|slot| !is_whole(slot) && !is_free(slot)).count() as u64;
        let tag = if is_whole(header) { Tag::read(header) } else { None };
        let (mut unnoted, mut torn) = (Vec::new(), Vec::new());
        for (index, slot) in head[UNNOTED_SLOTS.start as usize..].iter().enumerate() {
            let time = if is_whole(slot) { time_at(slot, 24) } else { None };
            let mark = time.map(|at| (bytes_at(slot, 8), at));
            match (mark, self.unnoted.get_mut(index)) {
                (Some((hash, at)), Some(place)) => {
                    *place = Some(hash);
                    unnoted.push((SlotRoute::Hash(hash), at));
                }
                (Some((_, at)), None) => unnoted.push((SlotRoute::Any, at)),
                (None, _) if !is_free(slot) => torn.push(UNNOTED_SLOTS.start + index as u64),
                (None, _) => {}
            }
        }
        let (mut waiting, mut last, mut unreadable) = (Vec::new(), stored, Vec::new());
        let readable = self.records.min(there.saturating_sub(HEAD_SLOTS));
        read_ring(&self.slots, readable, |found| match found {
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
        let is_unwritten = is_free(header) && last == 0;
        let content = RingContent {
            is_head_readable: (is_whole(header) || is_unwritten) && (is_whole(progress) || is_free(progress)),
            missing_bytes: (HEAD_SLOTS + self.records).saturating_sub(there) * SLOT_BYTES as u64,
            records: self.records,
            stored,
            last: last.max(noted),
            waiting: waiting.len() as u64,
            unreadable: &unreadable,
        };
        let damage = content.damage();
        if !torn.is_empty() || damage.is_some() {
            // It is not known to which routes the lost keys belong: any route may have lost keys up to this moment.
            let now = clock::now();
            unnoted.push((SlotRoute::Any, now));
            self.write_unnoted(SlotRoute::Any, now)?;
        }
        // Torn slots are freed only after the slot of all routes is written: otherwise, after a kill in between, the
        // next process would find no damage.
        let torn = torn.into_iter().filter(|slot| *slot != UNNOTED_ANY_SLOT);
        for slot in torn.chain(unreadable.iter().map(|index| HEAD_SLOTS + index)) {
            self.slots.fill_with_zeros(slot..slot + 1)?;
        }
        Ok(Opened { file: self, tag, stored, waiting, last, unnoted, skipped, damage })
    }

    /// Reads the tag and all records of a file that a process may be writing to, also records that the store has.
    ///
    /// # Errors
    /// The file cannot be read, or it is shorter than when it was created.
    pub(super) fn peek(path: &Path) -> io::Result<(Option<Tag>, Vec<Record>)> {
        let slots = SlotFile::open_unlocked(path)?;
        let mut head = [[0; SLOT_BYTES]; 2];
        slots.read(0..2, |place, slot| head[place as usize] = *slot)?;
        let [header, progress] = head;
        let there = slots.slots()?;
        if is_whole(&progress) && number_at(&progress, 16) > there {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut records = Vec::new();
        // A record that is being written at this moment has a wrong checksum and is skipped.
        read_ring(&slots, there.saturating_sub(HEAD_SLOTS), |found| records.extend(found))?;
        Ok((if is_whole(&header) { Tag::read(&header) } else { None }, records))
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
        self.slots.handle()
    }

    /// Writes the tag.
    pub(super) fn write_tag(&self, tag: &Tag) -> io::Result<()> {
        self.write_header(Some(tag))
    }

    fn write_header(&self, tag: Option<&Tag>) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        slot[8..16].copy_from_slice(MAGIC);
        if let Some(tag) = tag {
            tag.write(&mut slot);
        }
        self.slots.write(0, slot)
    }

    /// After this returns, a power cut loses nothing that was written before.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.slots.sync()
    }

    /// Writes a record in its slot of the ring.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        self.slots.write(HEAD_SLOTS + (record.seq - 1) % self.records, record.slot())
    }

    /// Writes up to which number all records are in the store, and which number was noted last.
    pub(super) fn write_progress(&self, stored: u64, noted: u64) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        for (at, number) in [(8, stored), (16, HEAD_SLOTS + self.records), (24, noted)] {
            slot[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        self.slots.write(STORED_SLOT, slot)
    }

    /// Writes when legacy last served a request of a route whose key could not be noted.
    pub(super) fn write_unnoted(&mut self, route: SlotRoute, at: Timestamp) -> io::Result<()> {
        let (place, hash) = match route {
            SlotRoute::Any => (UNNOTED_ANY_SLOT, [0; 16]),
            SlotRoute::Hash(hash) => {
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
        let mut slot = [0; SLOT_BYTES];
        slot[8..24].copy_from_slice(&hash);
        slot[24..32].copy_from_slice(&millis(at));
        self.slots.write(place, slot)
    }
}

impl Opened {
    /// Gives the file the size that it says it has, and then the wanted one if nothing in it waits for the store.
    /// Interrupted at any moment, it leaves a file that is not shorter than it says.
    fn restore_size(&mut self, there: u64, wanted: u64) {
        let slots = HEAD_SLOTS + self.file.records;
        let restored = match there < slots {
            true => self.file.slots.fill_with_zeros(there..slots),
            false => Ok(()),
        };
        let is_other = wanted != slots || there > slots;
        let resized = match self.waiting.is_empty() && is_other {
            true => restored.and_then(|()| self.resize(slots, wanted)),
            false => restored,
        };
        if let Err(error) = resized {
            let (path, bytes) = (self.file.path.display(), slots * SLOT_BYTES as u64);
            tracing::warn!(%path, %error, bytes, "the file of retry keys could not be resized; it keeps its size");
        }
    }

    fn resize(&mut self, slots: u64, wanted: u64) -> io::Result<()> {
        let file = &self.file.slots;
        if wanted > slots {
            let filled = file.fill_with_zeros(slots..wanted).and_then(|()| file.sync_all());
            filled.inspect_err(|_| {
                let _stays_too_long = file.truncate(slots);
            })?;
        }
        self.file.records = wanted - HEAD_SLOTS;
        // In the new ring old records are in wrong slots: with this number they count as stored and are ignored.
        if let Err(error) = self.file.write_progress(self.last, self.last).and_then(|()| self.file.sync()) {
            self.file.records = slots - HEAD_SLOTS;
            return Err(error);
        }
        self.stored = self.last;
        self.file.slots.truncate(wanted)
    }
}

#[cfg(test)]
mod tests;
