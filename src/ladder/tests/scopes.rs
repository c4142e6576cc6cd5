//! Which earlier scopes of retry keys are kept, and until when.

use super::*;
use crate::expression::Template;
use crate::flag::ByteForm;
use crate::ladder::scopes::{self, Scopes, dropped_retries, unrecorded_retries};
use crate::limits::{EARLIER_SCOPES_MAX, REASSIGNED_MATCHES_MAX};

const HOUR: Duration = Duration::from_secs(3_600);

fn at(hours: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_000_000 + hours * 3_600).unwrap()
}

/// The route `bare`, scoped by a header.
fn scoped_by(header: &str) -> Vec<Arc<Route>> {
    let route = files(&[]).routes.into_iter().find(|route| route.id.as_str() == "bare").unwrap();
    let header: http::HeaderName = header.parse().unwrap();
    vec![Arc::new(Route { caller: vec![header].into(), ..(*route).clone() })]
}

fn declaring(routes: &[Arc<Route>]) -> DeclaredFiles {
    DeclaredFiles { routes: routes.to_vec(), ..files(&[]) }
}

/// As [`scopes::after_files`], where requests may have come before the first files.
fn after_files(before: &Scopes, routes: &[Arc<Route>], now: jiff::Timestamp, window: Duration) -> Scopes {
    scopes::after_files(before, &declaring(routes), true, now, window)
}

/// The first files of a new store.
fn after_first_files(routes: &[Arc<Route>]) -> Scopes {
    scopes::after_files(&Scopes::new(), &declaring(routes), false, at(0), 24 * HOUR)
}

fn earlier(scopes: &Scopes, route: &str) -> Vec<String> {
    let scopes = scopes.get(&RouteId::from(route));
    scopes.iter().flat_map(|scopes| &scopes.earlier).flat_map(|earlier| earlier.scope.headers.clone()).collect()
}

#[test]
fn a_scope_is_looked_up_until_no_retry_may_come() {
    let window = 24 * HOUR;
    let mut scopes = Scopes::new();
    let mut next = |header: &str, hour: i64| {
        scopes = after_files(&scopes, &scoped_by(header), at(hour), window);
        earlier(&scopes, "bare")
    };
    assert!(next("a", 0).is_empty(), "the first scope has no earlier one");
    assert_eq!(next("b", 1), ["a"]);
    assert_eq!(next("b", 2), ["a"]);
    assert_eq!(next("c", 3), ["b", "a"]);
    assert_eq!(next("a", 4), ["c", "b"], "`a` is in force again");
    assert_eq!(next("b", 5), ["a", "c"]);
    assert_eq!(next("b", 25), ["a", "c"]);
    assert_eq!(next("b", 29), ["a"]);
    assert!(next("b", 30).is_empty());
}

/// Keys from before the shorter window have been removed. The gate is shut until no retry of them may come any more.
#[test]
fn a_longer_window_shuts_the_gate_for_the_keys_that_the_shorter_one_removed() {
    let read = |before: &Scopes, hour, window: u32| after_files(before, &scoped_by("a"), at(hour), window * HOUR);
    let shut =
        |scopes: &Scopes, hour, window| unrecorded_retries(&scopes[&RouteId::from("bare")], at(hour), window * HOUR);
    let before = after_first_files(&scoped_by("a"));
    for (window, is_shut) in [(24, false), (12, false), (48, true)] {
        let after = read(&before, 100, window);
        let found = shut(&after, 100, window);
        assert_eq!(found.as_ref().map(|found| found.cause_at), is_shut.then(|| at(100)), "{window}: {found:?}");
    }
    let after = read(&read(&before, 100, 48), 110, 48);
    let until = shut(&after, 110, 48).unwrap().until;
    assert_eq!(until, at(100 - 24 + 48) + Duration::from_secs(600));
    let shortened = read(&read(&before, 100, 1), 101, 24);
    assert_eq!(shut(&shortened, 101, 24).unwrap().until, at(101 - 1 + 24) + Duration::from_secs(600));
}

