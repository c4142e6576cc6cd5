//! Files to a checked set.
//!
//! The question it answers: "are these files fit to be in force, and if not, what must be mended where?" Drafts are
//! what was asked; a [`Setup`] is what a successful check built from all of them together, and the rest of the
//! program sees only that.
//!
//! Always true: a set is good or refused as a whole; a refusal lists every problem with file, line, column and a hint
//! ([`Findings`]); nothing that bytes can say makes it panic. The journey: [`files`] reads the directory into memory,
//! `parse` makes a spanned tree of each text, `shape` holds it against the JSON Schema of the drafts, the rooms'
//! own checks (`flag`, `workflow`, `compare`) judge sense, `cross` judges what only all files together can say, and
//! `render` shows what was found. `watch` does it again when the files change. What is done with a good set (flips,
//! swapping it in) is `ladder`'s and `app`'s business.
//!
//! Files are slow or gone: reading happens on the caller's thread at start and on the watch's own thread later; a set
//! that changes while it is read is read again.

mod cross;
mod files;
mod freshness;
mod load;
mod parse;
mod render;
mod retention;
mod rooms;
mod scalar;
mod schema;
mod secrets;
mod settings;
mod shape;
mod store_url;
mod tree;
mod watch;
mod wording;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::flag::{Route, Service};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::workflow::Plan;

pub use files::FileKind;
pub use freshness::Freshness;
pub use render::{Failed, Finding, Findings};
pub use retention::Retention;
pub use schema::schema;
pub use settings::parse_address;
pub use store_url::parse_store;
pub use watch::{Change, Nudge, Pace, Watch};

/// What the command line says instead of the files.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Instead of `listen`.
    pub listen: Option<SocketAddr>,
    /// Instead of `admin.listen`.
    pub admin: Option<SocketAddr>,
    /// Instead of `store`.
    pub store: Option<String>,
    /// A secret that is not there is a warning: for a check on a machine that will not run the set.
    pub secrets_may_be_absent: bool,
}

/// A set that may be in force.
#[derive(Clone)]
pub struct Loaded {
    /// The set.
    pub setup: Setup,
    /// What a person should look at.
    pub warnings: Findings,
    /// Equal for equal files.
    pub hash: [u8; 32],
}

/// Reads and checks a directory of flag files.
///
/// # Errors
/// Everything that is wrong with them, as one text.
pub fn read(dir: &Path, over: &Overrides) -> Result<Loaded, Failed> {
    load::check(dir, files::read(dir), over)
}

/// Reads and checks a directory as if one of its workflows stood in another file.
///
/// # Errors
/// Everything that is wrong with them, as one text.
pub fn read_with(dir: &Path, workflow: &Path, over: &Overrides) -> Result<Loaded, Failed> {
    load::check(dir, files::read(dir).with_workflow(workflow), over)
}

/// All files, checked together.
#[derive(Clone)]
pub struct Setup {
    /// Listeners, store, secrets.
    pub settings: Settings,
    /// By name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Where unmatched requests go.
    pub default_legacy: Arc<Service>,
    /// In file order.
    pub routes: Vec<Arc<Route>>,
    /// By name.
    pub workflows: BTreeMap<WorkflowName, Arc<Plan>>,
    /// How each route's pairs are compared.
    pub rules: BTreeMap<RouteId, Arc<crate::compare::Rules>>,
    /// The bounds in force.
    pub limits: Arc<Limits>,
}

/// What `pointsman.yaml` says beside services and limits.
#[derive(Clone)]
pub struct Settings {
    /// The proxy's listener.
    pub listen: SocketAddr,
    /// API, metrics, page.
    pub admin: SocketAddr,
    /// Where applications reach runs, and nothing else.
    pub api: Option<SocketAddr>,
    /// Whether the older entrance for starts is open.
    pub maestro: bool,
    /// Tokens, needed off loopback.
    pub tokens: Vec<Token>,
    /// Where the store is.
    pub store: StoreUrl,
    /// Where the file of retry keys is, if not where it is by itself.
    pub retry_keys_dir: Option<PathBuf>,
    /// Seals credentials of callers; 32 bytes as 64 hex digits.
    pub store_key: Option<Secret>,
    /// By name; read from environment or file at load.
    pub secrets: BTreeMap<String, Secret>,
    /// How long runs that have ended are kept.
    pub retention: Retention,
    /// Incoming `X-Forwarded-*` are trusted and added to; otherwise they are replaced.
    pub trust_forwarded: bool,
}

impl Settings {
    /// What differs and cannot be changed while the process runs: it takes effect at the next start.
    pub fn wait_for_restart(&self, newer: &Settings) -> Vec<&'static str> {
        let key = |settings: &Settings| settings.store_key.as_ref().map(|key| key.reveal().to_owned());
        let differs = [
            ("listen", self.listen != newer.listen),
            ("admin.listen", self.admin != newer.admin),
            ("api.listen", self.api != newer.api),
            ("api.maestro", self.maestro != newer.maestro),
            ("store", self.store != newer.store),
            ("retry_keys_dir", self.retry_keys_dir != newer.retry_keys_dir),
            ("store_key", key(self) != key(newer)),
            ("admin.tokens", self.tokens != newer.tokens),
            ("trust_forwarded", self.trust_forwarded != newer.trust_forwarded),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// A named bearer token of the API.
#[derive(PartialEq, Eq, Clone)]
pub struct Token {
    /// The "who" of everything it does.
    pub name: String,
    /// The token.
    pub secret: Secret,
    /// `read`, `run`, `decide`, `flip`.
    pub may: Vec<String>,
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`, relative to where the process runs.
    Sqlite(PathBuf),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; both hidden, since the address may hold a password.
    Postgres {
        /// As it was written.
        url: Secret,
        /// A password beside it.
        password: Option<Secret>,
    },
    /// `memory:`; gone with the process.
    Memory,
}

#[cfg(test)]
mod tests;
