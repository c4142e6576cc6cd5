//! PURE. The flag of a route, and the decision for one request.
//!
//! The question it answers: "who answers this request, does the other arm run too, and which effects are real?"
//! Always true: a [`FlagSet`] was checked whole; [`decide`] is total. No clock, no IO, no async. `ladder` says which
//! flips may happen; `proxy` handles bytes.
//!
//! [`FlagSet::resolve`] finds the route of a raw path (with `path`, `route_groups` and `readings`), and `decide` makes
//! the decision from the facts of the request; `hashes` says whether a caller is inside a share, `facts` what an
//! expression reads. [`file`] checks the files from which routes are built.

mod auto;
mod caller;
mod canonical;
mod conventions;
mod decide;
mod decision;
mod earlier;
mod earlier_match;
mod effective;
mod exact_text;
mod facts;
pub mod file;
mod guard;
mod guard_rule;
mod hashes;
mod http_version;
mod instance_key_source;
mod instance_lifetime;
mod invariant;
mod key_text;
mod likelihood;
mod matcher;
mod overlap;
mod path;
mod pin;
mod promote;
mod readings;
mod relay_settings;
mod resolve;
mod retry;
mod retry_key;
mod route;
mod route_groups;
mod service;
mod service_match;
mod service_tls;
mod set;
mod state;
mod stratum_key;
mod template_key;

#[cfg(test)]
#[path = "../../tests/it/support/mutator.rs"]
pub(crate) mod test_mutator;
#[cfg(test)]
mod tests;

pub use auto::Auto;
pub use caller::{CallerScope, TokenKeys, TokenSource, VerifiedCaller};
pub use conventions::{DoubleEncoding, ExtraPart, Framework, PathConventions, SpellingRule};
pub use decide::{
    MOVING, VersionByInstance, candidate_answers, could_be_live, decide, is_sampled_for_candidate, work_or_skip,
};
pub use decision::{Arm, Decision, DecisionDiagnostics, EngineReason, EngineWork, Owner, RequestFacts, SkipReason};
pub use earlier::{EarlierRetryKeys, EarlierScopes, ReassignedRequests};
pub use earlier_match::EarlierMatch;
pub use effective::{Effective, EffectiveReason, StateInputs};
pub use exact_text::{ByteForm, exact_text, has_raw_bytes};
pub use facts::{HOP_BY_HOP_HEADERS, scope as facts_scope};
pub use guard::{Guard, GuardCondition, GuardRelease, GuardWebhook};
pub use guard_rule::GuardRule;
pub use http_version::HttpVersion;
pub use instance_key_source::InstanceKeySource;
pub use instance_lifetime::{
    ADOPT_SETTLES, AdoptRule, AliveCall, InstanceEnd, InstanceLifetime, NextPage, REPLY_PARTS, ReplyFacts,
    UnknownInstance,
};
pub use invariant::{Invariant, WrittenInvariant};
pub use key_text::AmbiguousKey;
pub use likelihood::{ln_evidence_above, ln_evidence_below};
pub use overlap::TemplateSegment;
pub use path::PathRefusal;
pub use pin::{Family, InstanceId, InstanceKey, PinKey, lower_case_uuid};
pub use promote::Promote;
pub use relay_settings::{Compress, RelaySettings, TotalTimeout};
pub use resolve::ResolvedPath;
pub use retry::{EarlierScope, EarlierTimes, KeyForm, RetryScope};
pub use retry_key::{RetryKey, RetryKeys};
pub use route::{Cohort, Instance, Route, RouteMatch};
pub use service::{BaseUrl, BreakerSettings, Eject, HealthCheck, Rate, SentHost, Service};
pub use service_match::ServiceMatch;
pub use service_tls::ServiceTls;
pub use set::{CandidatePlans, FlagSet, FoundRoute, RouteFlag, RoutePlans};
pub use state::{Freeze, Percent, Shares, State};
pub use stratum_key::{StratumKey, StratumValue};
pub use template_key::loosest_spelling;
