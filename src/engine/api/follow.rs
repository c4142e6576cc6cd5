//! Waiting for what a run comes to.
//!
//! Always true: what is told is on disk. Nobody asks the store while nothing happens, unless another process may move
//! the run: then it is looked at once in a while, within the time of whoever waits. Who waits is bounded by who asks; an
//! entry goes with the last that waits for its run. A run that waits for a run that it began, which waits for somebody,
//! waits for somebody too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::engine::api::children::WAITING;
use crate::engine::context::Core;
use crate::engine::scheduler::watchers::{OnDisk, WokenBy};
use crate::names::{RunId, Seq};
use crate::store::{RunFilter, StoredEvent};
use crate::workflow::{RunStatus, RunSummary, StepKind};

/// How often a run that another process moves is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Runs that are looked at for others below them that wait.
const BELOW_MAX: usize = 100;

/// One that waits; dropping it gives the place back.
pub(in crate::engine) struct Watch {
    core: Arc<Core>,
    run: RunId,
    woken_by: WokenBy,
    news: watch::Receiver<OnDisk>,
}

impl Watch {
    /// Of a run: what is kept from now on is heard.
    fn of(core: &Arc<Core>, run: RunId, woken_by: WokenBy) -> Self {
        let news = core.schedule.watchers.subscribe(run, woken_by);
        Self { core: core.clone(), run, woken_by, news }
    }
    /// Of a run that has not begun, until it rests: its events are collected too.
    pub fn of_new(core: &Arc<Core>, run: RunId) -> Self {
        let news = core.schedule.watchers.subscribe_from_the_first(run);
        Self { core: core.clone(), run, woken_by: WokenBy::Rest, news }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.core.schedule.watchers.unsubscribe(self.run, self.woken_by);
    }
}

/// Whether a run of this plan begins others.
fn begins_others(core: &Core, run: &RunSummary) -> bool {
    let plan = core.files.snapshot.load().plan(&run.plan_id);
    plan.is_none_or(|plan| plan.steps.iter().any(|step| matches!(step.kind, StepKind::Run(_))))
}

/// Whether a run below it waits for somebody.
async fn waits_below(core: &Core, run: &RunSummary, until: Instant) -> bool {
    let ask = async |parent: RunId, statuses: &[RunStatus], limit: usize| {
        let filter = RunFilter { parent: Some(parent), statuses: statuses.to_vec(), limit, ..RunFilter::default() };
        let asked = timeout_at(until.max(Instant::now() + LOOK), core.ports.store.runs(filter)).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    };
    let mut above: Vec<RunId> = begins_others(core, run).then_some(run.run_id).into_iter().collect();
    for _ in 0..BELOW_MAX {
        let Some(parent) = above.pop() else { return false };
        if !ask(parent, &WAITING, 1).await.is_empty() {
            return true;
        }
        let open = ask(parent, &[RunStatus::Running, RunStatus::Compensating], BELOW_MAX).await;
        above.extend(open.iter().filter(|child| begins_others(core, child)).map(|child| child.run_id));
    }
    false
}

/// What moved whoever waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// News of this process.
    StoreNotification,
    /// It is time to look into the store.
    Look,
    /// The time is over.
    Over,
}

/// The run once it rests, or one below it waits for somebody; or as it stands when the time is over.
pub(in crate::engine) async fn rest(core: &Arc<Core>, run: RunId, within: Duration) -> Option<RunSummary> {
    rested(&mut Watch::of(core, run, WokenBy::Rest), Moved::Look, within).await
}

/// The same of a run that was watched before it began: nothing has been missed, so that the store is not asked. All its
/// events then, where they are few enough.
pub(in crate::engine) async fn new_run_rest(mut watch: Watch, within: Duration) -> Option<Vec<StoredEvent>> {
    let until = Instant::now() + within;
    let moved =
        if watch.news.borrow().seq.is_some() { Moved::StoreNotification } else { changed(&mut watch, until).await };
    let run = rested(&mut watch, moved, until.saturating_duration_since(Instant::now())).await?;
    watch.core.schedule.watchers.events(watch.run, run.seq)
}

async fn rested(watch: &mut Watch, mut moved: Moved, within: Duration) -> Option<RunSummary> {
    let until = Instant::now() + within;
    let (core, run) = (watch.core.clone(), watch.run);
    let (mut last, mut below) = (None, 0);
    loop {
        let seen = watch.news.borrow_and_update().clone();
        let looks = moved == Moved::Look || seen.below != below;
        below = seen.below;
        let told = moved == Moved::StoreNotification && !seen.ended;
        match seen.summary().filter(|_| told) {
            Some(summary) => last = Some(summary.clone()),
            // More is on its way to the disk, and it does not rest.
            None if told && !looks => {}
            None => {
                last = stored(&core, run, until).await.or(last);
                last.as_ref()?;
            }
        }
        if moved == Moved::Over || last.as_ref().is_some_and(|last| last.status.rests()) {
            return last;
        }
        if let Some(run) = last.as_ref().filter(|_| looks)
            && waits_below(&core, run, until).await
        {
            return last;
        }
        moved = changed(watch, until).await;
    }
}

/// The last place on disk, once it is beyond a place or the time is over.
pub(in crate::engine) async fn beyond(core: &Arc<Core>, run: RunId, seq: Seq, within: Duration) -> Option<Seq> {
    let until = Instant::now() + within;
    let mut watch = Watch::of(core, run, WokenBy::Append);
    let mut moved = Moved::Look;
    let mut last = None;
    loop {
        let seen = watch.news.borrow_and_update().clone();
        match seen.seq.filter(|_| moved == Moved::StoreNotification && !seen.ended) {
            Some(seen) => last = Some(seen),
            None => last = stored(core, run, until).await.map(|summary| summary.seq).or(last),
        }
        if moved == Moved::Over || last.is_none_or(|last| last > seq) {
            return last;
        }
        moved = changed(&mut watch, until).await;
    }
}

/// The run as the store shows it, where it answers soon enough.
async fn stored(core: &Core, run: RunId, until: Instant) -> Option<RunSummary> {
    timeout_at(until.max(Instant::now() + LOOK), core.ports.store.run(run)).await.ok()?.ok()?
}

/// Waits for a change, or for the next look where another process may have made one.
async fn changed(watch: &mut Watch, until: Instant) -> Moved {
    let core = &watch.core;
    let elsewhere = core.ports.store.is_shared() && !core.schedule.mailboxes.has_task(watch.run);
    tokio::select! {
        _ = watch.news.changed() => Moved::StoreNotification,
        () = tokio::time::sleep(LOOK), if elsewhere => Moved::Look,
        () = tokio::time::sleep_until(until) => Moved::Over,
    }
}
