//! Captures, within their bounds.

use std::collections::BTreeSet;

use crate::names::RouteId;
use crate::store::{CaptureBounds, CaptureRecord};

/// The captures in the order in which they were stored, each with its position.
#[derive(Default)]
pub(super) struct StoredCaptures {
    captures: Vec<(u64, CaptureRecord)>,
    last: u64,
}

impl StoredCaptures {
    pub(super) fn put(&mut self, captures: Vec<CaptureRecord>, bounds: CaptureBounds) {
        let routes: BTreeSet<RouteId> = captures.iter().map(|capture| capture.route.clone()).collect();
        for capture in captures {
            if !self.captures.iter().any(|(_, stored)| stored.id == capture.id) {
                self.last += 1;
                self.captures.push((self.last, capture));
            }
        }
        self.captures.retain(|(_, capture)| capture.at >= bounds.since);
        for route in routes {
            let (mut number, mut bytes, mut oldest) = (0, 0, 0);
            for (position, capture) in self.captures.iter().rev().filter(|(_, capture)| capture.route == route) {
                (number, bytes) = (number + 1, bytes + capture.body.len() as u64);
                if number > bounds.per_route || bytes > bounds.bytes_per_route {
                    oldest = *position;
                    break;
                }
            }
            self.captures.retain(|(position, capture)| capture.route != route || *position > oldest);
        }
    }

    pub(super) fn of_route(&self, route: &RouteId, after: u64, limit: usize) -> Vec<(u64, CaptureRecord)> {
        let of_route = self.captures.iter().filter(|(at, stored)| stored.route == *route && *at > after);
        of_route.take(limit).cloned().collect()
    }
}
