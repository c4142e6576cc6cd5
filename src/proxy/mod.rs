//! Takes bytes from a client, carries out the decision, gives bytes back.
//!
//! The question it answers: "what does this caller get?" A request enters at `edge` (connections, drain), passes
//! `hygiene` (is it unambiguous?), finds its route in `table`, is decided in `switch`, and is answered by `relay` (with
//! `legacy` over `pool`) or `engine`; `request_body`, `reply_body`, `watch` and `capture` carry frames and copies, `respond` is the one place where errors become
//! answers.
//!
//! Always true: the answering arm's reply is never delayed, changed or failed by the other arm, which hears of it only
//! through [`Offer::offer`](crate::exchange::Offer::offer) after the last byte; on `off` nothing is captured, and nothing is
//! buffered unless the engine may hold the same request under another credential; one flag set per request.
//!
//! Who decides is `flag`'s business, what the other arm does `shadow`'s, what a run does the engine's, which the proxy
//! knows only as a tower service.
//!
//! When a side is slow, the connection's clock ends the wait; when one is gone, the other is cut, never completed; a
//! retry of ours happens only where it cannot do the work twice.

mod capture;
mod clock;
mod edge;
mod engine;
mod exchange;
mod headers;
mod hygiene;
mod keys;
mod legacy;
mod meter;
mod open;
mod pool;
mod relay;
mod reply_body;
mod request_body;
mod respond;
mod shared;
mod socket;
mod switch;
mod table;
mod tunnel;
mod upload;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exchange::{Affinity, Offer, Watch};
use crate::flag::FlagSet;
use crate::limits::Limits;
use crate::names::RouteId;
use shared::Shared;
pub use shared::{Drained, EngineArm};
use table::Table;

/// What a proxy is made of.
pub struct ProxyParts {
    /// The flags in force; swapped whole by whoever reloads and flips.
    pub flags: Arc<ArcSwap<FlagSet>>,
    /// The bounds.
    pub limits: Arc<Limits>,
    /// Incoming `X-Forwarded-*` fields are believed and added to, instead of replaced.
    pub trust_forwarded: bool,
    /// The engine.
    pub engine: EngineArm,
    /// Who owns instances and retries.
    pub pins: Arc<dyn Affinity>,
    /// The way to the arm that nobody waits for.
    pub offer: Arc<dyn Offer>,
    /// Hears how the engine served callers.
    pub watch: Arc<dyn Watch>,
}

/// The proxy. Cheap to clone; several listeners may be served by one, as long as one drain is meant for all.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy that serves nobody yet.
    pub fn new(parts: ProxyParts) -> Self {
        let ProxyParts { flags, limits, trust_forwarded, engine, pins, offer, watch } = parts;
        let table = ArcSwap::from_pointee(Table::new(flags.load_full(), &limits, None));
        let shared = Shared {
            flags,
            table,
            bounds: clock::Bounds::new(&limits),
            limits,
            trust_forwarded,
            engine,
            pins,
            offer,
            watch,
            open: open::Open::default(),
            tasks: TaskTracker::new(),
            drain: AtomicU8::new(edge::drain::NO),
            cut: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Requests of a route that were answered since the start, and the middle of our own share of them, microseconds.
    pub fn seen(&self, route: &RouteId) -> (u64, Option<f64>) {
        self.shared.table().meter(route).map_or((0, None), |meter| meter.seen())
    }

    /// Serves a listener until `shutdown`, then drains: nothing new is accepted, requests under way finish within
    /// `limits.drain_ms`. When this returns, no request is under way; what they offered may still wait for the other
    /// arm.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Drained {
        edge::serve(self.shared.clone(), listener, shutdown).await
    }
}
