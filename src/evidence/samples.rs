//! Samples that wait to be written.
//!
//! Always true: bounded in number; of one route and fingerprint no more wait than the store would keep.

use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::SampleRecord;

/// Samples waiting for the store, all routes together.
const WAITING_MAX: usize = 512;

/// What waits for the store beside the evidence itself.
#[derive(Default)]
pub(super) struct Waiting {
    samples: Vec<SampleRecord>,
    /// Routes whose stored samples belong to evidence that is no more.
    clear: Vec<RouteId>,
}

impl Waiting {
    pub(super) fn wants(&self, route: &RouteId, fingerprint: &str, limits: &Limits) -> bool {
        let same = self.samples.iter().filter(|s| s.route == *route && s.fingerprint == fingerprint).count();
        self.samples.len() < WAITING_MAX && (same as u64) < limits.samples_per_fingerprint_max
    }
    pub(super) fn push(&mut self, sample: SampleRecord) {
        self.samples.push(sample);
    }
    /// The evidence of a route starts anew: what it rested on goes.
    pub(super) fn clear(&mut self, route: &RouteId) {
        self.samples.retain(|s| s.route != *route);
        if !self.clear.contains(route) {
            self.clear.push(route.clone());
        }
    }
    /// Takes everything, to be written.
    pub(super) fn take(&mut self) -> (Vec<RouteId>, Vec<SampleRecord>) {
        (std::mem::take(&mut self.clear), std::mem::take(&mut self.samples))
    }
    /// Puts back what could not be written, behind what came meanwhile.
    pub(super) fn put_back(&mut self, clear: Vec<RouteId>, samples: Vec<SampleRecord>) {
        for sample in samples {
            // A route that was cleared meanwhile does not want its old samples back.
            if self.samples.len() < WAITING_MAX && !self.clear.contains(&sample.route) {
                self.samples.push(sample);
            }
        }
        for route in clear {
            if !self.clear.contains(&route) {
                self.clear.push(route);
            }
        }
    }
}
