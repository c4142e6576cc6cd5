//! A checked route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderMap, Method};
use serde_json::Value;

use super::facts::reads_header;
use super::{
    Auto, CallerScope, Guard, InstanceKeySource, InstanceLifetime, Invariant, Percent, Promote, RelaySettings, Service,
    Shares, State,
};
use crate::expression::{CreatedIdSource, Expression, Template, id_text};
use crate::names::{RouteId, WorkflowName};
use crate::secret::{RedactRules, TextHash};

/// The header that holds the retry key of a request if its route has no `retry_key`.
pub const RETRY_KEY_DEFAULT: HeaderName = HeaderName::from_static("idempotency-key");

/// One endpoint in front of legacy. Only a successful check makes one.
#[derive(Clone)]
pub struct Route {
    /// The route's id: unique, a metric label.
    pub id: RouteId,
    /// The route's other ids, the newest first: records under them belong to the route. Usually they are its earlier
    /// ids. If the files took a rename back, the ids that the route got by that rename are listed too, and the last id
    /// may be the present one.
    pub was: Vec<RouteId>,
    /// Which requests belong to it.
    pub matches: RouteMatch,
    /// The service that answers the route today.
    pub legacy: Arc<Service>,
    /// The workflow that the engine runs for the route; without one only `off` is possible.
    pub workflow: Option<WorkflowName>,
    /// The state that the file declares.
    pub declared: State,
    /// The reason in `force: {reason}` next to the state, which overrides the gate.
    pub force: Option<String>,
    /// Each rung's share in the file.
    pub shares: Shares,
    /// Identifies the caller, for shares.
    pub key: Option<Template>,
    /// Rules that put some callers on another rung, in order.
    pub cohorts: Vec<Cohort>,
    /// What the route does with instances.
    pub instance: Option<Instance>,
    /// How long instances live.
    pub lifetime: InstanceLifetime,
    /// The template of the retry key: a request with the same value as an earlier request is a retry of it. `None`: the
    /// header `Idempotency-Key` is the key.
    pub retry_key: Option<Template>,
    /// How the retry key is scoped by caller (default: by the header `authorization`).
    pub caller: CallerScope,
    /// Whether the engine's runs are kept in the store. If not (`keep: none`), they only read, nothing of them is
    /// written to the store, and their retry keys are not remembered.
    pub keeps_runs: bool,
    /// How long the answer to the caller may take.
    pub deadline: Option<Duration>,
    /// How requests are forwarded to legacy, as far as it differs from what the service declares.
    pub relay: RelaySettings,
    /// How many requests may be in flight at the same time, whichever arm answers them; others wait for their turn.
    pub requests_max: Option<u64>,
    /// Whether a request changes nothing at legacy, so that legacy may be asked a second time.
    pub replay_safe: bool,
    /// The share of the compared requests that are sent to legacy a second time; none unless `replay_safe`.
    pub noise: Percent,
    /// The share of the requests that the engine answers in `live` and that are sent to legacy afterwards; none unless
    /// `replay_safe`.
    pub reverse: Percent,
    /// The share of the requests compared in `shadow` for which the engine is run a second time.
    pub rehearse_twice: Percent,
    /// Whether the reads of a run in `shadow` or `dark` are answered from legacy's own equal reads.
    pub replay_reads: bool,
    /// Whether unusual spellings of the path are refused wherever they would match this route, even in `off`.
    pub strict_paths: bool,
    /// Whether each answer says which arm gave it; `None`: as [`FlagSet::exposes_arm`](super::FlagSet::exposes_arm)
    /// says.
    pub exposes_arm: Option<bool>,
    /// What the gates require of the route's evidence.
    pub promote: Promote,
    /// When the state is lowered automatically; `None`: never.
    pub guard: Option<Guard>,
    /// How its share grows by itself; `None`: it does not.
    pub auto: Option<Auto>,
    /// The share of the compared pairs that are captured.
    pub capture: Percent,
    /// What is redacted in addition to what is secret by its name.
    pub redact: RedactRules,
    /// Conditions that the engine's answers have to meet in `live` and `only`; at most
    /// [`INVARIANTS_MAX`](super::invariant::INVARIANTS_MAX).
    pub invariants: Arc<[Invariant]>,
}

