//! What must hold while a simulation runs, and after its faults.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ROUTES;
use super::fleet::Fleet;
use super::people::{Flip, KeyClient, asked, flip};
use super::process::{Process, World};
use crate::flag::{Freeze, Percent, State};
use crate::ladder::MoveRequest;
use crate::names::RouteId;
use crate::store::tests::simulated::LinkState;
use crate::store::{FlipRecord, Store as _};

/// Within this time after the last fault all processes agree.
const AGREE_WITHIN: Duration = Duration::from_secs(30);

/// Within this time a flip is made then, which may have to wait for what the faults left behind.
const CLIMB_WITHIN: Duration = Duration::from_secs(15);
/// So many of the newest flips are shown where a flip is not made.
const FLIPS_SHOWN: usize = 8;
/// The retry keys of requests that are sent only then begin here.
const NEW_KEYS: u32 = 1_000_000;
/// How often processes are held against each other.
const WATCH_EVERY: Duration = Duration::from_millis(211);

/// The flips that the store has, newest first.
async fn flips(world: &World) -> Vec<FlipRecord> {
    world.store.memory().flips(None, 100_000).await.unwrap_or_default()
}

/// The state of a route by those of the flips, newest first, that count.
fn state_by(flips: &[FlipRecord], route: &RouteId, counts: impl Fn(&FlipRecord) -> bool) -> State {
    let of_route = |flip: &&FlipRecord| flip.route.as_ref() == Some(route) && flip.guard.is_none();
    let last = flips.iter().filter(of_route).find(|flip| flip.candidate.is_none() && counts(flip));
    last.map_or(State::Off, |flip| flip.to.parse().unwrap())
}

/// Checks all the time that no process is ahead of what it has followed, and that while the engine of one may answer a
/// route, every other one claims the keys of the route.
pub(super) async fn watch(world: Arc<World>, fleet: Arc<Fleet>) {
    let mut known = Vec::new();
    loop {
        sleep(WATCH_EVERY).await;
        let newest = world.store.memory().flips(None, 1).await.unwrap_or_default();
        if newest != known.get(..1).unwrap_or_default() {
            known = flips(&world).await;
        }
        let serving = fleet.serving();
        for route in ROUTES.map(RouteId::from) {
            for process in &serving {
                let (requested, followed) = (process.requested(&route), process.followed());
                // A process has its own flips in force before it has followed earlier ones of others.
                let own = |flip: &FlipRecord| flip.number > followed && flip.by == process.name;
                let by_own = state_by(&known, &route, own);
                let by_flips = state_by(&known, &route, |flip| flip.number <= followed).max(by_own);
                if requested > by_flips {
                    let what =
                        format!("`{route}` is {requested} at {}, and {by_flips} by flip {followed}", process.name);
                    world.services.report_violation(what);
                }
            }
            let begins_runs = |process: &Process| has_lease(&world, process) && world.store.begins_runs(process.worker);
            let answering = serving.iter().filter(|process| begins_runs(process) && process.engine_answers(&route));
            for (process, other) in answering.flat_map(|process| serving.iter().map(move |other| (process, other))) {
                if !Arc::ptr_eq(process, other)
                    && has_lease(&world, other)
                    && !other.parts.affinity.claims_keys_of(&route)
                    && !world.services.is_at_risk(&route)
                {
                    let (process, other) = (&process.name, &other.name);
                    world
                        .services
                        .report_violation(format!("{process} answers `{route}`, and {other} claims no keys of it"));
                }
            }
        }
    }
}

/// Whether a process runs and has a lease.
fn has_lease(world: &World, process: &Process) -> bool {
    process.link.state() == LinkState::Up && world.store.lease(process.worker).is_some()
}

/// The processes that have joined the others, each with its lease.
pub(super) struct Joined(Vec<(Arc<Process>, u64)>);

impl Joined {
    pub(super) fn now(world: &World, fleet: &Fleet) -> Self {
        let with_lease = |process: Arc<Process>| Some((process.clone(), world.store.lease(process.worker)?));
        Self(fleet.serving().into_iter().filter_map(with_lease).collect())
    }

    /// Waits, as the API does, until a flip is in force in all processes. Returns whether they say so; then it must be
    /// in all that had joined before, and have not lost their lease since.
    pub(super) async fn have(&self, world: &World, process: &Process, number: u64) -> bool {
        let behind = process.serve(process.parts.membership.wait_followed(Some(number))).await;
        if behind.is_none_or(|behind| !behind.is_empty()) {
            return false;
        }
        for (other, lease) in self.0.iter().filter(|(other, _)| other.worker != process.worker) {
            if world.store.lease(other.worker) == Some(*lease) && !other.is_killed() && other.followed() < number {
                let (process, other) = (&process.name, &other.name);
                world
                    .services
                    .report_violation(format!("{process} says that flip {number} is in force at {other}: it is not"));
            }
        }
        true
    }
}

/// A freeze is in force everywhere, unless another change of the kill switch came after it.
pub(super) async fn note_freeze(world: &World, asked: u64, number: u64) {
    let newest = flips(world).await.into_iter().find(|flip| flip.route.is_none() && flip.candidate.is_none());
    if newest.is_some_and(|newest| newest.number == number) {
        world.services.set_freeze(asked, number);
    }
}

