//! Ids in headers that agree with those in bodies, or contradict them.

use serde_json::json;

use super::id_tests::with_location;
use super::tests::{compared, found, rules};
use super::{DifferenceKind, Verdict};

#[test]
fn an_encoded_id_in_a_header_is_the_id_of_the_body() {
    let rules = rules(json!({"ids": ["$.id", {"header.location": "/orders/{id}"}]}));
    let of = |location: &str, id: &str| with_location(location, &json!({"id": id}));
    let (legacy, engine) = (of("/orders/a%2F17", "a/17"), of("/orders/b%2F9", "b/9"));
    assert_eq!(compared(&legacy, &engine, &rules).unwrap().verdict, Verdict::Ignored);
    let wrong = compared(&legacy, &of("/orders/b%2F9", "b/8"), &rules).unwrap();
    assert_eq!(found(&wrong), [("$.id", DifferenceKind::Value)]);
}

/// A header and the body name different orders: the one that all other places contradict is reported as wrong.
#[test]
fn if_a_header_and_the_body_name_different_ids_the_one_that_other_places_contradict_is_reported() {
    let rules = rules(json!({"ids": ["$.id", {"header.location": "/orders/{id}"}]}));
    let of = |location: &str, id: &str, linked: &str| {
        let links = json!({"self": format!("/orders/{linked}"), "cancel": format!("/orders/{linked}/cancel")});
        with_location(&format!("/orders/{location}"), &json!({"id": id, "links": links}))
    };
    let legacy = of("41017", "41017", "41017");
    let places = |engine| -> Vec<String> {
        let comparison = compared(&legacy, &engine, &rules).unwrap();
        found(&comparison).iter().map(|(path, _)| (*path).to_owned()).collect()
    };
    assert_eq!(places(of("90001", "90001", "90001")), Vec::<String>::new());
    assert_eq!(places(of("90002", "90001", "90001")), ["headers.location"]);
    assert_eq!(places(of("90001", "90002", "90001")), ["$.id"]);
    // Where nothing else tells, a header says what the reply is about.
    let two = places(of("90001", "90002", "90003"));
    assert!(two.contains(&"$.id".to_owned()) && !two.contains(&"headers.location".to_owned()), "{two:?}");
}
