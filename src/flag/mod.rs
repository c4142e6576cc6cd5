//! PURE. The flag of a route, and the decision for one request.
//!
//! The question it answers: "who answers this request, does the other arm run too, and which effects are real?"
//! Always true: a [`FlagSet`] was checked whole; [`decide`] is total. No clock, no IO, no async. `ladder` says which
//! flips may happen; `proxy` handles bytes.
//!
//! A raw path is normalised in [`path`](normalise), its route is found in `matcher` ([`FlagSet::resolve`] does both),
//! and `decide` takes the facts of the request; `hashes` tells it whether a caller is inside a share, `facts` what an
//! expression reads. [`file`] checks the files from which routes are built.

mod caller;
mod decide;
mod decision;
mod earlier;
mod effective;
mod exact_text;
mod facts;
pub mod file;
mod hashes;
mod key_text;
mod matcher;
mod overlap;
mod path;
mod pin;
mod retry;
mod route;
mod service;
mod set;
mod state;

#[cfg(test)]
mod tests;

pub use caller::{CallerScope, TokenKeys, TokenSource, VerifiedCaller};
pub use decide::{could_be_live, decide, decide_with_diagnostics};
pub use decision::{Arm, Decision, DecisionDiagnostics, EngineReason, EngineWork, Owner, RequestFacts, SkipReason};
pub use earlier::{EarlierRetryKeys, EarlierScopes, ReassignedRequests};
pub use effective::{Effective, StateInputs, Why};
pub use exact_text::{ByteForm, exact_text, has_raw_bytes};
pub use facts::{HOP_BY_HOP_HEADERS, scope as facts_scope};
pub use key_text::AmbiguousKey;
pub use overlap::Segment;
pub use path::{Ambiguity, Normalised, PathRefusal, normalise};
pub use pin::{Family, InstanceId, InstanceKey, PinKey, RetryKey, RetryKeys, lower_case_uuid};
pub use retry::{EarlierScope, EarlierTimes, KeyForm, RetryScope};
pub use route::{Cohort, Guard, Instance, Match, Route};
pub use service::{BaseUrl, Breaker, Eject, HealthCheck, Rate, Service};
pub use set::{FlagSet, FoundRoute, ResolvedPath, RouteFlag};
pub use state::{Freeze, Percent, Shares, State};
