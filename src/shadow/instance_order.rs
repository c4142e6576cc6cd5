//! The order in which the requests of one instance are run on its twin: that in which legacy answered them.
//!
//! Always true: of one instance one request is run at a time, and the next one only when the run has ended, so that the
//! twin's state corresponds to legacy's; requests of different instances do not wait for each other. A twin that lacks
//! something that legacy did is marked: its later requests are not run, because they would give false differences. The
//! mark is in the store, so that it outlasts the process, and until then in memory.
//!
//! When the store does not take a mark, it is repeated until it does. The marks that wait are bounded; beyond the bound
//! a mark is lost with the process, and the log says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::marked_twins::MarkedTwins;
use crate::exchange::{RequestNumber, Twins};
use crate::flag::{InstanceKey, PinKey, SkipReason};
use crate::limits::INSTANCE_REQUESTS_WAITING_MAX;
use crate::names::RunId;
use crate::workflow::Mode;

/// The turns of the requests of all instances.
pub(super) struct InstanceOrder {
    state: Mutex<State>,
    /// How many creating requests legacy has, or has answered, whose twin is neither made nor given up.
    creates: AtomicU64,
    /// Notified when a mark waits for the store.
    mark_waits: Notify,
    twins: Arc<dyn Twins>,
}

#[derive(Default)]
struct State {
    instances: HashMap<PinKey, Instance>,
    /// For each open request, the instances that have a request which waits until it is closed.
    blocked: HashMap<RequestNumber, Vec<PinKey>>,
    marked: MarkedTwins,
}

/// An instance of which a request waits or is run.
struct Instance {
    /// The requests that wait, in the order of their turns: by the time of legacy's answer.
    waiting: BTreeMap<(u64, RequestNumber), Waiting>,
    running: Option<Running>,
    /// The run that is the twin, if this process has made it since this entry exists.
    twin: Option<RunId>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Running {
    /// It has not ended within the window.
    is_overdue: bool,
}

struct Waiting {
    began: u64,
    /// Open requests that have to be closed before it is run.
    blockers: BTreeSet<RequestNumber>,
    /// Legacy had it at the same time as the create of its instance.
    is_overlapped: bool,
    /// Too many requests of the instance waited already.
    is_refused: bool,
}

/// A request that gets a turn.
pub(super) struct NewTurn {
    pub(super) key: InstanceKey,
    pub(super) number: RequestNumber,
    /// When legacy got it.
    pub(super) began: u64,
    /// When legacy's answer was complete.
    pub(super) ended: u64,
    pub(super) is_write: bool,
    /// It creates the instance.
    pub(super) creates: bool,
    pub(super) mode: Mode,
    pub(super) blockers: BTreeSet<RequestNumber>,
    /// Legacy may have got it before the create of its instance had ended.
    pub(super) may_precede_create: bool,
}

/// The turn of one request. Dropping it gives it back: if the request may have changed legacy's instance, the twin is
/// marked.
pub(super) struct TwinTurn {
    order: Arc<InstanceOrder>,
    key: InstanceKey,
    pin: PinKey,
    at: (u64, RequestNumber),
    is_write: bool,
    creates: bool,
    mode: Mode,
    may_precede_create: bool,
    changed: Arc<Notify>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Over,
}

/// Whether a request that asks for its turn gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnDecision {
    /// Its turn has come. The run that is the twin, if known.
    Run(Option<RunId>),
    /// Not yet.
    Wait,
    /// It is not run.
    Skip(SkipReason),
}

/// What a run did to the twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TwinChange {
    /// The twin was changed as legacy changed its instance, as far as the workflow performs the change.
    Applied,
    /// The twin lacks the change, or a part of it.
    Missed,
    /// There is no twin.
    NoTwin,
}

