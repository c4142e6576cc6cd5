//! Pointsman stands in front of legacy HTTP endpoints that run multi-step processes and moves them, route by route and
//! reversibly, onto workflows that an embedded engine runs. This page is the map of the code for maintainers; the
//! README and [`docs`] are for users.
//!
//! A request's journey, one module per line:
//!
//! - [`proxy`]: reads a client's request, carries out the decision, sends the reply; refuses ambiguous requests; passes
//!   on the calls that legacy makes (`egress`)
//! - [`flag`] (pure): finds the route in one immutable set and decides which arm answers, whether the other arm
//!   runs too, and which effects are real
//! - [`exchange`] (pure): the types that proxy, shadow and engine exchange; an `Answered` exists only once the reply
//!   exists
//! - [`engine`]: the other arm, a tower service: executes runs and performs their calls; resumes runs after a restart
//! - [`workflow`] (pure): decides what a run does next, as events; one function records and replays them
//! - [`affinity`]: which arm owns an instance, and which took the first try of a request
//! - [`adoption`]: moves an instance of legacy to the engine
//! - [`store`]: keeps events, flips, pins, retry keys and evidence: durable, in order, each once
//! - [`shadow`]: runs the engine for requests that legacy has answered, and checks what the engine answered itself, on
//!   threads of its own, within a budget
//! - [`compare`] (pure): compares two observations
//! - [`egress`]: finds the request for which legacy made a call
//! - [`evidence`]: counts comparisons, keeps a few samples, says whether a route may move
//! - [`record`]: a chain of all moves, each entry with the hash of the one before
//! - [`ladder`]: moves a route: a flip up is recorded before it is in force, a flip down is in force first
//!
//! Not on that journey:
//!
//! - [`config`]: reads the files and builds a checked set, or reports everything that is wrong with them
//! - [`access_log`]: writes one line per exchange with a client
//! - [`admin`]: API and metrics; [`cli`]: its client; [`demo`]: sample services and traffic that show all of it
//! - [`page`]: what the API shows, for people: pages in a browser, and pictures
//! - [`listener`]: the addresses on which clients are accepted, and what precedes their HTTP
//! - [`transport`]: connections to services, below HTTP
//! - [`traces`]: sends spans of exchanges and runs to an OpenTelemetry collector
//! - [`docs`]: the reference for users, shown by `pointsman help` and by the API
//! - [`clock`]: the process's time, which does not jump when the machine's clock is set
//! - [`priority`]: the priority of work that no caller waits for
//! - [`byte_budget`]: bounds the memory of calls and bodies that wait
//! - [`slot_file`]: files of slots with checksums, where `affinity` and `evidence` write what is not in the store yet
//! - [`app`]: starts and stops all parts; the only module that imports all others
//! - [`telemetry`]: the process's log and metrics recorder
//! - [`expression`] (pure), [`limits`], [`names`], [`problem`], [`secret`]: every module may import them
//!
//! A test and its table in `tests/it/house.rs` say which module may import which. The promises to check when something
//! changes:
//!
//! - for one request a shared effect is performed by exactly one arm: `flag::decide`, `workflow::Mode::sends`, and the
//!   two clients in `engine` (the rehearsing client can only take a checked read);
//! - the answering arm never waits for the other arm: `exchange::Offer` is not async;
//! - nothing acknowledged is lost: `store::Store::append` has succeeded before an effect is sent and before a caller is
//!   answered;
//! - every request that should be compared ends in exactly one outcome: `exchange::ComparisonTicket`.
#![warn(missing_docs)]

pub mod access_log;
pub mod admin;
pub mod adoption;
pub mod affinity;
pub mod app;
pub mod byte_budget;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod config;
pub mod demo;
pub mod docs;
pub mod egress;
pub mod engine;
pub mod evidence;
pub mod exchange;
pub mod expression;
pub mod flag;
pub mod ladder;
pub mod limits;
pub mod listener;
pub mod names;
pub mod page;
pub mod priority;
pub mod problem;
pub mod proxy;
pub mod record;
pub mod secret;
pub mod shadow;
pub mod slot_file;
pub mod store;
pub mod telemetry;
pub mod traces;
pub mod transport;
pub mod workflow;
