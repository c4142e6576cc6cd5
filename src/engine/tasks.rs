//! Implements [`RunTasks`], the trait through which scheduler and drivers reach the code that executes runs.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::api::{child, rerun};
use crate::engine::context::{Core, RunTasks};
use crate::engine::driver::{self, Driver};
use crate::engine::legacy_replies::LegacySources;
use crate::engine::machine::{ChildSpec, ChildState};
use crate::engine::scheduler::acquire;
use crate::engine::scheduler::acquired_run::AcquiredRun;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::mailbox::ExecutionSlot;
use crate::engine::scheduler::spawn_policy_cell::SpawnPolicyCell;
use crate::engine::scheduler::supervisor;
use crate::names::{RunId, StepId};
use crate::store::OwnedRun;
use crate::workflow::RunStarted;

/// Runs drivers in tasks of the engine's runtime.
pub(super) struct Tasks;

impl RunTasks for Tasks {
    fn start_run_task(
        &self,
        core: Arc<Core>,
        slot: ExecutionSlot,
        owned: Option<(OwnedRun, LeaseProof)>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        acquire::start_run_task(&core, slot, owned, permit);
    }
    fn drive(&self, core: Arc<Core>, acquired: AcquiredRun) -> BoxFuture<'static, ()> {
        let driver = Driver::of_acquired(&core, acquired);
        async move { drop(driver.drive().await) }.boxed()
    }
    fn spawn(&self, core: &Arc<Core>, acquired: AcquiredRun, permit: Option<OwnedSemaphorePermit>) {
        driver::spawn(core, Driver::of_acquired(core, acquired), permit);
    }
    fn start_successor(&self, core: Arc<Core>, of: RunId, from: StepId) -> BoxFuture<'static, Result<(), String>> {
        let started = async move { rerun::rerun(&core, of, from, String::new()).await };
        started.map(|started| started.map(drop).map_err(|error| error.to_string())).boxed()
    }
    fn ensure_child(
        &self,
        core: Arc<Core>,
        parent: Arc<RunStarted>,
        spawn_policy: Arc<SpawnPolicyCell>,
        spec: ChildSpec,
        depth: u64,
        legacy_sources: LegacySources,
    ) -> BoxFuture<'static, ChildState> {
        child::ensure_child(core, parent, spawn_policy, spec, depth, legacy_sources).boxed()
    }
    fn supervise(&self, core: &Arc<Core>) {
        supervisor::start(core);
    }
}
