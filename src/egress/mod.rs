//! For which request legacy made a call.
//!
//! The question it answers: "which of the requests that legacy handles, or has handled just now, caused this call?"
//! `proxy` announces each request before legacy gets it ([`EffectRegistry`]), those that are not compared
//! too, and each call that legacy makes through the egress listener when it begins and when it has ended
//! ([`EffectObserver`]). A call belongs to the request whose `traceparent` it carries, or whose header or value it has
//! by the rule in the files (`egress.correlate`).
//!
//! Always true: a call is attributed to one request or to none. Where several requests could have caused it, or one of
//! them cannot be read, it is `ambiguous`, counted, and each of them has a gap; nothing is guessed. Requests, kept
//! calls and their bytes are bounded; what is evicted is counted. The thread that serves a client only adds its request
//! to a list and says when it has ended; everything else is done on the threads that settle exchanges.
//!
//! Left to others: `proxy` passes the calls on and copies them, `compare` compares them with the engine's intents.
//!
//! [`EffectRegistry`]: crate::exchange::EffectRegistry
//! [`EffectObserver`]: crate::exchange::EffectObserver

mod announced;
mod attribution;
mod call_traces;
mod counts;
mod earlier_cause;
mod earlier_requests;
mod index;
mod key;
mod open_calls;
mod request_counters;
mod rule;
mod tunnels;
mod unattributed_writes;
mod uncompared_calls;
mod unread_unwatched;
mod unwatched_requests;
mod watched;

#[cfg(test)]
mod tests;

pub use attribution::Attribution;
pub use counts::{AttributedBy, EffectOutcome, EgressReport, ListedCall, RouteCalls, TotalCalls};
pub use rule::{AttributionSettings, Correlate, CorrelateError};
pub use tunnels::{TunnelCounts, TunnelTarget};
