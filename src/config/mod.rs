//! Files to a checked set.
//!
//! The question it answers: "are these files fit to be in force, and if not, what must be mended where?" Drafts are
//! what was asked; a [`Setup`] is what a successful check built from all of them together, and the rest of the
//! program sees only that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::flag::{Route, Service};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::workflow::Plan;

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
    /// Tokens, needed off loopback.
    pub tokens: Vec<Token>,
    /// Where the store is.
    pub store: StoreUrl,
    /// Seals credentials of callers; 32 bytes.
    pub store_key: Option<Secret>,
    /// By name; read from environment or file at load.
    pub secrets: BTreeMap<String, Secret>,
    /// Incoming `X-Forwarded-*` are trusted and added to; otherwise they are replaced.
    pub trust_forwarded: bool,
}

/// A named bearer token of the API.
#[derive(Clone)]
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
    /// `memory:`; gone with the process.
    Memory,
}
