//! The earlier scopes of each route's retry keys, kept for as long as a retry may come under them. A *scope*
//! ([`RetryScope`]) is what the keys are derived from apart from the request, such as the template `retry_key`.
//!
//! Always true: a scope that new files replaced is looked up until no retry under it may come any more, also if the
//! requests go to another route now, or to no route with a workflow (`reassigned_requests`).
//!
//! The gate to `live` stays shut, and a route in `live` is held below it (`files`), while these retries may come:
//!
//! - under a scope that was dropped, because the number of earlier scopes is bounded (logged);
//! - of requests that came before the route had its workflow, `match` or `retry_key`, so that no keys were recorded;
//! - of requests whose keys were removed from the store, because `retry_window_s` was shorter.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::gate_condition::UnknownRetries;
use super::types::DeclaredFiles;
use super::{cohort_reasons, joined_ids, reassigned_requests, scope_matches};
use crate::clock;
use crate::flag::{EarlierScopes, EarlierTimes, PathConventions, RetryScope, Route, RouteMatch, ServiceMatch};
use crate::limits::EARLIER_SCOPES_MAX;
use crate::names::RouteId;
use crate::store::{ReplacedScope, RetryScopes, UnrecordedBecause};

/// By route; also of routes that are in no file now.
pub(super) type Scopes = BTreeMap<RouteId, RetryScopes>;

/// How long after the recorded end of a scope a first try may still come under it: the new flag set comes into force a
/// little later, and requests in flight keep the set that they started with.
const IN_FLIGHT: Duration = Duration::from_secs(600);

/// Until when a retry may come under a scope that was replaced at this time.
fn retries_until(at: Timestamp, window: Duration) -> Timestamp {
    clock::window_end(at, window.saturating_add(IN_FLIGHT))
}

/// The scopes after new files are read. `has_served`: requests may have come before these files.
pub(super) fn after_files(
    before: &Scopes,
    declared: &DeclaredFiles,
    has_served: bool,
    now: Timestamp,
    window: Duration,
) -> Scopes {
    let (mut known, mut after) = (reassigned_requests::add(before, &declared.routes, now), Scopes::new());
    let matches_before = MatchesBefore::of(before, &declared.routes);
    for route in &declared.routes {
        // Without a workflow no key is noted.
        let mut scopes = RetryScopes {
            present: route.workflow.is_some().then(|| RetryScope::of(route)),
            matches: Some(route.matches.to_string()),
            paths: Some(reassigned_requests::conventions(route)),
            reads_only: declared.read_only.contains(&route.id),
            window_s: route.workflow.is_some().then_some(window.as_secs()),
            has_force: Some(route.force.is_some()),
            joined: joined_ids::of_route(&known, route),
            ..Default::default()
        };
        let own: Vec<RetryScopes> = route.ids().filter_map(|id| known.remove(id)).collect();
        let starts_writing = own.iter().any(|was| was.reads_only) && !scopes.reads_only;
        let keeps_match = own.iter().any(|was| was.present.is_some() && matches_nothing_new(was, route));
        // If several routes became this one, this one may get retries of requests that any of them has served.
        let served = own.iter().filter(|was| was.present.is_some() || was.matches.is_some());
        let is_recorded = keeps_match && served.into_iter().all(|was| has_same_key(was, &scopes));
        let unrecorded_because = unrecorded_because(&own, route, keeps_match);
        cohort_reasons::set(&mut scopes, route, &own, now);
        let shorter_window = own.iter().filter_map(|was| was.window_s).min().map(Duration::from_secs);
        for was in own {
            scopes.harmful_since = scopes.harmful_since.max(was.harmful_since);
            scopes.accepted = scopes.accepted.max(was.accepted);
            add_row_before(&mut scopes, was, now);
        }
        if starts_writing && scopes.since.is_some() {
            scopes.harmful_since = Some(now);
        }
        if let Some(shorter) = shorter_window.filter(|shorter| *shorter < window && scopes.present.is_some()) {
            // Keys that are older than the shorter window may have been removed.
            let since = clock::window_start_until(now, shorter);
            record_only_since(&mut scopes, since, UnrecordedBecause::WindowWasShorter);
            scopes.harmful_since = Some(now);
        }
        if !is_recorded && has_served {
            record_only_since(&mut scopes, now, unrecorded_because);
        }
        if scopes.present.is_some() {
            for was in matches_before.taken_over_by(route, keeps_match) {
                if was.since.is_some() {
                    scopes.harmful_since = Some(now);
                }
                if !has_same_key(was, &scopes) {
                    record_only_since(&mut scopes, now, UnrecordedBecause::RequestsOfOtherRoute);
                }
                add_row_before(&mut scopes, RetryScopes { reassigned: Vec::new(), ..was.clone() }, now);
            }
        }
        prune(&mut scopes, now, window);
        after.insert(route.id.clone(), scopes);
    }
    for (id, was) in known {
        // Of a joined route, the ids of its parts are kept until each part is a route again (`separated`).
        let joined = joined_ids::of_absent(&id, &was, &declared.routes);
        let mut removed = RetryScopes { joined, ..RetryScopes::default() };
        add_row_before(&mut removed, was, now);
        prune(&mut removed, now, window);
        after.insert(id, removed);
    }
    after.retain(|_, scopes| *scopes != RetryScopes::default());
    after
}

