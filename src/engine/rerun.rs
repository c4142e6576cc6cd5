//! Another run of the same job that takes over what the run before it finished.
//!
//! Always true: it keeps the plan of the run before it and answers nobody; what it takes over is on disk with its birth.
//! What makes sense to take over is judged by `workflow`.

use std::sync::Arc;

use uuid::Uuid;

use super::Core;
use super::begin::{self, Birth};
use super::desk::{NotStarted, Started};
use super::take::{self, Unloaded};
use crate::names::{JobId, RunId, StepId};
use crate::workflow::{self, RunStarted};

/// Starts it.
pub(super) async fn rerun(core: &Arc<Core>, of: RunId, from: StepId, by: String) -> Result<Started, NotStarted> {
    let store = |why: String| NotStarted::Store { why, unknown: false };
    match core.store.run(of).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(NotStarted::NoRun),
        Err(error) => return Err(store(error.to_string())),
    }
    let before = take::read(core, of).await.map_err(|unloaded| match unloaded {
        Unloaded::Store(error) => store(error.to_string()),
        Unloaded::Unreadable(why) | Unloaded::Withheld(why) => NotStarted::NoSense(why),
    })?;
    let (old, plan) = (before.run, before.plan);
    let taken_over = workflow::rerun(&old, &plan, &from).map_err(|refusal| match refusal {
        workflow::Refusal::NoSuchStep => NotStarted::NoStep,
        refusal => NotStarted::NoSense(refusal.to_string()),
    })?;
    let first = old.started();
    let missing = first.credentials.iter().find(|name| !before.credentials.contains_key(*name));
    if let Some(name) = missing {
        let why = format!("`{name}` of the caller is gone with the end of the run: start it anew");
        return Err(NotStarted::NoSense(why));
    }
    let run = RunId(Uuid::now_v7());
    let sealed = match before.credentials.is_empty() {
        true => None,
        false => {
            let sealed = core.sealer.seal(run, &before.credentials);
            Some(sealed.ok_or_else(|| NotStarted::NoSense("there is no store_key to seal credentials with".into()))?)
        }
    };
    let (sealed, run_key) = sealed.map(|sealed| (sealed.credentials, sealed.key)).unzip();
    let now = core.wall.now();
    let started = RunStarted {
        run,
        route: None,
        started: now,
        sealed,
        creates: None,
        job: Some(first.job.unwrap_or(JobId(of.0))),
        parent: None,
        rerun_of: Some(of),
        by: Some(by),
        until: begin::until(&plan, now),
        ..(**first).clone()
    };
    let permit = begin::admitted(core)?;
    let place = core.registry.take(run, None).map_err(|_| store("its id is taken".to_owned()))?;
    let birth = Birth { plan, started, taken_over, credentials: before.credentials, run_key, claim: None };
    begin::born(core, birth, place, permit).await
}
