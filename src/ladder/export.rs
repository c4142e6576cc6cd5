//! Flags as metrics: `pointsman_flag_state` and `pointsman_flag_flips_total`.

use metrics::{counter, gauge};

use super::types::FlipSource;
use crate::flag::FlagSet;
use crate::names::RouteId;
use crate::store::FlipRecord;

/// The value of the label `route` for the kill switch; no route can have this id.
const KILL_SWITCH: &str = "*";

/// Sets the metrics of every route of a set, and resets those of removed routes.
pub(super) fn set_states(set: &FlagSet, removed: &[RouteId]) {
    for flag in &set.routes {
        let route = flag.route.id.as_str();
        show(route, "requested", flag.requested.rank());
        show(route, "effective", flag.effective.state.rank());
    }
    for route in removed {
        show(route.as_str(), "requested", 0);
        show(route.as_str(), "effective", 0);
    }
}

fn show(route: &str, kind: &'static str, rank: u8) {
    gauge!("pointsman_flag_state", "route" => route.to_owned(), "kind" => kind).set(f64::from(rank));
}

/// Counts one flip.
pub(super) fn count_flip(flip: &FlipRecord, by: FlipSource) {
    let route = flip.route.as_ref().map_or(KILL_SWITCH, |route| route.as_str());
    let labels = [
        ("route", route.to_owned()),
        ("from", flip.from.clone()),
        ("to", flip.to.clone()),
        ("by", by.as_str().to_owned()),
    ];
    counter!("pointsman_flag_flips_total", &labels).increment(1);
}
