//! Pointsman stands in front of legacy HTTP endpoints that run multi-step processes and moves them, route by route and
//! reversibly, onto workflows that an embedded engine runs. This page is the map of the house for maintainers; the
//! README and [`docs`] are for users.
//!
//! A request's journey, a module a line:
//!
//! - [`proxy`]: takes bytes from a client, carries out the decision, gives bytes back; refuses what can be read two ways
//! - [`flag`] (pure): finds the route in one immutable set and decides: who answers, what runs beside it, what is real
//! - [`exchange`] (pure): what the arms hand to each other; an `Answered` exists only once the reply does
//! - [`engine`]: the other arm, a tower service: moves runs forward, performs their calls, survives the process
//! - [`workflow`] (pure): what a run does next, as events; recording and replay are the same function
//! - [`affinity`]: which arm owns an instance, and which took the first try of a request
//! - [`store`]: keeps events, flips, pins, retry keys and evidence: durable, in order, once
//! - [`shadow`]: runs the arm that nobody waits for, on threads of its own, within a budget
//! - [`compare`] (pure): holds two observations against each other
//! - [`evidence`]: counts, keeps a few samples, says whether a route may move
//! - [`ladder`]: moves it: flip recorded, then the new set swapped in
//!
//! Beside the journey:
//!
//! - [`config`]: files to a checked set, or everything that is wrong with them
//! - [`admin`]: API and metrics; [`cli`]: its client; [`demo`]: sample services and traffic to see it all in
//! - [`docs`]: the reference for users, shown by `pointsman help` and by the API
//! - [`clock`]: what time it is, whatever is done to the machine's clock
//! - [`app`]: puts the parts together, up and down; the only one that knows every module
//! - [`expression`] (pure), [`limits`], [`names`], [`problem`], [`secret`], [`telemetry`]: leaves for everybody
//!
//! Who may know whom is a table in `tests/it/house.rs`, and a test. The promises to look for when something changes:
//!
//! - for one request a shared effect is performed by exactly one arm: `flag::decide`, `workflow::Mode::sends`, and the
//!   two clients in `engine` (the rehearsing one can only take a checked read);
//! - the answering arm never waits for the other: `exchange::Offer` is not async;
//! - nothing acknowledged is lost: `store::Store::append` before an effect leaves and before a caller is answered;
//! - every request that should be compared ends in exactly one outcome: `exchange::Ticket`.
#![warn(missing_docs)]

pub mod admin;
pub mod affinity;
pub mod app;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod config;
pub mod demo;
pub mod docs;
pub mod engine;
pub mod evidence;
pub mod exchange;
pub mod expression;
pub mod flag;
pub mod ladder;
pub mod limits;
pub mod names;
pub mod problem;
pub mod proxy;
pub mod secret;
pub mod shadow;
pub mod store;
pub mod telemetry;
pub mod workflow;
