//! Guards in files: which are refused, which can never act, and the guard that all routes have.

use super::set::Set;
use crate::flag::Guard;

const ROUTES_PATH: &str = "routes/orders.yaml";

/// The valid set, with more keys of its route.
fn with(keys: &str) -> Set {
    Set::valid().edit(ROUTES_PATH, "    percent: 50\n", &format!("    percent: 50\n    {keys}\n"))
}

fn guard_of(set: &Set) -> Option<Guard> {
    let loaded = set.read().unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    loaded.setup.routes[0].guard.clone()
}

#[test]
fn a_guard_that_cannot_act_is_refused_with_its_place() {
    for (guard, place, message, hint) in [
        ("{ errors: 100% }", "errors: 100%", "the guard would never act", "lower the rate"),
        ("{ errors: 1%, over: 3 }", "errors: 1%", "the guard would never act", "over: 5 at least"),
        ("{ over: 100 }", "guard:", "has no condition", "errors: 1%"),
        ("{ errors: 1%, over: 20000 }", "20000", "between 1 and 10000", ""),
        ("{ errors: 1%, release: never }", "never", "`never`", "evidence"),
        ("{ errors: 1%, notify: '${services.nobody}/x' }", "notify", "no service is called `nobody`", ""),
    ] {
        let set = with(&format!("guard: {guard}"));
        assert!(set.read().is_err(), "{guard}");
        let shown = set.shown();
        assert!([place, message, hint, ROUTES_PATH].iter().all(|part| shown.contains(part)), "{guard}:\n{shown}");
    }
}

#[test]
fn a_guard_without_a_workflow_or_without_pairs_is_warned_of() {
    let idle = Set::valid().put(
        "routes/b.yaml",
        "routes:\n  - { id: b, match: { method: GET, path: /b }, legacy: shop, guard: { errors: 1% } }\n",
    );
    let shown = idle.shown();
    assert!(idle.read().is_ok() && shown.contains("without a workflow the route is only `off`"), "{shown}");
    let live = |share: &str| {
        Set::valid()
            .edit(ROUTES_PATH, "state: shadow", "state: live\n    force: { reason: x }\n    guard: { mismatch: 1% }")
            .edit(ROUTES_PATH, "percent: 50", share)
    };
    for (share, is_warned) in
        [("percent: 100", true), ("percent: { live: 50 }\n    key: '${request.headers.a}'", false)]
    {
        let set = live(share);
        let shown = set.shown();
        assert!(set.read().is_ok(), "{shown}");
        assert_eq!(
            shown.contains("`mismatch` never acts while all callers are in `live`"),
            is_warned,
            "{share}:\n{shown}"
        );
    }
}

#[test]
fn a_guard_inherits_each_key_that_it_leaves_out() {
    let default =
        |set: Set| set.edit("pointsman.yaml", "store: memory", "guard: { errors: 2%, over: 300 }\nstore: memory");
    let plain = guard_of(&default(Set::valid())).expect("a guard");
    assert_eq!((plain.errors, plain.mismatch, plain.over, plain.at_least), (Some(0.02), None, 300, 5));
    let own = guard_of(&default(with("guard: { mismatch: 1%, at_least: 3 }"))).expect("a guard");
    assert_eq!((own.errors, own.mismatch, own.over, own.at_least), (Some(0.02), Some(0.01), 300, 3));
    assert_eq!(guard_of(&default(with("guard: { enabled: false }"))), None);
    assert_eq!(guard_of(&Set::valid()), None);
    let bad = Set::valid().edit("pointsman.yaml", "store: memory", "guard: { over: 300 }\nstore: memory");
    assert!(bad.read().is_err() && bad.shown().contains("has no condition"), "{}", bad.shown());
}
