//! Runs the arm that nobody waits for, within a budget, and compares.
//!
//! The question it answers: "what would the engine have done with this request?" A request that has been answered is
//! offered; it waits in a queue that is bounded in entries and bytes; on threads of their own, at lower priority, the
//! engine runs it, the two observations are compared, and its ticket is settled.
//!
//! Always true: offering never waits; every ticket is settled exactly once, whatever happens to the run; of a
//! mismatch no more is kept than a redacted sample.
//!
//! Which requests are offered is the proxy's business, what outcomes add up to is `evidence`'s.
//!
//! When the engine is slow, runs end at their time-out and the queue fills up, and what does not fit is skipped and
//! counted; when it is gone or panics, each run fails by itself; when it answers after its time-out, nobody listens.

mod facts;
mod queue;
mod run;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;

use queue::{Budget, Entry};
use run::Runner;

use crate::compare::{Body, Rules};
use crate::evidence::Evidence;
use crate::exchange::{Answered, ArmReply, ArmRequest, Offer, Outcome, Ticket};
use crate::flag::SkipReason;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::workflow::Mode;

/// The engine as the shadow executor sees it.
pub type EngineArm = BoxCloneSyncService<ArmRequest, ArmReply, Infallible>;

/// The rules in force by route; swapped whole when files change.
pub type RulesInForce = Arc<ArcSwap<BTreeMap<RouteId, Arc<Rules>>>>;

/// What the shadow executor is made of.
pub struct ShadowParts {
    /// The other arm.
    pub engine: EngineArm,
    /// Where outcomes go.
    pub evidence: Arc<Evidence>,
    /// How pairs are compared; a route that is not in it has the default rules.
    pub rules: RulesInForce,
    /// The bounds.
    pub limits: Arc<Limits>,
}

/// Runs the arm that nobody waits for.
pub struct Shadow {
    queue: mpsc::Sender<Entry>,
    budget: Arc<Budget>,
    in_flight: Arc<AtomicU64>,
    evidence: Arc<Evidence>,
    stop: watch::Sender<Stop>,
    /// Ends once the last ticket is settled.
    ended: watch::Receiver<bool>,
    runtime: Option<Runtime>,
}

/// How busy it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Waiting.
    pub queue_depth: u64,
    /// Under way.
    pub in_flight: u64,
}

/// How far closing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It is open.
    No,
    /// Take nothing more, finish what is there.
    Finish,
    /// Give up what is there.
    Now,
}

impl Shadow {
    /// Starts the threads.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn start(parts: ShadowParts) -> std::io::Result<Arc<Self>> {
        let ShadowParts { engine, evidence, rules, limits } = parts;
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        let slots_max = size(limits.shadow_in_flight_max).min(Semaphore::MAX_PERMITS);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(size(limits.shadow_threads))
            .thread_name("shadow")
            .on_thread_start(step_back)
            .enable_all()
            .build()?;
        let (queue, waiting) = mpsc::channel(size(limits.shadow_queue_entries_max).min(Semaphore::MAX_PERMITS));
        let (stop, stopping) = watch::channel(Stop::No);
        let (done, ended) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(slots_max));
        let in_flight = Arc::new(AtomicU64::new(0));
        let budget = Arc::new(Budget::new(limits.shadow_queue_bytes_max));
        let runner = Arc::new(Runner {
            engine,
            evidence: Arc::clone(&evidence),
            rules,
            limits,
            in_flight: Arc::clone(&in_flight),
        });
        let work = work(waiting, stopping, slots, runner);
        runtime.spawn(async move {
            work.await;
            // Nobody may be left to hear it.
            let _ = done.send(true);
        });
        Ok(Arc::new(Self { queue, budget, in_flight, evidence, stop, ended, runtime: Some(runtime) }))
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load {
            queue_depth: (self.queue.max_capacity() - self.queue.capacity()) as u64,
            in_flight: self.in_flight.load(Ordering::Acquire),
        }
    }

    /// Sets the gauges. Called right before a scrape is rendered.
    pub fn publish(&self) {
        let Load { queue_depth, in_flight } = self.load();
        metrics::gauge!("pointsman_shadow_queue_depth").set(queue_depth as f64);
        metrics::gauge!("pointsman_shadow_in_flight").set(in_flight as f64);
    }

    /// Takes nothing more, finishes what is there within a time, and settles the rest as `shutting_down`.
    pub async fn drain(&self, within: Duration) {
        self.stop.send_modify(|stop| *stop = if *stop == Stop::No { Stop::Finish } else { *stop });
        let mut ended = self.ended.clone();
        if tokio::time::timeout(within, ended.wait_for(|ended| *ended)).await.is_ok() {
            return;
        }
        self.stop.send_replace(Stop::Now);
        // A run that never gives its thread back cannot be given up; its ticket is settled if it ever does.
        if tokio::time::timeout(GIVING_UP, ended.wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!("a run of the shadow executor does not end");
        }
    }
}