impl Route {
    /// A route without a workflow: legacy answers its requests, and its keys are only looked up.
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
            lifetime: InstanceLifetime::default(),
            retry_key: None,
            caller: Vec::new().into(),
            keeps_runs: true,
            deadline: None,
            relay: RelaySettings::default(),
            requests_max: None,
            replay_safe: false,
            noise: Percent::NONE,
            reverse: Percent::NONE,
            rehearse_twice: Percent::NONE,
            replay_reads: false,
            strict_paths: false,
            exposes_arm: None,
            promote: Promote::default(),
            guard: None,
            auto: None,
            capture: Percent::NONE,
            redact: RedactRules::default(),
            invariants: Arc::from([]),
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

    /// For each cohort, a hash of what decides who is in it: its condition and those of the cohorts before it.
    pub fn cohort_rules(&self) -> BTreeMap<String, String> {
        self.cohort_rules_by(self.redact.text_hash())
    }
    /// What [`Route::cohort_rules`] returned with earlier text hashes, which the same store may still have.
    pub fn earlier_cohort_rules(&self) -> Vec<BTreeMap<String, String>> {
        self.redact.text_hash().earlier().iter().map(|text_hash| self.cohort_rules_by(text_hash)).collect()
    }
    fn cohort_rules_by(&self, text_hash: &TextHash) -> BTreeMap<String, String> {
        let mut conditions = String::new();
        let rules = self.cohorts.iter().map(|cohort| {
            conditions.push_str(cohort.when.source());
            conditions.push('\0');
            // Without a store nothing is kept or shown of a cohort's rule: the hash only tells rules apart.
            let hash = text_hash.of(&conditions).unwrap_or_else(|| blake3::hash(conditions.as_bytes()));
            (cohort.name.clone(), hash.to_hex()[..32].to_owned())
        });
        rules.collect()
    }
    /// The same route, with this hash appended to each shown text in which something is masked.
    #[must_use]
    pub fn with_text_hash(&self, text_hash: &TextHash) -> Self {
        let mut route = self.clone();
        route.redact = self.redact.with_text_hash(text_hash);
        route.invariants = self.invariants.iter().map(|invariant| invariant.shown_with(&route.redact)).collect();
        route.promote.strata_by = self.promote.strata_by.as_ref().map(|key| key.with_text_hash(text_hash));
        route
    }
    /// The route's present id and its other ids.
    pub fn ids(&self) -> impl Iterator<Item = &RouteId> {
        std::iter::once(&self.id).chain(self.was.iter().filter(|id| **id != self.id))
    }
    /// The route's oldest id. Hashes use it, so that they survive a rename.
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
    /// The host, in lower case and without port; `None` matches every host.
    pub host: Option<String>,
}

/// A rule that puts some callers on another rung.
#[derive(Clone)]
pub struct Cohort {
    /// The cohort's name.
    pub name: String,
    /// A condition on the request's method, path, path parameters, query, headers and peer; never the body.
    pub when: Expression,
    /// The callers' rung.
    pub state: State,
    /// The reason in `force: {reason}`: the cohort may be on a rung that the route has not reached by evidence.
    pub force: Option<String>,
}

/// What a route does with instances.
#[derive(Clone)]
pub enum Instance {
    /// A reply creates an instance.
    Creates {
        /// Where the reply has the id.
        id: CreatedIdSource,
    },
    /// The route follows up instances that another route created.
    Follows {
        /// The creator.
        creator: RouteId,
        /// Where a request has the id (`key: path.id`).
        key: InstanceKeySource,
    },
}

impl Instance {
    /// The id of the instance that a reply of the engine with these headers and this body created, as paths have it.
    pub fn created_id(&self, headers: &[(String, String)], body: &Value) -> Option<String> {
        let Instance::Creates { id } = self else { return None };
        id_text(&id.find(headers, body)?)
    }
    /// As [`Instance::created_id`], of any reply. `body` gives the value of its body, and is called only if the id is
    /// in the body.
    pub fn created_id_in(&self, headers: &HeaderMap, body: impl FnOnce() -> Option<Value>) -> Option<String> {
        let Instance::Creates { id } = self else { return None };
        match id.header() {
            Some(header) => header.id_in(headers),
            None => id_text(&id.find(&[], &body()?)?),
        }
    }
}
