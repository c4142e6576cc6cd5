//! Flips down: in force at once, recorded afterwards (`unrecorded_flips`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Instant as TokioInstant, timeout_at};

use super::gate::AllowedMove;
use super::in_force::Inputs;
use super::live_basis;
use super::lowered_routes::Lowering;
use super::mover::Mover;
use super::passing_commands;
use super::pending_shares::{LargerShare, PendingShare};
use super::positions::{Positions, RoutePosition, state_of};
use super::types::{FlipError, FlipSource, Flipped, Move, MoveRequest};
use super::unrecorded_flips::{UnrecordedFlip, lower};
use crate::clock;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::FlipRecord;

/// How long the caller of a flip down waits for its record. The flip is in force before that.
const RECORDED_WITHIN: Duration = Duration::from_secs(1);

/// Whether a request is a flip down: to a rung below the route's, or to its present rung while something pending would
/// raise the route or enlarge that rung's share (the end of a hold, a move that waits for the store). A request for a
/// larger share of the present rung is not a flip down.
fn goes_down(inputs: &Inputs, position: &RoutePosition, request: &MoveRequest) -> bool {
    let to = request.to;
    let may_return_to = inputs.outstanding.target(&position.route).max(Some(position.highest()));
    let share = position.inputs.shares.of(to);
    let is_larger = request.percent.is_some_and(|percent| percent > share);
    let may_get_larger = inputs.outstanding.share(&position.route, to) > Some(share);
    to < position.rung() || (to == position.rung() && (Some(to) < may_return_to || may_get_larger) && !is_larger)
}

/// What this process knows of the moves that other processes had recorded when a flip was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownMoves {
    /// Those that it has followed; it has not asked the store for newer ones yet.
    NotAsked,
    /// It has asked, and the store did not answer: other processes may have raised the route.
    Unknown,
}

/// The outcome of a flip that lowers a route or changes nothing.
pub(super) enum FlipDownOutcome {
    Unchanged(Flipped),
    /// The flip down is in force. The larger share that was asked for together with it is not: unlike a lower rung, it
    /// must not come into force before it is recorded.
    InForce(FlipDownInForce, Option<PendingShare>),
}

/// A flip down that is in force, and that the store may not have yet.
pub(super) struct FlipDownInForce {
    route: RouteId,
    before: Box<Positions>,
    from: State,
    flip: FlipRecord,
    id: u64,
    recorded: watch::Receiver<Option<FlipRecord>>,
    until: TokioInstant,
}

impl Mover {
    /// See [`goes_down`].
    pub(super) fn is_flip_down(&self, route: &RouteId, request: &MoveRequest) -> bool {
        let inputs = self.in_force().inputs();
        inputs.positions.routes.get(route).is_some_and(|position| goes_down(&inputs, position, request))
    }

