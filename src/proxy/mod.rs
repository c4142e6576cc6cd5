//! The reverse proxy: takes a client's request, carries out the decision, and returns the reply.
//!
//! The question it answers: "what does this caller get?" Its connection is accepted in `edge` and served on a thread of
//! `workers` by `connection`, after what precedes HTTP on some listeners (`preamble`), or by `http2`, where each stream
//! has its own exchange. A connection that is idle waits in `parking`. A request passes `hygiene` (is its head
//! unambiguous?), finds its route in `table`, is decided in `switch`, and is answered by `relay` (with `legacy` over
//! `upstream`) or `engine`; `request_body` and `reply_body` pass frames on, `prepare_copy` and `copied_exchange` copy
//! them, and `respond` is the one place where errors (`failure`) become answers. What remains to be done when the
//! client's socket has taken the last byte waits in `completion` until then, and is done by `settler`; the access log
//! gets its record then too (`exchange_record`), with the reason if the exchange was cut (`cut_reason`).
//!
//! Calls that legacy makes come in on a listener of their own (`egress`): a second proxy, whose clients are legacy.
//! `egress_targets` finds the service, `egress_call` passes the call on by `relay`, `egress_tunnel` a CONNECT, and
//! `copied_call` reports each call to the observer of effects.
//!
//! Always true: the answering arm's reply is never delayed, changed or failed by the other arm, which gets the exchange
//! only through [`Offer::offer`](crate::exchange::Offer::offer) after the last byte; in `off` nothing is copied
//! unless the engine owns instances of the route's family (legacy could give out an id of theirs), and nothing is
//! buffered unless the files say so (`buffer_request`; `key: body.…`, see `followed_instance`), or the engine may have
//! taken the same request under another credential, which only its body can tell (`retry_keys`); one flag set per
//! request.
//!
//! `flag` decides, `shadow` runs the other arm, and the engine runs workflows; the proxy knows the engine only as a
//! tower service.
//!
//! When the client or a service is slow, a limit in `wait` ends the wait. When one of them is gone, the connection to
//! the other is cut, so that no partial message looks complete. The proxy itself sends a request again only where that
//! cannot do the work twice.

mod address;
mod admission;
mod adoption;
mod after_answer;
mod answer_check;
mod answered_exchange;
mod awaited_answer;
mod body_copy;
mod candidate;
mod candidate_ticket;
mod client_addresses;
mod client_body;
mod client_upgrade;
mod completion;
mod compression;
mod conditional;
mod connection;
mod connector;
mod copied_call;
mod copied_exchange;
mod cut_reason;
#[cfg(test)]
mod direct;
mod drain;
mod edge;
mod egress;
mod egress_call;
mod egress_refusal;
mod egress_targets;
mod egress_tunnel;
mod endpoint;
mod engine;
mod exchange_record;
mod exchange_spans;
mod failure;
mod field_names;
mod followed_instance;
mod headers;
mod http2;
mod hygiene;
mod interim_replies;
mod kept_head;
mod keyed_request;
mod legacy;
mod line_limit;
mod may_begin;
mod monotonic;
mod noted_instance;
mod open_connections;
mod options;
mod own_connections;
mod own_sockets;
mod parking;
mod pool;
mod preamble;
mod prepare_copy;
mod prior_knowledge;
mod proxied_request;
mod proxy_header;
mod rate;
mod raw_socket;
mod relay;
mod removed_fields;
mod reply_body;
mod request_body;
mod request_buffer;
mod respond;
mod retry_budget;
mod retry_keys;
mod route_entry;
mod route_metrics;
mod settler;
mod shared;
mod socket;
mod stored_first_try;
mod streamed_served;
mod switch;
mod table;
mod tables_in_use;
mod tls_handshake;
mod tls_stream;
mod tunnel;
mod turns;
mod uncompared_request;
mod unfinished_head;
mod unreadable_head;
mod unsent_body;
mod upload;
mod upstream;
mod wait;
mod wait_limits;
mod workers;
mod workflow_gate;
mod workflow_wait;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderName;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::exchange::{Affinity, EffectRegistry, EngineArm, Offer, ServedObserver};
use crate::flag::FlagSet;
use crate::limits::Limits;
use crate::listener::Forwarding;
use crate::names::RouteId;
use crate::transport::AddressRegistry;
use admission::RequestsInFlight;
use client_addresses::ClientAddresses;
use egress::Egress;
pub use egress::EgressParts;
pub use endpoint::ProxyListener;
pub use own_sockets::OwnSockets;
pub use shared::Drained;
use shared::{Accepting, Shared};
use table::Table;
use tables_in_use::TablesInUse;
pub use workers::Workers;

