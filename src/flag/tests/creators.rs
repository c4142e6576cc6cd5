//! Decisions about requests that create instances.

use super::decisions::{TestRequest, engine};
use super::*;

#[test]
fn a_creator_whose_follower_is_in_only_leaves_nothing_to_legacy() {
    let mut create = route("create", Method::POST, "/orders");
    create.instance = Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap().into() });
    let mut follow = route("follow", Method::GET, "/orders/{id}");
    follow.instance = Some(Instance::Follows { creator: "create".into(), key: InstanceKeySource::Path("id".into()) });
    for (of_follower, may_fall_back) in [(State::Live, true), (State::Only, false)] {
        let inputs = [("create", State::Live), ("follow", of_follower)];
        let inputs = inputs.map(|(id, state)| (id.into(), state_inputs(state))).into();
        let set = set(vec![create.clone(), follow.clone()], inputs, Freeze::No);
        let decision = TestRequest::new().decide(&set, "create");
        assert_eq!(decision, engine(State::Live, may_fall_back, EngineReason::Rung), "{of_follower}");
    }
}
