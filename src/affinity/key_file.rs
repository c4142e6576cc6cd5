//! The layout of the file that keeps first tries of legacy until the store has them, and how it is read back.
//!
//! The question it answers: "which first tries had legacy taken when the last process ended?" Always true: each
//! record is in a slot of its own ([`slot_file`](crate::slot_file)), and survives the end of the process and a full
//! disk; a torn slot is skipped and counted. Deciding which record may be overwritten is left to `key_log`; recognising
//! that records are missing, to `key_file_damage`. If records are missing, the slot that stands for all routes gets the
//! present time, because it is not known to which routes the missing keys belong.
//!
//! Layout, in slots of 64 bytes:
//!
//! - slot 0, the header: the format, the id of this file, and the store that uses it;
//! - slot 1, the progress: up to which number all records are in the store, how many slots the file has, which number
//!   was noted last, and a generation of the store (`store_generation`). In a file of an earlier version, all but the
//!   first of these may be 0; such a file counts as having its full length;
//! - slots 2 to 62: the hash of a route, and the time at which legacy last served a request of that route although the
//!   key could not be noted. A slot whose time is older than the retry window is free for another route;
//! - slot 63: the same kind of time, but for all routes;
//! - the rest: a ring buffer of records.

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

const PROGRESS_SLOT: u64 = 1;
const UNNOTED_SLOTS: std::ops::Range<u64> = 2..HEAD_SLOTS - 1;
/// The slot whose time counts for every route: written when slots 2 to 62 are taken, and when keys of unknown routes
/// are lost.
const UNNOTED_ANY_SLOT: u64 = HEAD_SLOTS - 1;
const UNNOTED_ROUTES: usize = (UNNOTED_SLOTS.end - UNNOTED_SLOTS.start) as usize;
const MAGIC: &[u8; 8] = b"PMKEYS01";

