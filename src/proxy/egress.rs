//! What makes a proxy the one behind the egress listener.
//!
//! It is a proxy of its own, with connections, room and drain of its own: clients that fill the room for theirs would
//! otherwise keep legacy from making the calls that their requests wait for, and a drain must let legacy make them
//! until the last client has its answer. Services, their addresses, limits and waits are the same.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::counter;

use super::egress_targets::service_of;
use super::line_limit::LineLimit;
use super::monotonic::now;
use super::own_sockets::OwnSockets;
use crate::exchange::EffectObserver;
use crate::flag::Service;
use crate::limits::Limits;
use crate::listener::{Destination, EgressListener};
use crate::names::ServiceName;

static REFUSED_LINES: LineLimit = LineLimit::new();

/// The parts of a proxy that only the one behind the egress listener has.
pub struct EgressParts {
    /// The listener.
    pub listener: EgressListener,
    /// The sockets on which this process listens.
    pub own: OwnSockets,
    /// Is told of the calls.
    pub observer: Arc<dyn EffectObserver>,
}

/// The same, as the proxy uses it.
pub(super) struct Egress {
    listener: EgressListener,
    pub own: Arc<OwnSockets>,
    pub observer: Arc<dyn EffectObserver>,
    /// The destinations that the files list, each with a service that stands for it.
    pub listed: Vec<(Destination, Arc<Service>)>,
    numbers: AtomicU64,
}

impl Egress {
    pub(super) fn new(EgressParts { listener, own, observer }: EgressParts) -> Self {
        let listed = listener.to.iter().filter_map(|one| Some((one.clone(), Arc::new(service_of(one)?)))).collect();
        Self { listener, own: Arc::new(own), observer, listed, numbers: AtomicU64::new(0) }
    }

    /// The limits of this proxy: what bounds clients does not bound legacy.
    pub(super) fn limits(limits: &Limits) -> Limits {
        Limits {
            client_connections_max: limits.egress_connections_max,
            client_connections_per_address_max: 0,
            requests_in_flight_max: 0,
            ..limits.clone()
        }
    }

    /// A service as it is called here: names of header fields are passed on in the case in which they came.
    pub(super) fn as_called(service: &Service) -> Arc<Service> {
        Arc::new(Service { preserve_header_case: true, ..service.clone() })
    }

    /// Whether calls of this address are taken. If not, that is counted and logged.
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

    /// The number of a call that begins.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Counts a call whose content no comparison can see, by what it goes to.
    pub(super) fn count_unseen(target: &ServiceName, kind: &'static str) {
        counter!("pointsman_egress_unseen_total", "target" => target.to_string(), "kind" => kind).increment(1);
    }
}