/// Stored by a version that derived other keys from bytes that are not UTF-8.
#[test]
fn the_keys_of_an_older_version_are_looked_up() {
    let template = Template::parse_str("${request.query.order}").unwrap();
    let keyed = vec![Arc::new(Route { retry_key: Some(template), ..(*scoped_by("a")[0]).clone() })];
    let mut before = after_first_files(&keyed);
    let bare = RouteId::from("bare");
    before.get_mut(&bare).unwrap().present.as_mut().unwrap().bytes = ByteForm::Replaced;
    let after = after_files(&before, &keyed, at(1), 24 * HOUR);
    let forms = |scopes: &Scopes| scopes[&bare].earlier.iter().map(|earlier| earlier.scope.bytes).collect::<Vec<_>>();
    assert_eq!(forms(&after), [ByteForm::Replaced]);
    assert_eq!(after[&bare].since, None, "the keys were recorded");
    assert!(forms(&after_files(&after, &keyed, at(30), 24 * HOUR)).is_empty());
    assert!(
        forms(&after_files(&after_first_files(&scoped_by("a")), &scoped_by("a"), at(1), 24 * HOUR)).is_empty(),
        "no template"
    );
}

#[test]
fn the_scope_of_a_route_that_is_re_added_under_another_scope_is_not_dropped() {
    let (window, none) = (24 * HOUR, Vec::new());
    let first = after_files(&Scopes::new(), &scoped_by("a"), at(0), window);
    let removed = after_files(&first, &none, at(1), window);
    assert_eq!(earlier(&removed, "bare"), ["a"]);
    assert_eq!(earlier(&after_files(&removed, &scoped_by("b"), at(20), window), "bare"), ["a"]);
    assert!(after_files(&removed, &none, at(26), window).is_empty());
    let without_workflow: Vec<_> =
        scoped_by("a").iter().map(|r| Arc::new(Route { workflow: None, ..(**r).clone() })).collect();
    assert_eq!(earlier(&after_files(&first, &without_workflow, at(1), window), "bare"), ["a"]);
    // Under another id, and then back under the first one, which changes the oldest id.
    let renamed = |id: &str, was: &str| {
        let route = scoped_by("a").remove(0);
        vec![Arc::new(Route { id: id.into(), was: vec![was.into()], ..(*route).clone() })]
    };
    let other = after_files(&first, &renamed("new", "bare"), at(1), window);
    assert!(earlier(&other, "new").is_empty(), "the oldest id is the same");
    let back = after_files(&other, &renamed("bare", "new"), at(2), window);
    assert_eq!(earlier(&back, "bare"), ["a"]);
    assert_eq!(back.len(), 1);
}

#[test]
fn scopes_beyond_the_bound_are_dropped_and_shut_the_gate() {
    let window = 24 * HOUR;
    let mut scopes = Scopes::new();
    for n in 0..=EARLIER_SCOPES_MAX + 1 {
        let why = scopes.get(&RouteId::from("bare")).and_then(|scopes| dropped_retries(scopes, at(0), window));
        assert!(why.is_none(), "{n}");
        scopes = after_files(&scopes, &scoped_by(&format!("x-{n}")), at(n as i64), window);
    }
    let scopes = &scopes[&RouteId::from("bare")];
    assert_eq!(scopes.earlier.len(), EARLIER_SCOPES_MAX);
    let shut = dropped_retries(scopes, at(20), window).unwrap();
    assert!(shut.why.contains("more than 8 times"), "{}", shut.why);
    let last = scopes.earlier[0].at;
    assert!(
        shut.cause_at == last && last > scopes.newest_dropped.unwrap(),
        "a flip before the last change does not know of it"
    );
    assert!(dropped_retries(scopes, at(26), window).is_none(), "its time is over");
}

/// Why a route's gate to `live` is shut.
fn why_shut(scopes: &Scopes, route: &str, hour: i64, window: Duration) -> Option<String> {
    unrecorded_retries(scopes.get(&RouteId::from(route))?, at(hour), window).map(|unknown| unknown.why)
}