/// The file, open and locked.
pub(super) struct KeyFile {
    slots: SlotFile,
    path: PathBuf,
    records: u64,
    /// The generation of the store that was last written to this file; 0 if none was.
    generation: u64,
    /// The routes that have one of the slots 2 to 62, each with its time; `None` for a free slot.
    unnoted: [Option<([u8; 16], Timestamp)>; UNNOTED_ROUTES],
    /// The time in the slot of all routes.
    unnoted_any: Option<Timestamp>,
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
    /// For each route, when legacy last served a request with a key that could not be noted.
    pub unnoted: Vec<(SlotRoute, Timestamp)>,
    /// Slots that could not be read.
    pub skipped: u64,
    /// The signs that records are missing, which the store may lack too; `None` if there is no such sign.
    pub damage: Option<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Another process has locked it.
    #[error("the file of retry keys {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The store is an older copy, and this cannot be recorded in it.
    #[error(
        "the file of retry keys {} is newer than this store: the store is an older copy, put in the place of a later \
         one. That has to be recorded in the store, or requests may be performed a second time, and the store cannot \
         be written now: nothing was changed; start again when it can be written",
        .0.display()
    )]
    CopyNotRecorded(PathBuf),
    /// It has keys of another store.
    #[error("the file of retry keys {} has keys that another store does not have yet; move it back to that store, or move it away", .0.display())]
    OfAnotherStore(PathBuf),
    /// The store's list of files cannot be read.
    #[error("the store's list of files of retry keys cannot be read: {0}")]
    Store(#[source] StoreError),
    /// A newer version wrote it.
    #[error("the file of retry keys {} was written by a newer version; start that version, or move the file away once its keys are in the store (they are, unless that version was killed)", .0.display())]
    Newer(PathBuf),
    /// The thread that is to write it cannot be started.
    #[error("the file of retry keys {} cannot be {what}: no thread could be started: {source}", .path.display())]
    Thread {
        /// Which file.
        path: PathBuf,
        /// What cannot be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It cannot be created, read or written.
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
    /// Opens and reads the file. With `for_own_use`, the file is created with its full size if it does not exist, and
    /// resized if its size is wrong, provided that no record waits and the disk has room. Without it, the file
    /// is opened only to take over its records.
    pub(super) fn open(path: &Path, bytes_max: u64, for_own_use: bool) -> Result<Opened, KeyFileError> {
        let slots_wanted = (bytes_max / SLOT_BYTES as u64).max(HEAD_SLOTS + 1);
        let bytes = slots_wanted * SLOT_BYTES as u64;
        let failed = |what| move |source| KeyFileError::Io { path: path.to_owned(), what, bytes, source };
        let slots = SlotFile::open(path, for_own_use).map_err(|error| match error {
            OpenError::Locked => KeyFileError::Locked(path.to_owned()),
            OpenError::Io { what, source } => failed(what)(source),
        })?;
        let slots_found = slots.slots().map_err(failed("read"))?;
        if slots_found <= HEAD_SLOTS && !for_own_use {
            return Err(failed("read")(io::ErrorKind::UnexpectedEof.into()));
        }
        if slots_found <= HEAD_SLOTS {
            let new = Self::new(slots, path, slots_wanted);
            let written = new.slots.fill_with_zeros(0..slots_wanted).and_then(|()| new.write_header(None));
            if let Err(error) = written.and_then(|()| new.write_progress(0, 0)).and_then(|()| new.slots.sync_all()) {
                let _best_effort = std::fs::remove_file(path);
                return Err(failed("created")(error));
            }
            let (waiting, unnoted) = (Vec::new(), Vec::new());
            return Ok(Opened { file: new, tag: None, stored: 0, waiting, last: 0, unnoted, skipped: 0, damage: None });
        }
        let mut opened = Self::new(slots, path, slots_found).read(slots_found).map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => KeyFileError::Newer(path.to_owned()),
            _ => failed("read")(error),
        })?;
        if for_own_use {
            opened.restore_size(slots_found, slots_wanted);
            // From now on the file says how long it is, and a loss that was reported is not reported again.
            opened.file.write_progress(opened.stored, opened.last).map_err(failed("written"))?;
        }
        Ok(opened)
    }

    fn new(slots: SlotFile, path: &Path, count: u64) -> Self {
        Self {
            slots,
            path: path.to_owned(),
            records: count - HEAD_SLOTS,
            generation: 0,
            unnoted: [None; UNNOTED_ROUTES],
            unnoted_any: None,
        }
    }

    fn read(mut self, slots_found: u64) -> io::Result<Opened> {
        let mut head = [[0; SLOT_BYTES]; HEAD_SLOTS as usize];
        self.slots.read(0..HEAD_SLOTS, |index, slot| head[index as usize] = *slot)?;
        let (header, progress) = (&head[0], &head[PROGRESS_SLOT as usize]);
        if &header[8..14] == b"PMKEYS" && is_whole(header) && &header[8..16] != MAGIC {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let number = |at| if is_whole(progress) { number_at(progress, at) } else { 0 };
        let (stored, slots, noted) = (number(8), number(16), number(24));
        self.generation = number(32);
        if slots > HEAD_SLOTS {
            self.records = slots - HEAD_SLOTS;
        }
        let mut skipped = head.iter().filter(|slot| !is_whole(slot) && !is_free(slot)).count() as u64;
        let tag = if is_whole(header) { Tag::read(header) } else { None };
        let (mut unnoted, mut torn) = (Vec::new(), Vec::new());
        for (index, slot) in head[UNNOTED_SLOTS.start as usize..].iter().enumerate() {
            let time = if is_whole(slot) { time_at(slot, 24) } else { None };
            let route_and_time = time.map(|at| (bytes_at(slot, 8), at));
            match (route_and_time, self.unnoted.get_mut(index)) {
                (Some((hash, at)), Some(route_of_slot)) => {
                    *route_of_slot = Some((hash, at));
                    unnoted.push((SlotRoute::Hash(hash), at));
                }
                (Some((_, at)), None) => {
                    self.unnoted_any = Some(at);
                    unnoted.push((SlotRoute::Any, at));
                }
                (None, _) if !is_free(slot) => torn.push(UNNOTED_SLOTS.start + index as u64),
                (None, _) => {}
            }
        }
        let (mut waiting, mut last, mut unreadable) = (Vec::new(), stored, Vec::new());
        let readable = self.records.min(slots_found.saturating_sub(HEAD_SLOTS));
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
            missing_bytes: (HEAD_SLOTS + self.records).saturating_sub(slots_found) * SLOT_BYTES as u64,
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
            self.write_unnoted(SlotRoute::Any, now, |_| false)?;
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
    /// The file cannot be read, or it is shorter than its progress slot says.
    pub(super) fn peek(path: &Path) -> io::Result<(Option<Tag>, Vec<Record>)> {
        let slots = SlotFile::open_read_only(path)?;
        let mut head = [[0; SLOT_BYTES]; 2];
        slots.read(0..2, |index, slot| head[index as usize] = *slot)?;
        let [header, progress] = head;
        let slots_found = slots.slots()?;
        if is_whole(&progress) && number_at(&progress, 16) > slots_found {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut records = Vec::new();
        // A record that is being written at this moment has a wrong checksum and is skipped.
        read_ring(&slots, slots_found.saturating_sub(HEAD_SLOTS), |found| records.extend(found))?;
        Ok((if is_whole(&header) { Tag::read(&header) } else { None }, records))
    }

    /// The size of the ring buffer, in records.
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

    /// The store's generation, as it was last set here or read from the file.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Sets the store's generation. [`KeyFile::write_progress`] writes it.
    pub(super) fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// Writes up to which number all records are in the store, which number was noted last, and the store's generation.
    pub(super) fn write_progress(&self, stored: u64, noted: u64) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        for (at, number) in [(8, stored), (16, HEAD_SLOTS + self.records), (24, noted), (32, self.generation)] {
            slot[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        self.slots.write(PROGRESS_SLOT, slot)
    }

    /// Writes when legacy last served a request of this route with a key that could not be noted. A route without a
    /// slot gets a free one, else one whose time `is_over`.
    pub(super) fn write_unnoted(
        &mut self,
        route: SlotRoute,
        at: Timestamp,
        is_over: impl Fn(Timestamp) -> bool,
    ) -> io::Result<()> {
        let (slot_index, hash) = match route {
            SlotRoute::Any => (UNNOTED_ANY_SLOT, [0; 16]),
            SlotRoute::Hash(hash) => {
                let own = self.unnoted.iter().position(|slot| slot.is_some_and(|(of, _)| of == hash));
                let free = || self.unnoted.iter().position(|slot| slot.is_none_or(|(_, at)| is_over(at)));
                match own.or_else(free) {
                    Some(index) => {
                        self.unnoted[index] = Some((hash, at));
                        (UNNOTED_SLOTS.start + index as u64, hash)
                    }
                    None => (UNNOTED_ANY_SLOT, [0; 16]),
                }
            }
        };
        // Several routes may share the slot of all routes: it keeps the latest of their times.
        let at = match slot_index {
            UNNOTED_ANY_SLOT => *self.unnoted_any.insert(self.unnoted_any.map_or(at, |earlier| earlier.max(at))),
            _ => at,
        };
        let mut slot = [0; SLOT_BYTES];
        slot[8..24].copy_from_slice(&hash);
        slot[24..32].copy_from_slice(&millis(at));
        self.slots.write(slot_index, slot)
    }
}

impl Opened {
    /// Restores the size that the progress slot names; then, if no record waits for the store, changes it to the wanted
    /// one. If the process is killed during this change, the file is not shorter than its progress slot says.
    fn restore_size(&mut self, slots_found: u64, slots_wanted: u64) {
        let slots = HEAD_SLOTS + self.file.records;
        let restored = match slots_found < slots {
            true => self.file.slots.fill_with_zeros(slots_found..slots),
            false => Ok(()),
        };
        let needs_resize = slots_wanted != slots || slots_found > slots;
        let resized = match self.waiting.is_empty() && needs_resize {
            true => restored.and_then(|()| self.resize(slots, slots_wanted)),
            false => restored,
        };
        if let Err(error) = resized {
            let (path, bytes) = (self.file.path.display(), slots * SLOT_BYTES as u64);
            tracing::warn!(%path, %error, bytes, "the file of retry keys could not be resized; it keeps its size");
        }
    }

    fn resize(&mut self, slots: u64, slots_wanted: u64) -> io::Result<()> {
        let file = &self.file.slots;
        if slots_wanted > slots {
            let filled = file.fill_with_zeros(slots..slots_wanted).and_then(|()| file.sync_all());
            filled.inspect_err(|_| {
                let _best_effort = file.truncate(slots);
            })?;
        }
        self.file.records = slots_wanted - HEAD_SLOTS;
        // In the new ring old records are in wrong slots: with this number they count as stored and are ignored.
        if let Err(error) = self.file.write_progress(self.last, self.last).and_then(|()| self.file.sync()) {
            self.file.records = slots - HEAD_SLOTS;
            return Err(error);
        }
        self.stored = self.last;
        self.file.slots.truncate(slots_wanted)
    }
}

#[cfg(test)]
mod tests;
