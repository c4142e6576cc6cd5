//! How many requests the process, and a route, have at the same time.
//!
//! Always true: without a limit nothing is counted; a request that is not admitted has begun nothing, and one that is
//! keeps its place until its client has the whole answer, or its connection or tunnel has ended.

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

    /// A place for one more request; `None` if there is none.
    pub(super) fn take(self: &Arc<Self>) -> Option<RequestPlace> {
        let add = |count: u64| (count < self.requests_max).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, add).ok()?;
        self.in_flight.increment(1.0);
        Some(RequestPlace(self.clone()))
    }
}

/// The place of one request, until it is dropped.
pub(super) struct RequestPlace(Arc<RequestsInFlight>);

impl Drop for RequestPlace {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
        self.0.in_flight.decrement(1.0);
    }
}

/// What a request holds until its client has the whole answer.
#[derive(Default)]
pub(super) struct Admission {
    /// Its place in the process, where that is limited.
    pub place: Option<RequestPlace>,
    /// Its turn at its route, where that is limited.
    pub turn: Option<Turn>,
    /// Keeps it known as a request whose calls are told from those of compared ones, where legacy's calls are watched.
    pub watch: Option<Box<dyn EffectWatch>>,
    /// Counts it as one that legacy may have, where instances of its family may be moved to the engine. Given up as
    /// soon as legacy's reply is complete.
    pub at_legacy: Option<RequestAtLegacy>,
}

impl Admission {
    /// What is held, if anything is.
    pub(super) fn take(&mut self) -> Option<Box<Self>> {
        let Self { place, turn, watch, at_legacy } = self;
        let is_any = place.is_some() || turn.is_some() || watch.is_some() || at_legacy.is_some();
        is_any.then(|| Box::new(std::mem::take(self)))
    }
}
