//! Why the keys of a listed file are unknown, as the store records it and the log reports it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreAffinity;
use super::unknown_keys::RequestsWithUnknownKeys;
use crate::clock;
use crate::store::{KeyFileRecord, UnreadKeyFile};

/// The reason if another file has the path of the listed one.
pub(super) const OTHER_FILE: &str = "is not there: another file has its name";

/// Why the keys of a listed file are unknown.
pub(super) struct Unreadable {
    /// The rest of a sentence whose subject is the file: `is not there`.
    pub why: String,
    /// Whether the file belongs to the store of which this one is a copy ([`UnreadKeyFile::belongs_to_original`]).
    pub belongs_to_original: bool,
}

impl<T: Into<String>> From<T> for Unreadable {
    fn from(why: T) -> Self {
        Self { why: why.into(), belongs_to_original: false }
    }
}

/// The reason if the file belongs to the store of which this one is a copy.
pub(super) fn original_store_reason(record: &KeyFileRecord) -> Unreadable {
    let why = format!("belongs to the store {}, of which this one is a copy", record.location);
    Unreadable { why, belongs_to_original: true }
}

/// The record which says that the store is older than this file, and so lacks what was done after it was copied.
/// `own` is the record of the process's own file.
pub(super) fn later_store_record(file: &Path, own: &KeyFileRecord, now: Timestamp) -> KeyFileRecord {
    let why = "was written after this store: the store is an older copy that was put in the place of a later one";
    let unread = UnreadKeyFile { since: now, why: why.into(), belongs_to_original: true, is_of_later_store: true };
    // An id of its own: the file itself is in use, and its keys are taken over.
    let id = Uuid::from_u128(fastrand::u128(1..));
    KeyFileRecord { id, path: file.display().to_string(), all_stored: false, unread: Some(unread), ..own.clone() }
}

/// Why the keys of a record that [`later_store_record`] made are unknown, whatever file is at its path now; `None` for
/// other records.
pub(super) fn later_store_reason(record: &KeyFileRecord) -> Option<Unreadable> {
    let unread = record.unread.as_ref().filter(|unread| unread.is_of_later_store)?;
    Some(Unreadable { why: unread.why.clone(), belongs_to_original: true })
}

/// The record of a file that cannot be read; `None` if the retry window has passed since that was first found.
pub(super) fn still_unread(
    record: &KeyFileRecord,
    found: Unreadable,
    now: Timestamp,
    window: Duration,
) -> Option<KeyFileRecord> {
    let Unreadable { why, belongs_to_original } = found;
    // That the store is a copy may be found only after the file was missing for a while.
    let earlier = record.unread.as_ref().filter(|unread| unread.belongs_to_original || !belongs_to_original);
    let since = earlier.map_or(now, |unread| unread.since);
    let is_over = clock::window_end(since, window) <= now;
    let is_of_later_store = earlier.is_some_and(|unread| unread.is_of_later_store);
    (!is_over).then(|| KeyFileRecord {
        unread: Some(UnreadKeyFile { since, why, belongs_to_original, is_of_later_store }),
        ..record.clone()
    })
}

pub(super) fn log_unread(record: &KeyFileRecord) {
    let Some(unread) = &record.unread else { return };
    let why = &unread.why;
    if unread.is_of_later_store {
        tracing::error!(
            path = record.path,
            "a file of retry keys of legacy {why}. What was done after the copy was made is not in this store, so for the \
             retry window no route goes up to `live` or stays in it unless forced, and open runs are paused \
             (`pointsman help store`, \"After a restore\")"
        );
        return;
    }
    if unread.belongs_to_original {
        tracing::error!(
            path = record.path,
            "a file of retry keys of legacy {why}: what was done after the copy was made is not in this store, so for the \
             retry window no route goes up to `live` or stays in it unless forced (`pointsman help store`, \"After a \
             restore\"); if the store was to be moved, remove {} and this file before the next start",
            record.location
        );
        return;
    }
    tracing::error!(
        path = record.path,
        host = record.host,
        "a file of retry keys of legacy {why}: for the retry window no route goes up to `live` unless \
         forced; make the file readable at this path and start again, or force the flip"
    );
}

impl StoreAffinity {
    /// The files that the store lists and that could not be read, each with the reason, and the requests whose keys it
    /// may have.
    pub fn unread_key_files(&self) -> Vec<(String, RequestsWithUnknownKeys)> {
        let unread = self.keys.list.unread().into_iter().filter_map(|(record, since)| {
            let unknown = RequestsWithUnknownKeys::since(since, self.keys.window())?;
            let why = record.unread.map(|unread| unread.why).unwrap_or_default();
            Some((format!("the file of retry keys {} {why}", record.path), unknown))
        });
        unread.collect()
    }

    /// If the store is a copy: when it was first started as such. What the original's processes did after the copy was
    /// made is not in it. A copy is recognised if it is a restored backup, lists files of retry keys that belong to the
    /// original, or is older than such a file.
    pub fn copy_started(&self) -> Option<Timestamp> {
        let found_original = |(record, since): (KeyFileRecord, Timestamp)| {
            record.unread.is_some_and(|unread| unread.belongs_to_original).then_some(since)
        };
        let found_files_of_original_at = self.keys.list.unread().into_iter().filter_map(found_original).max();
        self.store.restored().map(|restored| restored.started).max(found_files_of_original_at)
    }
}
