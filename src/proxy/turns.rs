//! Limits how many requests a legacy service, or a route, gets at the same time. A *turn* is the permit to be one of
//! them.
//!
//! Always true:
//! - A request holds its turn at a service from before a connection is chosen until the reply has ended or was cut, and
//!   its turn at a route until its client has the whole answer. A tunnel holds both until it ends.
//! - Waiting requests get their turns in the order of arrival. Their number and their wait are bounded, and nothing of
//!   them has been sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::monotonic::now;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::RouteId;

/// The turns of one service or route.
pub(super) struct Turns {
    turns: Arc<Semaphore>,
    requests_max: usize,
    max_gauge: Gauge,
    waiting: AtomicU64,
    waiting_max: u64,
    wait_max: Duration,
    in_flight_gauge: Gauge,
    waiting_gauge: Gauge,
}

/// The metrics of turns.
struct TurnGauges {
    max: Gauge,
    in_flight: Gauge,
    waiting: Gauge,
}

/// One request's turn, until it is dropped.
#[must_use]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    in_flight: Gauge,
    /// When the request got its turn, in microseconds of `monotonic::now`; 0 if it did not have to wait.
    pub taken_at: u64,
    /// How long the request waited for its turn, in microseconds.
    pub waited: u64,
}

/// The request did not get its turn in time, or too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoTurn;

impl Turns {
    /// Creates the turns of a service; `None` if the number of its requests is not limited.
    pub(super) fn of_service(service: &Service, limits: &Limits) -> Option<Self> {
        let name = || service.name.to_string();
        let gauges = TurnGauges {
            max: gauge!("pointsman_legacy_requests_max", "service" => name()),
            in_flight: gauge!("pointsman_legacy_requests_in_flight", "service" => name()),
            waiting: gauge!("pointsman_legacy_requests_waiting", "service" => name()),
        };
        Some(Self::new(service.requests_max?, limits, gauges))
    }

    /// Creates the turns of a route, whichever arm answers.
    pub(super) fn of_route(route: &RouteId, requests_max: u64, limits: &Limits) -> Self {
        let name = || route.to_string();
        let gauges = TurnGauges {
            max: gauge!("pointsman_route_requests_max", "route" => name()),
            in_flight: gauge!("pointsman_route_requests_in_flight", "route" => name()),
            waiting: gauge!("pointsman_route_requests_waiting", "route" => name()),
        };
        Self::new(requests_max, limits, gauges)
    }

    fn new(requests_max: u64, limits: &Limits, gauges: TurnGauges) -> Self {
        let requests_max = usize::try_from(requests_max).unwrap_or(usize::MAX);
        gauges.max.increment(requests_max as f64);
        Self {
            requests_max,
            max_gauge: gauges.max,
            turns: Arc::new(Semaphore::new(requests_max.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicU64::new(0),
            waiting_max: limits.legacy_waiting_max,
            wait_max: Limits::ms(limits.legacy_turn_ms),
            in_flight_gauge: gauges.in_flight,
            waiting_gauge: gauges.waiting,
        }
    }

    /// Whether the number of turns is this one.
    pub(super) fn has_requests_max(&self, requests_max: u64) -> bool {
        usize::try_from(requests_max).unwrap_or(usize::MAX) == self.requests_max
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// No turn became free in time, or too many requests wait.
    pub(super) async fn take(&self) -> Result<Turn, NoTurn> {
        let (permit, taken_at, waited) = match self.turns.clone().try_acquire_owned() {
            Ok(permit) => (permit, 0, 0),
            Err(_) => {
                let _waiting = self.begin_waiting().ok_or(NoTurn)?;
                let asked_at = now();
                let permit = timeout(self.wait_max, self.turns.clone().acquire_owned()).await;
                let taken_at = now();
                (permit.map_err(|_| NoTurn)?.map_err(|_| NoTurn)?, taken_at, taken_at.saturating_sub(asked_at))
            }
        };
        self.in_flight_gauge.increment(1.0);
        Ok(Turn { _permit: permit, in_flight: self.in_flight_gauge.clone(), taken_at, waited })
    }

    fn begin_waiting(&self) -> Option<WaitingRequest<'_>> {
        let add = |waiting: u64| (waiting < self.waiting_max).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, add).ok()?;
        self.waiting_gauge.increment(1.0);
        Some(WaitingRequest { turns: self })
    }
}

/// One request that waits for its turn, until it is dropped.
struct WaitingRequest<'a> {
    turns: &'a Turns,
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.turns.waiting.fetch_sub(1, Relaxed);
        self.turns.waiting_gauge.decrement(1.0);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // Subtracts what this value added: newer files may already have given the service another bound, and both use
        // one gauge.
        self.max_gauge.decrement(self.requests_max as f64);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.in_flight.decrement(1.0);
    }
}