#[test]
fn requests_before_a_routes_first_workflow_shut_the_gate_for_a_window() {
    let window = 24 * HOUR;
    let without = |routes: Vec<Arc<Route>>| -> Vec<Arc<Route>> {
        routes.iter().map(|r| Arc::new(Route { workflow: None, ..(**r).clone() })).collect()
    };
    let renamed = |id: &str, was: &[&str]| {
        let was = was.iter().map(|id| RouteId::from(*id)).collect();
        vec![Arc::new(Route { id: id.into(), was, ..(*scoped_by("a").remove(0)).clone() })]
    };
    // The first files of a new store: there were no requests before.
    let new = after_first_files(&scoped_by("a"));
    assert_eq!(why_shut(&new, "bare", 0, window), None);
    assert_eq!(
        why_shut(&after_files(&new, &scoped_by("b"), at(1), window), "bare", 1, window),
        None,
        "its keys were recorded all along"
    );
    assert_eq!(why_shut(&after_files(&new, &renamed("other", &["bare"]), at(1), window), "other", 1, window), None);
    // Requests came before: unmatched ones, or those of a route without a workflow.
    let without_workflow = after_first_files(&without(scoped_by("a")));
    for before in [&Scopes::new(), &without_workflow] {
        let first = after_files(before, &scoped_by("a"), at(0), window);
        let why = why_shut(&first, "bare", 0, window).expect("it is shut");
        assert!(why.contains("since 1970-01-12T13:46:40Z") && why.contains("until 1970-01-13T13:56:40Z"), "{why}");
        // Another scope, another id, a restart: it counts from the first time.
        let later = after_files(&first, &scoped_by("b"), at(12), window);
        let later = after_files(&later, &renamed("other", &["bare"]), at(20), window);
        assert_eq!(why_shut(&later, "other", 20, window), Some(why.clone()));
        assert!(
            why_shut(&later, "other", 24, window).is_some(),
            "a request under way then may be served a little later"
        );
        assert_eq!(why_shut(&later, "other", 25, window), None);
        let over = after_files(&later, &renamed("other", &["bare"]), at(25), window);
        assert_eq!(over[&RouteId::from("other")].since, None, "it is not kept for ever");
        // Without its workflow for an hour: its keys were not recorded then.
        let workflow_removed = after_files(&over, &without(renamed("other", &["bare"])), at(30), window);
        assert_eq!(why_shut(&workflow_removed, "other", 30, window), None, "it can only be off");
        let back = after_files(&workflow_removed, &renamed("other", &["bare"]), at(31), window);
        assert!(why_shut(&back, "other", 54, window).is_some() && why_shut(&back, "other", 56, window).is_none());
    }
}

/// A request that another route matched, or that had no such key, was not recorded under a key of this route.
#[test]
fn requests_before_another_match_or_retry_key_shut_the_gate_for_a_window() {
    let window = 24 * HOUR;
    let with = |change: &dyn Fn(&mut Route)| {
        let mut route = (*scoped_by("a").remove(0)).clone();
        change(&mut route);
        vec![Arc::new(route)]
    };
    let before = after_first_files(&scoped_by("a"));
    let changes: [&dyn Fn(&mut Route); 3] =
        [&|route| route.matches.path = "/{kind}".into(), &|route| route.matches.host = Some("shop".into()), &|route| {
            route.retry_key = Some(Template::parse_str("${request.headers.x}").unwrap())
        }];
    for change in changes {
        let changed = after_files(&before, &with(change), at(1), window);
        assert!(why_shut(&changed, "bare", 1, window).is_some_and(|why| why.contains("to change it back")));
        let again = after_files(&changed, &with(change), at(2), window);
        assert_eq!(again[&RouteId::from("bare")].since, Some(at(1)), "it counts from the change");
        assert_eq!(why_shut(&again, "bare", 26, window), None);
        let back = after_files(&again, &scoped_by("a"), at(26), window);
        let why = "requests that came in between were not recorded under this match and key";
        assert!(why_shut(&back, "bare", 26, window).is_some(), "{why}");
    }
    let mut older = before.clone();
    older.values_mut().for_each(|scopes| scopes.matches = None);
    assert_eq!(
        why_shut(&after_files(&older, &scoped_by("a"), at(1), window), "bare", 1, window),
        None,
        "stored by an earlier version"
    );
}

#[tokio::test]
async fn the_gate_to_live_waits_for_retries_from_before_the_first_workflow() {
    let without_workflow = || edited(files(&[]), "bare", |route| route.workflow = None);
    let why = |fixture: &Fixture, id: &str| fixture.status(id).next.unwrap().missing.join("; ");
    let since = "the route's retry keys are recorded since";
    let fixture = Fixture::open(without_workflow()).await;
    for reads in [false, true] {
        let with_workflow =
            || DeclaredFiles { read_only: reads.then(|| RouteId::from("bare")).into_iter().collect(), ..files(&[]) };
        fixture.ladder.reload(with_workflow(), || {}).await.unwrap();
        fixture.flip("bare", forced(State::Dark)).await.unwrap();
        assert_eq!(why(&fixture, "bare").contains(since), !reads, "{}", why(&fixture, "bare"));
        assert_eq!(fixture.refusal("bare", to(State::Live)).await.contains(since), !reads);
        fixture.flip("bare", to(State::Off)).await.unwrap();
        fixture.flip("bare", to(State::Shadow)).await.unwrap();
        assert!(!why(&fixture, "bare").contains(since), "the gates below `live` do not wait for it");
    }
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    assert!(!why(&fixture, "plain").contains(since), "it had its workflow from the first files on");
    // The gate waits in the next process too, until `force` overrides it.
    let fixture = fixture.restart(files(&[])).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    assert!(fixture.refusal("bare", to(State::Live)).await.contains(since));
    assert!(fixture.flip("bare", forced(State::Live)).await.unwrap().flip.forced);
}

