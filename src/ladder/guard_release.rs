//! How the latch of a guard ends (`guard_latches`), so that its route returns to the requested state: a person releases
//! it, a person's flip ends it, or clean evidence on the lower rung releases it (`release: evidence`).
//!
//! Always true: a release raises the state in force, so it is recorded before it is in force. Only where a flip down
//! ends a latch, the release is recorded afterwards, like the flip itself. Clean evidence releases one rung at a time.

use std::sync::Arc;

use super::gate::Gate;
use super::guard_actions::{BY_GUARD, guard_record};
use super::guard_types::{GuardRelease, GuardReleased};
use super::in_force::Inputs;
use super::mover::{Mover, MovesLock};
use super::positions::{Positions, RoutePosition};
use super::record::RecordBatch;
use super::types::{FlipError, MoveRequest};
use crate::evidence::{ConditionName, GateVerdict};
use crate::flag::{self, State};
use crate::names::RouteId;
use crate::store::{DeclaredState, FlipRecord, GuardAction, GuardRecord, StandingAnnouncement, StoreError};

/// Conditions of a gate that clean evidence need not meet: the clean pairs since the last difference or failed run say
/// more, and these figures go on to count for long what went wrong before.
const REPLACED_BY_CLEAN_PAIRS: [ConditionName; 4] =
    [ConditionName::Pairs, ConditionName::ErrorsNotWorseBy, ConditionName::CoverageAtLeast, ConditionName::Twins];

impl Gate {
    /// Why clean evidence does not release a route that its guard limits to this state; empty if it does.
    fn unmet_for_release(&self, positions: &Positions, position: &RoutePosition, limit: State) -> Vec<String> {
        let Some(to) = State::ALL.into_iter().find(|state| state.below() == Some(limit)) else { return Vec::new() };
        self.opening.keep_between(&position.route.id, None, (limit, to));
        let promote = &position.route.promote;
        let clean = self.evidence.clean_pairs(&position.route.id, limit);
        let mut unmet = Vec::new();
        if clean.pairs < promote.pairs {
            unmet.push(format!("needs {} more clean pairs in a row", promote.pairs - clean.pairs));
        } else if clean.coverage() < promote.coverage_at_least {
            unmet.push(format!("{:.1} % of the requests since then were compared", clean.coverage() * 100.0));
        }
        let followers = positions.followers(&position.route.id).filter(|_| to == State::Live);
        let family = [position].into_iter().chain(followers);
        let conditions = family.flat_map(|at| self.conditions(positions, at, limit, to));
        let shut = conditions
            .filter(|shut| shut.verdict != GateVerdict::Pass && !REPLACED_BY_CLEAN_PAIRS.contains(&shut.name))
            .map(|shut| shut.detail);
        unmet.extend(shut);
        unmet.extend(self.unmet_other_conditions(positions, position, limit, to).into_iter().map(|unmet| unmet.why));
        self.add_awaited_pairs(positions, position, (None, to), &mut unmet);
        unmet
    }
}

/// The latch of a route, with its limit, if a flip to this state would go above the limit.
fn latch_below<'a>(inputs: &'a Inputs, position: &RoutePosition, to: State) -> Option<(&'a Arc<FlipRecord>, State)> {
    let latch = inputs.guards.latch(&position.route)?;
    let limit = latch.guard.as_ref()?.limit?;
    (to > limit).then_some((latch, limit))
}

impl Mover {
    /// Whether the guard holds a route below this state.
    pub(super) fn is_held_by_guard(&self, position: &RoutePosition, to: State) -> bool {
        latch_below(&self.in_force().inputs(), position, to).is_some()
    }

    /// Refuses a flip that would raise a route above the limit of its guard. Allows a flip by force, a flip down and a
    /// smaller share.
    pub(super) fn check_guard(&self, position: &RoutePosition, request: &MoveRequest) -> Result<(), FlipError> {
        let inputs = self.in_force().inputs();
        let Some((latch, limit)) = latch_below(&inputs, position, request.to).filter(|_| !request.force) else {
            return Ok(());
        };
        let share = position.inputs.shares.of(request.to);
        let goes_down = request.to < position.rung()
            || (request.to == position.rung() && request.percent.is_some_and(|percent| percent < share));
        if goes_down {
            return Ok(());
        }
        let (id, reason) = (&position.route.id, latch.reason.as_deref().unwrap_or_default());
        let why = format!(
            "the guard keeps `{id}` at `{limit}` since {:.0}: {reason}. Release it (`pointsman guard release {id} --reason \
             …`), or flip it with `--force`, which releases it too",
            latch.at
        );
        Err(FlipError::Refused { why, commands: Vec::new() })
    }