impl InstanceOrder {
    pub(super) fn new(twins: Arc<dyn Twins>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), creates: AtomicU64::new(0), mark_waits: Notify::new(), twins })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn create_began(&self) {
        self.creates.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn create_ended(&self) {
        self.creates.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether twins may be on their way.
    pub(super) fn may_add_twins(&self) -> bool {
        self.creates.load(Ordering::Acquire) > 0
    }

    /// Gives a request a turn.
    pub(super) fn enter(self: &Arc<Self>, new: NewTurn) -> TwinTurn {
        let NewTurn { key, number, began, ended, is_write, creates, mode, blockers, may_precede_create } = new;
        let pin = key.stored_key();
        let mut state = self.state();
        for blocker in &blockers {
            state.blocked.entry(*blocker).or_default().push(pin.clone());
        }
        let instance = state.instances.entry(pin.clone()).or_insert_with(Instance::new);
        // A create may be offered after requests about its instance, which then did not find it when they were offered.
        for ((other_ended, _), other) in instance.waiting.iter_mut().filter(|_| creates) {
            other.is_overlapped |= other.began < ended && began < *other_ended;
        }
        let is_refused = !creates && instance.waiting.len() >= INSTANCE_REQUESTS_WAITING_MAX;
        let waiting = Waiting { began, blockers, is_overlapped: false, is_refused };
        instance.waiting.insert((ended, number), waiting);
        let changed = instance.changed.clone();
        TwinTurn {
            order: self.clone(),
            key,
            pin,
            at: (ended, number),
            is_write,
            creates,
            mode,
            may_precede_create,
            changed,
            phase: Phase::Waiting,
        }
    }

    /// Notes that an open request is closed: those that waited for it may run.
    pub(super) fn closed(&self, number: RequestNumber) {
        let mut state = self.state();
        for pin in state.blocked.remove(&number).unwrap_or_default() {
            if let Some(instance) = state.instances.get_mut(&pin) {
                for waiting in instance.waiting.values_mut() {
                    waiting.blockers.remove(&number);
                }
                instance.changed.notify_waiters();
            }
        }
    }

    /// Marks an instance whose create was not offered, so that it gets no twin. It has no pin in the store that could
    /// take the mark.
    pub(super) fn mark_without_twin(&self, key: &InstanceKey) {
        self.mark_in(&mut self.state(), key, "create", false);
    }

    /// Marks the twin of an instance: it lacks something that legacy did.
    pub(super) fn mark(&self, key: &InstanceKey, why: &'static str) {
        let mut state = self.state();
        self.mark_in(&mut state, key, why, true);
        if let Some(instance) = state.instances.get(&key.stored_key()) {
            instance.changed.notify_waiters();
        }
    }

    fn mark_in(&self, state: &mut State, key: &InstanceKey, why: &'static str, may_have_pin: bool) {
        if state.marked.insert(key) {
            let route = key.family.id().to_string();
            metrics::counter!("pointsman_twins_incomplete_total", "route" => route, "reason" => why).increment(1);
            self.twins.note_incomplete(key);
            if may_have_pin {
                state.marked.store_later(key);
                self.mark_waits.notify_one();
            }
        }
    }

    /// The next mark that the store does not have. A twin that is being made or changed is marked when that has ended,
    /// because its pin may not be stored before.
    pub(super) fn next_unstored_mark(&self) -> Option<InstanceKey> {
        let mut state = self.state();
        let State { instances, marked, .. } = &mut *state;
        let is_idle = |key: &InstanceKey| instances.get(&key.stored_key()).is_none_or(|found| found.running.is_none());
        marked.take_unstored(is_idle)
    }

    /// Puts back a mark that the store did not take.
    pub(super) fn put_back_mark(&self, key: InstanceKey) {
        self.state().marked.store_later(&key);
    }

    /// Waits until a mark waits for the store, or may be stored now.
    pub(super) async fn mark_waits(&self) {
        self.mark_waits.notified().await;
    }
}

impl Instance {
    fn new() -> Self {
        Self { waiting: BTreeMap::new(), running: None, twin: None, changed: Arc::default() }
    }
}

impl TwinTurn {
    /// Takes the turn if it has come. If the answer is to skip the request, the turn is given back.
    pub(super) fn next(&mut self) -> TurnDecision {
        let order = self.order.clone();
        let mut state = order.state();
        let is_marked = state.marked.contains(&self.pin);
        let Some(instance) = state.instances.get_mut(&self.pin) else { return TurnDecision::Run(None) };
        let Some(waiting) = instance.waiting.get(&self.at) else { return TurnDecision::Run(instance.twin) };
        let skip = match () {
            () if waiting.is_overlapped => Some(SkipReason::Overlapped),
            () if is_marked && !self.creates => Some(self.reason_without_twin()),
            () if instance.running.as_ref().is_some_and(|running| running.is_overdue) => Some(SkipReason::NeverSettled),
            () if waiting.is_refused => Some(SkipReason::QueueFull),
            () => None,
        };
        if let Some(reason) = skip {
            self.give_back(&mut state, TwinChange::Missed);
            return TurnDecision::Skip(reason);
        }
        let is_first = instance.waiting.first_key_value().is_some_and(|(at, _)| *at == self.at);
        if !is_first || instance.running.is_some() || !waiting.blockers.is_empty() {
            return TurnDecision::Wait;
        }
        instance.waiting.remove(&self.at);
        instance.running = Some(Running::default());
        self.phase = Phase::Running;
        TurnDecision::Run(instance.twin)
    }

    fn reason_without_twin(&self) -> SkipReason {
        match self.mode {
            Mode::Rehearse => SkipReason::NoInstance,
            Mode::Dark | Mode::Real => SkipReason::NoTwin,
        }
    }

    /// Waits until the turn has come, and takes it.
    ///
    /// # Errors
    /// The request is not run, for this reason.
    pub(super) async fn wait(&mut self) -> Result<Option<RunId>, SkipReason> {
        let changed = self.changed.clone();
        loop {
            let mut notified = std::pin::pin!(changed.notified());
            // Before the state is read, so that no change is missed.
            notified.as_mut().enable();
            match self.next() {
                TurnDecision::Run(twin) => return Ok(twin),
                TurnDecision::Skip(reason) => return Err(reason),
                TurnDecision::Wait => notified.await,
            }
        }
    }

    /// Notes that the run of this turn has not ended within the window: the requests that wait for it are not run.
    pub(super) fn set_overdue(&self) {
        if let Some(instance) = self.order.state().instances.get_mut(&self.pin) {
            instance.running = Some(Running { is_overdue: true });
            instance.changed.notify_waiters();
        }
    }

    /// Whether it creates the instance.
    pub(super) fn creates(&self) -> bool {
        self.creates
    }

    /// Whether the request may have changed legacy's instance.
    pub(super) fn is_write(&self) -> bool {
        self.is_write
    }

    /// Gives the turn back: its run has ended. `twin`: the run that is the instance's twin, if this is the one that
    /// creates it.
    pub(super) fn end(mut self, twin: Option<RunId>, change: TwinChange) {
        let order = self.order.clone();
        let mut state = order.state();
        if let Some(instance) = state.instances.get_mut(&self.pin) {
            instance.twin = twin.or(instance.twin);
        }
        self.give_back(&mut state, change);
    }

    fn give_back(&mut self, state: &mut State, change: TwinChange) {
        if self.phase == Phase::Over {
            return;
        }
        let was_running = std::mem::replace(&mut self.phase, Phase::Over) == Phase::Running;
        let is_missed = match change {
            // A rehearsal changes nothing.
            TwinChange::Applied => self.mode == Mode::Rehearse,
            TwinChange::Missed => true,
            TwinChange::NoTwin => self.may_precede_create,
        };
        if self.creates && state.marked.contains(&self.pin) {
            // Marked before it had a pin: the store knows nothing of the mark.
            if !state.marked.is_unstored(&self.key) {
                state.marked.store_later(&self.key);
            }
        } else if self.is_write && is_missed {
            let why = if self.creates { "create" } else { "write" };
            self.order.mark_in(state, &self.key, why, was_running || !self.creates);
        }
        if let Some(instance) = state.instances.get_mut(&self.pin) {
            let waiting = instance.waiting.remove(&self.at);
            if was_running {
                instance.running = None;
            }
            instance.changed.notify_waiters();
            let is_idle = instance.waiting.is_empty() && instance.running.is_none();
            if is_idle {
                state.instances.remove(&self.pin);
            }
            for blocker in waiting.into_iter().flat_map(|waiting| waiting.blockers) {
                state.forget_blocked(blocker, &self.pin);
            }
        }
        if was_running && state.marked.is_any_unstored() {
            self.order.mark_waits.notify_one();
        }
        if self.creates {
            self.order.create_ended();
        }
    }
}

impl State {
    /// Notes that one request of this instance does not wait for this open request any more.
    fn forget_blocked(&mut self, blocker: RequestNumber, pin: &PinKey) {
        let Some(pins) = self.blocked.get_mut(&blocker) else { return };
        if let Some(at) = pins.iter().position(|blocked| blocked == pin) {
            pins.swap_remove(at);
        }
        if pins.is_empty() {
            self.blocked.remove(&blocker);
        }
    }
}

impl Drop for TwinTurn {
    fn drop(&mut self) {
        let order = self.order.clone();
        let mut state = order.state();
        self.give_back(&mut state, TwinChange::Missed);
    }
}