/// How long giving up may take.
const GIVING_UP: Duration = Duration::from_secs(1);

/// How much lower the priority of these threads is.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// Lowers the priority of the thread that calls it. Elsewhere than on Linux it would be that of the whole process.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(%error, "a shadow thread keeps its priority");
    }
}

impl Offer for Shadow {
    fn open(&self, route: &RouteId) -> Ticket {
        Ticket::new(route.clone(), self.evidence.clone())
    }

    fn offer(&self, mut ticket: Ticket, answered: Answered) {
        ticket.on_drop(Outcome::Skipped(SkipReason::ShuttingDown));
        match answered.mode {
            Mode::Dark => ticket.wants_twin(),
            // There will be nothing to compare with, and a rehearsal is for nothing else.
            Mode::Rehearse if *answered.legacy.body() == Body::TooLarge => {
                return ticket.skip(SkipReason::BodyTooLarge);
            }
            Mode::Rehearse => {}
            // A real run beside legacy's answer would do everything twice: no caller asks for it, and none gets it.
            Mode::Real => return ticket.settle(Outcome::Failed("mode")),
        }
        let Some(held) = self.budget.hold(answered.bytes()) else { return ticket.skip(SkipReason::QueueFull) };
        let epoch = self.evidence.epoch(ticket.route());
        match self.queue.try_send(Entry::new(ticket, answered, epoch, held)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(entry)) => entry.ticket.skip(SkipReason::QueueFull),
            Err(mpsc::error::TrySendError::Closed(entry)) => entry.ticket.skip(SkipReason::ShuttingDown),
        }
    }

    fn has_room(&self) -> bool {
        self.queue.capacity() > 0 && self.budget.has_room()
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: this may be a thread that must not block. Tickets of dropped tasks settle themselves.
            runtime.shutdown_background();
        }
    }
}

/// Takes entries as slots come free, until told to stop; returns when every ticket that it was given is settled.
async fn work(
    mut waiting: mpsc::Receiver<Entry>,
    mut stop: watch::Receiver<Stop>,
    slots: Arc<Semaphore>,
    runner: Arc<Runner>,
) {
    let mut runs = JoinSet::new();
    let mut open = true;
    let given_up = loop {
        while runs.try_join_next().is_some() {}
        let next = async {
            // The slot comes first, so that what waits for one is still in the queue, and counted there.
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            waiting.recv().await.map(|entry| (slot, entry))
        };
        tokio::select! {
            biased;
            changed = stop.changed() => match changed.map(|()| *stop.borrow()) {
                Ok(Stop::No) => {}
                Ok(Stop::Finish) if open => {
                    open = false;
                    waiting.close();
                }
                Ok(Stop::Finish) => {}
                Ok(Stop::Now) | Err(_) => break true,
            },
            next = next => match next {
                Some((slot, entry)) => {
                    let runner = Arc::clone(&runner);
                    runs.spawn(async move {
                        runner.run(entry).await;
                        drop(slot);
                    });
                }
                None => break false,
            },
        }
    };
    if !given_up {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
            () = async { while runs.join_next().await.is_some() {} } => {}
        }
    }
    waiting.close();
    while let Ok(entry) = waiting.try_recv() {
        entry.ticket.skip(SkipReason::ShuttingDown);
    }
    runs.shutdown().await;
}
