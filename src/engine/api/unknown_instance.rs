//! A request about an instance that the engine did not create, where its route says who answers for an id of which
//! nothing is known.

use tokio::time::{Instant, timeout_at};

use crate::engine::context::Core;
use crate::exchange::ArmRequest;
use crate::flag::UnknownInstance;
use crate::store::StoreError;
use crate::workflow::Mode;

/// What becomes of such a request.
pub(super) enum WithoutInstance {
    /// It is handled as any other request: it is rehearsed or dark, the engine created the instance, or the route does
    /// not say.
    NotConcerned,
    /// The workflow answers, and learns that nothing is known of the instance.
    Unknown,
    /// Nobody answers: 404.
    NotFound,
    /// Nobody answers, because legacy may have the instance: 503, and why.
    AtLegacy(&'static str),
}

/// Says what becomes of a request. Asks the store only for a real run whose instance the engine did not create.
pub(super) async fn judge(core: &Core, request: &ArmRequest, deadline: Instant) -> WithoutInstance {
    let declared = match request.unknown_instance {
        UnknownInstance::NotDeclared => return WithoutInstance::NotConcerned,
        UnknownInstance::Workflow => WithoutInstance::Unknown,
        UnknownInstance::NotFound => WithoutInstance::NotFound,
    };
    // A follow-up whose request has no id is about no known instance either.
    let is_asked = request.mode == Mode::Real && request.instance.as_ref().is_none_or(|found| found.run.is_none());
    if !is_asked {
        return WithoutInstance::NotConcerned;
    }
    match timeout_at(deadline, is_known(core, request)).await {
        Ok(Ok(false)) => declared,
        Ok(Ok(true)) => WithoutInstance::AtLegacy("Legacy created the instance"),
        Ok(Err(_)) | Err(_) => WithoutInstance::AtLegacy("The store does not say what is known of the instance"),
    }
}

/// Whether the instance has a pin, or a request has shown it at legacy.
async fn is_known(core: &Core, request: &ArmRequest) -> Result<bool, StoreError> {
    let Some(instance) = &request.instance else { return Ok(false) };
    let store = &core.ports.store;
    for key in instance.key.pin_keys() {
        if store.pin(key).await?.is_some() {
            return Ok(true);
        }
    }
    for key in instance.key.stored_keys() {
        if store.legacy_instance(key).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
