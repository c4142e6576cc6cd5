//! The messages of a hand-over.

use std::net::SocketAddr;

use http::Method;
use serde::{Deserialize, Serialize};

use crate::flag::RouteMatch;

/// One message. Fields that a later version adds are ignored; a change of the meaning of existing fields requires a new
/// [`super::PROTOCOL`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum Message {
    /// The successor asks for the sockets.
    Hello(ProcessIdentity),
    /// The old process offers its sockets, which follow in this order.
    Offer {
        from: ProcessIdentity,
        sockets: Vec<OfferedSocket>,
        /// The requests that may concern a workflow according to the files of the old process.
        workflow_requests: Vec<OfferedMatch>,
    },
    /// The old process does not hand over.
    Refused { why: String },
    /// The successor accepts.
    Accepting,
    /// The old process has released the store.
    Released,
    /// The successor has started with the store.
    Started,
}

/// One of the two processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::app) struct ProcessIdentity {
    pub protocol: u32,
    /// The version of the binary.
    pub version: String,
    /// The id of the process.
    pub process: u32,
}

impl ProcessIdentity {
    /// This process.
    pub(super) fn this() -> Self {
        Self { protocol: super::PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), process: std::process::id() }
    }
}

impl std::fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} (version {})", self.process, self.version)
    }
}

/// A listening socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::app) struct OfferedSocket {
    /// The listener: `listen`, `admin`, `api` or `egress`.
    pub name: String,
    /// The listener's address in the files, which may have port 0.
    pub declared: SocketAddr,
}

/// Which requests match one route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OfferedMatch {
    method: String,
    path: String,
    host: Option<String>,
}

impl From<&RouteMatch> for OfferedMatch {
    fn from(matches: &RouteMatch) -> Self {
        let RouteMatch { method, path, host } = matches;
        Self { method: method.as_str().to_owned(), path: path.clone(), host: host.clone() }
    }
}

impl OfferedMatch {
    /// The match; `None` if no file could declare it.
    pub(super) fn into_match(self) -> Option<RouteMatch> {
        let Self { method, path, host } = self;
        Some(RouteMatch { method: Method::from_bytes(method.as_bytes()).ok()?, path, host })
    }
}
