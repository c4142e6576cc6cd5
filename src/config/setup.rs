//! What a successful check of all files builds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::referenced_files::ReferencedFile;
use super::render::Findings;
use super::retention::Retention;
use crate::access_log::AccessLogSettings;
use crate::egress::AttributionSettings;
use crate::flag::{Route, Service};
use crate::limits::Limits;
use crate::listener::{EgressListener, Forwarding, Listener};
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::secret::{RedactRules, Secret};
use crate::traces::TracesSettings;
use crate::workflow::Plan;

/// Settings that the command line overrides.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replaces `listen`, by one address for plain HTTP.
    pub listen: Option<SocketAddr>,
    /// Replaces `admin.listen`.
    pub admin: Option<SocketAddr>,
    /// Replaces `store`.
    pub store: Option<String>,
    /// Whether a missing secret is a warning, not an error: for a check on a machine that will not run the set.
    pub secrets_may_be_absent: bool,
}

/// A valid set of files.
#[derive(Clone)]
pub struct Loaded {
    /// The set.
    pub setup: Setup,
    /// The warnings of the check.
    pub warnings: Findings,
    /// A hash of names and contents; equal for equal files.
    pub hash: [u8; 32],
    /// The certificates and keys that were read with the files.
    pub referenced_files: Vec<ReferencedFile>,
    /// When the files were read.
    pub read_at: std::time::Instant,
}

/// All files, checked together.
#[derive(Clone)]
pub struct Setup {
    /// `pointsman.yaml`, apart from services and limits.
    pub settings: Settings,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// The service that gets requests which no route matches.
    pub default_legacy: Arc<Service>,
    /// The routes, in file order.
    pub routes: Vec<Arc<Route>>,
    /// The workflows by name.
    pub workflows: BTreeMap<WorkflowName, Arc<Plan>>,
    /// How each route's pairs are compared.
    pub rules: BTreeMap<RouteId, Arc<crate::compare::Rules>>,
    /// The limits.
    pub limits: Arc<Limits>,
    /// Equal for files that mean the same to every process that shares a store: they may differ in comments and layout,
    /// and in settings of one process, such as `listen`.
    pub edition: String,
}

/// `pointsman.yaml` except its services and limits.
#[derive(Clone)]
pub struct Settings {
    /// The proxy's listeners; there is at least one.
    pub listen: Vec<Listener>,
    /// The header fields for clients' certificates, of all listeners.
    pub identity_headers: Vec<HeaderName>,
    /// The listener of the API and the metrics.
    pub admin: SocketAddr,
    /// The listener for applications, which serves runs only.
    pub api: Option<SocketAddr>,
    /// The listener for legacy's own calls; `None` if there is none.
    pub egress: Option<EgressListener>,
    /// Whether the deprecated `POST /api/maestro/produce` is served.
    pub deprecated_start: bool,
    /// The API's tokens; at least one is required where a listener can be reached from other machines.
    pub tokens: Vec<Token>,
    /// The store.
    pub store: StoreUrl,
    /// The directory of the file of retry keys, if it is not the default one.
    pub retry_keys_dir: Option<PathBuf>,
    /// Encrypts credentials of callers and other sealed values: 32 bytes, given as 64 hex digits or base64.
    pub store_key: Option<Secret>,
    /// The secrets by name; read from environment or file at load.
    pub secrets: BTreeMap<String, Secret>,
    /// What is redacted in every route and in the log.
    pub redact: RedactRules,
    /// How long ended runs are kept; `None`: for as long as the store's default says.
    pub retention: Option<Retention>,
    /// What legacy is told about clients, and which peers' fields are believed.
    pub forwarding: Forwarding,
    /// Whether answers say which arm gave them, unless their route says otherwise.
    pub exposes_arm: bool,
    /// The access log; `None` if there is none.
    pub access_log: Option<AccessLogSettings>,
    /// Where spans are sent; `None` if no spans are recorded.
    pub traces: Option<TracesSettings>,
    /// How calls by legacy are attributed to requests; `None` if they are not watched.
    pub attribution: Option<AttributionSettings>,
}

impl Settings {
    /// The names of the settings that differ in `newer` and take effect only at the next start.
    pub fn settings_needing_restart(&self, newer: &Settings) -> Vec<&'static str> {
        let key = |settings: &Settings| settings.store_key.as_ref().map(|key| key.reveal().to_owned());
        let differs = [
            ("listen", self.listeners_need_restart(newer)),
            ("admin.listen", self.admin != newer.admin),
            ("api.listen", self.api != newer.api),
            ("egress", self.egress != newer.egress),
            ("api.maestro", self.deprecated_start != newer.deprecated_start),
            ("store", self.store != newer.store),
            ("retry_keys_dir", self.retry_keys_dir != newer.retry_keys_dir),
            ("store_key", key(self) != key(newer)),
            ("admin.tokens", self.tokens != newer.tokens),
            ("access_log", self.access_log != newer.access_log),
            ("traces", self.traces != newer.traces),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

impl Settings {
    fn listeners_need_restart(&self, newer: &Settings) -> bool {
        let mut pairs = self.listen.iter().zip(&newer.listen);
        self.listen.len() != newer.listen.len()
            || pairs.any(|(old, new)| old.needs_restart(new))
            || self.identity_headers != newer.identity_headers
    }
}

/// A named bearer token of the API.
#[derive(PartialEq, Eq, Clone)]
pub struct Token {
    /// The token's name, recorded as the author of everything that is done with the token.
    pub name: String,
    /// The token.
    pub secret: Secret,
    /// What the token allows.
    pub scopes: Vec<TokenScope>,
}

/// A set of endpoints of the API that a token may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenScope {
    /// Read routes, evidence and runs.
    Read,
    /// Start runs, and send them signals.
    Run,
    /// Answer checkpoints, resolve conflicts, and give commands to runs (pause, cancel, skip, rerun and so on).
    Decide,
    /// Move routes, and set the kill switch.
    Flip,
}

impl TokenScope {
    /// The scope's name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenScope::Read => "read",
            TokenScope::Run => "run",
            TokenScope::Decide => "decide",
            TokenScope::Flip => "flip",
        }
    }
}

/// The location of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`, relative to the working directory.
    Sqlite(PathBuf),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. The URL is a secret too, since it may contain a password.
    Postgres {
        /// The URL as it was written.
        url: Secret,
        /// The URL of the server itself, if the other is that of a pooler in transaction mode.
        direct: Option<Secret>,
        /// A password that is given in addition to the URL.
        password: Option<Secret>,
    },
    /// `memory`; the content is lost when the process ends.
    Memory,
}
