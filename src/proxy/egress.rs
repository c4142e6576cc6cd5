//! The parts that only the proxy behind the egress listener has.
//!
//! That proxy has its own connections, limits and drain: otherwise clients that use up all connections would keep
//! legacy from making the calls that their requests wait for; and during a drain legacy must be able to make calls
//! until the last client has its answer. Services, their addresses, limits and waits are the same.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{Method, Uri};
use metrics::counter;

use super::egress_targets::{EgressTarget, EgressTargets, service_of};
use super::line_limit::LineLimit;
use super::monotonic::now;
use super::own_sockets::OwnSockets;
use super::route_entry::RouteEntry;
use crate::compare::authority_of_url;
use crate::exchange::{CallTarget, EffectObserver};
use crate::flag::Service;
use crate::limits::Limits;
use crate::listener::{Destination, EgressListener};

static REFUSED_LINES: LineLimit = LineLimit::new();

/// The parts of a proxy that only the one behind the egress listener has.
pub struct EgressParts {
    /// The listener.
    pub listener: EgressListener,
    /// The sockets on which this process listens.
    pub own: OwnSockets,
    /// The observer that is told of the calls.
    pub observer: Arc<dyn EffectObserver>,
}

/// How a call became a tunnel.
#[derive(Clone, Copy)]
pub(super) enum TunnelKind {
    /// By CONNECT.
    Connect,
    /// By a switch to another protocol.
    Upgrade,
}

impl TunnelKind {
    /// Returns the kind's name in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "tunnel",
            Self::Upgrade => "upgrade",
        }
    }
}

/// The egress parts as the proxy uses them.
pub(super) struct Egress {
    listener: EgressListener,
    pub own: Arc<OwnSockets>,
    pub observer: Arc<dyn EffectObserver>,
    /// The destinations that the files list, each with a service that represents it.
    pub listed: Vec<(Destination, Arc<Service>)>,
    /// The number of the next call that begins.
    pub numbers: Arc<AtomicU64>,
}

impl Egress {
    pub(super) fn new(EgressParts { listener, own, observer }: EgressParts) -> Self {
        let listed = listener.to.iter().filter_map(|one| Some((one.clone(), Arc::new(service_of(one)?)))).collect();
        Self { listener, own: Arc::new(own), observer, listed, numbers: Arc::default() }
    }

    /// Returns the limits of this proxy: limits on clients do not apply to legacy.
    pub(super) fn limits(limits: &Limits) -> Limits {
        Limits {
            client_connections_max: limits.egress_connections_max,
            client_connections_per_address_max: 0,
            requests_in_flight_max: 0,
            ..limits.clone()
        }
    }

    /// Returns the service as this proxy calls it: the case of header field names is preserved.
    pub(super) fn preserving_header_case(service: &Service) -> Arc<Service> {
        Arc::new(Service { preserve_header_case: true, ..service.clone() })
    }

    /// Whether calls from this address are accepted. Counts and logs a refusal.
    pub(super) fn admits(&self, caller: IpAddr) -> bool {
        let is_admitted = self.listener.admits(caller);
        if !is_admitted {
            counter!("pointsman_egress_connections_refused_total").increment(1);
            if let Some(left_out) = REFUSED_LINES.next_line(now() / 1_000_000) {
                let message =
                    "a connection to the egress listener was closed: no network under `egress.allow` has its address";
                tracing::warn!(%caller, left_out, "{message}");
            }
        }
        is_admitted
    }

    /// Returns the number of a call that begins.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Reports that a call has become a tunnel, which lasts until the returned value is dropped: no comparison sees
    /// what passes through it. `authority`: its host and port.
    pub(super) fn tunnel(&self, target: &EgressTarget, authority: String, kind: TunnelKind) -> Box<dyn Send> {
        let label = target.name.to_string();
        counter!("pointsman_egress_unseen_total", "target" => label, "kind" => kind.as_str()).increment(1);
        let service = target.service.clone();
        self.observer.tunnel(CallTarget { service, authority, method: Method::CONNECT, path: String::new() })
    }

    /// Reports, as [`Self::tunnel`] does, that a call has switched to another protocol (101). `entry` is its target's.
    pub(super) fn switched(&self, targets: &EgressTargets, entry: &Arc<RouteEntry>) -> Option<Box<dyn Send>> {
        let target = targets.of_entry(entry)?;
        Some(self.tunnel(target, authority_of_url(&target.url(&Uri::default())), TunnelKind::Upgrade))
    }
}