    /// Records a person's flip. If it goes by force above the limit of the guard, the release of the latch is recorded
    /// together with it.
    pub(super) async fn record_flip(
        &self,
        flip: FlipRecord,
        declared: Vec<DeclaredState>,
        positions: &Positions,
        request: (&RouteId, &MoveRequest),
        announced: Option<StandingAnnouncement>,
    ) -> Result<FlipRecord, StoreError> {
        let (route, MoveRequest { to, force, .. }) = request;
        let inputs = self.in_force().inputs();
        let position = positions.routes.get(route);
        let latch = position.and_then(|position| latch_below(&inputs, position, *to)).filter(|_| *force);
        let release = latch.map(|(latch, limit)| {
            let reason = format!("by a flip with force: {}", flip.reason.as_deref().unwrap_or_default());
            (latch.number, release_record(route, (limit, *to), flip.by.clone(), reason, None))
        });
        let flips = [flip].into_iter().chain(release.iter().map(|(_, release)| release.clone())).collect();
        let judged_by = Some(self.recorder.newest_in_force());
        let batch = RecordBatch { flips, declared: Some(declared), judged_by };
        let mut recorded = self.record_announced(batch, announced, positions).await?;
        let released = release.zip(recorded.get(1).cloned());
        if let Some(((latch, _), release)) = released
            && let Some((record, route)) = self.put_release_in_force(latch, release)
        {
            self.report(&record, &route);
        }
        recorded.truncate(1);
        recorded.pop().ok_or_else(|| StoreError("the store gave the flip no number".into()))
    }

    /// Ends the latch of a route after a person's flip down to the limit of the guard or lower: on the way up the gates
    /// are judged again. Any flip down from `only` ends an alarm.
    pub(super) fn end_guard_by_flip(self: &Arc<Self>, route: &RouteId, to: State, by: &str, reason: Option<&str>) {
        let ended = self.in_force().act(route, |inputs, position| {
            let guard = inputs.guards.latch(&position.route)?.guard.as_ref()?;
            let ends = match guard.limit {
                Some(limit) => to <= limit,
                None => to < State::Only,
            };
            let reason = format!("by a flip down: {}", reason.unwrap_or_default());
            let from = guard.limit.unwrap_or(State::Only);
            ends.then(|| release_record(route, (from, to), by.to_owned(), reason, None))
        });
        if let Some((record, route)) = ended {
            self.clone().start_recording();
            self.report(&record, &route);
        }
    }

