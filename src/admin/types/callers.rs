//! Who calls a service.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who calls a service, and since when nothing does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceCallers {
    /// The service.
    pub service: String,
    /// What may call it, by the files and the states in force, by plans in force that the files do not have any more,
    /// and by the plans of runs that have not ended.
    pub may_call: Vec<String>,
    /// Who called it, the last call first: at most the 1,024 callers that called last.
    pub callers: Vec<ServiceCallerRow>,
    /// The last call; `null` if none is known.
    pub last_call: Option<Timestamp>,
    /// Since when it is known that nothing called it through Pointsman; `null` if calls were never noted.
    pub quiet_since: Option<Timestamp>,
    /// When this was found, by the same clock.
    pub now: Timestamp,
    /// Up to when all calls are known: earlier than `now` if another process uses the store, which says each minute
    /// until when it has stored what it noted.
    pub known_until: Timestamp,
    /// Times after the last call in which others may have been made that are not known, because a process was killed.
    pub unknown: Vec<UnknownTime>,
}

/// One caller of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceCallerRow {
    /// The route, the step or the listener that the calls came from: `route orders.create`, `step create.price`,
    /// `egress`; `gate orders.create` asks which instances legacy has (`alive:`), `notify` posts messages to webhooks.
    pub source: String,
    /// The client's address and what it says it is; empty for steps.
    pub client: String,
    /// The method, and the path with `{}` in place of each segment that has a digit.
    pub path: String,
    /// The first call.
    pub first: Timestamp,
    /// The last call.
    pub last: Timestamp,
}

/// A time in which a process noted calls that it has not stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnknownTime {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}
