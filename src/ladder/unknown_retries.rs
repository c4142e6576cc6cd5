//! Routes and cohorts that are held below `live`, because retries may come of requests that legacy served and whose
//! keys are not known: the engine would perform them a second time.
//!
//! Always true: nothing is held if a repeat does no harm, or if a person's flip by force, or `force` in the file, has
//! accepted the repeat after the cause came up (`UnknownRetries::cause_at`).

use jiff::Timestamp;

use super::gate::Gate;
use super::gate_condition::UnknownRetries;
use super::positions::{Positions, RoutePosition, state_of};
use super::{reassigned_requests, scopes};
use crate::clock;
use crate::flag::{Cohort, State};
use crate::names::RouteId;

impl Gate {
    /// The requests of routes with these ids whose retry keys this process, or another one, does not know: all that the
    /// conditions of the gate report.
    pub(super) fn unknown_of<'a>(&'a self, ids: Vec<&'a RouteId>) -> impl Iterator<Item = UnknownRetries> + 'a {
        let conditions = self.conditions.iter().chain(&self.conditions_of_moves);
        conditions.flat_map(move |condition| condition.unknown_retries(&ids))
    }

    /// The requests of a route whose retry keys are not known, because their scope was dropped or a condition of the
    /// gate says so. Empty if a repeat does no harm.
    pub(super) fn unknown_retries(&self, positions: &Positions, position: &RoutePosition) -> Vec<UnknownRetries> {
        if !does_harm(positions, position) {
            return Vec::new();
        }
        let scopes = positions.scopes.get(&position.route.id);
        let dropped = scopes.and_then(|scopes| scopes::dropped_retries(scopes, clock::now(), self.retry_window));
        let own: Vec<&RouteId> = position.route.ids().collect();
        let other =
            reassigned_requests::sources(&positions.scopes, &position.route).map(|(id, since)| (vec![id], Some(since)));
        let of_conditions = [(own, None)].into_iter().chain(other).flat_map(|(ids, since)| {
            let unknown = self.unknown_of(ids);
            unknown.map(move |unknown| {
                let cause_at = since.map_or(unknown.cause_at, |since| since.max(unknown.cause_at));
                UnknownRetries { cause_at, ..unknown }
            })
        });
        let mut unknown: Vec<UnknownRetries> = dropped.into_iter().chain(of_conditions).collect();
        // A cause that concerns every route is found several times: for this route, and for each route from which this
        // one took over requests. The newest one is kept.
        unknown.sort_by(|a, b| (&a.why, b.cause_at).cmp(&(&b.why, a.cause_at)));
        unknown.dedup_by(|a, b| a.why == b.why);
        unknown
    }

    /// The requests that legacy served without recording their keys and whose retries may still come; `None` if there
    /// are none, or if a repeat does no harm.
    pub(super) fn requests_without_record(
        &self,
        positions: &Positions,
        position: &RoutePosition,
    ) -> Option<UnknownRetries> {
        let scopes = positions.scopes.get(&position.route.id)?;
        let unknown = scopes::unrecorded_retries(scopes, clock::now(), self.retry_window);
        unknown.filter(|_| does_harm(positions, position))
    }

    /// If the store is a copy: the requests that came after it was made and whose retries may still come.
    pub(super) fn since_copy(&self) -> Option<UnknownRetries> {
        scopes::retries_since_copy(self.copy_started?, clock::now(), self.retry_window)
    }

    /// Whether retries may come of requests of a route whose keys are not known: the store is a copy, or keys are lost.
    pub(super) fn may_repeat_unknown(&self, positions: &Positions, position: &RoutePosition) -> bool {
        // On a copy also if a repeat does no harm now: later files may change that.
        self.since_copy().is_some() || !self.unknown_retries(positions, position).is_empty()
    }

    /// As [`Gate::since_copy`], for a route; `None` if a repeat does no harm.
    pub(super) fn harmful_since_copy(&self, positions: &Positions, position: &RoutePosition) -> Option<UnknownRetries> {
        self.since_copy().filter(|_| does_harm(positions, position))
    }

    /// Whether a route is in `only` on a copy of a store. It is not held: by then all its callers and instances are the
    /// engine's, and legacy would not know them.
    pub(super) fn is_only_on_copy(&self, positions: &Positions, position: &RoutePosition) -> bool {
        position.rung() == State::Only && self.harmful_since_copy(positions, position).is_some()
    }

    /// Why a route that a flip put in `live` is held below it; `None` if it is not held. The causes:
    ///
    /// - files that came after the flip give the route requests whose keys were not recorded;
    /// - the store is a copy;
    /// - legacy served requests whose keys are lost.
    ///
    /// A flip by force after the cause releases the route, and so does `force` in the file. A route in `only` is never
    /// held, because legacy is not called for it: files that would give it such requests are refused
    /// ([`Gate::unaccepted_retries_in_only`]).
    pub(super) fn why_held(&self, positions: &Positions, position: &RoutePosition) -> Option<UnknownRetries> {
        let is_live = position.rung() == State::Live;
        self.harmful_retries(positions, position).filter(|_| is_live && position.route.force.is_none())
    }

