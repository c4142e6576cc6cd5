//! What is remembered of how retry keys were scoped.

use super::*;
use crate::ladder::scopes::{Scopes, adopt, forgotten};
use crate::limits::EARLIER_SCOPES_MAX;

const HOUR: Duration = Duration::from_secs(3_600);

fn at(hours: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_000_000 + hours * 3_600).unwrap()
}

/// The route `bare`, scoped by a header.
fn by(header: &str) -> Vec<Arc<Route>> {
    let route = files(&[]).routes.into_iter().find(|route| route.id.as_str() == "bare").unwrap();
    let header: http::HeaderName = header.parse().unwrap();
    vec![Arc::new(Route { caller: vec![header].into(), ..(*route).clone() })]
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
        scopes = adopt(&scopes, &by(header), at(hour), window);
        earlier(&scopes, "bare")
    };
    assert!(next("a", 0).is_empty(), "what came first");
    assert_eq!(next("b", 1), ["a"]);
    assert_eq!(next("b", 2), ["a"]);
    assert_eq!(next("c", 3), ["b", "a"]);
    assert_eq!(next("a", 4), ["c", "b"], "in force again");
    assert_eq!(next("b", 5), ["a", "c"]);
    assert_eq!(next("b", 25), ["a", "c"]);
    assert_eq!(next("b", 29), ["a"]);
    assert!(next("b", 30).is_empty());
}

#[test]
fn a_route_that_goes_and_comes_back_under_another_scope_is_not_forgotten() {
    let (window, none) = (24 * HOUR, Vec::new());
    let first = adopt(&Scopes::new(), &by("a"), at(0), window);
    let gone = adopt(&first, &none, at(1), window);
    assert_eq!(earlier(&gone, "bare"), ["a"]);
    assert_eq!(earlier(&adopt(&gone, &by("b"), at(20), window), "bare"), ["a"]);
    assert!(adopt(&gone, &none, at(26), window).is_empty());
    let idle: Vec<_> = by("a").iter().map(|r| Arc::new(Route { workflow: None, ..(**r).clone() })).collect();
    assert_eq!(earlier(&adopt(&first, &idle, at(1), window), "bare"), ["a"]);
    // Under another id, and then back under the first one, which changes the oldest id.
    let renamed = |id: &str, was: &str| {
        let route = by("a").remove(0);
        vec![Arc::new(Route { id: id.into(), was: vec![was.into()], ..(*route).clone() })]
    };
    let other = adopt(&first, &renamed("new", "bare"), at(1), window);
    assert!(earlier(&other, "new").is_empty(), "the oldest id is the same");
    let back = adopt(&other, &renamed("bare", "new"), at(2), window);
    assert_eq!(earlier(&back, "bare"), ["a"]);
    assert_eq!(back.len(), 1);
}

#[test]
fn scopes_beyond_the_bound_are_forgotten_and_shut_the_gate() {
    let window = 24 * HOUR;
    let mut scopes = Scopes::new();
    for n in 0..=EARLIER_SCOPES_MAX + 1 {
        let said = scopes.get(&RouteId::from("bare")).and_then(|scopes| forgotten(scopes, at(0), window));
        assert_eq!(said, None, "{n}");
        scopes = adopt(&scopes, &by(&format!("x-{n}")), at(n as i64), window);
    }
    let scopes = &scopes[&RouteId::from("bare")];
    assert_eq!(scopes.earlier.len(), EARLIER_SCOPES_MAX);
    assert!(forgotten(scopes, at(20), window).unwrap().contains("more than 8 times"));
    assert_eq!(forgotten(scopes, at(26), window), None, "its time is over");
}
