//! Whether calls were compared at all.

use serde_json::json;

use super::tests::{CHARGES, charge, compared, posted, rules};

#[test]
fn calls_are_compared_only_where_one_by_legacy_is_there() {
    let is_any_compared = |amounts: &[u64]| {
        let calls = amounts.iter().map(|amount| posted(CHARGES, json!({ "amount": amount }))).collect();
        let ids = (json!(1), json!(1));
        let comparison =
            compared((&ids.0, &ids.1), calls, vec![charge(json!({"amount": 12}))], &rules(json!({}))).unwrap();
        comparison.effects.expect("legacy's calls are watched").has_compared()
    };
    assert!(is_any_compared(&[12]) && is_any_compared(&[13]) && !is_any_compared(&[]));
}