/// Routes by id, match (method, host, path) and the header that is the retry key.
fn routes(all: &[(&str, &str, Option<&str>)]) -> Vec<Arc<Route>> {
    let route = |(id, matches, key): &(&str, &str, Option<&str>)| {
        let key = key.map(|name| Template::parse_str(&format!("${{request.headers.{name}}}")).unwrap());
        let route = (*scoped_by("a").remove(0)).clone();
        Arc::new(Route { id: (*id).into(), matches: matches.parse().unwrap(), retry_key: key, ..route })
    };
    all.iter().map(route).collect()
}

/// The routes whose keys a route looks up under earlier scopes.
fn looks_up(scopes: &Scopes, route: &str) -> Vec<String> {
    let scopes = scopes.get(&RouteId::from(route)).into_iter();
    scopes.flat_map(|scopes| &scopes.earlier).map(|earlier| earlier.scope.route.to_string()).collect()
}

#[test]
fn a_route_that_takes_over_requests_looks_up_the_keys_of_their_route() {
    let (window, key) = (24 * HOUR, Some("k"));
    let wide = ("wide", "POST /{kind}", key);
    let both = after_first_files(&routes(&[wide, ("special", "POST /orders", key)]));
    for (after, route, found, why) in [
        (vec![wide], "wide", &["special"][..], "it is removed"),
        (vec![wide, ("special", "POST shop/orders", key)], "wide", &["special"], "it has a host now"),
        (vec![wide, ("special", "PUT /orders", key)], "wide", &["special"], "another method"),
        (vec![wide, ("special", "POST /orders", Some("j"))], "wide", &[], "`special` still gets its requests"),
        (vec![wide, ("new", "POST /orders", key)], "wide", &[], "another route gets them"),
        (vec![wide, ("new", "POST /orders", key)], "new", &["special", "wide"], "the route that gets them"),
        (vec![("special", "POST /orders", key)], "special", &[], "it had them before"),
    ] {
        let why = format!("{why}: {after:?}");
        let after = after_files(&both, &routes(&after), at(1), window);
        assert_eq!(looks_up(&after, route), found, "{why}");
        assert_eq!(
            why_shut(&after, route, 1, window).is_some(),
            route == "new",
            "the keys of the others are recorded: {why}"
        );
    }
    // A new route takes requests of another one, which keeps the rest.
    let before = after_first_files(&routes(&[wide]));
    assert_eq!(
        looks_up(&after_files(&before, &routes(&[wide, ("new", "POST /a", key)]), at(1), window), "new"),
        ["wide"]
    );
    // The other route had another key, or no workflow, so that not all of its requests were recorded.
    let removed = |special: Vec<Arc<Route>>| {
        let before = after_first_files(&[routes(&[wide]), special].concat());
        after_files(&before, &routes(&[wide]), at(1), window)
    };
    let other_key = removed(routes(&[("special", "POST /orders", None)]));
    assert_eq!(looks_up(&other_key, "wide"), ["special"]);
    assert!(why_shut(&other_key, "wide", 1, window).is_some());
    let without_workflow = routes(&[("special", "POST /orders", key)]);
    let without_workflow: Vec<_> =
        without_workflow.iter().map(|r| Arc::new(Route { workflow: None, ..(**r).clone() })).collect();
    assert!(why_shut(&removed(without_workflow), "wide", 1, window).is_some_and(|why| why.contains("another route")));
    // Requests of the other route that were not recorded shut the gate too.
    let late = after_files(&before, &routes(&[wide, ("special", "POST /orders", key)]), at(20), window);
    let taken = after_files(&late, &routes(&[wide]), at(30), window);
    assert!(why_shut(&taken, "wide", 30, window).is_some());
    let wide = &taken[&RouteId::from("wide")];
    assert_eq!((wide.since, wide.harmful_since), (Some(at(20)), Some(at(30))));
}

