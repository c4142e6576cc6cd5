//! Endpoints for runs: start a run, read it, follow it, send it commands.
//!
//! `start` and `deprecated_start` start a run, `run_commands` sends a run commands, answers and signals, `inspect` and
//! `list` read runs, `stream` sends a run's events as they happen; `envelope` builds the JSON document in which all of
//! them show a run. Always true: what is shown is computed from the events in the store, so it is the same whichever
//! process executes the run; a client that disconnects changes nothing about its run.
//!
//! When the store does not answer, the response is 503 and says whether the request may have taken effect. The engine
//! executes runs; it is reached through `EngineControl`.

mod deprecated_start;
mod envelope;
mod errors;
mod event_data;
mod graph;
mod idempotency_key;
mod inspect;
mod list;
mod load;
mod run_commands;
mod start;
mod stream;
mod unreadable;

pub(super) use deprecated_start::{add_deprecation_headers, produce};
pub(super) use graph::graph;
pub(super) use inspect::{EventsQuery, events, explain, output, plan, show};
pub(super) use list::{ListQuery, list};
pub(super) use run_commands::{adjust, answer, cancel, pause, rerun, resolve, resume, retry, signal, skip};
pub(super) use start::start;
pub(super) use stream::stream;
