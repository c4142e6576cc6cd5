//! Runs that adopt an instance of legacy.
//!
//! Always true: such a run has the id that the claim of the instance names, so that it begins once even if two
//! processes try; it begins only after the claim is stored. Its expressions know the id of the instance and no request.
//! It counts as a run of the route that creates the instances, so that it fails where a run of the API would ask a
//! person; and it ends within a bounded time, because neither arm answers requests for the instance meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::engine::api::start::{self, NewRun, StartContext};
use crate::engine::api::types::StartError;
use crate::engine::context::Core;
use crate::engine::run_trace;
use crate::engine::scheduler::load::{self, LoadError};
use crate::names::{RouteId, RunId, WorkerId, WorkflowName};
use crate::store::StoreError;
use crate::workflow::{AdoptionProgress, Event, Mode, fold, progress};

/// How long such a run may take, unless its workflow allows less.
const ADOPTION_TIME_MAX: Duration = Duration::from_secs(60);

/// A run that is to adopt an instance.
#[derive(Clone, Debug)]
pub struct AdoptionStart {
    /// The run, as the claim of the instance names it.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The route that creates the instances.
    pub route: RouteId,
    /// The instance's id as legacy spells it.
    pub id: Arc<str>,
    /// Who asked for it.
    pub by: String,
}

impl Engine {
    /// Begins a run that adopts an instance. Its first event is on disk when this returns. It must not have begun.
    ///
    /// # Errors
    /// Nothing was begun, or it is unknown whether it was.
    pub async fn begin_adoption(&self, start: AdoptionStart) -> Result<(), StartError> {
        begin(&self.core, start).await
    }

    /// How far a run that adopts an instance has come; `None` if it has not begun.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn adoption_progress(&self, run: RunId) -> Result<Option<AdoptionProgress>, StoreError> {
        progress_of(&self.core, run).await
    }

    /// Whether a task of this process has the run: it goes on, or its first append has not been answered.
    pub fn has_task(&self, run: RunId) -> bool {
        self.core.schedule.mailboxes.has_task(run)
    }

    /// This process, as the store knows it.
    pub fn worker(&self) -> WorkerId {
        self.core.schedule.worker
    }

    /// The number of the uninterrupted time for which this process certainly has had a lease in a store that processes
    /// share; `None` if it may have none. Always `Some` in a store of one process.
    pub fn lease_tenure(&self) -> Option<u64> {
        self.core.schedule.lease.tenure()
    }
}

async fn begin(core: &Arc<Core>, start: AdoptionStart) -> Result<(), StartError> {
    let AdoptionStart { run, workflow, route, id, by } = start;
    let snapshot = core.files.snapshot.load_full();
    let plan = start::plan_of(&snapshot, &workflow)?;
    if plan.adoption.is_none() {
        return Err(StartError::Invalid(format!("the workflow `{workflow}` adopts no instances now")));
    }
    start::refuse_while_recovering(core)?;
    let permit = start::acquire_permit(core)?;
    let registration = match start::register(core, run, None).await? {
        start::KeyOwner::New(registration) => registration,
        start::KeyOwner::Earlier(_) => return Ok(()),
    };
    let now = core.process.clock.now();
    let context = StartContext {
        mode: Mode::Real,
        by: Some(by),
        job: None,
        parent: None,
        route_above: None,
        child_plans: None,
        approval_above: None,
        legacy: None,
        traceparent: run_trace::of_first_run(run),
        until: now.checked_add(ADOPTION_TIME_MAX).ok(),
        bytes_mark: core.bytes_mark(),
        sensitive_paths: Vec::new(),
    };
    let mut started = start::first_event(&plan, run, &Value::Null, context, now);
    started.route = Some(route);
    started.instance = Some(Arc::new(json!({
        "id": &*id, "legacy_id": &*id, "input": null, "output": null, "status": "adopting",
    })));
    let (credentials, run_key) = Default::default();
    let new = NewRun { plan, started, taken_over: Vec::new(), pause: None, credentials, run_key, claim: None };
    start::create(core, new, registration, permit).await.map(drop)
}

async fn progress_of(core: &Core, id: RunId) -> Result<Option<AdoptionProgress>, StoreError> {
    let stored = core.events(id).await?;
    if stored.is_empty() {
        let purged = core.ports.store.run(id).await?;
        let why = || AdoptionProgress::Unknown("the events of its run were purged".to_owned());
        return Ok(purged.map(|_| why()));
    }
    let unreadable = |why: &str| Ok(Some(AdoptionProgress::Unknown(format!("its run cannot be read: {why}"))));
    let events: Vec<&Event> = stored.iter().map(|stored| &stored.event).collect();
    let run = match fold(events.iter().copied()) {
        Ok(run) => run,
        Err(misfit) => return unreadable(&misfit.to_string()),
    };
    let plan = match load::plan_of(core, &core.files.snapshot.load_full(), &run.started().plan).await {
        Ok(plan) => plan,
        Err(LoadError::Store(error)) => return Err(error),
        Err(LoadError::Unreadable(why) | LoadError::EventsUnavailable(why)) => return unreadable(&why),
    };
    match &plan.adoption {
        Some(adoption) => Ok(Some(progress(adoption, &run, events.iter().copied()))),
        None => unreadable("its workflow adopts no instances"),
    }
}
