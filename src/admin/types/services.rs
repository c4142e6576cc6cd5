//! Services that steps call, as the API says them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ServiceName;

/// A service in one row. Rehearsed and dark runs have places of their own beside the real runs'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRow {
    /// Its name.
    pub name: ServiceName,
    /// Its base URLs.
    pub urls: Vec<String>,
    /// Its breaker; `null` where it is off.
    pub breaker: Option<BreakerRow>,
    /// Calls of real runs under way.
    pub in_flight: u64,
    /// As many as may be.
    pub calls_max: u64,
    /// Calls of rehearsed and dark runs under way.
    pub beside_in_flight: u64,
    /// As many as may be.
    pub beside_calls_max: u64,
    /// Calls that wait for a place or for the rate.
    pub waiting: u64,
    /// So many calls may begin in a time: `100/s`; `null` where there is no such bound.
    pub rate: Option<String>,
    /// So many of them may begin at once after a pause.
    pub burst: Option<u64>,
}

/// A breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BreakerRow {
    /// Its state.
    pub state: BreakerWord,
    /// Since when.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// Open: from when on the next call goes through as a probe.
    #[schemars(with = "Option<String>")]
    pub next_probe: Option<Timestamp>,
    /// Closed: calls of real runs that ended within its window.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// A breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerWord {
    /// Calls go through.
    Closed,
    /// Probes go through.
    HalfOpen,
    /// Nothing goes through.
    Open,
}
