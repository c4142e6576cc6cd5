//! Keys of a route that matter to a gate: deserialization accepts exactly the keys that the JSON Schema has.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::set::Set;
use crate::config::{FileKind, schema};
use crate::flag::State;
use crate::flag::file::{CohortDraft, ForceDraft, GuardDraft, InstanceDraft, RouteDraft};

const ROUTES_PATH: &str = "routes/orders.yaml";

/// The keys that a draft accepts, read from the error about an unknown key, which lists them.
fn accepted_keys<T: DeserializeOwned>() -> BTreeSet<String> {
    let Err(error) = serde_json::from_value::<T>(json!({ "no such key": 1 })) else { panic!("it accepts any key") };
    let error = error.to_string();
    let (_, expected) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn in_schema(definition: &str) -> BTreeSet<String> {
    let keys = schema(FileKind::Routes).pointer(&format!("/$defs/{definition}/properties")).and_then(Value::as_object);
    keys.unwrap_or_else(|| panic!("the schema has no `{definition}`")).keys().cloned().collect()
}

#[test]
fn the_schema_has_exactly_the_keys_that_are_accepted() {
    assert_eq!(accepted_keys::<RouteDraft>(), in_schema("RouteDraft"));
    assert_eq!(accepted_keys::<ForceDraft>(), in_schema("ForceDraft"));
    assert_eq!(accepted_keys::<CohortDraft>(), in_schema("CohortDraft"));
    assert_eq!(accepted_keys::<GuardDraft>(), in_schema("GuardDraft"));
    assert_eq!(accepted_keys::<InstanceDraft>(), in_schema("InstanceDraft"));
    // The keys that a gate reads.
    let route = in_schema("RouteDraft");
    for key in ["state", "force", "percent", "cohorts", "instance", "guard", "invariants", "replay_safe", "keep"] {
        assert!(route.contains(key), "{key}: {route:?}");
    }
}

#[test]
fn the_schema_has_all_states_and_exactly_the_rungs_with_a_share() {
    let states = schema(FileKind::Routes).pointer("/$defs/State").expect("the states").to_string();
    for state in State::ALL {
        assert!(states.contains(&format!("\"{state}\"")), "{state}: {states}");
    }
    assert_eq!(states.matches("\"const\"").count(), State::ALL.len(), "{states}");
    let rungs = in_schema("Percent");
    let names = State::ALL.iter().map(ToString::to_string).chain(rungs.clone()).chain(["rung".to_owned()]);
    for name in names.collect::<BTreeSet<_>>() {
        let set = Set::valid().edit(ROUTES_PATH, "percent: 50", &format!("percent: {{ {name}: 100 }}"));
        assert_eq!(set.read().is_ok(), rungs.contains(&name), "{name}: {}", set.shown());
    }
}
