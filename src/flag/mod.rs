//! PURE. The flag of a route, and what one request gets from it.
//!
//! The question it answers: "who answers this request, does the other arm run too, and which effects are real?"
//! Always true: a [`FlagSet`] was checked whole; [`decide`] is total. No clock, no IO, no async; where a flip comes
//! from and whether it may happen is `ladder`'s business, bytes are `proxy`'s.
//!
//! A raw path enters [`path`](normalise), what it means is looked up in `matcher` ([`FlagSet::resolve`] does both), what
//! is known of the request goes to `decide`, which asks `draw` on which side of a share a caller is and `facts` what an
//! expression sees. Where all of it comes from is [`file`].

mod caller;
mod decide;
mod decision;
mod draw;
mod facts;
pub mod file;
mod matcher;
mod path;
mod pin;
mod route;
mod service;
mod set;
mod state;

#[cfg(test)]
mod tests;

pub use caller::{CallerScope, TokenKeys, VerifiedCaller};
pub use decide::{decide, decide_noting};
pub use decision::{Arm, Because, Decision, Notes, Other, Owner, RequestFacts, SkipReason};
pub use facts::scope as facts_scope;
pub use path::{Normalised, Refusal, normalise};
pub use pin::{Family, InstanceId, InstanceKey, PinKey, RetryKey, RetryKeys};
pub use route::{Cohort, Guard, Instance, Match, Route};
pub use service::{Breaker, Rate, Service};
pub use set::{Effective, FlagSet, Found, Freeze, Resolved, RouteFlag, Standing, Why};
pub use state::{Percent, Shares, State};
