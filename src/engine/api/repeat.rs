//! Sends a request to legacy a second time, for the shadow executor.

use crate::engine::context::Core;
use crate::engine::ports::repeating_client::RepeatCall;
use crate::exchange::{NotRepeated, RepeatReply, RepeatRequest};
use crate::names::RunId;

/// Sends it, unless the process ends or the newest files do not have the service.
pub(in crate::engine) async fn repeat(core: &Core, request: &RepeatRequest) -> RepeatReply {
    if *core.process.draining.borrow() {
        return Err(NotRepeated::Refused);
    }
    let service = core.files.snapshot.load().services.get(request.service()).cloned();
    let Some(service) = service else { return Err(NotRepeated::Forbidden) };
    let call = RepeatCall::new(request, service, RunId(core.process.new_id())).ok_or(NotRepeated::Refused)?;
    core.ports.repeating.repeat(call).await
}