/// The freeze that is in force everywhere, if this process has it in force.
pub(super) fn freeze_at(world: &World, process: &Process) -> Option<u64> {
    world.services.freeze().filter(|number| process.followed() >= *number && process.link.state() == LinkState::Up)
}

/// After the last fault: all processes come to agree with the store and with each other.
pub(super) async fn settle(world: &World, fleet: &Arc<Fleet>) {
    let until = Instant::now() + AGREE_WITHIN;
    loop {
        fleet.start_all();
        sleep(Duration::from_millis(500)).await;
        let flips = flips(world).await;
        let disagreements = disagreements(fleet, &flips);
        if disagreements.is_empty() {
            return;
        }
        if Instant::now() >= until {
            world
                .services
                .report_violation(format!("after {AGREE_WITHIN:?} without a fault: {}", disagreements.join("; ")));
            return;
        }
    }
}

fn disagreements(fleet: &Fleet, flips: &[FlipRecord]) -> Vec<String> {
    let newest = flips.first().map_or(0, |flip| flip.number);
    let is_of_freeze = |flip: &&FlipRecord| flip.route.is_none() && flip.candidate.is_none();
    let freeze = flips.iter().find(is_of_freeze).is_some_and(|flip| flip.to != "no");
    let mut found = Vec::new();
    for at in 0..fleet.count() {
        let Some(process) = fleet.process(at) else {
            found.push(format!("process {at} does not serve"));
            continue;
        };
        let (name, ladder) = (&process.name, &process.parts.ladder);
        if process.followed() != newest || ladder.unrecorded_flips() > 0 || ladder.freeze_is_unrecorded() {
            found.push(format!("{name} has flip {} of {newest}", process.followed()));
        }
        let is_frozen = ladder.flags().load().freeze != Freeze::No;
        if is_frozen != freeze {
            found.push(format!("{name} is frozen: {is_frozen}"));
        }
        for route in ROUTES.map(RouteId::from) {
            let (is, by_flips) = (process.requested(&route), state_by(flips, &route, |flip| flip.number <= newest));
            if is != by_flips {
                found.push(format!("`{route}` is {is} at {name}, and {by_flips} by the flips"));
            }
        }
        let rows = process.parts.membership.rows();
        let behind = rows.iter().filter(|row| row.newest_flip.is_none_or(|flip| flip < newest)).count();
        if behind > 0 || rows.len() != fleet.count() {
            found.push(format!("{name} sees {} processes, {behind} of them behind", rows.len()));
        }
    }
    found
}

fn shown(flip: &FlipRecord) -> String {
    let route = flip.route.as_ref().map_or("", |route| route.as_str());
    format!("{} {route} {}→{} by {}", flip.number, flip.from, flip.to, flip.by)
}

/// Sends a new request of this route. The gate to `only` stays shut while the services have refused every request that
/// the engine answered, and nobody else sends one at that time.
async fn answer_one(world: &Arc<World>, fleet: &Arc<Fleet>, random: &mut fastrand::Rng, route: &RouteId) {
    let mut keys = std::iter::repeat_with(|| random.u32(NEW_KEYS..));
    let key = keys.find(|key| KeyClient::route(*key) == route.as_str()).unwrap_or(NEW_KEYS);
    let random = fastrand::Rng::with_seed(random.u64(..));
    let (world, fleet) = (world.clone(), fleet.clone());
    let process = fleet.pick(&mut fastrand::Rng::with_seed(key.into()));
    KeyClient { world, fleet, key, random }.try_at(process).await;
}

/// After all faults, each route can be moved down and up the whole ladder again, without force.
pub(super) async fn climb(world: &Arc<World>, fleet: &Arc<Fleet>, random: &mut fastrand::Rng) {
    if let Some(process) = fleet.pick(random) {
        let ended = process.parts.ladder.freeze(Freeze::No, None, process.name.clone()).await;
        if let Err(error) = ended {
            world.services.report_violation(format!("{} does not end the freeze: {error:?}", process.name));
        }
    }
    for route in ROUTES.map(RouteId::from) {
        for to in State::ALL {
            let until = Instant::now() + CLIMB_WITHIN;
            loop {
                let Some(process) = fleet.pick(random) else { return };
                let percent = (to == State::Live).then_some(Percent::ALL);
                let request = MoveRequest { percent, ..asked(to, false) };
                let flipped = flip(world, fleet, &process, &route, request).await;
                // Where a lower flip is not followed yet, a flip down is made without a record: the route is as low.
                if flipped == Flip::Made && state_by(&flips(world).await, &route, |_| true) == to {
                    break;
                }
                if Instant::now() >= until {
                    let newest: Vec<String> = flips(world).await.iter().take(FLIPS_SHOWN).map(shown).collect();
                    let name = &process.name;
                    let newest = newest.join(", ");
                    world
                        .services
                        .report_violation(format!("{name} does not flip `{route}` to {to}: {flipped:?} ({newest})"));
                    return;
                }
                if to == State::Only {
                    answer_one(world, fleet, random, &route).await;
                }
                // One that was ending may have left its file of retry keys to its successor.
                fleet.start_all();
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
