//! Finds the files of retry keys that belong to a store, and takes over those that its earlier processes left.
//!
//! The question it answers: "which files may have keys that the store does not have?"
//!
//! Always true:
//!
//! - A file is used by one process at a time (its lock) and by one store (its tag).
//! - The store lists the files that may have such keys, wherever they are.
//! - A process that starts takes over the keys of all listed files that it can read, and reports the others.
//!
//! Example: two processes share a PostgreSQL store and a directory. The first one uses `pointsman-ID-0.keys`, the
//! second one `pointsman-ID-1.keys`, and the store lists both. Both are killed; the second file has the key K, which
//! the store does not have. A new process opens file 0 for itself, and file 1 to take over its keys: it copies K to
//! file 0, writes in file 1 that all its records are stored, and takes file 1 off the list. If only the second process
//! is killed, file 0 stays locked, and the new process goes on with file 1, in which K waits.
//!
//! A copy of a store lists the files of the original. It takes over nothing from them: their keys are unknown to it. A
//! store that was moved takes over its files: it differs from a copy in that no store is at its earlier path any more.
//! A store of one process goes on listing its file after a normal end, although the store then has all of the file's
//! keys. Thus a copy that is made afterwards also lists the original's file, by which it is recognised as a copy. If
//! such a file is gone later, no key is lost.
//!
//! An older copy that was put in the place of the store is recognised by a file with a higher generation than its own
//! (`store_generation`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::key_file::{KeyFile, KeyFileError, Opened};
use super::key_file_tag::{FileOwnership, StoreTag, Tag};
use super::key_list::ListChanges;
use super::key_log::KeyLog;
use super::unread_files::{
    OTHER_FILE, Unreadable, later_store_reason, later_store_record, log_unread, original_store_reason, still_unread,
};
use crate::clock;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::slot_file::{FILES_MAX, WAIT_FOR_PREDECESSOR, wait_while_locked};
use crate::store::{KeyFileRecord, StoreHandle, StoreIdentity};

/// Where a process keeps its file of retry keys.
#[derive(Clone, Debug)]
pub enum KeyFileLocation {
    /// This file, for a store that belongs to one process.
    File(PathBuf),
    /// A directory, which several processes and stores may share.
    Dir(PathBuf),
}

/// Opens or creates the file of this process, and takes over the keys that earlier processes of the store left in
/// theirs.
///
/// # Errors
/// Another process uses the file, it cannot be created with its full size, it has keys of another store, or a newer
/// version wrote it; or the store does not answer, or is an older copy and cannot record that. See [`KeyFileError`].
pub async fn open_key_log(
    store: &StoreHandle,
    location: &KeyFileLocation,
    limits: &Limits,
) -> Result<Arc<KeyLog>, KeyFileError> {
    let failed = |error: crate::store::StoreError| KeyFileError::Store(error);
    let (secret, listed) = (store.secret().await.map_err(failed)?, store.key_files().await.map_err(failed)?);
    let running_times = store.running_times().await.map_err(failed)?;
    let identity = store.identity();
    let opening = Opening {
        owner: StoreTag::new(&secret, &identity),
        identity,
        is_shared: store.is_shared(),
        host: host_name(),
        listed: &listed,
        generation: running_times.map(|times| times.generation()),
        bytes_max: limits.retry_keys_file_bytes_max,
        window: Duration::from_secs(limits.retry_window_s),
        now: clock::now(),
        retry_lock_until: Instant::now() + WAIT_FOR_PREDECESSOR,
    };
    let (log, later_file) = opening.open(location, &secret, limits).await?;
    // Changes that the store does not take now are tried again later.
    match (log.list.write(store).await, later_file) {
        (false, Some(later)) => Err(KeyFileError::CopyNotRecorded(later)),
        _ => Ok(log),
    }
}

