//! An engine that returns what a test sets, with a store that the test fills.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::admin::EngineControl;
use crate::engine::{CommandError, Explanation, Start, StartError, Started};
use crate::names::{JobId, RunId, Seq, StepId};
use crate::store::StoreHandle;
use crate::workflow::{ControlCommand, RunSummary};

/// Records starts and commands, and returns the results that a test has set.
pub struct FakeEngine {
    store: StoreHandle,
    pub starts: Mutex<Vec<Start>>,
    pub commands: Mutex<Vec<(RunId, ControlCommand, String)>>,
    pub start: Mutex<Option<Result<Started, StartError>>>,
    pub refuse: Mutex<Option<CommandError>>,
}

pub fn started(run: RunId, is_new: bool) -> Started {
    let summary = Box::new(crate::store::tests::summary(run, 1));
    Started { run, job: JobId(run.0), plan: "plan_1".into(), is_new, summary }
}

impl FakeEngine {
    pub fn new(store: StoreHandle) -> Self {
        Self {
            store,
            starts: Mutex::default(),
            commands: Mutex::default(),
            start: Mutex::default(),
            refuse: Mutex::default(),
        }
    }
    fn outcome(&self) -> Result<Started, StartError> {
        self.start.lock().unwrap().clone().unwrap_or_else(|| Err(StartError::Unavailable("draining".into())))
    }
}

impl EngineControl for FakeEngine {
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, StartError>> {
        self.starts.lock().unwrap().push(start);
        let outcome = self.outcome();
        async move { outcome }.boxed()
    }
    fn rerun(&self, _: RunId, _: StepId, _: String) -> BoxFuture<'_, Result<Started, StartError>> {
        let outcome = self.outcome();
        async move { outcome }.boxed()
    }
    fn give_command(
        &self,
        run: RunId,
        command: ControlCommand,
        by: String,
    ) -> BoxFuture<'_, Result<RunSummary, CommandError>> {
        self.commands.lock().unwrap().push((run, command, by));
        let refused = self.refuse.lock().unwrap().clone();
        async move {
            if let Some(refused) = refused {
                return Err(refused);
            }
            self.store.run(run).await.ok().flatten().ok_or(CommandError::NoRun)
        }
        .boxed()
    }
    fn wait_until_ended_or_awaits_input(&self, run: RunId, within: Duration) -> BoxFuture<'_, Option<RunSummary>> {
        async move {
            let summary = self.store.run(run).await.ok().flatten()?;
            if !summary.status.is_final() {
                tokio::time::sleep(within).await;
            }
            self.store.run(run).await.ok().flatten()
        }
        .boxed()
    }
    fn wait_for_events_after(&self, run: RunId, seq: Seq, within: Duration) -> BoxFuture<'_, Option<Seq>> {
        async move {
            let deadline = tokio::time::Instant::now() + within;
            loop {
                let last = self.store.run(run).await.ok().flatten()?.seq;
                if last > seq || tokio::time::Instant::now() >= deadline {
                    return Some(last);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        .boxed()
    }
    fn explain(&self, run: RunId) -> BoxFuture<'_, Result<Explanation, CommandError>> {
        async move {
            let summary = self.store.run(run).await.ok().flatten().ok_or(CommandError::NoRun)?;
            let sentence = "it waits for bank's breaker, which is open since 3 s; the next probe is in 12 s".to_owned();
            Ok(Explanation { run: summary, waits: vec![sentence.clone()], sentence, stuck: false })
        }
        .boxed()
    }
}
