//! One simulation: its actions and their times are drawn from the seed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::Fleet;
use super::people::{Flip, KeyClient, Operator, asked, flip};
use super::process::World;
use super::services::Services;
use super::{BEGIN, Figures, ROUTES, checks, setup};
use crate::clock;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::tests::simulated::{LinkState, Omission, SimStore};

/// How long clients may take after the last fault.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(60);
/// How long the first start of all processes may take.
const FIRST_START: Duration = Duration::from_secs(8);
/// How long all machines sleep after the first start: longer than a client's retry may come.
const FIRST_SLEEP: Duration = Duration::from_secs(26 * 3_600);
/// How long it takes until all processes have their leases again.
const AFTER_SLEEP: Duration = Duration::from_secs(6);
/// After the last fault, a process has to reply to a repeated request, and to answer a new one, within this many tries.
/// A process that has just started may wait up to 8 s for the store's answer to a call that it made before the faults
/// ended, and tries again 5 s after that.
const TRIES_MAX: usize = 40;
/// The pause between two of these tries.
const TRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Simulation {
    random: Rng,
    world: Arc<World>,
    fleet: Arc<Fleet>,
    /// The percentage of operations of the store that get a fault.
    faults: u8,
    /// How many retry keys there are at least and at most: the more, the more tries come while a route moves.
    keys_between: Range<u32>,
    figures: Figures,
    _key_files: tempfile::TempDir,
}

impl Simulation {
    pub(super) fn new(seed: u64, omission: Omission) -> Self {
        clock::simulated::begin(BEGIN.parse().unwrap());
        let mut random = Rng::with_seed(seed);
        // Where a protection is off, more faults and requests find that sooner.
        let (faults, keys_between) = match omission {
            Omission::None => (random.u8(0..8), 20..120),
            _ => (random.u8(5..20), 60..160),
        };
        let in_memory = std::path::Path::new("/dev/shm");
        let key_files = match in_memory.is_dir() {
            true => tempfile::tempdir_in(in_memory),
            false => tempfile::tempdir(),
        };
        let key_files = key_files.unwrap();
        let world = Arc::new(World {
            store: SimStore::with_omission(random.u64(..), 0, true, omission),
            services: Services::new(random.u64(..), random.u8(0..30)),
            setup: setup::files(random.u64(900..4_000)),
            keys: key_files.path().to_owned(),
        });
        let fleet = Fleet::new(world.clone(), random.usize(2..=4));
        Self { random, world, fleet, faults, keys_between, figures: Figures::default(), _key_files: key_files }
    }

    pub(super) async fn run(mut self) -> (Figures, Vec<String>) {
        let begun = Instant::now();
        self.fleet.start_all();
        while self.fleet.serving().len() < self.fleet.count() && begun.elapsed() < FIRST_START {
            sleep(Duration::from_millis(100)).await;
        }
        // So that no retry may come of what legacy served before the first start.
        clock::simulated::suspend_machine(FIRST_SLEEP);
        sleep(AFTER_SLEEP).await;
        self.climb_at_first().await;
        self.world.store.set_faults(self.faults);
        let within = Duration::from_millis(self.random.u64(8_000..40_000));
        let mut clients = JoinSet::new();
        let keys = self.random.u32(self.keys_between.clone());
        for key in 0..keys {
            clients.spawn(self.client(key).run(within));
        }
        let watching = tokio::spawn(checks::watch(self.world.clone(), self.fleet.clone()));
        let mut operators = JoinSet::new();
        let until = Instant::now() + within;
        while Instant::now() < until {
            sleep(Duration::from_millis(self.random.u64(0..1_300))).await;
            self.act(&mut operators);
        }
        self.world.store.heal();
        self.world.services.heal();
        self.fleet.go_on();
        let ended = timeout(CLIENTS_END_WITHIN, async {
            while clients.join_next().await.is_some() {}
            while let Some(flipped) = operators.join_next().await {
                match flipped.ok().flatten() {
                    Some(Flip::Made | Flip::Unrecorded) => self.figures.flips += 1,
                    Some(Flip::Refused(_)) => self.figures.refused += 1,
                    Some(Flip::Unknown) | None => {}
                }
            }
        });
        if ended.await.is_err() {
            self.world.services.report_violation("a client or an operator waits for ever".to_owned());
        }
        self.world.services.ask_freeze();
        checks::settle(&self.world, &self.fleet).await;
        checks::climb(&self.world, &self.fleet, &mut self.random).await;
        self.repeat_requests(keys).await;
        let (by_legacy, by_engine, at_risk) = self.world.services.counts();
        self.send_new_requests(keys).await;
        watching.abort();
        let figures = Figures {
            keys: keys.into(),
            by_legacy,
            by_engine,
            at_risk,
            starts: self.fleet.started(),
            faults: self.figures.faults + self.world.store.faults(),
            virtual_s: begun.elapsed().as_secs(),
            ..self.figures
        };
        self.fleet.serving().iter().for_each(|process| process.kill());
        (figures, self.world.services.violations())
    }

