//! Legacy, as the shadow executor asks it a second time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::config::Setup;
use crate::engine::Engine;
use crate::exchange::{NotRepeated, RepeatRequest};
use crate::flag::{FlagSet, State};
use crate::shadow::RepeatedLegacy;

/// Asks legacy through the engine's connections, as long as the flags in force allow it: the files may have changed
/// since the request was decided.
pub(super) fn legacy(engine: &Engine, flags: Arc<ArcSwap<FlagSet>>, setup: &Setup) -> RepeatedLegacy {
    let repeats = engine.repeats();
    let arm = tower::service_fn(move |request: RepeatRequest| {
        let (repeats, set) = (repeats.clone(), flags.load());
        let in_force = set.route(request.route());
        let is_allowed = in_force.is_some_and(|flag| {
            let state = flag.effective.state;
            state != State::Off && state != State::Only && request.is_allowed_by(&flag.route)
        });
        async move { if is_allowed { repeats.oneshot(request).await } else { Ok(Err(NotRepeated::Forbidden)) } }
    });
    RepeatedLegacy { arm: BoxCloneSyncService::new(arm), is_watched: setup.settings.egress.is_some() }
}