    /// Lowers a route at once, if the request is a flip down ([`goes_down`]). A requested share that is larger than the
    /// share of callers now on that rung or above is left to [`PendingShare`].
    ///
    /// A request that would change nothing here is a flip down if it is not known what other processes have recorded
    /// ([`KnownMoves::Unknown`]), because one of them may have raised the route; else the outcome is `Unchanged`.
    /// `None`, with nothing changed, for every other request.
    ///
    /// Once the flip is in force, this returns without waiting for anything, so that a caller that goes away does not
    /// stop what follows.
    pub(super) async fn flip_down(
        self: Arc<Self>,
        (asked, known): (Instant, KnownMoves),
        route: &RouteId,
        request: &MoveRequest,
    ) -> Result<Option<FlipDownOutcome>, FlipError> {
        let until = TokioInstant::now() + RECORDED_WITHIN;
        let (to, by) = (request.to, &request.by);
        let (before, from, flip, id, recorded, larger_share) = loop {
            let inputs = self.in_force().inputs();
            let before = &inputs.positions;
            let position = before.routes.get(route).ok_or_else(|| before.unknown_route(route))?;
            let goes_down = goes_down(&inputs, position, request);
            if !goes_down && !self.is_unchanged(position, request) {
                return Ok(None);
            }
            if !goes_down && known == KnownMoves::NotAsked {
                // A pending move up, which was asked for before this, must not raise the route after it.
                let unchanged = Lowering { at: asked, to, by: by.clone() };
                if self.in_force().note_unchanged(route, unchanged, inputs.positions_version) {
                    return Ok(Some(FlipDownOutcome::Unchanged(self.unchanged(position, by.clone()))));
                }
                continue;
            }
            if inputs.is_ending {
                let why =
                    "the process is stopping and takes no flip any more that is not recorded yet: nothing changed";
                return Err(FlipError::Refused { why: why.to_owned(), commands: Vec::new() });
            }
            let from = position.rung();
            let (mut requested, mut allowed) = self.judge(before, position, request)?;
            let larger = request.percent.filter(|percent| Some(*percent) > position.reached(to));
            let percent = request.percent.filter(|_| larger.is_none());
            if larger.is_some() {
                (requested, allowed) = self.judge(before, position, &MoveRequest { percent, ..request.clone() })?;
            }
            if from == State::Only && to < from && !request.acknowledge {
                let horizon = self.horizon_if_readable(before, route).await;
                let why = "in `only` legacy was not called at all; going down needs an acknowledgement";
                let known = if horizon.is_empty() { String::new() } else { format!(": {}", horizon.join("; ")) };
                let (shares, reason) = (requested.shares, requested.reason.as_deref());
                return Err(FlipError::Refused {
                    why: format!("`{route}` is `only`: {why}{known}"),
                    commands: passing_commands::commands(before, self.gate(), position, to, shares, reason),
                });
            }
            let AllowedMove { overridden, still_required: _, gates } = allowed;
            let (shares, reason, gates) = (requested.shares, requested.reason, gates.recorded(&position.route.promote));
            let made = Move { route: route.clone(), from, to, shares, reason, overridden, gates };
            let flip = self.flip_record(before, made, by.clone());
            let (sender, recorded) = watch::channel(None);
            let (id, restart_state) = (inputs.positions_version + 1, position.highest());
            let (may_be_raised_elsewhere, recorded_sender) = (!goes_down, Arc::new(sender));
            let mut lowered = UnrecordedFlip {
                id,
                asked: Some(asked),
                flip,
                percent,
                may_be_raised_elsewhere,
                changed_nothing: !goes_down,
                restart_state,
                recorded: recorded_sender,
            };
            let (mut positions, mut unrecorded) = (before.clone(), inputs.unrecorded.clone());
            if let Some(earlier) = unrecorded.iter().position(|unrecorded| unrecorded.is_of(route)) {
                let earlier = unrecorded.remove(earlier);
                (lowered.restart_state, lowered.flip.from) = (earlier.restart_state, earlier.flip.from);
                lowered.changed_nothing &= earlier.changed_nothing;
            }
            lower(&mut positions, route, &mut lowered, self.gate());
            if request.force {
                live_basis::accept(&mut positions, route, to);
            }
            let flip = lowered.flip.clone();
            unrecorded.push(lowered);
            // Counts as pending before the flip down is in force, so that a stop which finds the flip down recorded
            // also finds the larger share.
            let of_larger = |percent| LargerShare { route: route.clone(), to, percent, by: by.clone() };
            let larger_share = larger.map(|percent| self.larger_shares.add(of_larger(percent)));
            // A flip down puts no route in `only`, so a freeze overtakes none.
            if self.set_positions(positions, unrecorded, inputs.positions_version).is_some() {
                break (inputs.positions, from, flip, id, recorded, larger_share);
            }
        };
        self.end_guard_by_flip(route, to, by, flip.reason.as_deref());
        self.gate().evidence.restart_guard(route);
        self.accept_conditions(route, from, request, flip.at);
        self.clone().start_recording();
        // A restart before the record loses the flip: then this log line is all that is left of it.
        let reason = flip.reason.as_deref();
        tracing::info!(%route, %from, %to, %by, reason, "the flip down is in force and is recorded next");
        let route = route.clone();
        let before = Box::new(before);
        let down = FlipDownInForce { route, before, from, flip, id, recorded, until };
        Ok(Some(FlipDownOutcome::InForce(down, larger_share)))
    }

