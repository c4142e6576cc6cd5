//! Records since when each cohort's reason for `force` has been in the files. A cohort whose `force` puts it in `live`
//! is held at `dark` if the cause of the hold (such as lost retry keys) is later than its reason: whoever wrote the
//! reason did not know of the cause. A reason that is later than the cause overrides the hold.
//!
//! Always true:
//!
//! - A reason keeps its time when its cohort is renamed, and when files leave the reason out and later files have it
//!   again. A reason that was left out is forgotten once no hold with a cause from before that time can last any more.
//! - The entry of a cohort in the record has the same source as long as the reason and the rule stay the same.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::cohort_rules;
use crate::flag::{Cohort, Route, State};
use crate::limits::COHORT_REASONS_MAX;
use crate::names::RouteId;
use crate::secret::redact_line;
use crate::store::{DroppedReason, ForcedCohort, RetryScopes};

/// Sets the reasons that new files have, and those that they have left out. `own`: the stored rows of the route before.
pub(super) fn set(scopes: &mut RetryScopes, route: &Route, own: &[RetryScopes], now: Timestamp) {
    // An earlier version did not store reasons, so they may be as old as the route.
    let is_unknown = own.iter().any(|was| was.forced_cohorts.is_none());
    let mut known: BTreeMap<String, DroppedReason> = BTreeMap::new();
    for (reason, DroppedReason { since, at }) in own.iter().flat_map(|was| reasons(was, now)) {
        let known = known.entry(reason).or_insert(DroppedReason { since, at });
        *known = DroppedReason { since: known.since.min(since), at: known.at.max(at) };
    }
    let mut rules = cohort_rules::of(route);
    let forced = |cohort: &Cohort| {
        let rule = rules.remove(&cohort.name);
        let reason = cohort.force.clone()?;
        let first = if is_unknown { Timestamp::UNIX_EPOCH } else { now };
        let since = known.get(reason.as_str()).map_or(first, |known| known.since);
        let mut of_name = own.iter().filter_map(|was| was.forced_cohorts.as_ref()?.get(&cohort.name));
        let is_same_rule = |was: &ForcedCohort| cohort_rules::is_of(was, route, &cohort.name, rule.as_ref());
        let source = match of_name.find(|was| redact_line(&was.reason) == reason && is_same_rule(was)) {
            Some(was) => was.source.clone(),
            None => Some(format!("cohort {} {} {now}", route.id, cohort.name)),
        };
        Some((cohort.name.clone(), ForcedCohort { reason, since, source, rule }))
    };
    let forced: BTreeMap<String, ForcedCohort> = route.cohorts.iter().filter_map(forced).collect();
    known.retain(|reason, _| !forced.values().any(|forced| forced.reason == *reason));
    scopes.dropped_reasons = known;
    scopes.forced_cohorts = Some(forced);
}

/// Whether a route has cohorts that `force` puts in `live`, and each of their reasons is new in the files that were
/// read at the time `now`.
pub(super) fn are_new(scopes: &BTreeMap<RouteId, RetryScopes>, route: &Route, now: Timestamp) -> bool {
    let forced = scopes.get(&route.id).and_then(|scopes| scopes.forced_cohorts.as_ref());
    let mut in_live = route.cohorts.iter().filter(|c| c.state >= State::Live && c.force.is_some()).peekable();
    let is_new = |c: &Cohort| forced.and_then(|forced| forced.get(&c.name)).is_some_and(|forced| forced.since == now);
    in_live.peek().is_some() && in_live.all(is_new)
}

/// The reasons of a row, as if the files had just left out all of them. They are redacted here, because an earlier
/// version stored them with the secrets in them.
fn reasons(was: &RetryScopes, now: Timestamp) -> impl Iterator<Item = (String, DroppedReason)> {
    let forced = was.forced_cohorts.iter().flat_map(BTreeMap::values);
    let forced = forced.map(move |forced| (forced.reason.as_str(), DroppedReason { since: forced.since, at: now }));
    let dropped = was.dropped_reasons.iter().map(|(reason, dropped)| (reason.as_str(), dropped.clone()));
    forced.chain(dropped).map(|(reason, dropped)| (redact_line(reason), dropped))
}

/// Removes the dropped reasons that are too old to matter for a hold, and the oldest ones beyond the bound.
pub(super) fn prune(dropped: &mut BTreeMap<String, DroppedReason>, may_be_held: impl Fn(Timestamp) -> bool) {
    dropped.retain(|_, dropped| may_be_held(dropped.at));
    while dropped.len() > COHORT_REASONS_MAX {
        let oldest = dropped.iter().min_by_key(|(_, dropped)| dropped.at).map(|(reason, _)| reason.clone());
        oldest.and_then(|reason| dropped.remove(&reason));
    }
}

/// Backdates the reasons of a route's cohorts that were first read at `read_at` to 1970, so that they override no hold.
pub(super) fn backdate_new(scopes: &mut BTreeMap<RouteId, RetryScopes>, route: &RouteId, read_at: Timestamp) {
    let forced = scopes.get_mut(route).and_then(|scopes| scopes.forced_cohorts.as_mut());
    for forced in forced.into_iter().flat_map(BTreeMap::values_mut).filter(|forced| forced.since == read_at) {
        forced.since = Timestamp::UNIX_EPOCH;
    }
}
