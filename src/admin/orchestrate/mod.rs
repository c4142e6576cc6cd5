//! Runs: started, looked at, spoken to.
//!
//! The question it answers: "run this, what became of it, and may I say something?" A start comes in through `start`
//! (or the older `maestro`), what is said to a run through `orders`, what happens goes out through `stream`; all of
//! them show a run as `envelope` makes it. Always true: what is shown is folded from the events in the store, so a run
//! that another process moves, or none, looks the same; a caller that goes away changes nothing of its run.
//!
//! When the store does not answer, it is said (503) with whether the thing may have been done. What moves runs is the
//! engine's business, reached through its desk.

mod envelope;
mod list;
mod look;
mod maestro;
mod orders;
mod refusals;
mod start;
mod stream;

pub(super) use list::{Filter, list};
pub(super) use look::{Page, events, explain, output, show};
pub(super) use maestro::{mark, produce};
pub(super) use orders::{adjust, answer, cancel, pause, rerun, resolve, resume, retry, signal, skip};
pub(super) use start::start;
pub(super) use stream::{Streams, stream};

use std::sync::Arc;

use serde_json::Value;

use super::Shared;
use super::problem::Refusal;
use super::types::{Delivery, Orchestration};
use crate::names::{JobId, RunId, Seq};
use crate::store::{RunFilter, StoredEvent};
use crate::workflow::{Asked, Run, RunStarted, RunStatus, RunView, fold, view_and_run};

/// A run as its events tell it.
struct Seen {
    events: Vec<StoredEvent>,
    run: Run,
    view: RunView,
    plan: Option<Arc<Value>>,
    /// Runs below it that wait for somebody, the oldest first.
    below: Vec<Run>,
}

/// Runs below a run that are looked at.
const BELOW_MAX: usize = 100;

impl Seen {
    /// Reads and folds a run.
    async fn read(shared: &Shared, run: RunId) -> Result<Self, Refusal> {
        let store = &shared.parts.store;
        let events = store.events(run, Seq::FIRST).await?;
        if events.is_empty() {
            return Err(match store.run(run).await? {
                Some(summary) => Refusal::purged(&summary),
                None => Refusal::no_run(&run.to_string()),
            });
        }
        let seen = view_and_run(events.iter().map(|stored| (stored.at, &stored.event)));
        let (view, run) = seen.map_err(Refusal::damaged)?;
        let plan = match shared.parts.desk.plan_source(&view.plan_id) {
            None => store.plan(view.plan_id.clone()).await?.map(Arc::new),
            kept => kept,
        };
        let below = below(shared, &run).await?;
        Ok(Self { events, run, view, plan, below })
    }
    fn started(&self) -> &RunStarted {
        self.run.started()
    }
    /// The names of the plan's steps.
    fn planned(&self) -> impl Iterator<Item = &str> {
        let steps = self.plan.as_ref().and_then(|plan| plan.get("steps")).and_then(Value::as_object);
        steps.into_iter().flat_map(|steps| steps.keys().map(String::as_str))
    }
    /// As an answer.
    fn envelope(&self, shared: &Shared, delivery: Delivery) -> Orchestration {
        let route = self.started().route.as_ref().and_then(|id| {
            let set = shared.parts.ladder.flags();
            let matches = &set.route(id)?.route.matches;
            Some((matches.method.to_string(), matches.path.clone()))
        });
        envelope::envelope(self, delivery, route)
    }
}

/// Checkpoints of a run that wait for an answer, oldest first.
fn open_checkpoints(run: &Run) -> Vec<&Asked> {
    let mut open: Vec<&Asked> = run.asked().collect();
    open.sort_by_key(|asked| asked.at);
    open
}

/// Runs that a run began, or one of those, and that wait for somebody.
async fn below(shared: &Shared, run: &Run) -> Result<Vec<Run>, Refusal> {
    let store = &shared.parts.store;
    let mut above: Vec<RunId> = run.children().next().map(|_| run.id()).into_iter().collect();
    let (mut found, mut looked) = (Vec::new(), 0);
    while let Some(parent) = above.pop() {
        let (statuses, limit) = (RunStatus::OPEN.to_vec(), BELOW_MAX - looked);
        let filter = RunFilter { parent: Some(parent), statuses, limit, ..RunFilter::default() };
        for child in store.runs(filter).await? {
            looked += 1;
            match child.status {
                RunStatus::Paused | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal => {
                    let events = store.events(child.run_id, Seq::FIRST).await?;
                    found.extend(fold(events.iter().map(|stored| &stored.event)));
                }
                _ => above.push(child.run_id),
            }
        }
        if looked >= BELOW_MAX {
            break;
        }
    }
    found.sort_by_key(|run| run.id());
    Ok(found)
}

/// The run that an id in a path means: its own, or the newest of a job.
async fn find(shared: &Shared, id: &str) -> Result<RunId, Refusal> {
    if !id.starts_with("job_") {
        return run_id(id);
    }
    let job: JobId =
        id.parse().map_err(|_| Refusal::bad(format!("`{id}` is not a job's id: they look like job_0190…")))?;
    let filter = RunFilter { job: Some(job), limit: 1, ..RunFilter::default() };
    let newest = shared.parts.store.runs(filter).await?.into_iter().next();
    // The first run of a job has its UUID.
    Ok(newest.map_or(RunId(job.0), |run| run.run_id))
}

/// A run's id as it is written.
fn run_id(text: &str) -> Result<RunId, Refusal> {
    text.parse().map_err(|_| Refusal::bad(format!("`{text}` is not a run's id: they look like run_0190…")))
}
