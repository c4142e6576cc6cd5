//! What a store knows of files that hold retry keys which it does not have yet. What stands in them is `affinity`'s
//! business.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What tells a store from a copy of it, which has the same content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Where it is: a path, or a server and a database.
    pub location: String,
    /// What it is there, whatever it is called: the file, or the database within the server's data.
    pub incarnation: String,
}

/// A file in which a process of this store may hold retry keys that the store does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFileRecord {
    /// The id in its header.
    pub id: Uuid,
    /// Its path on the machine of that process.
    pub path: String,
    /// The name of that machine.
    pub host: String,
    /// [`StoreIdentity::location`] for that process.
    pub location: String,
    /// Why its keys are unknown, and since when, if a process looked for them in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<UnreadKeyFile>,
}

/// A key file whose keys are unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadKeyFile {
    /// When that was found.
    pub since: Timestamp,
    /// Why, as the end of a sentence about the file.
    pub why: String,
}

/// The key of a key file's row in the table `meta`.
pub(super) fn key_file_row(id: Uuid) -> String {
    format!("key_file:{id}")
}