/// Logs what changed in the scopes of routes.
pub(super) fn log_changes(before: &Scopes, after: &Scopes, window: Duration) {
    for (route, scopes) in after {
        let before = before.get(route);
        if let Some(since) = scopes.since.filter(|since| before.and_then(|before| before.since) != Some(*since)) {
            tracing::info!(
                %route, %since, until = %retries_until(since, window),
                "the route's retry keys are known only from `since` on: the gate to `live` stays shut until `until` \
                 unless forced, since retries may come of requests that legacy served before"
            );
        }
        let newest = |scopes: &RetryScopes| scopes.earlier.first().map(|replaced| replaced.at);
        if let Some(at) = newest(scopes).filter(|at| before.and_then(newest).is_none_or(|known| known < *at)) {
            tracing::info!(
                %route, until = %retries_until(at, window),
                "the scope of the route's retry keys changed: the earlier scope is looked up, too"
            );
        }
        if scopes.newest_dropped.is_some() && scopes.newest_dropped != before.and_then(|before| before.newest_dropped) {
            tracing::warn!(
                %route, kept = EARLIER_SCOPES_MAX,
                "the scope of the route's retry keys changed too often: the oldest scope is not looked up any more, \
                 and retries of what came under it are new requests"
            );
        }
    }
}

/// Whether a route matches no requests but those that it matched before. Rows of an earlier version do not say which
/// those were.
fn matches_nothing_new(was: &RetryScopes, route: &Route) -> bool {
    let Some(text) = &was.matches else { return true };
    let has_all = |paths: PathConventions| paths.match_all_of(&ServiceMatch::of(route).paths);
    text.parse().is_ok_and(|matches: RouteMatch| {
        matches.normal_form() == route.matches.normal_form() && was.paths.is_none_or(has_all)
    })
}

/// Whether the earlier scope has the same `retry_key` as the present one. If not, legacy may have served requests that
/// would have a key now and had none then, so that they were not recorded.
fn has_same_key(was: &RetryScopes, scopes: &RetryScopes) -> bool {
    was.present.as_ref().zip(scopes.present.as_ref()).is_some_and(|(was, now)| was.key == now.key)
}

/// Why some keys of earlier requests were not recorded. `own`: the stored rows of the route; `keeps_match`: the route
/// matches no requests but those that it matched before.
fn unrecorded_because(own: &[RetryScopes], route: &Route, keeps_match: bool) -> UnrecordedBecause {
    let is_without_workflow = |was: &RetryScopes| was.present.is_none() && was.matches.is_some();
    if !own.iter().any(|was| was.present.is_some()) || own.iter().any(is_without_workflow) {
        return UnrecordedBecause::WorkflowAdded;
    }
    if keeps_match {
        return UnrecordedBecause::RetryKeyChanged;
    }
    let has_template = |was: &RetryScopes| {
        let matches = was.matches.as_ref().and_then(|text| text.parse::<RouteMatch>().ok());
        matches.is_some_and(|matches| matches.normal_form() == route.matches.normal_form())
    };
    match own.iter().any(has_template) {
        true => UnrecordedBecause::PathsChanged,
        false => UnrecordedBecause::MatchChanged,
    }
}

/// Notes that keys are recorded for all requests only since this time, unless a later time is noted already.
fn record_only_since(scopes: &mut RetryScopes, since: Timestamp, because: UnrecordedBecause) {
    if scopes.since < Some(since) {
        (scopes.since, scopes.since_because) = (Some(since), Some(because));
    }
}

/// The requests that each route matched by the files that were read last.
struct MatchesBefore<'a> {
    matches: Vec<(&'a RouteId, RouteMatch, &'a RetryScopes)>,
    /// The routes of the new files.
    routes: &'a [Arc<Route>],
}

