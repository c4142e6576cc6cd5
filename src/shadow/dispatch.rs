//! Gives the slots of the shadow executor to the requests that wait for one.
//!
//! Always true: a request runs only while it holds a slot; the requests of one route get slots in their order; where
//! those of several routes wait, the routes take turns. A route holds no more than its share of the slots
//! (`shared_bound`): one whose runs hang until `shadow_run_ms` leaves slots for the others, and only its own requests
//! wait behind them.
//!
//! What waits here still counts as in the queue: requests have their places until they get a slot.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::followups::TurnState;
use super::queue::QueuedRequest;
use super::run::Runner;
use super::shared_bound::{RouteReservation, SharedBound};
use super::stop::Stop;
use crate::flag::SkipReason;
use crate::names::RouteId;
use crate::priority;

/// The capacity of the channel in which runs ask for a slot again; a run that finds it full waits until it has room.
const SLOT_REQUESTS_MAX: usize = 64;

/// The slots, as the run of a request sees them.
#[derive(Clone)]
struct ExecutorSlots {
    bound: Arc<SharedBound>,
    /// Asks for a slot once more.
    asks: mpsc::Sender<(RouteId, oneshot::Sender<RouteReservation>)>,
}

impl ExecutorSlots {
    /// Asks for a slot again, and waits until the requests of the same route that asked before have theirs; `None` if
    /// the executor ends.
    async fn take_again(&self, route: &RouteId) -> Option<RouteReservation> {
        let (reply, slot) = oneshot::channel();
        self.asks.send((route.clone(), reply)).await.ok()?;
        slot.await.ok()
    }
}

/// What waits for a slot.
enum Waiter {
    /// A request from the queue.
    Queued(Box<QueuedRequest>),
    /// A request that gave its slot back while it waited for something else.
    Resumed(oneshot::Sender<RouteReservation>),
}

/// What waits for a slot, by route.
#[derive(Default)]
struct Waiting {
    /// No list is empty.
    routes: BTreeMap<RouteId, VecDeque<Waiter>>,
    /// The route that got a slot last.
    last: Option<RouteId>,
}

impl Waiting {
    fn add(&mut self, route: RouteId, waiter: Waiter) {
        self.routes.entry(route).or_default().push_back(waiter);
    }

    /// Takes a slot for the next route that may have one, in turn; `None`: none may have one now.
    fn next(&mut self, slots: &Arc<SharedBound>) -> Option<(RouteReservation, Waiter)> {
        let after = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.routes.range((after, Bound::Unbounded)).map(|(route, _)| route);
        let mut all = behind.chain(self.routes.keys());
        let (route, slot) = all.find_map(|route| Some((route.clone(), slots.take(route, 1)?)))?;
        let list = self.routes.get_mut(&route)?;
        let waiter = list.pop_front();
        if list.is_empty() {
            self.routes.remove(&route);
        }
        self.last = Some(route);
        Some((slot, waiter?))
    }
}

/// Runs one entry and compares. Before the run, it waits without a slot for the calls by legacy that it needs, and for
/// its turn on the twin of its instance.
async fn run_entry(
    runner: Arc<Runner>,
    entry: QueuedRequest,
    slot: RouteReservation,
    slots: ExecutorSlots,
    stop: watch::Receiver<Stop>,
) {
    let mut slot = Some(slot);
    let mut entry = entry;
    if entry.answered.candidate.is_some() {
        drop(slot.take());
        let Some(waited) = runner.wait_for_control(entry, stop.clone()).await else { return };
        entry = waited;
    }
    if runner.takes_replies(&entry) {
        drop(slot.take());
        let Some(waited) = runner.wait_for_calls(entry, stop.clone()).await else { return };
        entry = waited;
    }
    entry = match runner.take_turn(entry) {
        None => return,
        Some((entry, TurnState::Run)) => entry,
        Some((entry, TurnState::Wait)) => {
            drop(slot.take());
            let Some(entry) = runner.wait_for_turn(entry, stop.clone()).await else { return };
            entry
        }
    };
    let slot = match slot {
        Some(slot) => slot,
        None => match slots.take_again(entry.ticket.route()).await {
            Some(slot) => slot,
            None => return entry.ticket.skip(SkipReason::ShuttingDown),
        },
    };
    let turn = entry.turn.take();
    let (run, end) = runner.run(entry).await;
    // Waiting for legacy's calls, or for the end of a run, needs no slot.
    drop(slot);
    let end_turn = async {
        if let Some(turn) = turn {
            runner.end_turn(*turn, end, stop.clone()).await;
        }
    };
    let compare = async {
        let Some(run) = run else { return };
        match run.wait_for_effects(stop.clone()).await {
            true => {
                priority::yield_core();
                if let Some(compared) = runner.compare(run) {
                    runner.run_again(&compared, &slots.bound, stop.clone()).await;
                    runner.repeat(&compared, stop.clone()).await;
                }
            }
            false => run.skip(SkipReason::ShuttingDown),
        }
    };
    tokio::join!(end_turn, compare);
}

/// Runs entries as slots become free, until `stop` or until the queue is closed and empty and all runs have ended. When
/// it returns, every ticket that it took from the queue is settled.
pub(super) async fn run_entries(
    mut queued: mpsc::Receiver<QueuedRequest>,
    mut stop: watch::Receiver<Stop>,
    bound: Arc<SharedBound>,
    runner: Arc<Runner>,
) {
    let (asks, mut asked) = mpsc::channel(SLOT_REQUESTS_MAX);
    let slots = ExecutorSlots { bound, asks };
    let (mut runs, mut waiting) = (JoinSet::new(), Waiting::default());
    let (mut is_open, mut has_more) = (true, true);
    loop {
        while let Some((slot, waiter)) = waiting.next(&slots.bound) {
            match waiter {
                Waiter::Queued(mut entry) => {
                    drop(entry.place.take());
                    let (runner, stop, slots) = (Arc::clone(&runner), stop.clone(), slots.clone());
                    runs.spawn(priority::yielding(run_entry(runner, *entry, slot, slots, stop)));
                }
                // Fails if its run was dropped: the slot is free again.
                Waiter::Resumed(reply) => drop(reply.send(slot)),
            }
        }
        if !has_more && waiting.routes.is_empty() && runs.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            changed = stop.changed() => match changed.map(|()| *stop.borrow()) {
                Ok(Stop::Finish) if is_open => {
                    is_open = false;
                    queued.close();
                }
                Ok(Stop::No | Stop::Finish) => {}
                Ok(Stop::Now) | Err(_) => break,
            },
            Some(_) = runs.join_next(), if !runs.is_empty() => {}
            Some((route, reply)) = asked.recv() => waiting.add(route, Waiter::Resumed(reply)),
            () = slots.bound.freed(), if !waiting.routes.is_empty() => {}
            entry = queued.recv(), if has_more => match entry {
                Some(entry) => waiting.add(entry.ticket.route().clone(), Waiter::Queued(Box::new(entry))),
                None => has_more = false,
            },
        }
    }
    queued.close();
    for waiter in waiting.routes.into_values().flatten() {
        if let Waiter::Queued(entry) = waiter {
            entry.ticket.skip(SkipReason::ShuttingDown);
        }
    }
    while let Ok(entry) = queued.try_recv() {
        entry.ticket.skip(SkipReason::ShuttingDown);
    }
    runs.shutdown().await;
}
