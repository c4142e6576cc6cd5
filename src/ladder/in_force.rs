//! The only place that computes the flag set in force and swaps it in.
//!
//! Always true:
//!
//! - The set in force is a function of the newest value of each input: the positions of routes by flips and files, the
//!   guards' limits, the engine's health, the kill switch.
//! - A late update changes nothing: health and kill switch have a version, and an older version is dropped; positions
//!   are set only if they were computed from the newest ones; what a guard does is decided under the lock.
//! - Sets come into force in the order in which they were computed: computing and swapping happen under one lock.
//! - The first set in force is that of the first files with their states. Until then a process that takes over from
//!   another one goes on to serve by the set of that one. A set without routes would send all requests to legacy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use metrics::Gauge;
use tokio::sync::watch;

use super::export;
use super::guard_latches::{Followed, GuardLatches};
pub(super) use super::inputs::{FollowedLimits, Inputs};
use super::lowered_routes::Lowering;
use super::overtaken::cap_below_only;
use super::plans;
use super::positions::{Positions, RoutePosition, state_of};
use super::unrecorded_flips::{OutstandingWrite, UnrecordedFlip};
use super::versioned::Versioned;
use crate::flag::{Effective, EffectiveReason, FlagSet, Freeze, Route, State};
use crate::names::RouteId;
use crate::store::FlipRecord;

/// The inputs, and the flag set in force that is computed from them.
pub(super) struct InForce {
    inputs: Mutex<Inputs>,
    flags: Arc<ArcSwap<FlagSet>>,
    /// How many flips are unrecorded.
    unrecorded: Gauge,
    /// How many actions of guards are unrecorded.
    unrecorded_guard: watch::Sender<usize>,
}

impl InForce {
    /// The inputs before any file was read; the engine counts as healthy until its health is set. The set in `flags`,
    /// if there is one, stays in force until the positions of the first files are set.
    pub fn new(
        positions: Positions,
        guards: GuardLatches,
        freeze: Freeze,
        secret: [u8; 32],
        flags: Option<Arc<ArcSwap<FlagSet>>>,
    ) -> Self {
        let (kill_switch, health) = (Versioned::new(0, freeze), Versioned::new(0, true));
        let (unrecorded, lowered, outstanding, is_recording, is_ending) = Default::default();
        let inputs = Inputs {
            positions,
            unrecorded,
            positions_version: 0,
            lowered,
            is_recording,
            is_ending,
            outstanding,
            kill_switch,
            health,
            guards,
            claimed: BTreeMap::new(),
            has_files: false,
            generation: 1,
            secret,
        };
        let unrecorded = metrics::gauge!("pointsman_flips_unrecorded");
        unrecorded.set(0.0);
        let flags = flags.unwrap_or_else(|| Arc::new(ArcSwap::from_pointee(inputs.flag_set())));
        Self { inputs: Mutex::new(inputs), flags, unrecorded, unrecorded_guard: watch::Sender::new(0) }
    }

