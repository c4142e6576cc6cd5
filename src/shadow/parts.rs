//! The parts from which the shadow executor is built.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::compare::Rules;
use crate::evidence::{Captures, Evidence};
use crate::exchange::{EngineArm, RepeatReply, RepeatRequest, Twins};
use crate::limits::Limits;
use crate::names::RouteId;

/// Legacy, as the service to which requests are sent after an arm has answered them.
#[derive(Clone)]
pub struct RepeatedLegacy {
    /// The service.
    pub arm: BoxCloneSyncService<RepeatRequest, RepeatReply, Infallible>,
    /// Whether legacy's calls come through the egress listener. Then a request is repeated only if it is known that
    /// legacy made no call for it that may have changed something.
    pub is_watched: bool,
}

impl RepeatedLegacy {
    /// Sends it a request.
    pub(super) async fn ask(&self, request: RepeatRequest) -> RepeatReply {
        match self.arm.clone().oneshot(request).await {
            Ok(reply) => reply,
            Err(never) => match never {},
        }
    }
}

/// The rules in force by route; swapped whole when files change.
pub type RulesInForce = Arc<ArcSwap<BTreeMap<RouteId, Arc<Rules>>>>;

/// The parts, built by `app`.
pub struct ShadowParts {
    /// The arm that is run.
    pub engine: EngineArm,
    /// Legacy, which some requests are sent to a second time; `None`: no request is.
    pub legacy: Option<RepeatedLegacy>,
    /// Waits for the ends of dark runs, and records which twins are incomplete.
    pub twins: Arc<dyn Twins>,
    /// Where outcomes go.
    pub evidence: Arc<Evidence>,
    /// Where captures go.
    pub captures: Arc<Captures>,
    /// How pairs are compared; a route that is not in it has the default rules.
    pub rules: RulesInForce,
    /// The bounds.
    pub limits: Arc<Limits>,
}