    /// Sends the request of each key again, after the last fault. Whatever has become of the routes, it stays with the
    /// arm that has performed it. It may be refused for good, such as a try with another credential, but there is a
    /// reply.
    async fn repeat_requests(&mut self, keys: u32) {
        for key in 0..keys {
            let (client, process) = (self.client(key), self.fleet.pick(&mut self.random));
            let Some(process) = process else { continue };
            let mut has_reply = false;
            for _ in 0..TRIES_MAX {
                has_reply = client.send_to(&process).await.is_some();
                if has_reply {
                    break;
                }
                sleep(TRY_PAUSE).await;
            }
            if !has_reply {
                let what = format!("{} does not reply to key {key} in {TRIES_MAX} tries", process.name);
                self.world.services.report_violation(what);
            }
        }
    }

    /// Sends new requests of each route to each process, after the last fault. Each try has a key of its own (from
    /// `keys` on), so that nothing that happened before is a reason to refuse it.
    async fn send_new_requests(&mut self, keys: u32) {
        let mut keys = keys..;
        for process in self.fleet.serving() {
            for route in ROUTES {
                let mut is_answered = false;
                for key in keys.by_ref().filter(|key| KeyClient::route(*key) == route).take(TRIES_MAX) {
                    is_answered = self.client(key).send_to(&process).await == Some(true);
                    if is_answered {
                        break;
                    }
                    sleep(TRY_PAUSE).await;
                }
                if !is_answered {
                    let what = format!("{} answers no new request of `{route}` in {TRIES_MAX} tries", process.name);
                    self.world.services.report_violation(what);
                }
            }
        }
    }

    /// Moves the routes up to some rung, so that not all simulations begin at `off`.
    async fn climb_at_first(&mut self) {
        for route in ROUTES.map(RouteId::from) {
            for to in State::ALL.into_iter().skip(1).take(self.random.usize(0..State::ALL.len())) {
                let Some(process) = self.fleet.pick(&mut self.random) else { continue };
                flip(&self.world, &self.fleet, &process, &route, asked(to, false)).await;
            }
        }
    }

    fn client(&mut self, key: u32) -> KeyClient {
        let random = Rng::with_seed(self.random.u64(..));
        KeyClient { world: self.world.clone(), fleet: self.fleet.clone(), key, random }
    }

    /// Performs a random action.
    fn act(&mut self, operators: &mut JoinSet<Option<Flip>>) {
        let at = self.random.usize(0..self.fleet.count());
        let operator = Operator {
            world: self.world.clone(),
            fleet: self.fleet.clone(),
            random: Rng::with_seed(self.random.u64(..)),
        };
        let is_fault = match self.random.u8(0..100) {
            0..56 => {
                operators.spawn(operator.flip());
                false
            }
            56..62 => {
                operators.spawn(async move { operator.freeze().await.map(|()| Flip::Unknown) });
                false
            }
            62..67 => self.fleet.kill(at),
            67..70 => {
                self.fleet.stop(at, Duration::from_millis(self.random.u64(0..1_000)));
                false
            }
            70..80 => {
                self.fleet.start(at);
                false
            }
            80..84 => self.fleet.set_link(at, LinkState::Stopped),
            84..88 => self.fleet.set_link(at, LinkState::Cut),
            _ => {
                self.fleet.set_link(at, LinkState::Up);
                false
            }
        };
        self.figures.faults += u64::from(is_fault);
    }
}
