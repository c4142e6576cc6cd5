//! `capture:` and `redact:` in files: what they set, and what is refused with its place.

use super::set::Set;
use crate::flag::Percent;

const ROUTES_PATH: &str = "routes/orders.yaml";

/// The valid set, with more keys of its route and of pointsman.yaml.
fn with(of_route: &str, of_all: &str) -> Set {
    let set = Set::valid().edit(ROUTES_PATH, "    percent: 50\n", &format!("    percent: 50\n    {of_route}\n"));
    set.edit("pointsman.yaml", "store: memory", &format!("{of_all}\nstore: memory"))
}

#[test]
fn a_route_redacts_what_all_routes_redact_and_its_own() {
    let set =
        with("capture: 0.5%\n    redact: { names: [nick] }", "redact: { paths: [$.name], detect: [email, luhn] }");
    let loaded = set.read().unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    let route = &loaded.setup.routes[0];
    assert_eq!(route.capture, Percent::new(0.5).unwrap());
    let redact = &route.redact;
    assert!(redact.has_name("Nick") && redact.detectors().email);
    assert_eq!(redact.located_in(&serde_json::json!({"name": 1})), ["/name"]);
    assert!(!loaded.setup.settings.redact.has_name("nick"), "that of the route is its own");
    let without = Set::valid().read().unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    assert_eq!(without.setup.routes[0].capture, Percent::NONE);
    assert!(without.setup.routes[0].redact.is_empty());
}

#[test]
fn what_cannot_be_captured_or_redacted_is_refused_with_its_place() {
    for (of_route, of_all, place, message) in [
        ("capture: 10", "", "capture: 10", "expected text"),
        ("capture: lots", "", "capture: lots", "is not a rate"),
        ("capture: 101%", "", "capture: 101%", "not between 0% and 100%"),
        ("capture: 0.001%", "", "capture: 0.001%", "finer than 0.01"),
        ("redact: { names: ['-'] }", "", "'-'", "this is no name"),
        ("redact: { paths: [name] }", "", "name", "no JSONPath"),
        ("redact: { detect: [phone] }", "", "phone", "luhn"),
        ("redact: { name: [x] }", "", "name", "names"),
        ("capture: 1%", "redact: { paths: ['$['] }", "$[", "no JSONPath"),
    ] {
        let set = with(of_route, of_all);
        assert!(set.read().is_err(), "{of_route} {of_all}");
        let shown = set.shown();
        assert!([place, message].iter().all(|part| shown.contains(part)), "{of_route} {of_all}:\n{shown}");
    }
    let idle = Set::valid()
        .put("routes/b.yaml", "routes:\n  - { id: b, match: { method: GET, path: /b }, legacy: shop, capture: 1% }\n");
    assert!(idle.read().is_err() && idle.shown().contains("`capture` needs a `workflow`"), "{}", idle.shown());
}