/// The parts of a proxy.
pub struct ProxyParts {
    /// The flags in force; a reload or flip swaps the whole set.
    pub flags: Arc<ArcSwap<FlagSet>>,
    /// The limits of the files (`limits:`).
    pub limits: Arc<Limits>,
    /// The addresses of services, which the engine's calls share.
    pub addresses: Arc<AddressRegistry>,
    /// What legacy is told about clients, and which peers are trusted; a new connection uses the rules in force.
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    /// The header fields for clients' certificates, of all listeners.
    pub identity_headers: Vec<HeaderName>,
    /// The engine.
    pub engine: EngineArm,
    /// Looks up the owners of instances and retry keys.
    pub affinity: Arc<dyn Affinity>,
    /// Takes answered requests to the shadow executor.
    pub offer: Arc<dyn Offer>,
    /// Is told how the engine served callers.
    pub served_observer: Arc<dyn ServedObserver>,
    /// Is told of each request before legacy gets it, so that the calls that legacy makes can be attributed to it;
    /// `None` without an egress listener.
    pub effect_registry: Option<Arc<dyn EffectRegistry>>,
    /// Gets a record of each exchange; `None` if there is no access log.
    pub access_log: Option<Arc<AccessLog>>,
    /// Whether requests of routes with a workflow wait until [`Proxy::open_workflows`] is called: this process takes
    /// over from another one, and does not have the store yet.
    pub waits_for_predecessor: bool,
    /// The threads that serve client connections; they end with the last proxy that has them.
    pub workers: Arc<Workers>,
    /// Set for the proxy behind the egress listener.
    pub egress: Option<EgressParts>,
}