impl<'a> MatchesBefore<'a> {
    fn of(before: &'a Scopes, routes: &'a [Arc<Route>]) -> Self {
        let matches = before.iter().filter_map(|(id, was)| Some((id, was.matches.as_ref()?.parse().ok()?, was)));
        Self { matches: matches.collect(), routes }
    }

    /// The rows, from before, of other routes whose requests this route may get from now on. `keeps_match`: this route
    /// matches no requests but those that it matched before.
    fn taken_over_by(&self, route: &Route, keeps_match: bool) -> impl Iterator<Item = &'a RetryScopes> {
        let own = ServiceMatch::of(route);
        let gets_some = move |(id, matches, was): &&(&RouteId, RouteMatch, &RetryScopes)| {
            let others = ServiceMatch { matches, paths: was.paths.unwrap_or_default() };
            let is_present =
                self.routes.iter().any(|route| reassigned_requests::has_same_requests(was, matches, route));
            let had_them = keeps_match && (is_present || own.surely_wins_over(&others));
            let leaves_them = is_present && others.surely_wins_over(&own);
            !route.ids().any(|own| own == *id) && !had_them && !leaves_them && own.overlaps(&others)
        };
        self.matches.iter().filter(gets_some).map(|(_, _, was)| *was)
    }
}

/// The scopes without the expired ones.
pub(super) fn current(scopes: &Scopes, now: Timestamp, window: Duration) -> Scopes {
    let mut scopes = scopes.clone();
    scopes.values_mut().for_each(|scopes| prune(scopes, now, window));
    scopes.retain(|_, scopes| *scopes != RetryScopes::default());
    scopes
}

/// Adds the scopes of the earlier row `was` to `scopes`: the present scope of `was` becomes an earlier one, replaced at
/// this time.
fn add_row_before(scopes: &mut RetryScopes, was: RetryScopes, at: Timestamp) {
    let RetryScopes {
        present,
        earlier,
        newest_dropped,
        since,
        since_because,
        reassigned,
        matches,
        paths,
        reads_only: _,
        window_s: _,
        has_force: _,
        harmful_since: _,
        accepted: _,
        forced_cohorts: _,
        dropped_reasons: _,
        joined: _,
    } = was;
    let replaced = present.map(|scope| ReplacedScope { scope, at, matches, paths });
    let now = scopes.present.as_ref().map(|scope| (scope, scopes.matches.as_deref()));
    let is_present = |replaced: &ReplacedScope| now.is_some_and(|now| scope_matches::read_alike(now, replaced));
    scopes.earlier.extend(replaced.filter(|replaced| !is_present(replaced)));
    scopes.earlier.extend(earlier);
    scopes.newest_dropped = scopes.newest_dropped.max(newest_dropped);
    if scopes.since < since {
        (scopes.since, scopes.since_because) = (since, since_because);
    }
    scopes.reassigned.extend(reassigned);
}

/// Sorts earlier scopes newest first, and removes duplicates, expired ones, and those beyond the bound.
fn prune(scopes: &mut RetryScopes, at: Timestamp, window: Duration) {
    let RetryScopes {
        present,
        earlier,
        newest_dropped,
        since,
        since_because,
        harmful_since,
        accepted,
        reassigned,
        dropped_reasons,
        matches,
        paths: _,
        reads_only: _,
        window_s: _,
        has_force: _,
        forced_cohorts: _,
        joined: _,
    } = scopes;
    earlier.sort_by_key(|replaced| Reverse(replaced.at));
    let mut remaining: Vec<ReplacedScope> = Vec::new();
    for replaced in earlier.drain(..) {
        let now = present.iter().map(|scope| (scope, matches.as_deref()));
        let mut known = now.chain(remaining.iter().map(|known| (&known.scope, known.matches.as_deref())));
        let is_known = known.any(|known| scope_matches::read_alike(known, &replaced));
        if !is_known && retries_until(replaced.at, window) > at {
            remaining.push(replaced);
        }
    }
    if remaining.len() > EARLIER_SCOPES_MAX {
        *newest_dropped = (*newest_dropped).max(Some(remaining[EARLIER_SCOPES_MAX].at));
        remaining.truncate(EARLIER_SCOPES_MAX);
    }
    *newest_dropped = newest_dropped.filter(|at_replaced| retries_until(*at_replaced, window) > at);
    *since = since.filter(|since| present.is_some() && retries_until(*since, window) > at);
    *since_because = since_because.filter(|_| since.is_some());
    *harmful_since = harmful_since.filter(|_| since.is_some());
    *accepted = accepted.filter(|_| since.is_some());
    *earlier = remaining;
    reassigned_requests::prune(reassigned, |at_replaced| retries_until(at_replaced, window) > at);
    cohort_reasons::prune(dropped_reasons, |at_dropped| retries_until(at_dropped, window) > at);
}