    /// Reads the horizon, if the engine answered before, and waits until the flip down is recorded, for at most
    /// [`RECORDED_WITHIN`] after it was asked for. The result says whether it is recorded.
    pub(super) async fn wait_recorded(&self, down: FlipDownInForce) -> Flipped {
        let FlipDownInForce { route, before, from, flip, id, mut recorded, until } = down;
        let needs_horizon = matches!(from, State::Live | State::Only) && state_of(&flip) < from;
        let mut horizon = if needs_horizon { self.horizon_if_readable(&before, &route).await } else { Vec::new() };
        horizon
            .extend(self.in_force().inputs().positions.routes.get(&route).and_then(RoutePosition::cohorts_ahead_text));
        let found = match timeout_at(until, recorded.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let effective = self.in_force().effective(&route);
        // A flip that has no record of its own counts as recorded once no flip with its id or a later one is
        // unrecorded: then a move that was under way has lowered the route as far, or the lower flip that replaced this
        // one is recorded.
        let recorded =
            found.is_some() || self.in_force().inputs().unrecorded.iter().all(|unrecorded| unrecorded.id < id);
        let flip = found.unwrap_or(flip);
        Flipped {
            flip,
            changed: true,
            recorded,
            newest_flip: self.newest_flip(),
            share_is_pending: false,
            effective,
            horizon,
            still_required: Vec::new(),
        }
    }

    /// Whether a flip would change nothing.
    pub(super) fn is_unchanged(&self, position: &RoutePosition, request: &MoveRequest) -> bool {
        let shares =
            request.percent.map_or(position.inputs.shares, |percent| position.inputs.shares.with(request.to, percent));
        let is_valid = request.percent.is_none() || !matches!(request.to, State::Off | State::Only);
        let is_held = self.is_held_by_guard(position, request.to) && request.percent.is_none();
        let accepts_change = position.inputs.is_changed && request.to >= State::Live;
        let accepts =
            request.force && (accepts_change || self.gate().awaits_acceptance(position, request.to, FlipSource::Api));
        is_valid
            && position.is_at(request.to, shares)
            && !(request.force && position.inputs.has_no_flip)
            // What the file asks for is judged again until a person flips the route: this is that flip.
            && position.refused.is_empty()
            && !accepts
            && !is_held
    }

    pub(super) fn unchanged(&self, position: &RoutePosition, by: String) -> Flipped {
        let (route, state) = (&position.route.id, position.rung());
        let reason = Some(format!("`{route}` is `{state}` already"));
        let flip = FlipRecord {
            number: 0,
            route: Some(route.clone()),
            from: state.as_str().to_owned(),
            to: state.as_str().to_owned(),
            shares: Some(position.inputs.shares),
            by,
            at: clock::now(),
            reason,
            forced: false,
            overridden: None,
            evidence: serde_json::Value::Null,
            gates: Vec::new(),
            guard: None,
            candidate: None,
        };
        let recorded = !self.in_force().inputs().has_unrecorded_flip(route);
        let effective = self.in_force().effective(route);
        let (horizon, still_required) = Default::default();
        Flipped {
            flip,
            changed: false,
            recorded,
            newest_flip: self.newest_flip(),
            share_is_pending: false,
            effective,
            horizon,
            still_required,
        }
    }

    /// The number of the newest flip that this process knows the store to have.
    fn newest_flip(&self) -> u64 {
        *self.recorder.newest_flip().borrow()
    }
}
