//! Limits how many requests the process, and a route, have in flight at the same time.
//!
//! Always true: without a limit nothing is counted; a request that is not admitted has begun nothing; an admitted
//! request keeps its permit until its client has the whole answer, or its connection or tunnel has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{Gauge, gauge};

use super::turns::Turn;
use crate::exchange::{EffectWatch, RequestAtLegacy};

/// The requests of the process.
pub(super) struct RequestsInFlight {
    count: AtomicU64,
    requests_max: u64,
    in_flight: Gauge,
}

impl RequestsInFlight {
    /// `None` if there may be any number.
    pub(super) fn new(requests_max: u64) -> Option<Arc<Self>> {
        if requests_max == 0 {
            return None;
        }
        gauge!("pointsman_requests_in_flight_max").set(requests_max as f64);
        let in_flight = gauge!("pointsman_requests_in_flight");
        Some(Arc::new(Self { count: AtomicU64::new(0), requests_max, in_flight }))
    }

    /// Returns a permit for one more request; `None` if the limit is reached.
    pub(super) fn take(self: &Arc<Self>) -> Option<RequestPermit> {
        let add = |count: u64| (count < self.requests_max).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, add).ok()?;
        self.in_flight.increment(1.0);
        Some(RequestPermit(self.clone()))
    }
}

/// The permit of one request; dropping it gives it back.
pub(super) struct RequestPermit(Arc<RequestsInFlight>);

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
        self.0.in_flight.decrement(1.0);
    }
}

/// What a request holds until its client has the whole answer.
#[derive(Default)]
pub(super) struct Admission {
    /// The request's permit, if the process limits its requests.
    pub permit: Option<RequestPermit>,
    /// The request's turn at its route, if the route limits its requests.
    pub turn: Option<Turn>,
    /// Keeps the request registered, so that calls that legacy makes for it are not attributed to a compared request.
    /// `None` where legacy's calls are not watched.
    pub watch: Option<Box<dyn EffectWatch>>,
    /// Counts the request as one that legacy may have, if instances of its family may be moved to the engine. Given up
    /// as soon as legacy's reply is complete.
    pub at_legacy: Option<RequestAtLegacy>,
}

impl Admission {
    /// Takes what the request holds; `None` if it holds nothing.
    pub(super) fn take(&mut self) -> Option<Box<Self>> {
        let Self { permit, turn, watch, at_legacy } = self;
        let is_any = permit.is_some() || turn.is_some() || watch.is_some() || at_legacy.is_some();
        is_any.then(|| Box::new(std::mem::take(self)))
    }
}
