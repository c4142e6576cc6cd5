//! Services that steps call, as the API shows them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ServiceName;

/// A service in one row. Calls of rehearsed and dark runs have a limit of their own (the fields `secondary_…`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRow {
    /// Its name.
    pub name: ServiceName,
    /// Its base URLs.
    pub urls: Vec<String>,
    /// Its breaker; `null` if it is off.
    pub breaker: Option<BreakerRow>,
    /// Calls of real runs in flight.
    pub in_flight: u64,
    /// The most of them that may be in flight.
    pub calls_max: u64,
    /// Calls of rehearsed and dark runs in flight.
    pub secondary_in_flight: u64,
    /// The most of them that may be in flight.
    pub secondary_calls_max: u64,
    /// Calls that wait for one of these limits or for the rate.
    pub waiting: u64,
    /// The most calls that may begin per second, minute or hour, as `100/s`; `null` if there is no such limit.
    pub rate: Option<String>,
    /// The most calls that may begin at once after a pause.
    pub burst: Option<u64>,
}

/// A circuit breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BreakerRow {
    /// Its state.
    pub state: BreakerStateName,
    /// When it entered this state.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// If it is open: the time from which the next call goes through as a probe.
    #[schemars(with = "Option<String>")]
    pub next_probe: Option<Timestamp>,
    /// If it is closed: the number of calls of real runs that ended within its window.
    pub calls: u64,
    /// How many of those failed.
    pub failed: u64,
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerStateName {
    /// Calls go through.
    Closed,
    /// Probes go through.
    HalfOpen,
    /// Nothing goes through.
    Open,
}