/// TwoProcesses routes were merged: both had served requests that the merged route gets now.
#[test]
fn the_keys_of_a_merged_route_count_as_recorded_where_those_of_all_its_parts_were() {
    let (window, key) = (24 * HOUR, Some("k"));
    let before = |other_key, has_workflow: bool| {
        let mut two = routes(&[("one", "POST /{kind}", key), ("two", "POST /orders", other_key)]);
        if !has_workflow {
            Arc::make_mut(&mut two[1]).workflow = None;
        }
        after_first_files(&two)
    };
    let merged = |was: &[&str]| {
        let mut all = routes(&[("both", "POST /{kind}", key)]);
        Arc::make_mut(&mut all[0]).was = was.iter().map(|id| RouteId::from(*id)).collect();
        all
    };
    for was in [["one", "two"], ["two", "one"]] {
        let why_shut =
            |before: &Scopes| why_shut(&after_files(before, &merged(&was), at(1), window), "both", 1, window);
        assert_eq!(why_shut(&before(key, true)), None, "{was:?}: both were recorded");
        assert!(why_shut(&before(Some("j"), true)).is_some(), "{was:?}: by another key");
        assert!(why_shut(&before(key, false)).is_some(), "{was:?}: one had no workflow");
    }
    let unserved = after_files(&before(key, true), &merged(&["one", "never"]), at(1), window);
    assert_eq!(why_shut(&unserved, "both", 1, window), None, "the other id served nothing");
}

/// The routes whose requests are looked up wherever they go, each with their match.
fn moved(scopes: &Scopes) -> Vec<String> {
    let all = scopes.values().flat_map(|scopes| &scopes.reassigned);
    all.map(|moved| format!("{} {}", moved.scope.route, moved.matches)).collect()
}

#[test]
fn requests_that_files_take_from_a_route_are_looked_up_until_no_retry_may_come() {
    let (window, key) = (24 * HOUR, Some("k"));
    let pay = ("pay", "POST /pay/{kind}", key);
    let before = after_first_files(&routes(&[pay]));
    let without_workflow = |all: &[(&str, &str, Option<&str>)]| -> Vec<Arc<Route>> {
        routes(all).iter().map(|r| Arc::new(Route { workflow: None, ..(**r).clone() })).collect()
    };
    let own = "pay POST /pay/{kind}";
    for (after, expected, why) in [
        (routes(&[pay]), vec![], "nothing changed"),
        (routes(&[("pay", "POST /pay/{what}", key)]), vec![], "the same requests"),
        (routes(&[("pay", "POST /pay/{kind}", Some("j"))]), vec![], "they are looked up under the earlier scope"),
        (vec![], vec![own], "it is removed"),
        (without_workflow(&[pay]), vec![own], "it has no workflow"),
        (routes(&[("pay", "POST /purchases", key)]), vec![own], "it matches others"),
        (routes(&[("other", "POST /pay/{kind}", key)]), vec![own], "another route has them"),
        ([routes(&[pay]), without_workflow(&[("tea", "POST /pay/tea", key)])].concat(), vec![own], "another wins"),
        (routes(&[pay, ("get", "GET /pay/tea", key)]), vec![], "another method"),
        (routes(&[pay, ("all", "POST /{a}/{b}", key)]), vec![], "a wider one"),
    ] {
        let mut scopes = after_files(&before, &after, at(1), window);
        assert_eq!(moved(&scopes), expected, "{why}");
        for hour in [2, 24] {
            scopes = after_files(&scopes, &after, at(hour), window);
            assert_eq!(moved(&scopes), expected, "{why}, at {hour}");
        }
        assert!(moved(&after_files(&scopes, &after, at(26), window)).is_empty(), "{why}");
    }
    // The scope before is looked up with them, and a renamed route keeps them.
    let other_key = after_files(&before, &routes(&[("pay", "POST /pay/{kind}", Some("j"))]), at(1), window);
    let removed = after_files(&other_key, &[], at(20), window);
    assert_eq!(moved(&removed).len(), 2);
    let mut renamed = routes(&[("bill", "POST /bill", key)]);
    Arc::make_mut(&mut renamed[0]).was = vec!["pay".into()];
    let renamed = after_files(&removed, &renamed, at(26), window);
    assert_eq!((moved(&renamed).len(), renamed.len()), (1, 1), "the older of the two is over");
}

#[test]
fn the_number_of_reassigned_requests_is_bounded() {
    let mut scopes = after_first_files(&routes(&[("pay", "POST /0", Some("k"))]));
    for n in 1..=REASSIGNED_MATCHES_MAX + 2 {
        scopes = after_files(&scopes, &routes(&[("pay", &format!("POST /{n}"), Some("k"))]), at(1), 24 * HOUR);
        let all = scopes.values_mut().flat_map(|scopes| &mut scopes.reassigned);
        all.for_each(|moved| moved.at -= Duration::from_secs(1));
    }
    let remaining = moved(&scopes);
    assert_eq!(
        (remaining.len(), remaining[0].as_str()),
        (REASSIGNED_MATCHES_MAX, format!("pay POST /{}", REASSIGNED_MATCHES_MAX + 1).as_str())
    );
}
