//! The processes of a simulation: starts them, ends them, kills them, stops them and cuts them off from the store.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{sleep, timeout};

use super::START_MAX;
use super::process::{Process, World};
use crate::store::tests::simulated::{Link, LinkState};

/// One of the processes.
enum Slot {
    Down,
    Starting,
    Serving(Arc<Process>),
    /// It gets no new requests.
    Stopping(Arc<Process>),
}

/// All processes.
pub(super) struct Fleet {
    world: Arc<World>,
    slots: Mutex<Vec<Slot>>,
    /// How many processes were started so far.
    started: Mutex<u64>,
}

impl Fleet {
    pub(super) fn new(world: Arc<World>, count: usize) -> Arc<Self> {
        let slots = Mutex::new((0..count).map(|_| Slot::Down).collect());
        Arc::new(Self { world, slots, started: Mutex::default() })
    }
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap()
    }
    pub(super) fn count(&self) -> usize {
        self.slots().len()
    }
    pub(super) fn started(&self) -> u64 {
        *self.started.lock().unwrap()
    }
    /// The process in a slot, if it serves.
    pub(super) fn process(&self, at: usize) -> Option<Arc<Process>> {
        match &self.slots()[at] {
            Slot::Serving(process) => Some(process.clone()),
            Slot::Down | Slot::Starting | Slot::Stopping(_) => None,
        }
    }
    /// The process in a slot, also if it is about to end.
    fn running(&self, at: usize) -> Option<Arc<Process>> {
        match &self.slots()[at] {
            Slot::Serving(process) | Slot::Stopping(process) => Some(process.clone()),
            Slot::Down | Slot::Starting => None,
        }
    }
    pub(super) fn serving(&self) -> Vec<Arc<Process>> {
        (0..self.count()).filter_map(|at| self.process(at)).collect()
    }
    pub(super) fn pick(&self, random: &mut Rng) -> Option<Arc<Process>> {
        random.choice(self.serving())
    }

    /// Starts the process in a slot, unless there is one.
    pub(super) fn start(self: &Arc<Self>, at: usize) {
        match &mut self.slots()[at] {
            slot @ Slot::Down => *slot = Slot::Starting,
            Slot::Starting | Slot::Serving(_) | Slot::Stopping(_) => return,
        }
        let name = {
            let mut started = self.started.lock().unwrap();
            *started += 1;
            format!("p{at}.{started}")
        };
        let fleet = self.clone();
        tokio::spawn(async move {
            let link = Link::up();
            let started = timeout(START_MAX, Process::start(&fleet.world, name.clone(), link.clone())).await;
            let slot = match started {
                Ok(Ok(process)) => Slot::Serving(Arc::new(process)),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "{name} does not start");
                    link.set(LinkState::Ended);
                    Slot::Down
                }
                Err(_) => {
                    fleet.world.services.report_violation(format!("{name} has not started after {START_MAX:?}"));
                    link.set(LinkState::Ended);
                    Slot::Down
                }
            };
            fleet.slots()[at] = slot;
        });
    }

    pub(super) fn start_all(self: &Arc<Self>) {
        (0..self.count()).for_each(|at| self.start(at));
    }

    /// Kills the process in a slot. Returns whether there was one.
    pub(super) fn kill(&self, at: usize) -> bool {
        let Some(process) = self.running(at) else { return false };
        tracing::info!("{} is killed", process.name);
        process.kill();
        self.slots()[at] = Slot::Down;
        true
    }

    /// Has the process in a slot end in an orderly way. Requests come for this long after that.
    pub(super) fn stop(self: &Arc<Self>, at: usize, requests_for: Duration) {
        let Some(process) = self.process(at) else { return };
        tracing::info!("{} is to end", process.name);
        process.begin_to_stop();
        let fleet = self.clone();
        tokio::spawn(async move {
            sleep(requests_for).await;
            if fleet.replace(at, &process, Slot::Stopping(process.clone())) {
                process.stop(&fleet.world.setup.limits).await;
                tracing::info!("{} has ended", process.name);
                fleet.replace(at, &process, Slot::Down);
            }
        });
    }

    /// Sets a slot, unless its process has been killed meanwhile. Returns whether it has not.
    fn replace(&self, at: usize, process: &Arc<Process>, to: Slot) -> bool {
        let slot = &mut self.slots()[at];
        let is_there = matches!(slot, Slot::Serving(of) | Slot::Stopping(of) if Arc::ptr_eq(of, process));
        if is_there {
            *slot = to;
        }
        is_there
    }

    /// Sets what the process in a slot and its link do.
    pub(super) fn set_link(&self, at: usize, state: LinkState) -> bool {
        let process = self.running(at);
        process
            .inspect(|process| {
                tracing::info!("{} is {state:?}", process.name);
                process.link.set(state);
            })
            .is_some()
    }

    /// All processes that are stopped go on, and all reach the store.
    pub(super) fn go_on(&self) {
        (0..self.count()).filter_map(|at| self.running(at)).for_each(|process| process.link.set(LinkState::Up));
    }
}
