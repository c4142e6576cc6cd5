//! Entries that are not written yet.

use serde_json::Value;

use crate::names::RouteId;
use crate::store::FlipRecord;

/// An entry that is not written yet, and has no number.
#[derive(Clone)]
pub(super) struct PendingEntry {
    pub(super) kind: &'static str,
    pub(super) route: Option<RouteId>,
    pub(super) source: String,
    pub(super) body: Value,
}

impl PendingEntry {
    /// The entry of a flip.
    pub(super) fn of_flip(flip: &FlipRecord) -> Self {
        let (kind, route) = match (&flip.guard, &flip.candidate, &flip.route) {
            (Some(guard), ..) => ("guard", Some(&guard.route)),
            (None, Some(candidate), _) => ("candidate", Some(&candidate.route)),
            (None, None, Some(route)) => ("flip", Some(route)),
            (None, None, None) => ("freeze", None),
        };
        Self {
            kind,
            route: route.cloned(),
            source: format!("flip {}", flip.number),
            body: serde_json::to_value(flip).unwrap_or_default(),
        }
    }
}
