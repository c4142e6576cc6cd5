//! What the store keeps of the scopes of a route's retry keys.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flag::{PathConventions, RetryScope, State};
use crate::names::RouteId;

/// The scope of a route's retry keys, and the scopes before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetryScopes {
    /// The scope in the files that were read last; `None` if no keys are recorded, because the route has no workflow or
    /// was removed.
    #[serde(rename = "now")]
    pub present: Option<RetryScope>,
    /// Earlier scopes under which retries may still come, the newest first.
    pub earlier: Vec<ReplacedScope>,
    /// When the newest of the scopes that were dropped from `earlier` had been replaced; `None` if none was dropped.
    /// The oldest are dropped when there are too many.
    #[serde(rename = "forgotten", default, skip_serializing_if = "Option::is_none")]
    pub newest_dropped: Option<Timestamp>,
    /// Which requests the route matches in the files that were read last, as text; `None` if the route was removed, or
    /// if an earlier version read the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// How the route's service reads paths in these files; `None` where `matches` is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathConventions>,
    /// Whether the route's workflow in the files that were read last has only `read` steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_only: bool,
    /// `retry_window_s` when the files were read; `None` if no keys are recorded, or if an earlier version read the
    /// files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<u64>,
    /// When the keys of all its requests began to be recorded; `None` if no requests can have come before that, or if
    /// no retry of such a request may come any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why keys are recorded only since then; `None` where `since` is, or if an earlier version set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_because: Option<UnrecordedBecause>,
    /// When the files last changed so that performing a request from before `since` a second time does harm: the
    /// workflow got a step that writes, or the route got requests of another route. Counts only if it is after `since`.
    #[serde(rename = "exposed", default, skip_serializing_if = "Option::is_none")]
    pub harmful_since: Option<Timestamp>,
    /// For a route in `only`: the newest change of the files (`harmful_since`, or `since`) for which `force` in its
    /// file has accepted that the engine performs such requests a second time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Timestamp>,
    /// Whether the route had `force` in the files that were read last; `None` if they did not have the route, or if an
    /// earlier version read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_force: Option<bool>,
    /// The cohorts of the route that have `force`, by name; `None` if an earlier version read the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_cohorts: Option<BTreeMap<String, ForcedCohort>>,
    /// The reasons that cohorts of the route had for `force` in earlier files and that none has now. Each is kept until
    /// no cause that is older than its removal can hold a cohort below `live`. At most `COHORT_REASONS_MAX`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_reasons: BTreeMap<String, DroppedReason>,
    /// Requests that the route matched in earlier files, and that may belong to another route now, or to none. Retries
    /// of them may still come. The newest first.
    #[serde(rename = "moved", default, skip_serializing_if = "Vec::is_empty")]
    pub reassigned: Vec<ReplacedMatch>,
    /// Ids of routes that were separate and were merged into this one: files that have such a route again separate what
    /// was merged. Empty in a row that an earlier version wrote.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<RouteId>,
}

/// Why legacy may have served requests of a route whose retry keys were not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnrecordedBecause {
    /// The route, or its workflow, was added: without a workflow no key is recorded.
    WorkflowAdded,
    /// The route matches other requests than before.
    MatchChanged,
    /// The route's service reads paths in another way than before.
    PathsChanged,
    /// The route has another `retry_key` than before.
    RetryKeyChanged,
    /// The route gets requests of another route, which had another `retry_key` or no workflow.
    RequestsOfOtherRoute,
    /// Keys were removed from the store sooner, because `retry_window_s` was shorter.
    WindowWasShorter,
}

/// The `force` of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedCohort {
    /// The reason.
    pub reason: String,
    /// When files were first read that had it.
    pub since: Timestamp,
    /// The [`source`](super::RecordEntry::source) of the entry of the record about the cohort with this reason and
    /// rule; `None` if an earlier version read the files, which stored none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The rule of the cohort; `None` if an earlier version stored this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<CohortRule>,
}

impl ForcedCohort {
    /// Whether it had this rule, as far as is known.
    pub fn has_rule(&self, now: Option<&CohortRule>) -> bool {
        match (&self.rule, now) {
            (Some(CohortRule { hash, when: _, state }), Some(now)) => (hash, state) == (&now.hash, &now.state),
            // An earlier version stored no rules.
            (None, _) | (_, None) => true,
        }
    }
}

/// The rule of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortRule {
    /// A hash of what decides who is in it: its condition and those of the cohorts before it.
    pub hash: String,
    /// Its condition, without secrets, and cut if it is long.
    pub when: String,
    /// Its state.
    pub state: State,
}

/// A reason that the files do not have any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedReason {
    /// When files were first read that had it.
    pub since: Timestamp,
    /// When files were first read that did not have it any more.
    pub at: Timestamp,
}

/// A scope that files replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplacedScope {
    /// The scope.
    pub scope: RetryScope,
    /// When it was replaced.
    pub at: Timestamp,
    /// Which requests the route matched then, as text: the scope reads their path parameters by these names. `None` in
    /// a row that an older binary wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// How the route's service read their paths; `None` where `matches` is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathConventions>,
}

/// Requests that files took from a route, and a scope of their keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplacedMatch {
    /// Which requests, as text.
    pub matches: String,
    /// How the route's service read their paths.
    #[serde(default, skip_serializing_if = "PathConventions::is_default")]
    pub paths: PathConventions,
    /// The scope.
    pub scope: RetryScope,
    /// When they were taken, or when the scope was replaced, whichever is earlier.
    pub at: Timestamp,
}
