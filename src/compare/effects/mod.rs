//! Compares the calls that legacy made to other services with those that the engine would make.
//!
//! The question it answers: "does the engine do to the world what legacy does to it, and where not?" The calls of a
//! pair are taken apart (`call`), paired (`pairing`) by service, method and path template (`call_template`), and each
//! pair is compared (`report`) by the rules of its step (`rules`). Calls that only one side made are judged in
//! `unpaired`, the order in `order`; `coverage` counts the intents that were compared with a real call.
//!
//! A step that is rehearsed from legacy's calls (`rehearse: legacy`) asks `corresponding` for its call while the run
//! goes on; the comparison keeps that assignment.
//!
//! Always true: a call is paired at most once; the ids in calls and in the replies are bound by one one-to-one mapping;
//! a call of the engine for which it records no intent (a read that is sent, a call of a child workflow that runs
//! itself) is never a difference. A call by legacy is a read only if its method is safe, or if the run made an equal
//! read (`sent_reads`).
//!
//! The caller decides which calls belong to a request (`egress` attributes them).

mod call;
mod call_pattern;
mod call_template;
mod corresponding;
mod coverage;
mod draft;
mod likeness;
mod masked;
mod order;
mod paired;
mod pairing;
mod path_text;
mod report;
mod rules;
mod sent_reads;
mod step_calls;
mod unpaired;

#[cfg(test)]
mod compared_tests;
#[cfg(test)]
mod corresponding_tests;
#[cfg(test)]
mod not_known_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod sent_reads_tests;
#[cfg(test)]
mod stopped_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unattributed_tests;

pub use call_template::{CallRole, CallTemplate};
pub use corresponding::{CorrespondingCall, corresponding_call};
pub use coverage::{EffectCoverage, IntentCounts, StepCoverage};
pub use draft::EffectRulesDraft;
pub(super) use paired::PairedCalls;
pub use path_text::{
    any_spelling, authority_of_url, has_dot_segments, path_of_url, path_without_values, url_without_values,
};
pub(super) use rules::EffectRules;
pub(super) use unpaired::RunExtent;