    /// Releases what the guard did to a route, for a person.
    pub(super) async fn release_guard(
        &self,
        moves_lock: MovesLock,
        route: &RouteId,
        GuardRelease { reason, force, by }: GuardRelease,
    ) -> Result<GuardReleased, FlipError> {
        let (positions, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        let inputs = self.in_force().inputs();
        let position = positions.routes.get(route).ok_or_else(|| positions.unknown_route(route))?;
        let refused = |why: String| FlipError::Refused { why, commands: Vec::new() };
        let Some(latch) = inputs.guards.latch(&position.route) else {
            return Err(refused(format!(
                "the guard has neither lowered `{route}` nor raised an alarm: nothing changed"
            )));
        };
        if reason.trim().is_empty() {
            return Err(refused("a release needs a reason".to_owned()));
        }
        let limit = latch.guard.as_ref().and_then(|guard| guard.limit);
        if limit.is_some() && !force {
            if self.gate().is_changed_since_evidence(&positions, position) {
                return Err(refused(format!(
                    "the workflow, the rules, `match` or services of `{route}` were changed since its evidence, and the \
                     new version was not compared: wait for its pairs in `dark`, or release it with `--force`"
                )));
            }
            if let Some(follower) = limited_follower(&inputs, &positions, route) {
                return Err(refused(format!(
                    "the guard has lowered its follower `{follower}` too: release that first, or this one with `--force`"
                )));
            }
        }
        all_recorded?;
        let still_shut = match limit {
            Some(limit) => State::ALL
                .windows(2)
                .filter(|pair| pair[0] >= limit && pair[1] <= position.rung())
                .flat_map(|pair| self.gate().unmet_of_family(&positions, position, pair[0], pair[1]))
                .map(|unmet| unmet.why)
                .collect(),
            None => Vec::new(),
        };
        let from = inputs.effective(position).state;
        let record = release_record(route, (from, position.rung()), by, reason, None);
        let record = self.record_release(latch.number, record).await?;
        let Some((record, route)) = record else {
            return Err(refused("the guard has acted again meanwhile: nothing was released".to_owned()));
        };
        self.gate().evidence.restart_guard(&route.id);
        self.report(&record, &route);
        Ok(GuardReleased { record, effective: self.in_force().effective(&route.id), still_shut })
    }

    /// Releases, by one rung, the routes whose guard says `release: evidence` and that have clean evidence.
    pub(super) async fn release_by_evidence(&self) -> Result<(), StoreError> {
        let is_due = |inputs: &Inputs, position: &RoutePosition| {
            let guard = position.route.guard.as_ref();
            let by_evidence = guard.is_some_and(|guard| guard.release == flag::GuardRelease::Evidence);
            let is_last = limited_follower(inputs, &inputs.positions, &position.route.id).is_none();
            let Some(limit) = inputs.guards.limit(&position.route).filter(|_| by_evidence && is_last) else {
                self.gate().opening.keep_between(&position.route.id, None, (State::Only, State::Only));
                return None;
            };
            self.gate().unmet_for_release(&inputs.positions, position, limit).is_empty().then_some(limit)
        };
        let due = |inputs: &Inputs| -> Vec<(RouteId, State)> {
            let due = |at: &RoutePosition| Some((at.route.id.clone(), is_due(inputs, at)?));
            inputs.positions.routes.values().filter_map(due).collect()
        };
        if due(&self.in_force().inputs()).is_empty() {
            return Ok(());
        }
        let moves_lock = self.lock_moves().await;
        let (_, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        all_recorded?;
        let inputs = self.in_force().inputs();
        for (id, limit) in due(&inputs) {
            let Some(position) = inputs.positions.routes.get(&id) else { continue };
            let Some(latch) = inputs.guards.latch(&position.route) else { continue };
            let clean = self.gate().evidence.clean_pairs(&id, limit).pairs;
            let above = State::ALL.into_iter().find(|state| state.below() == Some(limit)).unwrap_or(State::Only);
            let next = (above < position.rung()).then_some(above);
            let reason = format!("{clean} pairs in a row were compared without a difference or a failed run");
            let states = (limit, next.unwrap_or(position.rung()));
            let mut record = release_record(&id, states, BY_GUARD.to_owned(), reason, next);
            if let Some(guard) = record.guard.as_mut() {
                guard.condition = latch.guard.as_ref().and_then(|guard| guard.condition);
            }
            if let Some((record, route)) = self.record_release(latch.number, record).await? {
                self.gate().evidence.restart_guard(&id);
                self.report(&record, &route);
            }
        }
        Ok(())
    }

    /// Records a release, then puts it in force, unless the guard has acted again since this latch.
    async fn record_release(
        &self,
        latch: u64,
        release: FlipRecord,
    ) -> Result<Option<(FlipRecord, Arc<flag::Route>)>, StoreError> {
        let flips = vec![release];
        let mut recorded = self
            .recorder
            .record(RecordBatch { flips, declared: None, judged_by: Some(self.recorder.newest_in_force()) })
            .await?;
        let release = recorded.pop().ok_or_else(|| StoreError("the store gave the release no number".into()))?;
        Ok(self.put_release_in_force(latch, release))
    }

    fn put_release_in_force(&self, latch: u64, release: FlipRecord) -> Option<(FlipRecord, Arc<flag::Route>)> {
        let id = release.guard.as_ref()?.route.clone();
        self.in_force().release_guard(&id, latch, release)
    }
}

/// A follower of a route that is limited by its own guard.
fn limited_follower<'a>(inputs: &Inputs, positions: &'a Positions, route: &'a RouteId) -> Option<&'a RouteId> {
    positions.followers(route).find(|at| inputs.guards.limit(&at.route).is_some()).map(|at| &at.route.id)
}

/// The record of a release. `limit`: the highest state that the guard allows from now on; `None` if it limits nothing.
fn release_record(
    route: &RouteId,
    states: (State, State),
    by: String,
    reason: String,
    limit: Option<State>,
) -> FlipRecord {
    let guard = GuardRecord {
        route: route.clone(),
        action: GuardAction::Released,
        limit,
        condition: None,
        bad: 0,
        of: 0,
        runs: Vec::new(),
    };
    guard_record(states, by, Some(reason), guard, serde_json::Value::Null)
}