    /// The set in force.
    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        &self.flags
    }

    /// All inputs as they are now.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = self.lock().clone();
        inputs.positions.freeze = inputs.freeze();
        inputs
    }

    /// The kill switch and the number of its change in this process.
    pub fn kill_switch(&self) -> (u64, Freeze) {
        let inputs = self.lock();
        (inputs.kill_switch.version(), inputs.freeze())
    }

    /// Sets the positions of the routes and the unrecorded flips, if they were computed from the newest version of both
    /// (`computed_from`, see [`Inputs::positions_version`]); `None` if not, with nothing set. Returns the routes that
    /// were capped below `only`, because a freeze is in force and they were not in `only` before.
    #[must_use]
    pub fn set_positions(
        &self,
        positions: Positions,
        unrecorded: Vec<UnrecordedFlip>,
        computed_from: u64,
    ) -> Option<Vec<RouteId>> {
        self.set_positions_and_limits((positions, unrecorded), computed_from, FollowedLimits::default())
    }

    /// As [`Self::set_positions`], together with limits that other processes have recorded.
    #[must_use]
    pub fn set_positions_and_limits(
        &self,
        (mut positions, unrecorded): (Positions, Vec<UnrecordedFlip>),
        computed_from: u64,
        limits: FollowedLimits,
    ) -> Option<Vec<RouteId>> {
        let mut overtaken = None;
        self.change(|inputs| {
            if inputs.positions_version != computed_from {
                return false;
            }
            if let Some((version, freeze)) = limits.freeze {
                inputs.kill_switch.set(version, freeze);
            }
            // The first set of a process repeats the states before its start, so a freeze overtakes none of them.
            overtaken = Some(match inputs.has_files && inputs.freeze() != Freeze::No {
                true => cap_below_only(&inputs.positions, &mut positions, &limits.recorded_elsewhere),
                false => Vec::new(),
            });
            let is_new = |unrecorded: &&UnrecordedFlip| unrecorded.id > computed_from;
            unrecorded.iter().filter(is_new).for_each(|unrecorded| inputs.lowered.add_flip(unrecorded));
            inputs.positions_version =
                unrecorded.iter().map(|unrecorded| unrecorded.id).fold(computed_from + 1, u64::max);
            // The number of the set that is computed from these positions.
            let set = inputs.generation + 1;
            for positions in [&inputs.positions, &positions].into_iter().skip(usize::from(!inputs.has_files)) {
                let claiming = positions.routes.values().filter(|position| position.claims_keys());
                inputs.claimed.extend(claiming.flat_map(|position| position.route.ids()).map(|id| (id.clone(), set)));
            }
            (inputs.positions, inputs.unrecorded) = (positions, unrecorded);
            inputs.follow_guards(limits.guards, Followed::All);
            inputs.has_files = true;
            true
        });
        overtaken
    }

    /// Ends the claims of these routes: the engine of no other process answers them. A claim stays if the engine of
    /// this process answers the route, or has answered it since the flag set with the given number.
    pub fn release_claims(&self, routes: &BTreeMap<RouteId, u64>) {
        let mut inputs = self.lock();
        let Inputs { positions, claimed, .. } = &mut *inputs;
        let has = |at: &RoutePosition, id: &RouteId| at.claims_keys() && at.route.ids().any(|own| own == id);
        let claims = |id: &RouteId| positions.routes.values().any(|position| has(position, id));
        claimed.retain(|id, set| routes.get(id) != Some(set) || claims(id));
    }

    /// Notes that a person flipped a route to the state that it already has, and returns `true`; notes nothing if a
    /// route has moved since `found_at`, the [`Inputs::positions_version`] at which the state was read.
    #[must_use]
    pub fn note_unchanged(&self, route: &RouteId, unchanged: Lowering, found_at: u64) -> bool {
        let mut inputs = self.lock();
        let is_newest = inputs.positions_version == found_at;
        if is_newest {
            inputs.lowered.add(route, unchanged);
        }
        is_newest
    }

    /// Notes that a person has lowered a route, or left it where it is.
    pub fn note_lowered(&self, route: &RouteId, lowered: Lowering) {
        self.lock().lowered.add(route, lowered);
    }

    /// Removes flips from the unrecorded ones, because the store has them now. Each comes with its
    /// [`UnrecordedFlip::id`].
    pub fn set_recorded(&self, recorded: Vec<(u64, FlipRecord)>) {
        self.change(|inputs| {
            for (id, flip) in recorded {
                let Some(route) = flip.route.clone() else { continue };
                let Some(index) = inputs.unrecorded.iter().position(|unrecorded| unrecorded.is_of(&route)) else {
                    continue;
                };
                if inputs.unrecorded[index].id == id {
                    inputs.positions.set_last_flip(&route, flip.clone());
                    inputs.unrecorded.remove(index).recorded.send_replace(Some(flip));
                } else {
                    // A newer unrecorded flip of the route has replaced this one. The store has this one, so the newer
                    // one goes on from its state.
                    let newer = &mut inputs.unrecorded[index];
                    newer.restart_state = state_of(&flip);
                    newer.flip.from = flip.to;
                }
            }
            inputs.positions_version += 1;
            true
        });
    }

    /// Removes the unrecorded flips with these ids, because newer moves of other processes supersede them.
    pub fn remove_unrecorded(&self, ids: &[u64]) {
        self.change(|inputs| {
            inputs.unrecorded.retain(|unrecorded| !ids.contains(&unrecorded.id));
            inputs.positions_version += 1;
            true
        });
    }

    /// Sets the states to which the outstanding write moves routes; empty once its outcome is known.
    pub fn set_outstanding(&self, outstanding: OutstandingWrite) {
        self.change(|inputs| {
            // A flip that was found to change nothing before this write began has to be judged again: with a new
            // version, `note_unchanged` refuses it.
            inputs.positions_version += u64::from(!outstanding.is_empty());
            inputs.outstanding = outstanding;
            !inputs.unrecorded.is_empty()
        });
    }

    /// Whether the caller has to start the task that records the unrecorded flips: there are some, and no task does.
    pub fn begin_recording(&self) -> bool {
        let mut inputs = self.lock();
        let begins = inputs.has_unrecorded() && !inputs.is_recording;
        inputs.is_recording |= begins;
        begins
    }

    /// Whether anything is still unrecorded. Called by the recording task: if not, that task must end, and the next
    /// flip starts another one.
    pub fn continue_recording(&self) -> bool {
        let mut inputs = self.lock();
        inputs.is_recording = inputs.has_unrecorded();
        inputs.is_recording
    }

    /// Notes that the process ends: from now on no person's flip is put in force before it is recorded. (A flip that
    /// reverts one to `only` which a freeze overtook still is.)
    pub fn end(&self) {
        let mut inputs = self.lock();
        inputs.is_ending = true;
        // Positions that were computed before this are not set.
        inputs.positions_version += 1;
    }

    /// How many flips are in force that the store does not have.
    pub fn unrecorded_flips(&self) -> usize {
        self.lock().unrecorded.len()
    }

    /// Sets the kill switch; `version`: the number of this change. Returns whether that changed anything.
    pub fn set_freeze(&self, version: u64, freeze: Freeze) -> bool {
        self.change(|inputs| inputs.kill_switch.set(version, freeze))
    }

    /// Sets the engine's health; `version`: the number of the check. Returns whether that changed anything.
    pub fn set_health(&self, version: u64, healthy: bool) -> bool {
        self.change(|inputs| inputs.health.set(version, healthy))
    }

    /// Calls `decide` with the present inputs, under the lock. If it returns an action of the route's guard, puts the
    /// action in force as an unrecorded one, and returns it.
    pub fn act(
        &self,
        route: &RouteId,
        decide: impl FnOnce(&Inputs, &RoutePosition) -> Option<FlipRecord>,
    ) -> Option<(FlipRecord, Arc<Route>)> {
        let mut acted = None;
        self.change(|inputs| {
            let Some(position) = inputs.positions.routes.get(route) else { return false };
            let (of_route, decided) = (position.route.clone(), decide(inputs, position));
            if let Some(action) = decided {
                inputs.guards.add_unrecorded(&of_route, action.clone());
                acted = Some((action, of_route));
            }
            acted.is_some()
        });
        acted
    }

    /// Puts a recorded release in force and returns it, unless the guard has acted again since the latch with this
    /// number.
    pub fn release_guard(&self, route: &RouteId, latch: u64, release: FlipRecord) -> Option<(FlipRecord, Arc<Route>)> {
        let mut released = None;
        self.change(|inputs| {
            let Some(position) = inputs.positions.routes.get(route) else { return false };
            if inputs.guards.latch(&position.route).is_some_and(|newest| newest.number == latch) {
                released = Some((release.clone(), position.route.clone()));
                inputs.guards.set_last(Arc::new(release));
            }
            released.is_some()
        });
        released
    }

    /// Notes that these actions of guards are recorded now. Each comes with its provisional number.
    pub fn set_guard_recorded(&self, recorded: Vec<(u64, FlipRecord)>) {
        self.change(|inputs| {
            inputs.guards.set_recorded(recorded);
            true
        });
    }

    /// Puts in force what guards of other processes did, except where this process has acted since.
    pub fn follow_guards(&self, actions: Vec<FlipRecord>, followed: Followed) {
        self.change(|inputs| inputs.follow_guards(actions, followed));
    }

    /// Waits until the store has all actions of guards.
    pub async fn wait_guard_recorded(&self) {
        let mut unrecorded = self.unrecorded_guard.subscribe();
        let _never_closed = unrecorded.wait_for(|unrecorded| *unrecorded == 0).await;
    }

    /// Whether [`super::Ladder::release_held`] has something to judge: the hold of a route or cohort is over, or a
    /// route is marked as changed since its evidence.
    pub fn may_release(&self, now: Timestamp) -> bool {
        let inputs = self.lock();
        let is_due = inputs.positions.held_until().is_some_and(|until| until <= now);
        is_due || inputs.positions.routes.values().any(|position| position.inputs.is_changed)
    }

    /// Whether a route below `live` still has plans in force.
    pub fn has_plans_to_drop(&self) -> bool {
        plans::are_to_be_dropped(&self.lock().positions)
    }

    /// The routes whose move by their file waits for pairs.
    pub fn awaiting_pairs(&self) -> Vec<RoutePosition> {
        let waits = |at: &&RoutePosition| at.awaits_pairs.is_some_and(|awaited| awaited.is_waiting);
        self.lock().positions.routes.values().filter(waits).cloned().collect()
    }

    /// The effective state of a route now.
    pub fn effective(&self, route: &RouteId) -> Effective {
        let inputs = self.lock();
        let off = Effective { state: State::Off, why: EffectiveReason::Requested };
        inputs.positions.routes.get(route).map_or(off, |position| inputs.effective(position))
    }

    /// Changes inputs and, if they changed, computes the set and swaps it in.
    fn change(&self, change: impl FnOnce(&mut Inputs) -> bool) -> bool {
        let mut inputs = self.lock();
        if !change(&mut inputs) {
            return false;
        }
        inputs.generation += 1;
        self.unrecorded.set(inputs.unrecorded.len() as f64);
        self.unrecorded_guard.send_replace(inputs.guards.unrecorded_len());
        if !inputs.has_files {
            return true;
        }
        let set = Arc::new(inputs.flag_set());
        let before = self.flags.swap(Arc::clone(&set));
        let removed = before.routes.iter().map(|flag| &flag.route.id).filter(|id| set.route(id).is_none());
        export::set_states(&set, &removed.cloned().collect::<Vec<_>>());
        // For all routes: the latches of other processes' guards may have changed, too.
        for flag in &set.routes {
            export::show_guard(&flag.route.id, inputs.guards.latch(&flag.route).is_some());
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inputs> {
        // A poisoned lock is usable: each input is set in one step.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
