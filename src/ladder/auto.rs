//! Raises the shares of routes with `auto:` step by step, within their state.
//!
//! Always true: a share grows by an ordinary flip, through its gate, never by force, and only to the next step. All of
//! these have to hold:
//!
//! - the requested state is in force;
//! - the present share has been in force for `each`, and has had `at_least` requests;
//! - the pairs that were under way at that time have been compared (`pairs_in_flight`);
//! - no person has made the share smaller.
//!
//! Under the lock of moves it is checked again that nobody has moved the route in between. The time and the requests of
//! a share are not stored: after a start they count from zero.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Ladder;
use super::auto_shares::SeenShare;
use super::export::show_auto_held;
use super::gate::{MoveRefusal, RequestedMove};
use super::in_force::Inputs;
use super::mover::Mover;
use super::positions::{RoutePosition, state_of};
use super::types::{AutoStatus, FlipError, FlipSource, MoveRequest};
use crate::evidence::{ConditionName, GateVerdict};
use crate::flag::{Auto, Percent, State};
use crate::names::RouteId;

/// The value of `by` of these flips.
pub(super) const BY_AUTO: &str = "auto";
/// How often it is checked whether a share may grow.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// A step that is due.
pub(super) struct DueStep {
    route: RouteId,
    state: State,
    share: Percent,
    next: Percent,
    reason: String,
}

/// Whether the last flip of a route was made by somebody other than `auto`, and did not raise the route: it lowered it,
/// or set its share.
fn is_set_by_hand(position: &RoutePosition) -> bool {
    let Some(flip) = position.last.as_ref().filter(|flip| flip.by != BY_AUTO) else { return false };
    let from: Option<State> = flip.from.parse().ok();
    from.is_none_or(|from| from >= state_of(flip))
}

/// Why the share of a route may not grow, whatever its time and requests: another state than its rung was requested or
/// is in force, or a move by its file is refused. Raising the share would be a flip to the rung, and so would cancel
/// the requested state or the refused move.
fn growth_obstacle(inputs: &Inputs, position: &RoutePosition) -> Option<String> {
    let (state, requested, effective) = (position.rung(), position.inputs.requested, inputs.effective(position));
    if effective.state != state {
        return Some(format!("`{}` is in force, not `{state}` ({})", effective.state, effective.why.as_str()));
    }
    if requested != state || position.inputs.is_held {
        return Some(format!("`{requested}` was requested, and the route is kept at `{state}`"));
    }
    position.refused.first().map(|why| format!("what the file asks for is refused: {why}"))
}

impl Mover {
    /// With `auto:`, a flip up that names no share begins with the first step.
    pub(super) fn with_first_step(&self, route: &RouteId, request: MoveRequest) -> MoveRequest {
        let inputs = self.in_force().inputs();
        let first = inputs.positions.routes.get(route).filter(|position| request.to > position.rung());
        let first = first.and_then(|position| position.route.auto.as_ref()?.first(request.to));
        MoveRequest { percent: request.percent.or(first), ..request }
    }

    /// Checks each share that may grow; returns the steps that are due.
    pub(super) fn due_steps(&self, now: Instant) -> Vec<DueStep> {
        let inputs = self.in_force().inputs();
        let mut seen = self.auto_shares.seen();
        seen.retain(|id, _| {
            let grows = inputs.positions.routes.get(id).is_some_and(|position| next_step(position).is_some());
            if !grows {
                show_auto_held(id, false);
            }
            grows
        });
        let routes = inputs.positions.routes.values();
        let due: Vec<_> = routes.filter_map(|position| self.check_step(&inputs, position, &mut seen, now)).collect();
        for position in inputs.positions.routes.values().filter(|position| position.route.auto.is_some()) {
            let id = &position.route.id;
            show_auto_held(id, seen.get(id).is_some_and(|seen| !seen.blocked_by.is_empty()));
        }
        due
    }

    /// Checks whether the next step of one route is due, and notes what blocks it.
    fn check_step(
        &self,
        inputs: &Inputs,
        position: &RoutePosition,
        seen: &mut BTreeMap<RouteId, SeenShare>,
        now: Instant,
    ) -> Option<DueStep> {
        let (auto, next) = next_step(position)?;
        let (id, state) = (&position.route.id, position.rung());
        let share = position.inputs.shares.of(state);
        let evidence = self.gate().evidence_of(&inputs.positions, position);
        // The requests within the share: callers outside the share of a rung are one rung lower.
        let counted = match state {
            State::Live => evidence.engine_answers,
            State::Dark => evidence.dark_pairs,
            _ => evidence.shadow_pairs,
        };
        let found = seen.entry(id.clone()).or_insert_with(|| SeenShare {
            state,
            share,
            since: now,
            counted_before: counted,
            requests: 0,
            is_set_by_hand: is_set_by_hand(position),
            blocked_by: Vec::new(),
            awaits_pairs_until: None,
            failure: None,
        });
        if (found.state, found.share) != (state, share) {
            found.is_set_by_hand = state < found.state || (state == found.state && share < found.share);
            (found.state, found.share) = (state, share);
            found.restart(now, counted);
        }
        if let Some(why) = growth_obstacle(inputs, position) {
            found.restart(now, counted);
            found.blocked_by = vec![why];
            return None;
        }
        // The counter became smaller: the evidence started anew, or the engine failed a request.
        found.counted_before = if counted < found.counted_before { 0 } else { found.counted_before };
        found.requests = counted - found.counted_before;
        found.blocked_by.clear();
        if found.is_set_by_hand {
            found
                .blocked_by
                .push(format!("a person has set the share of {share}: set a larger one, and it goes on to grow"));
            return None;
        }
        if found.due_in(auto, now) > Duration::ZERO || found.requests < auto.at_least {
            return None;
        }
        found.blocked_by = self.obstacles_to_next_step(inputs, position, state, next);
        match found.blocked_by.is_empty() && self.gate().evidence.in_flight(id) > 0 {
            true => {
                let until = *found.awaits_pairs_until.get_or_insert(now + inputs.positions.declared.pairs_within);
                let waits = now < until;
                found.blocked_by.extend(waits.then(|| "requests of it are still being compared".to_owned()));
            }
            false => found.awaits_pairs_until = None,
        }
        let reason =
            format!("{} requests with {share} in {}s", found.requests, now.duration_since(found.since).as_secs());
        let due = found.blocked_by.is_empty().then(|| DueStep { route: id.clone(), state, share, next, reason });
        // A step that failed is tried again.
        found.blocked_by.extend(found.failure.clone());
        due
    }

