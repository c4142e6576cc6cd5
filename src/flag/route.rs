//! A checked route.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use serde_json_path::JsonPath;

use super::facts::reads_header;
use super::{CallerScope, RelaySettings, Service, Shares, State};
use crate::expression::{Expression, Template};
use crate::names::{RouteId, WorkflowName};

/// The header that is the retry key of a request where its route has no `retry_key`.
pub const RETRY_KEY_DEFAULT: HeaderName = HeaderName::from_static("idempotency-key");

/// One endpoint in front of legacy. Only a successful check makes one.
#[derive(Clone)]
pub struct Route {
    /// Its id: unique, a metric label.
    pub id: RouteId,
    /// Its other ids, the newest first: records under them belong to it. Usually they are its earlier ids. If files
    /// took a rename back, they also have the ids that it got by that rename, and the last one may be its present id.
    pub was: Vec<RouteId>,
    /// Which requests belong to it.
    pub matches: RouteMatch,
    /// The service that answers it today.
    pub legacy: Arc<Service>,
    /// What the engine runs for it; without one only `off` is possible.
    pub workflow: Option<WorkflowName>,
    /// The state that the file declares.
    pub declared: State,
    /// The reason in `force: {reason}` next to the state, which overrides the gate.
    pub force: Option<String>,
    /// Each rung's share as the file says it.
    pub shares: Shares,
    /// Identifies the caller, for shares.
    pub key: Option<Template>,
    /// Rules that put some callers on another rung, in order.
    pub cohorts: Vec<Cohort>,
    /// What the route does with instances.
    pub instance: Option<Instance>,
    /// What marks a client's retry: a request with the value of an earlier one is its retry. The default is the header
    /// `Idempotency-Key`.
    pub retry_key: Option<Template>,
    /// How the retry key is scoped by caller (default: by the header `authorization`).
    pub caller: CallerScope,
    /// Whether the engine's runs are kept in the store. If not (`keep: none`), they only read, nothing of them is
    /// written to the store, and their retry keys are not remembered.
    pub keeps_runs: bool,
    /// The caller's answer is due within this time.
    pub deadline: Option<Duration>,
    /// How requests are forwarded to legacy, where that differs from what its service says.
    pub relay: RelaySettings,
    /// The most requests at the same time, whichever arm answers them; others wait for their turn.
    pub requests_max: Option<u64>,
    /// Whether legacy may be called again for a comparison, in `live`; not acted on by this version.
    pub replay_safe: bool,
    /// Whether ambiguous paths are refused wherever they would match this route, also in `off`.
    pub strict_paths: bool,
    /// Whether each answer says which arm gave it; `None`: as for requests that no route matches.
    pub exposes_arm: Option<bool>,
    /// The rule that lowers the state automatically; not acted on by this version.
    pub guard: Option<Guard>,
    /// Conditions (CEL over request, reply, run) to be judged in `live` and `only`, by name; not acted on by this
    /// version.
    pub invariants: Vec<(String, Expression)>,
}

impl Route {
    /// A route without a workflow: legacy answers its requests, and keys are only looked up.
    pub fn without_workflow(id: RouteId, matches: RouteMatch, legacy: Arc<Service>) -> Self {
        Self {
            id,
            was: Vec::new(),
            matches,
            legacy,
            workflow: None,
            declared: State::Off,
            force: None,
            shares: Shares::default(),
            key: None,
            cohorts: Vec::new(),
            instance: None,
            retry_key: None,
            caller: Vec::new().into(),
            keeps_runs: true,
            deadline: None,
            relay: RelaySettings::default(),
            requests_max: None,
            replay_safe: false,
            strict_paths: false,
            exposes_arm: None,
            guard: None,
            invariants: Vec::new(),
        }
    }

    /// Whether the rung or the retry key of a request may depend on this header. The default retry key and the usual
    /// credentials always count.
    pub fn depends_on_header(&self, name: &HeaderName) -> bool {
        let mut templates = self.key.iter().chain(&self.retry_key);
        *name == RETRY_KEY_DEFAULT
            || [AUTHORIZATION, COOKIE].contains(name)
            || self.caller.depends_on_header(name)
            || templates.any(|template| reads_header(template.reads(), name))
            || self.cohorts.iter().any(|cohort| reads_header(cohort.when.reads(), name))
    }

    /// Its id and its other ids.
    pub fn ids(&self) -> impl Iterator<Item = &RouteId> {
        std::iter::once(&self.id).chain(self.was.iter().filter(|id| **id != self.id))
    }
    /// The oldest of its ids; hashes use it, so that they survive a rename.
    pub fn first_id(&self) -> &RouteId {
        self.was.last().unwrap_or(&self.id)
    }
}

/// Which requests belong to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The method; a GET route also matches HEAD.
    pub method: Method,
    /// The path template, `/orders/{id}`; always starts with a slash.
    pub path: String,
    /// Lower case, without port.
    pub host: Option<String>,
}

/// A rule that puts some callers on another rung.
#[derive(Clone)]
pub struct Cohort {
    /// Its name.
    pub name: String,
    /// Condition on method, path, query, headers, peer; never the body.
    pub when: Expression,
    /// Their rung.
    pub state: State,
    /// `force: {reason}` beside it: the cohort may be above the route without evidence of its own.
    pub force: Option<String>,
}

/// What a route does with instances.
#[derive(Clone)]
pub enum Instance {
    /// The reply creates one; its id is at this JSONPath in the reply's body.
    Creates {
        /// The JSONPath of the id.
        id: JsonPath,
    },
    /// It follows up instances that another route created.
    Follows {
        /// The creator.
        creator: RouteId,
        /// The path parameter that is the id (`key: path.id`).
        param: String,
    },
}

/// A rule that lowers a route automatically. Rates are shares, 0.0 to 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// Highest mismatch rate.
    pub mismatch: Option<f64>,
    /// Highest error rate of the engine.
    pub errors: Option<f64>,
    /// Highest ratio of the engine's p99 to legacy's.
    pub p99_ratio: Option<f64>,
    /// It applies once it has seen this many requests.
    pub over: u64,
}
