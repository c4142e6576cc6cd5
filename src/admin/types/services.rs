//! The services of the files, as the API shows them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ServiceName;

/// A service in one row. Calls of rehearsed and dark runs have a limit of their own (the fields `secondary_…`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRow {
    /// The service's name.
    pub name: ServiceName,
    /// The service's base URLs.
    pub urls: Vec<String>,
    /// The service's addresses, in the order of the URLs.
    #[serde(default)]
    pub addresses: Vec<AddressRow>,
    /// The host names in the URLs; IP addresses are not listed.
    #[serde(default)]
    pub lookups: Vec<LookupRow>,
    /// The service's breaker; `null` if it is off.
    pub breaker: Option<BreakerRow>,
    /// Calls of real runs in flight.
    pub in_flight: u64,
    /// How many calls of real runs may be in flight.
    pub calls_max: u64,
    /// Calls of rehearsed and dark runs in flight.
    pub secondary_in_flight: u64,
    /// How many calls of rehearsed and dark runs may be in flight.
    pub secondary_calls_max: u64,
    /// Calls that wait for one of these limits or for the rate.
    pub waiting: u64,
    /// How many calls may begin per second, minute or hour, such as `100/s`; `null` if there is no such limit.
    pub rate: Option<String>,
    /// How many calls may begin at once after a pause.
    pub burst: Option<u64>,
}

/// One address of a service. Forwarded requests, calls of steps and messages to webhooks share its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddressRow {
    /// IP address and port.
    pub address: String,
    /// The base URL that the address belongs to.
    pub url: String,
    /// Whether the address gets requests.
    pub state: AddressStateName,
    /// If the address is ejected: when a connection to it is tried again.
    #[schemars(with = "Option<String>")]
    pub ejected_until: Option<Timestamp>,
    /// If the address is ejected: why.
    pub ejected_because: Option<EjectionReasonName>,
    /// The weight of the base URL.
    pub weight: u64,
    /// Which part of its share of the requests the address gets, in percent: less than 100 during `slow_start:`.
    pub share_percent: u64,
    /// Forwarded requests, calls of real runs and messages to webhooks in flight.
    pub in_flight: u64,
    /// Calls of rehearsed and dark runs in flight.
    pub secondary_in_flight: u64,
    /// The last failure of a request or health check; `null` if there was none since the service was changed.
    pub last_failure: Option<AddressFailureRow>,
}

/// Whether an address gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressStateName {
    /// The address gets requests, even if the last ones failed (`last_failure`).
    Available,
    /// The address's health checks fail.
    Unhealthy,
    /// The address gave no connection or no answers, and gets no requests for a while.
    Ejected,
}

/// Why an address is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EjectionReasonName {
    /// The address accepts no connection.
    NoConnection,
    /// Requests were sent to the address, and no answer came.
    NoAnswer,
}

/// A failure of an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddressFailureRow {
    /// When the failure happened.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// What happened.
    pub why: String,
}

/// A name that is looked up for a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookupRow {
    /// The name.
    pub name: String,
    /// When its last lookup ended; `null` before the first one.
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
    /// Why the last lookup failed; the name keeps the addresses that it had.
    pub failure: Option<String>,
}

/// A circuit breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BreakerRow {
    /// The breaker's state.
    pub state: BreakerStateName,
    /// When the breaker entered this state.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// If the breaker is open: from when on the next call goes through as a probe.
    #[schemars(with = "Option<String>")]
    pub next_probe: Option<Timestamp>,
    /// If the breaker is closed: the number of calls of real runs that ended within its window.
    pub calls: u64,
    /// How many of these calls failed.
    pub failed: u64,
    /// The other processes on the store where the breaker of this service is open.
    #[serde(default)]
    pub open_in: Vec<String>,
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