    /// What prevents the next step, as sentences: the gate of a larger share, and in `live` more errors than
    /// `promote:` accepts.
    fn obstacles_to_next_step(
        &self,
        inputs: &Inputs,
        position: &RoutePosition,
        to: State,
        next: Percent,
    ) -> Vec<String> {
        let shares = position.inputs.shares.with(to, next);
        let requested = RequestedMove { to, shares, force: false, reason: None, source: FlipSource::Api };
        let mut obstacles = match self.gate().judge(&inputs.positions, position, &requested) {
            Ok(_) => Vec::new(),
            Err(MoveRefusal::GateShut(reasons)) => reasons,
            Err(MoveRefusal::Impossible(why)) => vec![why],
        };
        if to == State::Live {
            let of_only = self.gate().conditions(&inputs.positions, position, State::Live, State::Only);
            let errors = of_only.into_iter().filter(|condition| condition.name == ConditionName::ErrorsNotWorseBy);
            let failed = errors.filter(|condition| condition.verdict == GateVerdict::Fail);
            obstacles.extend(failed.map(|condition| condition.detail));
        }
        obstacles
    }

    /// Raises a share that is due, unless somebody has moved the route meanwhile.
    pub(super) async fn raise_share(
        self: &Arc<Self>,
        asked: std::time::Instant,
        due: &DueStep,
    ) -> Result<(), FlipError> {
        let moves_lock = self.lock_moves().await;
        let inputs = self.in_force().inputs();
        let position = inputs.positions.routes.get(&due.route);
        let is_as_judged = position.is_some_and(|position| {
            let now = (position.rung(), position.inputs.shares.of(due.state));
            now == (due.state, due.share)
                && next_step(position).is_some_and(|(_, next)| next == due.next)
                && growth_obstacle(&inputs, position).is_none()
        });
        if !is_as_judged {
            return Ok(());
        }
        let request = MoveRequest {
            to: due.state,
            percent: Some(due.next),
            reason: Some(due.reason.clone()),
            force: false,
            acknowledge: false,
            by: BY_AUTO.to_owned(),
        };
        let raised = self.flip(moves_lock, asked, &due.route, request, None).await.map(drop);
        self.clone().start_recording();
        raised
    }

    /// Notes that a step failed, so that the status of the route shows it until the step is made. Logs each cause once.
    fn note_failure(&self, due: &DueStep, error: &FlipError) {
        let why = format!("the step to {} failed: {error}", due.next);
        let mut seen = self.auto_shares.seen();
        let Some(found) = seen.get_mut(&due.route).filter(|found| found.failure.as_ref() != Some(&why)) else { return };
        tracing::warn!(route = %due.route, state = %due.state, share = %due.next, %error, "the share does not grow yet");
        found.failure = Some(why);
    }

    /// What the present share of a route still needs before it grows; `None` if it does not grow by itself.
    pub(super) fn auto_status(&self, position: &RoutePosition) -> Option<AutoStatus> {
        let (auto, next) = next_step(position)?;
        let seen = self.auto_shares.seen().get(&position.route.id).cloned();
        let seen = seen.filter(|seen| seen.share == position.inputs.shares.of(position.rung()));
        Some(AutoStatus {
            next,
            due_in: seen.as_ref().map_or(auto.each, |seen| seen.due_in(auto, Instant::now())),
            requests: seen.as_ref().map_or(0, |seen| seen.requests),
            requests_wanted: auto.at_least,
            blocked_by: seen.map(|seen| seen.blocked_by).unwrap_or_default(),
        })
    }
}

/// The next share of a route that grows by itself.
fn next_step(position: &RoutePosition) -> Option<(&Auto, Percent)> {
    let auto = position.route.auto.as_ref()?;
    let state = position.rung();
    let next = auto.next_after(position.inputs.shares.of(state)).filter(|_| Auto::has_shares(state))?;
    Some((auto, next))
}

impl Ladder {
    /// Raises the shares of routes with `auto:`, each when it is due. Runs until it is dropped.
    pub async fn raise_shares(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.raise_due_shares().await;
        }
    }

    /// Raises the shares that are due now.
    pub(super) async fn raise_due_shares(&self) {
        // A flip down that is asked for after this time stops the steps below (`outdated_moves`).
        let asked = std::time::Instant::now();
        for due in self.mover.due_steps(Instant::now()) {
            let raised = self.mover.raise_share(asked, &due).await;
            if let Err(error) = raised {
                self.mover.note_failure(&due, &error);
            }
        }
    }
}
