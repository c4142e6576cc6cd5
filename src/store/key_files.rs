//! Records of the files that hold retry keys which the store does not have yet. The format of those files is left to
//! `affinity`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Distinguishes a store from a copy of it, which has the same content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Where the store is: a path, or a server and a database.
    pub location: String,
    /// Which file or database it is, independent of its name: device and inode of the file, or the ids of the server's
    /// data and of the database in it.
    pub incarnation: String,
}

/// Describes a restored backup. What the original did between the two times is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was made.
    pub backed_up: Timestamp,
    /// When the backup was first started.
    pub started: Timestamp,
    /// How many real runs had not ended when the backup was first started. They are paused, unless they only read.
    pub open_runs: u64,
}

/// A file in which a process of this store may hold retry keys that the store does not have, or did so before it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFileRecord {
    /// The id in the file's header.
    pub id: Uuid,
    /// Its path on the machine of that process.
    pub path: String,
    /// The name of that machine.
    pub host: String,
    /// [`StoreIdentity::location`] of the store, as that process had it.
    pub location: String,
    /// Whether the store has all keys that were in the file when its process ended. Only a store of one process keeps
    /// such a record: from it, a copy of the store knows where the original was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_stored: bool,
    /// Why the file's keys are unknown, and since when, if a process tried to read them and failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<UnreadKeyFile>,
}

/// A key file whose keys are unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadKeyFile {
    /// When it was found that they are unknown.
    pub since: Timestamp,
    /// Why, as the end of a sentence about the file.
    pub why: String,
    /// Whether the file belongs to the store of which this one is a copy.
    #[serde(rename = "is_originals", default, skip_serializing_if = "std::ops::Not::not")]
    pub belongs_to_original: bool,
    /// Whether the file was written after this store: the store is an older copy that was put in the place of the
    /// original. Such a record stands for what is missing, and not for a file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_later_store: bool,
}

/// The key of a key file's row in the table `meta`.
pub(super) fn key_file_row(id: Uuid) -> String {
    format!("key_file:{id}")
}