/// The proxy. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy that serves no listener yet.
    pub fn new(parts: ProxyParts) -> Self {
        let ProxyParts {
            flags,
            limits,
            addresses,
            forwarding,
            identity_headers,
            engine,
            affinity,
            offer,
            served_observer,
            effect_registry,
            access_log,
            waits_for_predecessor,
            workers,
            egress,
        } = parts;
        let egress = egress.map(Egress::new);
        let limits = egress.as_ref().map_or_else(|| limits.clone(), |_| Arc::new(Egress::limits(&limits)));
        let table = Arc::new(Table::new(flags.load_full(), &limits, &addresses, None, egress.as_ref()));
        let connections_max = limits.client_connections_max;
        let open_connections = open_connections::OpenConnections::new(connections_max, egress.is_some());
        let room = usize::try_from(limits.client_connections_max).unwrap_or(usize::MAX);
        let workflow_gate = workflow_gate::WorkflowGate::new(waits_for_predecessor, &limits);
        let client_addresses = ClientAddresses::new(limits.client_connections_per_address_max);
        let requests_in_flight = RequestsInFlight::new(limits.requests_in_flight_max);
        let shared = Shared {
            flags,
            tables: TablesInUse::new(&table),
            table: ArcSwap::new(table),
            wait_limits: wait_limits::WaitLimits::new(&limits),
            request_buffers: Arc::new(request_buffer::RequestBuffers::new(limits.request_buffers_bytes_max)),
            limits,
            addresses,
            forwarding,
            engine,
            affinity,
            offer,
            served_observer,
            effect_registry,
            access_log,
            settler: Arc::new(settler::Settler::start()),
            open_connections,
            parking: egress.as_ref().map_or_else(parking::Parking::new, |_| parking::Parking::off()),
            egress,
            client_addresses,
            requests_in_flight,
            connection_permits: Arc::new(Semaphore::new(room.clamp(1, Semaphore::MAX_PERMITS))),
            identity_headers,
            workers,
            tasks: TaskTracker::new(),
            noted_look_ups: Arc::new(Semaphore::new(retry_keys::NOTED_LOOK_UPS_MAX)),
            drain: AtomicU8::new(drain::NOT_DRAINING),
            cuts_workflows: AtomicBool::new(false),
            accepting: watch::Sender::new(Accepting::Yes),
            workflow_gate,
            cut: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the number of requests of a route that were answered since the start, and the median of the proxy's
    /// overhead in microseconds.
    pub fn traffic_counts(&self, route: &RouteId) -> (u64, Option<f64>) {
        self.shared.table().route_metrics(route).map_or((0, None), |route_metrics| route_metrics.traffic_counts())
    }

    /// Returns a function that returns the number of the oldest flag set that may still decide a request, or that
    /// decided one whose retry keys the store does not have yet. The function does not keep the proxy alive.
    pub fn oldest_set_in_use(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade().map_or(u64::MAX, |shared| shared.oldest_set_in_use())
    }

    /// Returns the number of calls by legacy that were answered since the start.
    pub fn egress_calls(&self) -> u64 {
        self.shared.table().egress.as_ref().map_or(0, egress_targets::EgressTargets::calls)
    }

    /// Serves listeners until `shutdown`, then drains: nothing new is accepted, requests in flight finish within
    /// `limits.drain_ms`. When this returns, no request is in flight; what they offered may still wait in the shadow
    /// queue. The listeners share the room for connections.
    pub async fn serve(&self, listeners: Vec<ProxyListener>, shutdown: CancellationToken) -> Drained {
        edge::serve(self.shared.clone(), listeners, shutdown).await
    }

    /// Cuts the exchanges and connections that are still in progress.
    pub fn cut(&self) {
        drain::cut(&self.shared);
    }

    /// Serves requests of routes with a workflow from now on, by the flags in force: the store and the engine are
    /// there.
    pub fn open_workflows(&self) {
        self.shared.workflow_gate.open();
    }

    /// Refuses requests of routes with a workflow: the process ends before it had the store.
    pub fn close_workflows(&self) {
        self.shared.workflow_gate.close();
    }

    /// Begins a hand-over to a successor, which accepts on the same sockets. Nothing is accepted here any more, and
    /// clients are told to close; idle ones only after `succession_idle_ms`, so that they may send one more request.
    pub fn begin_hand_over(&self) {
        drain::begin_hand_over(&self.shared);
        // Parked connections are resumed, so that they are told to close like the others.
        for connection in self.shared.parking.pause() {
            let resumed = connection::resume(self.shared.clone(), connection, Bytes::new());
            self.shared.workers.spawn(&self.shared.tasks, resumed);
        }
    }

    /// Ends a hand-over whose successor is gone: connections are accepted again. Those that were told to close do so.
    pub fn end_hand_over(&self) {
        drain::end_hand_over(&self.shared);
    }

    /// After [`Proxy::begin_hand_over`]: waits until no request of a route with a workflow is in progress, and refuses
    /// further ones. What has not ended in time is cut. Returns how many were cut.
    pub async fn finish_workflows(&self, within: Duration) -> usize {
        drain::finish_workflows(&self.shared, within).await
    }

    /// Closes the listeners, because the successor has started. [`Proxy::serve`] returns once all connections have
    /// ended, within `succession_drain_ms`.
    pub fn leave_listeners(&self) {
        self.shared.accepting.send_replace(Accepting::Never);
    }
}
