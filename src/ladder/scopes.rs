//! The earlier scopes of each route's retry keys, kept for as long as a retry may come under them.
//!
//! Always true: a scope that new files replaced is looked up until no retry of a request under it may come any more. The
//! number of earlier scopes is bounded: if the oldest is dropped, that is logged, and the gate to `live` stays shut for
//! as long as a retry under it may come. The gate also stays shut for retries of requests whose keys were not recorded
//! when legacy served them: from before the route had a workflow, matched them, or had its present `retry_key`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::flag::{EarlierScopes, Match, RetryScope, Route};
use crate::limits::EARLIER_SCOPES_MAX;
use crate::names::RouteId;
use crate::store::{ReplacedScope, RetryScopes};

/// By route; also of routes that are in no file now.
pub(super) type Scopes = BTreeMap<RouteId, RetryScopes>;

/// How long after the recorded end of a scope a first try may still come under it: the new set is in force a little
/// later, and requests in flight keep the set that they started with.
const IN_FLIGHT: Duration = Duration::from_secs(600);

/// Until when a retry may come under a scope that was replaced at this time.
fn until(at: Timestamp, window: Duration) -> Timestamp {
    let window = window.saturating_add(IN_FLIGHT);
    at.checked_add(window).unwrap_or(Timestamp::MAX)
}

/// The scopes after new files are read. `has_served`: requests may have come before these files.
pub(super) fn adopt(
    before: &Scopes,
    routes: &[Arc<Route>],
    has_served: bool,
    now: Timestamp,
    window: Duration,
) -> Scopes {
    let (mut known, mut after) = (before.clone(), Scopes::new());
    for route in routes {
        // Without a workflow no key is noted.
        let mut scopes =
            RetryScopes { now: route.workflow.is_some().then(|| RetryScope::of(route)), ..Default::default() };
        scopes.matches = scopes.now.is_some().then(|| matched(route));
        let mut is_recorded = false;
        for was in route.ids().filter_map(|id| known.remove(id)) {
            is_recorded |= was.now.as_ref().is_some_and(|was_now| {
                // Requests without the earlier key, and those that another route matched, came under no key of this one.
                let has_same_key = scopes.now.as_ref().is_none_or(|now| now.key == was_now.key);
                has_same_key && was.matches.as_ref().is_none_or(|matches| *matches == matched(route))
            });
            replace(&mut scopes, was, now);
        }
        if !is_recorded && has_served {
            scopes.since = Some(now);
        }
        if scopes.since == Some(now) && route.workflow.is_some() {
            tracing::info!(
                route = %route.id, until = %until(now, window),
                "its retry keys are recorded from now on: until then the gate to `live` stays shut unless forced, since \
                 retries may come of requests that legacy served before"
            );
        }
        settle(&mut scopes, now, window);
        if scopes.earlier.first().is_some_and(|replaced| replaced.at == now) {
            let until = until(now, window);
            tracing::info!(route = %route.id, %until, "what scopes its retry keys changed: the earlier scope is looked up, too");
        }
        if scopes.forgotten != before.get(&route.id).and_then(|before| before.forgotten) && scopes.forgotten.is_some() {
            tracing::warn!(
                route = %route.id, kept = EARLIER_SCOPES_MAX,
                "what scopes its retry keys changed too often: the oldest scope is not looked up any more, and retries of \
                 what came under it are new requests"
            );
        }
        after.insert(route.id.clone(), scopes);
    }
    for (id, was) in known {
        let mut gone = RetryScopes::default();
        replace(&mut gone, was, now);
        settle(&mut gone, now, window);
        after.insert(id, gone);
    }
    after.retain(|_, scopes| *scopes != RetryScopes::default());
    after
}

/// The scopes without the expired ones.
pub(super) fn current(scopes: &Scopes, now: Timestamp, window: Duration) -> Scopes {
    let mut scopes = scopes.clone();
    scopes.values_mut().for_each(|scopes| settle(scopes, now, window));
    scopes.retain(|_, scopes| *scopes != RetryScopes::default());
    scopes
}

/// Which requests a route matches, as text.
fn matched(route: &Route) -> String {
    let Match { method, path, host } = &route.matches;
    format!("{method} {}{path}", host.as_deref().unwrap_or_default())
}

/// Replaces the present scope by the newer scopes given; it becomes an earlier one.
fn replace(scopes: &mut RetryScopes, was: RetryScopes, at: Timestamp) {
    let RetryScopes { now, earlier, forgotten, since, matches: _ } = was;
    scopes.earlier.extend(now.filter(|now| scopes.now.as_ref() != Some(now)).map(|scope| ReplacedScope { scope, at }));
    scopes.earlier.extend(earlier);
    scopes.forgotten = scopes.forgotten.max(forgotten);
    scopes.since = scopes.since.max(since);
}

/// Sorts earlier scopes newest first, and removes duplicates, expired ones, and those beyond the bound.
fn settle(scopes: &mut RetryScopes, at: Timestamp, window: Duration) {
    let RetryScopes { now, earlier, forgotten, since, matches: _ } = scopes;
    earlier.sort_by_key(|replaced| Reverse(replaced.at));
    let mut kept: Vec<ReplacedScope> = Vec::new();
    for replaced in earlier.drain(..) {
        let is_known = now.iter().chain(kept.iter().map(|kept| &kept.scope)).any(|scope| *scope == replaced.scope);
        if !is_known && until(replaced.at, window) > at {
            kept.push(replaced);
        }
    }
    if kept.len() > EARLIER_SCOPES_MAX {
        *forgotten = (*forgotten).max(Some(kept[EARLIER_SCOPES_MAX].at));
        kept.truncate(EARLIER_SCOPES_MAX);
    }
    *forgotten = forgotten.filter(|at_replaced| until(*at_replaced, window) > at);
    *since = since.filter(|since| now.is_some() && until(*since, window) > at);
    *earlier = kept;
}

/// The earlier scopes in the form in which requests are looked up under them.
pub(super) fn looked_up(scopes: &Scopes, window: Duration) -> Arc<EarlierScopes> {
    let mut all = EarlierScopes::new();
    for (route, scopes) in scopes {
        for ReplacedScope { scope, at } in &scopes.earlier {
            match scope.until(until(*at, window).as_second()) {
                Ok(earlier) => all.entry(route.clone()).or_default().push(earlier),
                Err(why) => tracing::warn!(
                    %route, why,
                    "an earlier scope of its retry keys cannot be read and is not looked up: retries of what came under \
                     it are new requests"
                ),
            }
        }
    }
    Arc::new(all)
}

/// What keeps the gate to `live` shut where a repeat does harm: requests that came before keys were recorded.
pub(super) fn before_recorded(scopes: &RetryScopes, now: Timestamp, window: Duration) -> Option<String> {
    let since = scopes.since?;
    let until = until(since, window);
    (until > now).then(|| {
        format!(
            "its retry keys are recorded since {since:.0}, when its workflow, its `match` or its `retry_key` came: until \
             {until:.0} a retry may come of a request that legacy served before, and the engine would perform it a second \
             time"
        )
    })
}

/// Why the gate to `live` is shut, if a scope was dropped under which a retry may still come.
pub(super) fn forgotten(scopes: &RetryScopes, now: Timestamp, window: Duration) -> Option<String> {
    let until = until(scopes.forgotten?, window);
    (until > now).then(|| {
        format!(
            "what scopes the retry keys changed more than {EARLIER_SCOPES_MAX} times: until {until:.0} the engine could \
             perform a retry of what came under an older scope again"
        )
    })
}
