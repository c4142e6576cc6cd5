//! Reads and checks the flag files.
//!
//! The question it answers: "is this set of files valid, and if not, what must be corrected where?" Drafts are what the
//! files ask for; a [`Setup`] is built by a successful check of all of them together, and the rest of the program sees
//! only that.
//!
//! Always true: a set is accepted or refused as a whole; a refusal lists every problem with file, line, column and a
//! hint ([`Findings`]); no bytes make it panic. The order: [`files`] reads the directory into memory, `parse` makes a
//! tree with positions of each text, `schema_check` checks it against the JSON Schema of the drafts, `check_files`
//! calls the checks of `flag`, `workflow` and `compare`, `cross_checks` does the checks that need all files, and
//! `render` prints what was found. `watcher` repeats this when the files change. Putting a valid set in force is done
//! by `ladder` and `app`.
//!
//! A slow disk delays loading and nothing else: files are read on the caller's thread at the start and on the watcher's
//! own thread later. A set that changes while it is read is read again. Certificates and keys of listeners and services
//! (`other_files`) are read and watched with the files that name them.

mod access_log;
mod addresses;
mod call_templates;
mod check_files;
mod checked_files;
mod child_undo;
mod cross_checks;
mod effects;
mod egress;
mod egress_attribution;
mod files;
mod forwarding;
mod limits_check;
mod listener_tls;
mod listeners;
mod load;
mod messages;
mod other_files;
mod other_spellings;
mod parse;
mod plain_scalar;
mod reload_status;
mod render;
mod retention;
mod schema;
mod schema_check;
mod secrets;
mod service_tls;
mod settings;
mod setup;
mod store_url;
mod traces;
mod tree;
mod watcher;

use std::path::Path;

pub use addresses::parse_address;
pub use files::FileKind;
pub use other_files::OtherFile;
pub use reload_status::ReloadStatus;
pub use render::{CheckFailed, Finding, Findings};
pub use retention::Retention;
pub use schema::schema;
pub use setup::{Loaded, Overrides, Settings, Setup, StoreUrl, Token, TokenScope};
pub use store_url::parse_store;
pub use watcher::{FilesChange, FlagFileWatcher, Reading, ReloadTrigger, WatchTiming};

/// Reads and checks a directory of flag files.
///
/// # Errors
/// Everything that is wrong with them, as one text.
pub fn read(dir: &Path, overrides: &Overrides) -> Result<Loaded, CheckFailed> {
    load::check(dir, files::read(dir), overrides)
}

/// Reads and checks a directory with one of its workflows taken from another file.
///
/// # Errors
/// Everything that is wrong with them, as one text.
pub fn read_with_workflow(dir: &Path, workflow: &Path, overrides: &Overrides) -> Result<Loaded, CheckFailed> {
    load::check(dir, files::read(dir).with_workflow(workflow), overrides)
}

#[cfg(test)]
mod tests;