/// Reads the keys of the files that a store lists, and of the file `unlisted`, which an older version may have used
/// without listing it. Processes may be using them. Also returns a sentence about each file that cannot be read, unless
/// its record says so already, or says that the store has all of its keys.
pub fn read_key_files(listed: &[KeyFileRecord], unlisted: &Path) -> (Vec<(RetryKey, Timestamp)>, Vec<String>) {
    let (mut keys, mut failures) = (Vec::new(), Vec::new());
    let unlisted = Some(absolute(unlisted)).filter(|path| Path::new(path).exists());
    let unlisted = unlisted.filter(|path| listed.iter().all(|record| record.path != *path)).map(|path| (path, None));
    for (path, record) in listed.iter().map(|record| (record.path.clone(), Some(record))).chain(unlisted) {
        let id = record.map(|record| record.id);
        let is_known = record.is_some_and(|record| record.unread.is_some() || record.all_stored);
        match KeyFile::peek(Path::new(&path)) {
            Ok((tag, _)) if is_known && id != tag.map(|tag| tag.file) => {}
            Err(_) if is_known => {}
            Ok((tag, _)) if id.is_some() && id != tag.map(|tag| tag.file) => {
                failures.push(format!("the file of retry keys {path} is not there: another file has its name"));
            }
            Ok((_, records)) => keys.extend(records.into_iter().map(|record| (record.key, record.at))),
            Err(error) => failures.push(format!("the file of retry keys {path} cannot be read: {error}")),
        }
    }
    (keys, failures)
}

/// What is needed to open the files of a store at the start of a process.
struct Opening<'a> {
    owner: StoreTag,
    identity: StoreIdentity,
    is_shared: bool,
    host: String,
    listed: &'a [KeyFileRecord],
    /// The store's generation; `None` if it has none.
    generation: Option<u64>,
    bytes_max: u64,
    window: Duration,
    now: Timestamp,
    /// Until this time a locked file is tried again: its lock may be that of a process that was just killed.
    retry_lock_until: Instant,
}

/// The file that was opened for this process, and the files of earlier processes, whose keys it takes over.
struct OpenedFiles {
    own: Opened,
    earlier: Vec<Opened>,
}

