//! The state that all connections of a proxy share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::RequestsInFlight;
use super::client_addresses::{ClientAddresses, ConnectionPermit, count_refused};
use super::egress::Egress;
use super::endpoint::Endpoint;
use super::open_connections::OpenConnections;
use super::parking::Parking;
use super::request_buffer::RequestBuffers;
use super::route_metrics::AnsweredBy;
use super::settler::Settler;
use super::table::Table;
use super::tables_in_use::TablesInUse;
use super::wait_limits::WaitLimits;
use super::workers::Workers;
use super::workflow_gate::WorkflowGate;
use crate::access_log::AccessLog;
use crate::exchange::{Affinity, EffectRegistry, EngineArm, Offer, ServedObserver};
use crate::flag::FlagSet;
use crate::limits::Limits;
use crate::listener::Forwarding;
use crate::transport::AddressRegistry;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that were cut because they did not finish in time: connections, tunnels and look-ups of retry keys.
    pub cut: usize,
    /// How long the drain took.
    pub took: Duration,
}

/// Whether connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Connections are accepted.
    Yes,
    /// Not now: a successor accepts on the same sockets, and also gets the connections that wait in their queues.
    NotNow,
    /// No more: the process stops.
    Never,
}

/// The state that all connections share.
pub(super) struct Shared {
    pub flags: Arc<ArcSwap<FlagSet>>,
    pub table: ArcSwap<Table>,
    /// The tables by which requests may still be answered.
    pub tables: TablesInUse,
    pub limits: Arc<Limits>,
    /// The addresses of services, which the proxy shares with the steps' calls.
    pub addresses: Arc<AddressRegistry>,
    pub wait_limits: WaitLimits,
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    pub engine: EngineArm,
    pub affinity: Arc<dyn Affinity>,
    pub offer: Arc<dyn Offer>,
    pub served_observer: Arc<dyn ServedObserver>,
    /// Is told of each request before legacy gets it, so that the calls that legacy makes can be attributed to it;
    /// `None` if nothing attributes them.
    pub effect_registry: Option<Arc<dyn EffectRegistry>>,
    /// Set if this proxy is the one behind the egress listener, whose clients are legacy.
    pub egress: Option<Egress>,
    pub access_log: Option<Arc<AccessLog>>,
    /// Settles exchanges that were copied.
    pub settler: Arc<Settler>,
    pub open_connections: OpenConnections,
    pub parking: Parking,
    /// The memory for request bodies that are read whole before legacy gets them.
    pub request_buffers: Arc<RequestBuffers>,
    /// The connections of each client address, if they are limited.
    pub client_addresses: Option<Arc<ClientAddresses>>,
    /// The limit on the requests of the process, if there is one.
    pub requests_in_flight: Option<Arc<RequestsInFlight>>,
    /// The permits for client connections, for all listeners together.
    pub connection_permits: Arc<Semaphore>,
    /// The header fields for clients' certificates: those that a client sends are removed, on every listener.
    pub identity_headers: Vec<HeaderName>,
    /// The threads that serve connections.
    pub workers: Arc<Workers>,
    /// The tasks of connections, tunnels and `noted_look_ups`; a drain waits for them.
    pub tasks: TaskTracker,
    /// The permits for look-ups of whether keys were noted earlier (`retry_keys::record_unless_noted_earlier`).
    pub noted_look_ups: Arc<Semaphore>,
    /// A constant of `drain`: whether connections stay open, end after their request, or are cut.
    pub drain: AtomicU8,
    /// Whether the exchanges of routes with a workflow are cut.
    pub cuts_workflows: AtomicBool,
    /// Whether connections are accepted; a shutdown ends accepting too.
    pub accepting: watch::Sender<Accepting>,
    /// Whether requests of routes with a workflow are served.
    pub workflow_gate: WorkflowGate,
    /// Cancelled when connections are cut whose requests did not finish in time.
    pub cut: CancellationToken,
}

impl Shared {
    /// Returns who answers a request that is passed on.
    pub(super) fn forwarded_to(&self) -> AnsweredBy {
        self.egress.as_ref().map_or(AnsweredBy::Legacy, |_| AnsweredBy::Service)
    }

    /// Counts a new connection as one of its client's; `false` if the client already has as many as it may have. Peers
    /// that are trusted to name their clients (`trust_forwarded`) are not limited: they carry the connections of many
    /// clients.
    pub(super) fn admits(&self, permit: &mut ConnectionPermit, client: IpAddr, endpoint: &Endpoint) -> bool {
        let Some(addresses) = &self.client_addresses else { return true };
        let is_admitted = self.forwarding.load().trust.trusts(client) || permit.count_for(addresses, client);
        if !is_admitted {
            count_refused(client, endpoint.name());
        }
        is_admitted
    }

    /// Whether a connection that was just accepted would be one too many of its client. `false` if a PROXY header will
    /// name the client, who is not known yet.
    pub(super) fn has_too_many(&self, client: IpAddr, endpoint: &Endpoint) -> bool {
        let Some(addresses) = &self.client_addresses else { return false };
        let is_known = endpoint.proxy_protocol.is_none() && !self.forwarding.load().trust.trusts(client);
        let has_too_many = is_known && addresses.is_full(client);
        if has_too_many {
            count_refused(client, endpoint.name());
        }
        has_too_many
    }

    /// See [`Proxy::oldest_set_in_use`](super::Proxy::oldest_set_in_use).
    pub(super) fn oldest_set_in_use(&self) -> u64 {
        // Puts the table of the newest set in force.
        let newest = self.table().set.set_number;
        self.tables.oldest_set().map_or(newest, |oldest| oldest.min(newest))
    }

    /// Returns the table of the flag set in force.
    pub(super) fn table(&self) -> Arc<Table> {
        loop {
            let table = self.table.load_full();
            let flags = self.flags.load();
            if Arc::ptr_eq(&table.set, &flags) {
                return table;
            }
            // The first request after a swap builds the table. Two threads may build it at once; then the later one
            // stays.
            let (set, egress) = (flags.clone(), self.egress.as_ref());
            let fresh = Arc::new(Table::new(set, &self.limits, &self.addresses, Some(&table), egress));
            // Before the set is compared again: whoever replaces the set after that finds this table in use.
            self.tables.add(&fresh);
            self.table.store(fresh);
        }
    }
}
