//! The engine's twins (the instances that the engine makes in `dark` of those that legacy creates), as the shadow
//! executor asks for them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::affinity::StoreAffinity;
use crate::compare::Intent;
use crate::engine::Engine;
use crate::exchange::{PerformedCalls, Twins};
use crate::flag::InstanceKey;
use crate::names::RunId;
use crate::workflow::RunStatus;

/// How long one wait for the end of a run takes; then the next one begins.
const WAIT: Duration = Duration::from_secs(3_600);
/// The pause between two looks at a run that waits for a person or a signal.
const INPUT_PAUSE: Duration = Duration::from_secs(1);

/// Asks engine and affinity.
pub(super) struct EngineTwins {
    pub engine: Arc<Engine>,
    pub affinity: Arc<StoreAffinity>,
}

impl Twins for EngineTwins {
    fn wait_until_ended(&self, run: RunId) -> BoxFuture<'static, Option<RunStatus>> {
        let engine = self.engine.clone();
        async move {
            loop {
                let status = engine.wait_until_ended_or_awaits_input(run, WAIT).await?.status;
                if status.is_final() {
                    return Some(status);
                }
                tokio::time::sleep(INPUT_PAUSE).await;
            }
        }
        .boxed()
    }

    fn performed(&self, run: RunId, within: Duration) -> BoxFuture<'static, Option<PerformedCalls>> {
        let engine = self.engine.clone();
        async move {
            let summary = engine.wait_until_ended_or_awaits_input(run, within).await?;
            if !summary.status.is_final() {
                return None;
            }
            match engine.performed_calls(run).await {
                Ok(calls) => Some(calls),
                Err(error) => {
                    tracing::warn!(%run, %error, "the calls of a run cannot be read: its candidate is compared without them");
                    None
                }
            }
        }
        .boxed()
    }

    fn ended(&self, run: RunId, within: Duration) -> BoxFuture<'static, Option<RunStatus>> {
        let engine = self.engine.clone();
        async move {
            let status = engine.wait_until_ended_or_awaits_input(run, within).await?.status;
            status.is_final().then_some(status)
        }
        .boxed()
    }

    fn sent(&self, run: RunId) -> BoxFuture<'static, Option<Vec<Intent>>> {
        let engine = self.engine.clone();
        async move {
            let sent = engine.sent_calls(run).await;
            sent.inspect_err(|error| {
                tracing::warn!(%run, %error, "the calls of a run cannot be read: invariants over them are not judged");
            })
            .ok()
        }
        .boxed()
    }

    fn note_incomplete(&self, instance: &InstanceKey) {
        self.affinity.instances().note_incomplete_twin(instance);
    }

    fn mark_incomplete<'a>(&'a self, instance: &'a InstanceKey) -> BoxFuture<'a, bool> {
        async move {
            match self.affinity.detach_twin(instance).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(
                        %error, family = %instance.family.id(), id = %instance.id,
                        "it is not stored yet that the twin of this instance is incomplete; it is tried again"
                    );
                    false
                }
            }
        }
        .boxed()
    }
}
