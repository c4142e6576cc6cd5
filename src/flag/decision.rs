//! The decision for one request: its inputs and its outcome.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::State;

/// What is known of a request when its decision is made; the body is never part of it.
pub struct RequestFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path that is forwarded, in the spelling of the route's template.
    pub path: &'a str,
    /// The path that was matched, as the client spelled it, since earlier files may assign this spelling to another
    /// route.
    pub matched_path: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The client's address.
    pub peer: IpAddr,
    /// The values of the path template's parameters.
    pub params: &'a [(Arc<str>, String)],
    /// A random number for this request; decides about sampling if the caller has no key.
    pub random: u64,
    /// The owner of the instance that the request follows up.
    pub owner: Owner,
    /// The time of the decision, in seconds since 1970. Scopes of earlier files are looked up only until a certain
    /// time.
    pub now_s: i64,
}

/// Which arm owns an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The request follows up no instance, or an instance without a pin, which counts as legacy's.
    NoPin,
    /// The engine created the instance in `live` or `only`, and answers for it in every state.
    Engine,
    /// Legacy created the instance, and in `dark` the engine created a twin of it from the same request.
    LegacyWithTwin,
    /// Unknown, because the store does not answer: the request gets 503, never legacy's 404.
    Unknown,
    /// Legacy created the instance, and the engine has adopted it: the engine answers for it in every state.
    Adopted,
    /// Legacy created the instance, and it is being moved to the engine: neither arm answers for it now.
    Moving,
    /// The instance was being moved to the engine, and whether legacy released it is not known: neither arm answers
    /// for it until a person has decided.
    AdoptionUnknown,
}

/// One of the two sides that can answer a request.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The service that answers today.
    Legacy,
    /// The embedded orchestrator.
    Engine,
}

impl Arm {
    /// The name in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Arm::Legacy => "legacy",
            Arm::Engine => "engine",
        }
    }
}

/// Problems while deciding, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionDiagnostics {
    /// The caller had no key value (absent, empty, or an error), and therefore was outside a share of `dark` or `live`.
    pub without_key: bool,
    /// How many cohorts had a `when` that could not be evaluated, and counted as false.
    pub cohort_errors: u32,
    /// The caller's cohort, as an index into the route's cohorts.
    pub cohort: Option<usize>,
}

/// Which arm answers a request, and what the other arm does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Legacy answers.
    Legacy {
        /// `off`, `shadow` or `dark`; `live` if a retry stays with legacy or legacy owns the instance. Never `only`.
        rung: State,
        /// What the engine does after the reply.
        engine_work: EngineWork,
    },
    /// The engine answers; every effect is real.
    Engine {
        /// The request's rung.
        rung: State,
        /// Whether legacy may answer if the run fails before a private or shared step has begun; never in `only`, never
        /// for a pinned instance.
        may_fall_back: bool,
        /// Why the engine answers.
        reason: EngineReason,
    },
    /// Neither arm can answer safely: 503.
    Nobody {
        /// The request's rung.
        rung: State,
        /// Why, for the problem document.
        why: &'static str,
    },
}

impl Decision {
    /// The request's rung.
    pub fn rung(&self) -> State {
        let (Decision::Legacy { rung, .. } | Decision::Engine { rung, .. } | Decision::Nobody { rung, .. }) = self;
        *rung
    }
    /// Who answers, as the access log names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Decision::Legacy { .. } => Arm::Legacy.as_str(),
            Decision::Engine { .. } => Arm::Engine.as_str(),
            Decision::Nobody { .. } => "nobody",
        }
    }
    /// Why the engine answers, or what it does after legacy has answered; `None` if nobody answers.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Decision::Legacy { engine_work, .. } => Some(engine_work.as_str()),
            Decision::Engine { reason, .. } => Some(reason.as_str()),
            Decision::Nobody { .. } => None,
        }
    }
}

/// What the engine does after legacy has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineWork {
    /// Nothing, and nothing is counted, because the request is in `off`.
    None,
    /// Nothing, although the request should be compared; the reason is counted.
    Skip(SkipReason),
    /// A rehearsal in memory.
    Rehearse,
    /// A durable run with its shared steps rehearsed.
    Dark,
}

impl EngineWork {
    /// The name in the access log: the kind of work, or the reason why there is none.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineWork::None => "none",
            EngineWork::Skip(reason) => reason.as_str(),
            EngineWork::Rehearse => "rehearse",
            EngineWork::Dark => "dark",
        }
    }
}

/// Why the engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineReason {
    /// The request's rung is `live` or `only`.
    Rung,
    /// The request's rung is `live` or `only`, but only by a cohort (by its `force`, or by the evidence of its own
    /// requests): by the route's state and shares, the caller would be on a lower rung.
    Cohort,
    /// The engine owns the instance.
    Pin,
    /// The engine owns the instance, which it has adopted from legacy.
    Adopted,
    /// The engine took the first try of this request.
    Retry,
}

