//! A request that the engine answered for its caller, as it is checked once the caller has the answer.

use std::sync::Arc;

use http::HeaderMap;

use super::RequestCopy;
use crate::compare::Observation;
use crate::flag::{FlagSet, InstanceId, RouteFlag, State};
use crate::names::{RouteId, RunId};

/// A request that the engine answered for its caller: the invariants of its route are judged, and it may be sent to
/// legacy afterwards, for a reverse comparison.
#[derive(Clone)]
pub struct EngineAnswered {
    /// The flag set by which it was decided.
    pub flags: Arc<FlagSet>,
    /// Its route.
    pub flag: Arc<RouteFlag>,
    /// The id under which it counts: that of the route, or of its candidate, if that answered.
    pub counted_as: RouteId,
    /// The rung of its caller; that of the route where the engine owns the instance.
    pub rung: State,
    /// Whether an invariant that holds supports `only`; one that is broken counts in any case.
    pub supports_only: bool,
    /// The request.
    pub request: Arc<RequestCopy>,
    /// The instance that it follows up.
    pub instance: Option<InstanceId>,
    /// The engine's answer, without what the run sent.
    pub answer: Result<Arc<Observation>, AnswerUnknown>,
    /// The run; `None` if none was made.
    pub run: Option<RunId>,
    /// Whether the run is in the store. If not, it only reads, and has ended with its answer.
    pub is_stored: bool,
    /// If it was chosen for a reverse comparison: the headers with which legacy is to get it.
    pub reverse: Option<Arc<HeaderMap>>,
}

/// Why nothing can be said of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerUnknown {
    /// The caller got `respond.pending`: how the run serves the request is not known yet.
    Pending,
    /// A service sends its body while it is passed on.
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
    /// Bytes of memory that it holds: bodies, and a flat amount for heads.
    pub fn bytes(&self) -> usize {
        let body = match self.answer.as_ref().map(|answer| answer.body()) {
            Ok(crate::compare::Body::Whole(bytes)) => bytes.len(),
            Ok(crate::compare::Body::TooLarge) | Err(_) => 0,
        };
        self.request.body.len() + body + 2_048
    }
}
