//! The engine's twins, as the shadow executor asks for them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::affinity::StoreAffinity;
use crate::engine::Engine;
use crate::exchange::{EndedRun, PerformedCalls, Twins};
use crate::flag::InstanceKey;
use crate::names::RunId;
use crate::workflow::RunStatus;

/// How long one wait for the end of a run takes; then the next one begins.
const WAIT: Duration = Duration::from_secs(3_600);
/// The most runs whose calls are read from the store at the same time, for their invariants.
const READS_AT_ONCE_MAX: usize = 4;
/// The pause between two looks at a run that waits for a person or a signal.
const INPUT_PAUSE: Duration = Duration::from_secs(1);

/// Asks engine and affinity.
pub(super) struct EngineTwins {
    pub engine: Arc<Engine>,
    pub affinity: Arc<StoreAffinity>,
    /// Permits to read the calls of runs that have ended from the store.
    pub reads: Arc<Semaphore>,
}

impl EngineTwins {
    pub(super) fn new(engine: Arc<Engine>, affinity: Arc<StoreAffinity>) -> Self {
        Self { engine, affinity, reads: Arc::new(Semaphore::new(READS_AT_ONCE_MAX)) }
    }
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

    fn ended(&self, run: RunId, within: Duration) -> BoxFuture<'static, Option<EndedRun>> {
        let (engine, reads) = (self.engine.clone(), self.reads.clone());
        async move {
            let status = engine.wait_until_ended_or_awaits_input(run, within).await?.status;
            if !status.is_final() {
                return None;
            }
            let _permit = reads.acquire().await.ok()?;
            match engine.sent_calls(run).await {
                Ok(sent) => Some(EndedRun { status, sent }),
                Err(error) => {
                    tracing::warn!(%run, %error, "the calls of a run cannot be read: invariants over them are not judged");
                    None
                }
            }
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
