//! What one request gets: a pure function of the flag set and facts of the request.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::State;

/// What is known of a request when it is decided; never its body.
pub struct RequestFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The normalised path: the one that was matched and is forwarded.
    pub path: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The client's address.
    pub peer: IpAddr,
    /// The values of the path template's parameters.
    pub params: &'a [(Arc<str>, String)],
    /// A number drawn for this request, for sampling where the route has no key.
    pub draw: u64,
    /// Which arm owns the instance that the request follows up.
    pub owner: Owner,
    /// The arm that took the first try of this request, where it is a retry.
    pub first_try: Option<Arm>,
    /// The time, in seconds since 1970: tokens of callers end.
    pub now_s: i64,
}

/// Which arm owns an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The request follows up nothing, or nobody pinned what it follows up: legacy's.
    Nobody,
    /// The engine created it in `live` or `only`: it is answered there, whatever the flag says.
    Engine,
    /// Legacy created it and the engine has a dark twin of it.
    LegacyWithTwin,
    /// Whether the engine owns it cannot be told now: 503, never legacy's 404.
    Unknown,
}

/// One of the two that can answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The service that answers today.
    Legacy,
    /// The embedded orchestrator.
    Engine,
}

impl Arm {
    /// As metrics and messages write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Arm::Legacy => "legacy",
            Arm::Engine => "engine",
        }
    }
}

/// What should be counted beside a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The caller has no key value (absent, empty, or an error), and so was outside a share of `dark` or `live`.
    pub without_key: bool,
    /// Cohorts whose `when` could not be evaluated, which is a no.
    pub cohort_errors: u32,
}

/// Who answers one request, and what happens beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Legacy answers.
    Legacy {
        /// `off`, `shadow` or `dark`; `live` where a retry stays with legacy or an instance is legacy's. Never `only`.
        rung: State,
        /// What the engine does after the reply.
        other: Other,
    },
    /// The engine answers, every effect real.
    Engine {
        /// The rung that this request is on.
        rung: State,
        /// Whether legacy may answer where nothing has begun; never in `only`, never for a pinned instance.
        may_fall_back: bool,
        /// Why it is the engine.
        because: Because,
    },
    /// Nobody can answer safely: 503.
    Nobody {
        /// The rung that this request is on.
        rung: State,
        /// Why, for the problem's text.
        why: &'static str,
    },
}

/// What the engine does beside an answer of legacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Nothing, and nothing is counted: the request is on `off`.
    None,
    /// It should be compared and is not: counted.
    Skip(SkipReason),
    /// A rehearsal, in memory.
    Rehearse,
    /// A durable run with its shared steps rehearsed.
    Dark,
}

/// Why the engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The rung says so.
    Rung,
    /// It owns the instance.
    Pin,
    /// It took the first try of this request.
    Retry,
}

/// Why a request that should be compared was not: the label `reason` of `outcome="skipped"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each label says it
pub enum SkipReason {
    NotSampled,
    QueueFull,
    OverBudget,
    BodyTooLarge,
    Streaming,
    Conditional,
    LegacyRefused,
    LegacyFailed,
    ClientWentAway,
    UnresolvedEffect,
    NeedsPerson,
    NeedsSignal,
    NoInstance,
    NoTwin,
    /// A retry that its first try's arm took: compared once already.
    Retried,
    ShuttingDown,
    /// New instances are frozen, since it was decided.
    Frozen,
}

impl SkipReason {
    /// All, for the metric's closed set.
    pub const ALL: [SkipReason; 17] = [
        SkipReason::NotSampled,
        SkipReason::QueueFull,
        SkipReason::OverBudget,
        SkipReason::BodyTooLarge,
        SkipReason::Streaming,
        SkipReason::Conditional,
        SkipReason::LegacyRefused,
        SkipReason::LegacyFailed,
        SkipReason::ClientWentAway,
        SkipReason::UnresolvedEffect,
        SkipReason::NeedsPerson,
        SkipReason::NeedsSignal,
        SkipReason::NoInstance,
        SkipReason::NoTwin,
        SkipReason::Retried,
        SkipReason::ShuttingDown,
        SkipReason::Frozen,
    ];
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::NotSampled => "not_sampled",
            SkipReason::QueueFull => "queue_full",
            SkipReason::OverBudget => "over_budget",
            SkipReason::BodyTooLarge => "body_too_large",
            SkipReason::Streaming => "streaming",
            SkipReason::Conditional => "conditional",
            SkipReason::LegacyRefused => "legacy_refused",
            SkipReason::LegacyFailed => "legacy_failed",
            SkipReason::ClientWentAway => "client_went_away",
            SkipReason::UnresolvedEffect => "unresolved_effect",
            SkipReason::NeedsPerson => "needs_person",
            SkipReason::NeedsSignal => "needs_signal",
            SkipReason::NoInstance => "no_instance",
            SkipReason::NoTwin => "no_twin",
            SkipReason::Retried => "retried",
            SkipReason::ShuttingDown => "shutting_down",
            SkipReason::Frozen => "frozen",
        }
    }
}
