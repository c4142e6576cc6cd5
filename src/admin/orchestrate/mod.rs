//! Endpoints for runs: start one, read it, follow it, give it orders.
//!
//! `start` starts a run (`deprecated_start` too), `orders` gives it orders, answers and signals, `inspect` and `list`
//! read, `stream` sends its events as they happen; all of them show a run as `envelope` builds it. Always true: what is
//! shown is folded from the events in the store, so it is the same whichever process moves the run, if any; a client
//! that disconnects changes nothing about its run.
//!
//! When the store does not answer, the response is 503 and says whether the request may have taken effect. The engine
//! moves runs; it is reached through `EngineControl`.

mod deprecated_start;
mod envelope;
mod errors;
mod event_data;
mod idempotency_key;
mod inspect;
mod list;
mod load;
mod orders;
mod start;
mod stream;
mod unreadable;

pub(super) use deprecated_start::{add_deprecation_headers, produce};
pub(super) use inspect::{EventsQuery, events, explain, output, plan, show};
pub(super) use list::{ListQuery, list};
pub(super) use orders::{adjust, answer, cancel, pause, rerun, resolve, resume, retry, signal, skip};
pub(super) use start::start;
pub(super) use stream::stream;
