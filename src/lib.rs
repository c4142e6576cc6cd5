//! Pointsman stands in front of legacy HTTP endpoints that run multi-step processes and moves them, route by route and
//! reversibly, onto workflows that an embedded engine runs. This page is the map of the house for maintainers; the
//! README is for users.
//!
//! A request's journey:
//!
//! 1. [`proxy`] takes bytes from a client. `hygiene` refuses what two readers could read in two ways.
//! 2. [`flag`] (pure) resolves the path, finds the route in one immutable `FlagSet`, and decides: who answers, does the
//!    other arm run too, which effects are real.
//! 3. The answering arm answers: legacy through `proxy`, or the [`engine`] as a tower service over [`exchange`] types.
//! 4. Only then an `Answered` exists; it is offered, without waiting, to [`shadow`], which runs the other arm on
//!    threads of its own and holds the two observations against each other with [`compare`] (pure).
//! 5. [`evidence`] counts, keeps a few samples, and says whether a route may move; [`ladder`] moves it: flip recorded,
//!    new set swapped in.
//!
//! A run's journey: [`workflow`] (pure) says what happens next as events; [`engine`] performs; [`store`] keeps the
//! events, in order, once. Recording and replay are the same function.
//!
//! Beside them: [`config`] turns files into a checked set; [`admin`] is API and metrics; [`cli`] talks to it; [`demo`]
//! brings a sample world; [`app`] puts all of them together and is the only one that knows every module. Leaves for
//! everybody: [`expression`] (pure: templates and CEL), [`limits`] (every bound), [`names`], [`problem`], [`secret`],
//! [`telemetry`].
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
pub mod app;
pub mod cli;
pub mod compare;
pub mod config;
pub mod demo;
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