impl Opening<'_> {
    /// Opens the log of this process and takes over the earlier files. Also returns a file that is newer than this
    /// store, if there is one.
    async fn open(
        &self,
        location: &KeyFileLocation,
        secret: &[u8; 32],
        limits: &Limits,
    ) -> Result<(Arc<KeyLog>, Option<PathBuf>), KeyFileError> {
        let OpenedFiles { mut own, mut earlier } = match location {
            KeyFileLocation::File(path) => OpenedFiles { own: self.open_file(path).await?, earlier: Vec::new() },
            KeyFileLocation::Dir(dir) => self.open_in(dir, secret).await?,
        };
        let id_before = own.tag.map(|tag| tag.file);
        let ownership = self.owner.ownership(own.tag.as_ref());
        let tag = match (own.tag, ownership) {
            (Some(tag), FileOwnership::Ours) => Tag { owner: self.owner, ..tag },
            _ => Tag::random(self.owner),
        };
        let own_path = own.file.path().to_owned();
        let failed =
            |source| KeyFileError::Io { path: own_path.clone(), what: "written", bytes: self.bytes_max, source };
        if ownership == FileOwnership::OfAnotherStore {
            // The other store's generation is cleared before the tag makes the file this store's.
            own.file.set_generation(0);
            own.file.write_progress(own.stored, own.last).map_err(failed)?;
        }
        if own.tag != Some(tag) {
            own.file.write_tag(&tag).and_then(|()| own.file.sync()).map_err(failed)?;
        }
        let own_record = KeyFileRecord {
            id: tag.file,
            path: absolute(own.file.path()),
            host: self.host.clone(),
            location: self.identity.location.clone(),
            all_stored: false,
            unread: None,
        };
        let mut changes = ListChanges::default();
        // The record is not put if the store has it already: a store whose disk is full could not take it.
        changes.put.extend((!self.listed.contains(&own_record)).then(|| own_record.clone()));
        let mut later_file = self.later_file([&own].into_iter());
        let log = KeyLog::new(own, limits)?;

        let mut unread = Vec::new();
        for record in self.listed.iter().filter(|record| record.id != tag.file) {
            if earlier.iter().any(|opened| opened.tag.is_some_and(|tag| tag.file == record.id)) {
                continue;
            }
            // This process's own file may be a copy of the listed one, made together with the copy of the store.
            let all_stored = record.all_stored || Some(record.id) == id_before;
            let record = &KeyFileRecord { all_stored, ..record.clone() };
            let found = match later_store_reason(record) {
                Some(why) => Err(why),
                None if record.path == own_record.path => Err(OTHER_FILE.into()),
                None => self.open_listed(record).await,
            };
            match found {
                Ok(Some(opened)) => earlier.push(opened),
                Ok(None) => {}
                Err(why) if record.all_stored && !why.belongs_to_original => changes.remove.push(record.id),
                Err(why) => match still_unread(record, why, self.now, self.window) {
                    None => changes.remove.push(record.id),
                    Some(found) => {
                        log_unread(&found);
                        changes.put.extend((!self.listed.contains(&found)).then(|| found.clone()));
                        unread.push(found);
                    }
                },
            }
        }
        later_file = later_file.or_else(|| self.later_file(earlier.iter()));
        if let Some(later) = &later_file {
            let older_copy = later_store_record(later, &own_record, self.now);
            log_unread(&older_copy);
            changes.put.push(older_copy.clone());
            unread.push(older_copy);
        }
        for opened in earlier {
            if log.take_over(&opened) {
                let id = opened.tag.map(|tag| tag.file);
                changes.remove.extend(id.filter(|id| self.listed.iter().any(|record| record.id == *id)));
                changes.locked.push(opened.file);
            }
        }
        log.list.set(own_record, unread, changes);
        Ok((log, later_file))
    }

    /// The first of these files that belongs to this store and is newer than it: see `store_generation`.
    fn later_file<'o>(&self, mut opened: impl Iterator<Item = &'o Opened>) -> Option<PathBuf> {
        let generation = self.generation?;
        opened.find(|opened| opened.file.generation() > generation).map(|opened| opened.file.path().to_owned())
    }

    /// Opens a file. On a store of one process it waits while the file is locked; on a shared store a locked file is
    /// another process's.
    async fn open_when_unlocked(&self, path: &Path, for_own_use: bool) -> Result<Opened, KeyFileError> {
        let is_waited_for = |error: &KeyFileError| matches!(error, KeyFileError::Locked(_)) && !self.is_shared;
        wait_while_locked(self.retry_lock_until, || KeyFile::open(path, self.bytes_max, for_own_use), is_waited_for)
            .await
    }

    /// Opens the only file of a store that belongs to one process.
    async fn open_file(&self, path: &Path) -> Result<Opened, KeyFileError> {
        let opened = self.open_when_unlocked(path, true).await?;
        match self.owner.ownership(opened.tag.as_ref()) {
            // The file was copied together with the store: its keys were taken before the two stores
            // differed.
            FileOwnership::Ours | FileOwnership::OfACopy => Ok(opened),
            FileOwnership::OfAnotherStore if opened.waiting.is_empty() => Ok(opened),
            FileOwnership::OfAnotherStore => Err(KeyFileError::OfAnotherStore(path.to_owned())),
        }
    }

    /// Opens the first file in a directory that no other process has locked and that belongs to this store; then all
    /// further such files, to take over their keys.
    async fn open_in(&self, dir: &Path, secret: &[u8; 32]) -> Result<OpenedFiles, KeyFileError> {
        let id = blake3::derive_key("pointsman 2026 name of the file of retry keys", secret);
        let id = u64::from_le_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]);
        let path = |n: usize| dir.join(format!("pointsman-{id:016x}-{n}.keys"));
        let (mut own, mut earlier): (Option<Opened>, Vec<Opened>) = (None, Vec::new());
        for n in 0..FILES_MAX {
            let opened = match self.open_when_unlocked(&path(n), own.is_none()).await {
                Ok(opened) => opened,
                Err(KeyFileError::Locked(_)) => continue,
                // The file does not exist, and only this process's own file is created.
                Err(KeyFileError::Io { source, .. })
                    if own.is_some() && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) if own.is_none() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the retry keys in the file of another process are not taken over; they stay in it, and the next start tries again");
                    continue;
                }
            };
            match self.ownership(&opened) {
                FileOwnership::Ours if own.is_none() => own = Some(opened),
                FileOwnership::Ours => earlier.push(opened),
                FileOwnership::OfACopy | FileOwnership::OfAnotherStore => {
                    let path = opened.file.path().display();
                    tracing::info!(%path, "this file of retry keys belongs to another store, of which this one may be a copy: it is not used");
                }
            }
        }
        let own = own.ok_or_else(|| KeyFileError::Locked(path(FILES_MAX - 1)))?;
        Ok(OpenedFiles { own, earlier })
    }

    /// To which store a file belongs. A listed file is also ours if its record has an earlier path of the store and no
    /// store is at that path any more: then the store was moved.
    fn ownership(&self, opened: &Opened) -> FileOwnership {
        let ownership = self.owner.ownership(opened.tag.as_ref());
        let id = opened.tag.map(|tag| tag.file);
        let is_moved = |record: &KeyFileRecord| Some(record.id) == id && is_gone(&record.location);
        match ownership {
            FileOwnership::OfACopy if !self.is_shared && self.listed.iter().any(is_moved) => FileOwnership::Ours,
            ownership => ownership,
        }
    }

    /// Opens a listed file that is not among those that [`Opening::open_in`] or [`Opening::open_file`] found. `None` if
    /// another living process of the store has it, or may have it.
    async fn open_listed(&self, record: &KeyFileRecord) -> Result<Option<Opened>, Unreadable> {
        let opened = match self.open_when_unlocked(Path::new(&record.path), false).await {
            Ok(opened) => opened,
            // A process on another machine may be alive.
            Err(_) if self.is_shared && record.host != self.host => return Ok(None),
            Err(KeyFileError::Locked(_)) if self.is_shared => return Ok(None),
            Err(KeyFileError::Locked(_)) => {
                // The tag can be read without the lock.
                let tag = KeyFile::peek(Path::new(&record.path)).ok().and_then(|(tag, _)| tag);
                return Err(match self.is_of_original(record, tag.as_ref()) {
                    true => original_store_reason(record),
                    false => "is in use by a process on another store".into(),
                });
            }
            Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err("is not there".into());
            }
            // The file may belong to the store of which this one is a copy. In doubt this store counts as a copy: if it
            // was only moved, its routes are held below `live` for a while, but if a copy counted as moved, requests
            // would be performed a second time.
            Err(error) if !self.is_shared && self.may_be_of_another_store(record) => {
                let at = &record.location;
                let unknown = match Path::new(at).try_exists() {
                    Ok(_) => String::new(),
                    Err(error) => format!(
                        ", and it cannot be seen whether {at} is still there ({error}; if it is gone, let this process \
                         search the directories of that path and start again)"
                    ),
                };
                let why = format!("cannot be used ({error}){unknown}, so this store may be a copy of {at}");
                return Err(Unreadable { why, belongs_to_original: true });
            }
            Err(error) => return Err(format!("cannot be used ({error})").into()),
        };
        if opened.tag.is_none_or(|tag| tag.file != record.id) {
            return Err(match !self.is_shared && self.is_of_original(record, opened.tag.as_ref()) {
                true => original_store_reason(record),
                false => OTHER_FILE.into(),
            });
        }
        match self.ownership(&opened) {
            FileOwnership::Ours => Ok(Some(opened)),
            FileOwnership::OfACopy | FileOwnership::OfAnotherStore => Err(original_store_reason(record)),
        }
    }

    /// Whether a file with this tag, at the path of a listed one, belongs to the store of which this one is a copy.
    fn is_of_original(&self, record: &KeyFileRecord, tag: Option<&Tag>) -> bool {
        self.owner.ownership(tag) == FileOwnership::OfACopy && self.may_be_of_another_store(record)
    }

    /// Whether this store is at another path than the one that the record has for its store, and a store may still be
    /// at the recorded path.
    fn may_be_of_another_store(&self, record: &KeyFileRecord) -> bool {
        record.location != self.identity.location && !is_gone(&record.location)
    }
}

/// Whether certainly no store is at this path: a directory that cannot be read may have one.
fn is_gone(location: &str) -> bool {
    matches!(Path::new(location).try_exists(), Ok(false))
}

/// The absolute path, with which a process that starts in another directory finds the file.
fn absolute(path: &Path) -> String {
    let path = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

/// The host name of this machine or container.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