impl EngineReason {
    /// Whether the engine answers because of the rung that the request is on.
    pub fn is_by_rung(self) -> bool {
        match self {
            EngineReason::Rung | EngineReason::Cohort => true,
            EngineReason::Pin | EngineReason::Adopted | EngineReason::Retry => false,
        }
    }
    /// The name in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineReason::Rung => "rung",
            EngineReason::Cohort => "cohort",
            EngineReason::Pin => "pin",
            EngineReason::Adopted => "adopted",
            EngineReason::Retry => "retry",
        }
    }
}

/// Why a request that should be compared was not: the metric label `reason` where `outcome` is `skipped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a reason without a doc is described by its name
pub enum SkipReason {
    NotSampled,
    QueueFull,
    /// Too many pairs wait until all calls by legacy for them are known (`egress.window`).
    EffectsQueueFull,
    /// The comparison took too long, a body was nested too deeply, there were too many calls to compare, or too many
    /// runs were in flight.
    OverBudget,
    BodyTooLarge,
    Streaming,
    /// The method is HEAD, or the request has a condition (such as `If-None-Match`) or a `Range`: its reply may lack
    /// the body that the engine's has.
    Conditional,
    /// Legacy answered 429 or 503.
    LegacyRefused,
    /// Legacy did not answer, or not completely.
    LegacyFailed,
    ClientWentAway,
    /// An expression needed the output of a step that was not sent and has no `rehearse:`.
    UnresolvedEffect,
    NeedsPerson,
    NeedsSignal,
    /// The run would pause until a person decides: over a conflict, an unknown outcome, or what is missing in the
    /// files.
    WouldPause,
    /// The run has answered but not ended, and may still record intents that an assert reads.
    MayStillRecordIntents,
    /// A follow-up whose instance the engine does not have. In `shadow` this is the reason for every follow-up of an
    /// instance without a twin.
    NoInstance,
    /// In `dark` or `live`, a follow-up of an instance without a complete twin.
    NoTwin,
    /// Under the route's rules nothing of the replies is compared.
    NothingCompared,
    /// A follow-up waited for its twin, or for an earlier request of its instance, longer than `followup_window_ms`.
    NeverSettled,
    /// Legacy had another request of the instance at the same time, and one of the two may have changed it: in which
    /// order legacy performed them is not known.
    Overlapped,
    /// A retry: only first tries are compared.
    Retried,
    ShuttingDown,
    /// New instances were frozen after the decision.
    Frozen,
    /// The engine no longer holds the version of the files that decided the request.
    FilesChanged,
}

impl SkipReason {
    /// All reasons: the closed set of the metric's labels.
    pub const ALL: [SkipReason; 24] = [
        SkipReason::NotSampled,
        SkipReason::QueueFull,
        SkipReason::EffectsQueueFull,
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
        SkipReason::WouldPause,
        SkipReason::MayStillRecordIntents,
        SkipReason::NoInstance,
        SkipReason::NoTwin,
        SkipReason::NothingCompared,
        SkipReason::NeverSettled,
        SkipReason::Overlapped,
        SkipReason::Retried,
        SkipReason::ShuttingDown,
        SkipReason::Frozen,
        SkipReason::FilesChanged,
    ];
    /// Whether requests that were skipped for this reason may count against coverage. Of the `Conditional` ones only
    /// writes do.
    pub fn may_count_against_coverage(self) -> bool {
        match self {
            SkipReason::NotSampled
            | SkipReason::LegacyRefused
            | SkipReason::LegacyFailed
            | SkipReason::ClientWentAway
            | SkipReason::NoInstance
            | SkipReason::NoTwin
            | SkipReason::Retried => false,
            SkipReason::QueueFull
            | SkipReason::EffectsQueueFull
            | SkipReason::OverBudget
            | SkipReason::BodyTooLarge
            | SkipReason::Streaming
            | SkipReason::Conditional
            | SkipReason::UnresolvedEffect
            | SkipReason::NeedsPerson
            | SkipReason::NeedsSignal
            | SkipReason::WouldPause
            | SkipReason::MayStillRecordIntents
            | SkipReason::NothingCompared
            | SkipReason::NeverSettled
            | SkipReason::Overlapped
            | SkipReason::ShuttingDown
            | SkipReason::Frozen
            | SkipReason::FilesChanged => true,
        }
    }
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::NotSampled => "not_sampled",
            SkipReason::QueueFull => "queue_full",
            SkipReason::EffectsQueueFull => "effects_queue_full",
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
            SkipReason::WouldPause => "would_pause",
            SkipReason::MayStillRecordIntents => "run_goes_on",
            SkipReason::NoInstance => "no_instance",
            SkipReason::NoTwin => "no_twin",
            SkipReason::NothingCompared => "nothing_compared",
            SkipReason::NeverSettled => "never_settled",
            SkipReason::Overlapped => "overlapped",
            SkipReason::Retried => "retried",
            SkipReason::ShuttingDown => "shutting_down",
            SkipReason::Frozen => "frozen",
            SkipReason::FilesChanged => "files_changed",
        }
    }
}
