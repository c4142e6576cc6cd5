//! A request that the engine answered for its caller, as it is checked once the caller has the answer.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::{EffectRegistry, RequestCopy};
use crate::compare::{Body, Observation};
use crate::flag::{FlagSet, InstanceId, RouteFlag, State, StratumValue};
use crate::names::{RouteId, RunId};
use crate::workflow::RunStatus;

/// A request that the engine answered for its caller: the invariants of its route are judged, and it may be sent to
/// legacy afterwards, for a reverse comparison.
#[derive(Clone)]
pub struct EngineAnswered {
    /// The flag set by which it was decided.
    pub flags: Arc<FlagSet>,
    /// Its route.
    pub flag: Arc<RouteFlag>,
    /// The id under which it counts: that of the route's candidate if the candidate answered, else that of the route.
    pub counted_as: RouteId,
    /// The rung of its caller; that of the route where the engine owns the instance.
    pub rung: State,
    /// The name of its caller's cohort.
    pub cohort: Option<Arc<str>>,
    /// Its value of the route's `promote.strata_by`.
    pub declared: Option<StratumValue>,
    /// Whether an invariant that holds for this answer counts for the gate to `only`. A broken invariant always counts
    /// against the gate.
    pub supports_only: bool,
    /// The request.
    pub request: Arc<RequestCopy>,
    /// The instance that it follows up.
    pub instance: Option<InstanceId>,
    /// The status of the engine's answer.
    pub status: StatusCode,
    /// The engine's answer, without what the run sent.
    pub answer: Result<Arc<Observation>, AnswerUnknown>,
    /// When it was given.
    pub answered_at: Timestamp,
    /// The run; `None` if none was made.
    pub run: Option<RunId>,
    /// The status of the run when it answered; `None` if none was made.
    pub run_status: Option<RunStatus>,
    /// Whether the run is in the store. If not, it only reads, and has ended with its answer.
    pub is_stored: bool,
    /// Set if it was chosen for a reverse comparison.
    pub reverse: Option<ReverseRequest>,
}

/// How legacy is to get a request that the engine has answered.
#[derive(Clone)]
pub struct ReverseRequest {
    /// The headers, as if legacy had got it in the first place.
    pub sent: Arc<HeaderMap>,
    /// Attributes the calls that legacy makes for it; `None` if nothing watches legacy's calls.
    pub effect_registry: Option<Arc<dyn EffectRegistry>>,
}

/// Why nothing can be said of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerUnknown {
    /// The caller got `respond.pending`: how the run serves the request is not known yet.
    Pending,
    /// The answer's body is passed on while a service sends it.
    Streaming,
    /// The request or the answer is larger than `body_capture_bytes_max`.
    TooLarge,
}

impl AnswerUnknown {
    /// The name in evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Streaming => "streaming",
            Self::TooLarge => "body_too_large",
        }
    }
}

impl EngineAnswered {
    /// Bytes of memory that it holds: bodies and header fields, and a flat amount for the rest.
    pub fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| match answer.body() {
            Body::Whole(bytes) => bytes.len() + bytes_of(answer.headers()),
            Body::TooLarge => bytes_of(answer.headers()),
        });
        let reverse = self.reverse.as_ref().map_or(0, |reverse| bytes_of(&reverse.sent));
        self.request.body.len() + bytes_of(&self.request.headers) + answer + reverse + 2_048
    }
}

/// About how many bytes a map of header fields takes.
fn bytes_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
}
