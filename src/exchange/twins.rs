//! What the shadow executor asks of the twins of legacy's instances, beyond running requests on them. In `dark`, each
//! instance that legacy creates gets a *twin*, which the engine creates from the same request.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::compare::{Effect, Intent};
use crate::flag::InstanceKey;
use crate::names::RunId;
use crate::workflow::RunStatus;

/// The calls that a run and those below it made, each once, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct PerformedCalls {
    /// The private and shared ones.
    pub effects: Vec<Effect>,
    /// Those that only read.
    pub reads: Vec<Effect>,
}

/// The engine's twins of instances that legacy created.
pub trait Twins: Send + Sync {
    /// Waits until a run has ended, however long that takes; returns its final status. `None`: nothing is known of it.
    fn wait_until_ended(&self, run: RunId) -> BoxFuture<'static, Option<RunStatus>>;
    /// Waits until a run has ended, but no longer than `within`; returns its calls and those of the runs below it.
    /// `None`: it has not ended, or its calls are not known.
    fn performed(&self, run: RunId, within: Duration) -> BoxFuture<'static, Option<PerformedCalls>> {
        let _ = (run, within);
        Box::pin(std::future::ready(None))
    }
    /// Waits until a run has ended, but no longer than `within`. `None`: it has not ended.
    fn ended(&self, run: RunId, within: Duration) -> BoxFuture<'static, Option<RunStatus>> {
        let _ = (run, within);
        Box::pin(std::future::ready(None))
    }
    /// The private and shared calls that a run which has ended and the runs below it sent, each once, under the names
    /// of its steps. `None`: they cannot be read.
    fn sent(&self, run: RunId) -> BoxFuture<'static, Option<Vec<Intent>>> {
        let _ = run;
        Box::pin(std::future::ready(None))
    }
    /// Counts an instance of legacy that has no twin, or one that lacks something, until the instance ends. Never
    /// waits.
    fn note_incomplete(&self, instance: &InstanceKey) {
        let _ = instance;
    }
    /// Records that the twin of this instance lacks something that legacy did. After this returns `true`, no request
    /// finds the twin any more, also after a restart. `false`: the store did not answer.
    fn mark_incomplete<'a>(&'a self, instance: &'a InstanceKey) -> BoxFuture<'a, bool>;
}
