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

/// It is not known which of two places names the wrong order: the one that everything else contradicts.
#[test]
fn of_a_header_and_a_body_that_contradict_each_other_the_one_is_named_that_others_contradict() {
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
