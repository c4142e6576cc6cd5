//! Makes the driver of a run that this process has acquired and loaded from the store.

use std::sync::Arc;

use super::{Driver, DriverParts};
use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::scheduler::acquired_run::{AcquiredRun, LoadedRun};
use crate::engine::scheduler::copied_runs;

impl Driver {
    /// The driver of a run that this process has acquired. It continues what an earlier driver left unfinished.
    pub fn of_acquired(core: &Arc<Core>, acquired: AcquiredRun) -> Self {
        let AcquiredRun { loaded, slot, fence, lease_proof } = acquired;
        let LoadedRun { run, last_event_at, plan, snapshot, credentials, sealer, from_run_snapshot: _ } = loaded;
        let (executor, writer) = core.executor_and_writer(run.mode(), &plan, None, fence, Some(lease_proof), sealer);
        let registration = core.schedule.registry.register(run.id(), None).ok();
        let pause = copied_runs::pause_of(core, &run, &plan, last_event_at);
        let mut driver = Self::new(DriverParts {
            core: core.clone(),
            snapshot,
            plan,
            clock: Clock::starting(core.process.clock.now(), last_event_at),
            durable_seq: run.seq(),
            run,
            credentials,
            executor,
            writer,
            claim: None,
            caller: None,
            registration,
            slot: Some(slot),
            starter: None,
            depth: 0,
            legacy_sources: Default::default(),
        });
        driver.recover(pause);
        driver
    }
}

/// Drives a run after recording an event that does not fit it.
#[cfg(test)]
pub(in crate::engine) async fn drive_contradicting(core: &Arc<Core>, acquired: AcquiredRun) {
    let mut driver = Driver::of_acquired(core, acquired);
    driver.machine.contradict();
    driver.drive().await;
}