    /// Why a route that is held on a copy of a store goes down for good; `None` if it does not. It does if its last
    /// flip is from before the copy was started: a later flip that lowered it may be missing in the copy, so it must
    /// not return to `live` by itself.
    pub(super) fn may_miss_later_flip(&self, positions: &Positions, position: &RoutePosition) -> Option<&'static str> {
        self.why_held(positions, position)?;
        let started = self.harmful_since_copy(positions, position)?.cause_at;
        let is_older = position.last.as_ref().is_none_or(|flip| flip.at <= started);
        is_older.then_some(
            "the store is a copy, such as a restored backup: if a flip lowered this route after the copy was made, it does \
             not have that flip",
        )
    }

    /// The requests whose retries the engine would perform a second time if this route went to `live`.
    pub(super) fn harmful_in_live(&self, positions: &Positions, position: &RoutePosition) -> Option<UnknownRetries> {
        let mut next = position.clone();
        (next.inputs.requested, next.inputs.gate) = (State::Live, None);
        self.harmful_retries(positions, &next)
    }

    /// The cohorts that are held at `dark` although they have `force` for `live`, each with the cause. The causes are
    /// those of [`Gate::why_held`]. A cause holds a cohort only if it is later than the reason for the cohort's
    /// `force`: whoever wrote the reason did not know of it. A forced flip of the route to `live` after the cause, or
    /// `force` of the route, releases its cohorts too.
    pub(super) fn held_cohorts<'a>(
        &self,
        positions: &Positions,
        position: &'a RoutePosition,
    ) -> impl Iterator<Item = (&'a Cohort, UnknownRetries)> {
        let scopes = positions.scopes.get(&position.route.id);
        let forced = scopes.and_then(|scopes| scopes.forced_cohorts.clone()).unwrap_or_default();
        let is_exempt = position.rung() == State::Only || position.route.force.is_some();
        let candidates = position.route.cohorts.iter().filter(move |cohort| !is_exempt && cohort.force.is_some());
        candidates.filter(|cohort| cohort.state >= State::Live).filter_map(move |cohort| {
            let since = forced.get(&cohort.name).map(|forced| forced.since);
            let is_accepted = |unknown: &UnknownRetries| {
                let by_flip = position.rung() == State::Live && is_accepted_by_flip(position, unknown);
                by_flip || since >= Some(unknown.cause_at)
            };
            let harmful = self
                .requests_without_record(positions, position)
                .into_iter()
                .chain(self.harmful_since_copy(positions, position));
            let harmful = harmful.chain(self.unknown_retries(positions, position));
            let last = harmful.filter(|unknown| !is_accepted(unknown)).max_by_key(|unknown| unknown.until);
            last.map(|unknown| (cohort, unknown))
        })
    }

    /// For a route that is or was in `only`: the requests whose retries the engine would perform a second time, unless
    /// a flip by force or an earlier `force` in the file has accepted that. Requests that earlier files gave to the
    /// route count too: an older version did not refuse such files, so nobody has accepted anything.
    pub(super) fn unaccepted_retries_in_only(
        &self,
        after: &Positions,
        position: &RoutePosition,
    ) -> Option<UnknownRetries> {
        let was_in_only =
            position.rung() == State::Only || position.last.as_ref().is_some_and(|flip| state_of(flip) == State::Only);
        if !was_in_only || position.rung() < State::Live {
            return None;
        }
        let accepted = after.scopes.get(&position.route.id).and_then(|scopes| scopes.accepted);
        let unknown = self.requests_without_record(after, position)?;
        (accepted < Some(unknown.cause_at) && !is_accepted_by_flip(position, &unknown)).then_some(unknown)
    }

    /// The requests whose retries the engine would perform a second time on the route's present rung, unless a flip by
    /// force has accepted that. Of several kinds of requests, the one whose retries may come for longest.
    pub(super) fn harmful_retries(&self, positions: &Positions, position: &RoutePosition) -> Option<UnknownRetries> {
        let by_files =
            (position.rung() >= State::Live).then(|| self.requests_without_record(positions, position)).flatten();
        let is_live = position.rung() == State::Live;
        let by_copy = is_live.then(|| self.harmful_since_copy(positions, position)).flatten();
        let unknown = if is_live { self.unknown_retries(positions, position) } else { Vec::new() };
        let harmful = unknown.into_iter().chain(by_copy).chain(by_files);
        let harmful = harmful.filter(|unknown| !is_accepted_by_flip(position, unknown));
        harmful.max_by_key(|unknown| unknown.until)
    }
}

/// Whether a person's flip by force has accepted that the engine performs such requests a second time. A later flip by
/// `file`, or without force, leaves that acceptance as it is, and accepts nothing itself.
fn is_accepted_by_flip(position: &RoutePosition, unknown: &UnknownRetries) -> bool {
    position.forced_at() >= Some(unknown.cause_at)
}

/// Why files are refused by which the engine would perform retries for a route in `only` a second time.
pub(super) fn unaccepted_sentence(id: &RouteId, until: Timestamp) -> String {
    format!(
        "`{id}` is in `only`, where legacy is never called, and its files give it requests whose retry keys were not \
         recorded when legacy served them, or a workflow that no longer only reads: until {until:.0} a retry of such \
         a request may come, and the engine would perform it a second time. Lower the route first, or accept that with \
         `force: {{ reason: … }}` on the route"
    )
}

/// Whether a request that the engine performs a second time does harm.
fn does_harm(positions: &Positions, position: &RoutePosition) -> bool {
    !positions.declared.read_only.contains(&position.route.id)
}
