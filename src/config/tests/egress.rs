//! What `check` says about the egress listener.

use super::set::Set;
use crate::listener::{Destination, Network};

fn with_egress(egress: &str) -> Set {
    Set::valid().edit("pointsman.yaml", "listen: 127.0.0.1:8080", &format!("egress: {egress}\nlisten: 127.0.0.1:8080"))
}

#[test]
fn the_egress_listener_has_an_address_allowed_callers_and_destinations() {
    let settings = |set: &Set| set.read().unwrap_or_else(|failed| panic!("{failed}")).setup.settings;
    assert!(settings(&Set::valid()).egress.is_none());
    let plain = settings(&with_egress("{ listen: 127.0.0.1:8090 }"));
    let egress = plain.egress.clone().expect("a listener");
    assert!(egress.address.to_string() == "127.0.0.1:8090" && egress.allow.is_empty() && egress.to.is_empty());
    let open = settings(&with_egress("{ listen: 0.0.0.0:8090, allow: [10.0.0.0/8], to: ['api.test:443', 'B.test'] }"));
    let egress = open.egress.clone().expect("a listener");
    assert_eq!(egress.allow, [Network::parse("10.0.0.0/8").unwrap()]);
    assert_eq!(egress.to, ["api.test:443", "b.test"].map(|text| Destination::parse(text).unwrap()));
    let only_services = with_egress("{ listen: 0.0.0.0:8090, allow: [10.0.0.0/8], to: [] }");
    assert!(only_services.read().is_ok());
    assert_eq!(plain.settings_needing_restart(&open), ["egress"]);
}

#[test]
fn problems_of_the_egress_listener_are_reported_with_their_positions() {
    for (egress, place, message, hint) in [
        ("{}", "1:", "the key `listen` is missing", ""),
        ("{ listen: x }", "1:19", "`x` is not an address to listen on", "ADDRESS:PORT"),
        ("{ listen: 127.0.0.1:1, alow: [] }", "1:", "unknown key `alow`", "`allow`"),
        ("{ listen: 127.0.0.1:8080 }", "1:19", "has the address of `listen`", "another port"),
        ("{ listen: 127.0.0.1:8081 }", "1:19", "has the address of `admin.listen`", "another port"),
        ("{ listen: 0.0.0.0:1, to: [] }", "1:19", "from other machines, and nothing says from which", "egress.allow"),
        (
            "{ listen: 0.0.0.0:1, allow: [10.0.0.0/8] }",
            "1:19",
            "`egress.to` is missing",
            "`to: []` allows the declared",
        ),
        ("{ listen: 127.0.0.1:1, allow: [] }", "1:", "the list names no network", "leave `allow` out"),
        ("{ listen: 127.0.0.1:1, allow: [10.1.0.0/8] }", "1:40", "after its prefix", "`10.0.0.0/8`"),
        ("{ listen: 127.0.0.1:1, to: ['http://a.test'] }", "1:37", "is not a host with an optional port", "HOST:PORT"),
    ] {
        let shown = with_egress(egress).shown();
        assert!(shown.contains(&format!("flags/pointsman.yaml:{place}")), "{egress}: {place}\n{shown}");
        assert!(shown.contains(message) && shown.contains(hint), "{egress}: {message}, {hint}\n{shown}");
    }
}

#[test]
fn a_service_that_is_the_egress_listener_is_refused() {
    let set = with_egress("{ listen: 127.0.0.1:9555 }");
    let set = set.edit("pointsman.yaml", "services:", "services:\n  again: http://localhost:9555/again");
    let shown = set.shown();
    assert!(shown.contains("is our own listener (`egress.listen`)") && shown.contains("would loop"), "{shown}");
}
