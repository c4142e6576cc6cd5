//! Waiting for what a run comes to.
//!
//! Always true: what is told is on disk. Nobody asks the store while nothing happens, unless another process may move
//! the run: then it is looked at once in a while, within the time of whoever waits. Who waits is bounded by who asks; an
//! entry goes with the last that waits for its run. A run that waits for a run that it began, which waits for somebody,
//! waits for somebody too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Core;
use super::mail::Letter;
use crate::names::{RunId, Seq};
use crate::store::RunFilter;
use crate::workflow::{Mode, Run, RunStatus, RunSummary, StepKind};

/// How often a run that another process moves is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A run as it stands on disk; the summary only where its task knows no more than that.
#[derive(Clone, Debug, Default)]
pub(super) struct OnDisk {
    seq: Option<Seq>,
    summary: Option<Arc<RunSummary>>,
    /// It ended in another process.
    ended: bool,
    /// Counts up: a run below it began to wait for somebody.
    below: u64,
}

/// Who waits for which run.
#[derive(Default)]
pub(super) struct Watchers {
    all: Mutex<HashMap<RunId, (usize, watch::Sender<OnDisk>)>>,
    /// How many: runs that nobody waits for take no lock.
    waiting: AtomicUsize,
}

/// One that waits; dropping it gives the place back.
pub(super) struct Watch {
    core: Arc<Core>,
    run: RunId,
    news: watch::Receiver<OnDisk>,
}

impl Watch {
    /// Of a run: what is kept from now on is heard.
    pub fn of(core: &Arc<Core>, run: RunId) -> Self {
        let news = core.watchers.subscribe(run);
        Self { core: core.clone(), run, news }
    }
}

impl Watchers {
    fn all(&self) -> MutexGuard<'_, HashMap<RunId, (usize, watch::Sender<OnDisk>)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn subscribe(&self, run: RunId) -> watch::Receiver<OnDisk> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut all = self.all();
        let (count, sender) = all.entry(run).or_insert_with(|| (0, watch::Sender::new(OnDisk::default())));
        *count += 1;
        sender.subscribe()
    }
    /// More of a run is on disk.
    pub fn kept(&self, run: RunId, seq: Seq, summary: impl FnOnce() -> Option<RunSummary>) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some((_, sender)) = self.all().get(&run) {
            let summary = summary().map(Arc::new);
            sender.send_modify(|seen| *seen = OnDisk { seq: Some(seq), summary, ended: false, below: seen.below });
        }
    }
    /// A run that it began, or one below that, waits for somebody.
    fn below(&self, run: RunId) {
        if let Some((_, sender)) = self.all().get(&run) {
            sender.send_modify(|seen| seen.below += 1);
        }
    }
    /// A run ended, here or elsewhere.
    pub fn ended(&self, run: RunId) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some((_, sender)) = self.all().get(&run)
        {
            sender.send_modify(|seen| seen.ended = true);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.core.watchers.all();
        if let Some((count, _)) = all.get_mut(&self.run) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.run);
            }
        }
        self.core.watchers.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Statuses of runs that go on only with somebody's word.
const WAITING: [RunStatus; 3] = [RunStatus::Paused, RunStatus::WaitingCheckpoint, RunStatus::WaitingSignal];
/// Runs that are looked at for others below them that wait.
const BELOW_MAX: usize = 100;

/// A run that waits for somebody is on disk: those above it hear so, and so do their callers.
pub(super) fn waits(core: &Arc<Core>, run: &Run) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse || !WAITING.contains(&run.status()) {
        return;
    }
    let core = core.clone();
    core.clone().beside(async move {
        let mut above = Some(parent);
        for _ in 0..=core.limits.run_depth_max {
            let Some(run) = above else { return };
            core.watchers.below(run);
            drop(core.post.slip(run, Letter::Waits)); // without a task it has no caller
            above = core.store.run(run).await.ok().flatten().and_then(|summary| summary.parent);
        }
    });
}

/// Whether a run of this plan begins others.
fn begins_others(core: &Core, run: &RunSummary) -> bool {
    let plan = core.snapshot.load().plan(&run.plan_id);
    plan.is_none_or(|plan| plan.steps.iter().any(|step| matches!(step.kind, StepKind::Run(_))))
}

/// Whether a run below it waits for somebody.
async fn waits_below(core: &Core, run: &RunSummary, until: Instant) -> bool {
    let ask = async |parent: RunId, statuses: &[RunStatus], limit: usize| {
        let filter = RunFilter { parent: Some(parent), statuses: statuses.to_vec(), limit, ..RunFilter::default() };
        let asked = timeout_at(until.max(Instant::now() + LOOK), core.store.runs(filter)).await;
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
    News,
    /// It is time to look into the store.
    Look,
    /// The time is over.
    Over,
}

/// The run once it rests, or one below it waits for somebody; or as it stands when the time is over.
pub(super) async fn rest(core: &Arc<Core>, run: RunId, within: Duration) -> Option<RunSummary> {
    rested(Watch::of(core, run), Moved::Look, within).await
}

/// The same of a run that was watched before its birth and was born since: nothing has been missed, and the store is
/// not asked for it.
pub(super) async fn newborn_rest(mut watch: Watch, within: Duration) -> Option<RunSummary> {
    let until = Instant::now() + within;
    let moved = if watch.news.borrow().seq.is_some() { Moved::News } else { changed(&mut watch, until).await };
    rested(watch, moved, until.saturating_duration_since(Instant::now())).await
}

async fn rested(mut watch: Watch, mut moved: Moved, within: Duration) -> Option<RunSummary> {
    let until = Instant::now() + within;
    let (core, run) = (watch.core.clone(), watch.run);
    let (mut last, mut below) = (None, 0);
    loop {
        let seen = watch.news.borrow_and_update().clone();
        let looks = moved == Moved::Look || seen.below != below;
        below = seen.below;
        if moved == Moved::News && !seen.ended {
            // Without a summary more is on its way to the disk, and it does not rest.
            if let Some(summary) = seen.summary {
                last = Some((*summary).clone());
            }
        } else {
            last = stored(&core, run, until).await.or(last);
            last.as_ref()?;
        }
        if moved == Moved::Over || last.as_ref().is_some_and(|last| last.status.rests()) {
            return last;
        }
        if let Some(run) = last.as_ref().filter(|_| looks)
            && waits_below(&core, run, until).await
        {
            return last;
        }
        moved = changed(&mut watch, until).await;
    }
}

/// The last place on disk, once it is beyond a place or the time is over.
pub(super) async fn beyond(core: &Arc<Core>, run: RunId, seq: Seq, within: Duration) -> Option<Seq> {
    let until = Instant::now() + within;
    let mut watch = Watch::of(core, run);
    let mut moved = Moved::Look;
    let mut last = None;
    loop {
        let seen = watch.news.borrow_and_update().clone();
        match seen.seq.filter(|_| moved == Moved::News && !seen.ended) {
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
    timeout_at(until.max(Instant::now() + LOOK), core.store.run(run)).await.ok()?.ok()?
}

/// Waits for a change, or for the next look where another process may have made one.
async fn changed(watch: &mut Watch, until: Instant) -> Moved {
    let core = &watch.core;
    let elsewhere = core.store.is_shared() && !core.post.moves(watch.run);
    tokio::select! {
        _ = watch.news.changed() => Moved::News,
        () = tokio::time::sleep(LOOK), if elsewhere => Moved::Look,
        () = tokio::time::sleep_until(until) => Moved::Over,
    }
}
