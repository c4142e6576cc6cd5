//! Reads and checks the flag files.
//!
//! The question it answers: "is this set of files valid, and if not, what must be corrected where?" Drafts are what the
//! files ask for; a successful check of all drafts together builds a [`Setup`], and the rest of the program sees only
//! the setup.
//!
//! Always true: a set is accepted or refused as a whole; a refusal lists every problem with file, line, column and a
//! hint ([`Findings`]); no input makes it panic. The order: [`files`] reads the directory into memory, `parse` makes a
//! tree with positions of each text, `schema_check` checks the tree against the JSON Schema of the drafts,
//! `check_files` calls the checks of `flag`, `workflow` and `compare`, `cross_checks` does the checks that need all
//! files, and `render` prints the findings. `watcher` repeats this when the files change. `ladder` and `app` put a
//! valid set in force.
//!
//! A slow disk delays only loading: files are read on the caller's thread at the start and on the watcher's own thread
//! later. A set that changes while it is read is read again. Certificates and keys of listeners, services and `traces:`
//! (`referenced_files`) are read and watched together with the files that name them.

mod access_log;
mod addresses;
mod adoption;
mod alive_secrets;
mod call_templates;
mod check_files;
mod checked_files;
mod child_undo;
mod cross_checks;
mod declared_reads;
mod edition;
mod effects;
mod egress;
mod egress_attribution;
mod files;
mod forwarding;
mod instance_ids;
mod invariants;
mod limits_check;
mod listener_tls;
mod listeners;
mod load;
mod messages;
mod other_spellings;
mod parse;
mod plain_scalar;
mod plans_below;
mod referenced_files;
mod rehearse_from_legacy;
mod reload_status;
mod render;
mod retention;
mod route_rules;
mod rules_yaml;
mod schema;
mod schema_check;
mod secret_keys;
mod secrets;
mod service_tls;
mod settings;
mod setup;
mod shown_values;
mod store_url;
mod text_hashes;
mod traces;
mod tree;
mod uncompared_steps;
mod unparsed_lines;
mod watcher;

use std::path::Path;

pub use addresses::parse_address;
pub use declared_reads::sent_in_rehearsals;
pub use files::FileKind;
pub use referenced_files::ReferencedFile;
pub use reload_status::ReloadStatus;
pub use render::{CheckFailed, Finding, Findings};
pub use retention::Retention;
pub use route_rules::{CheckedRules, RouteRules};
pub use rules_yaml::rules_yaml;
pub use schema::schema;
pub use setup::{Loaded, Overrides, Settings, Setup, StoreUrl, Token, TokenScope};
pub use store_url::parse_store;
pub use uncompared_steps::shared_steps_below;
pub use watcher::{FilesChange, FlagFileWatcher, Reading, ReloadTrigger, WatchTiming};

/// Reads and checks a directory of flag files.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn read(dir: &Path, overrides: &Overrides) -> Result<Loaded, CheckFailed> {
    load::check(dir, files::read(dir), overrides)
}

/// Reads and checks a directory with one of its workflows taken from another file.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn read_with_workflow(dir: &Path, workflow: &Path, overrides: &Overrides) -> Result<Loaded, CheckFailed> {
    load::check(dir, files::read(dir).with_workflow(workflow), overrides)
}

#[cfg(test)]
mod tests;
