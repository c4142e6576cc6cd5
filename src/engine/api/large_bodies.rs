//! Answers clients' requests with large bodies on the engine's own threads.
//!
//! The proxy's threads serve many connections each, and parsing a large body would delay all of them. Always true: when
//! the caller of a request with a large body stops waiting, no more work is done for the request than if the caller's
//! thread had worked on it.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::arm_span;
use crate::engine::context::Core;
use crate::exchange::{ArmReply, ArmRequest};
use crate::limits::PARSED_BY_CALLER_BYTES_MAX;
use crate::workflow::Mode;

/// Answers a request. A rehearsed or dark request has no client, and is always answered in the calling task.
pub(in crate::engine) async fn answer(core: Arc<Core>, request: ArmRequest) -> ArmReply {
    if request.mode != Mode::Real || request.request.body.len() <= PARSED_BY_CALLER_BYTES_MAX {
        return arm_span::handle(core, request).await;
    }
    let runtime = core.process.runtime.clone();
    match AbortOnDropHandle::new(runtime.spawn(arm_span::handle(core, request))).await {
        Ok(reply) => reply,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The task was cancelled: the runtime ends, and the process with it.
            Err(_) => pending().await,
        },
    }
}