/// The earlier scopes in the form in which requests are looked up under them.
pub(super) fn parse_earlier(scopes: &Scopes, window: Duration) -> Arc<EarlierScopes> {
    let mut all = EarlierScopes::default();
    let unreadable = |route: &RouteId, why: String| {
        tracing::warn!(
            %route, why,
            "an earlier scope of the route's retry keys cannot be read and is not looked up: retries of what came \
             under it are new requests"
        );
    };
    let times = |at: Timestamp| EarlierTimes {
        first_tries_until_s: clock::window_end(at, IN_FLIGHT).as_second(),
        retries_until_s: retries_until(at, window).as_second(),
    };
    for (route, scopes) in scopes {
        for replaced in &scopes.earlier {
            match scope_matches::parse(replaced, scopes, times(replaced.at)) {
                Ok(earlier) => all.by_route.entry(route.clone()).or_default().push(earlier),
                Err(why) => unreadable(route, why),
            }
        }
        for moved in &scopes.reassigned {
            match reassigned_requests::parse(route, moved, times(moved.at)) {
                Ok(moved) => all.reassigned.push(moved),
                Err(why) => unreadable(route, why),
            }
        }
    }
    Arc::new(all)
}

/// The requests from before keys were recorded, while retries of them may come: they keep the gate to `live` shut.
pub(super) fn unrecorded_retries(scopes: &RetryScopes, now: Timestamp, window: Duration) -> Option<UnknownRetries> {
    let since = scopes.since?;
    let until = retries_until(since, window);
    (until > now).then(|| UnknownRetries {
        cause_at: since.max(scopes.harmful_since.unwrap_or(since)),
        until,
        why: format!(
            "the route's retry keys are recorded since {since:.0}, {}: until {until:.0} a retry may come of a request \
             that legacy served before, and the engine would perform it a second time",
            because_text(scopes.since_because),
        ),
    })
}

/// Why keys are recorded only since a time, to follow that time in a sentence.
fn because_text(because: Option<UnrecordedBecause>) -> &'static str {
    match because {
        Some(UnrecordedBecause::WorkflowAdded) => {
            "when the route, or its workflow, was added (in `shadow` and `dark` they are recorded)"
        }
        Some(UnrecordedBecause::MatchChanged) => "when its `match` changed (to change it back is another change)",
        Some(UnrecordedBecause::PathsChanged) => {
            "when the `paths:` of its service changed (to change them back is another change)"
        }
        Some(UnrecordedBecause::RetryKeyChanged) => {
            "when its `retry_key` changed (to change it back is another change)"
        }
        Some(UnrecordedBecause::RequestsOfOtherRoute) => {
            "when it got requests of another route that had no workflow or another `retry_key`"
        }
        Some(UnrecordedBecause::WindowWasShorter) => {
            "because older ones were removed while `retry_window_s` was shorter (if no client retries that late, make it \
             shorter again)"
        }
        None => {
            "when it got its workflow, its present `match`, `retry_key` or `paths:` of its service, or requests of \
             another route, or before which `retry_window_s` was shorter"
        }
    }
}

/// The requests that came after the store was copied, while retries of them may come: they keep the gate to `live` shut
/// on the copy. `started`: when the copy was first used.
pub(super) fn retries_since_copy(started: Timestamp, now: Timestamp, window: Duration) -> Option<UnknownRetries> {
    let until = retries_until(started, window);
    (until > now).then(|| UnknownRetries {
        cause_at: started,
        until,
        why: format!(
            "the store is a copy, such as a restored backup, started at {started:.0}: until {until:.0} a retry may come of a \
             request that was performed after the copy was made, and the engine would perform it a second time"
        ),
    })
}

/// The requests under a dropped scope, while retries of them may come: they keep the gate to `live` shut.
pub(super) fn dropped_retries(scopes: &RetryScopes, now: Timestamp, window: Duration) -> Option<UnknownRetries> {
    let newest_dropped = scopes.newest_dropped?;
    let until = retries_until(newest_dropped, window);
    (until > now).then(|| UnknownRetries {
        // The scope was dropped by the last change or by an earlier one; the time of the last change covers both.
        cause_at: scopes.earlier.first().map_or(newest_dropped, |newest| newest.at.max(newest_dropped)),
        until,
        why: format!(
            "the scope of the retry keys changed more than {EARLIER_SCOPES_MAX} times: until {until:.0} the engine could \
             perform a retry of what came under an older scope again"
        ),
    })
}
