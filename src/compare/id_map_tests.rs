//! Ids in texts.

use serde_json::Value;

use super::id_map::{FoundIds, IdMap};
use super::redact::ShownAs;
use super::rule_texts::IdKind;

fn ids(pairs: &[(&str, &str)]) -> IdMap {
    let mut ids = IdMap::default();
    for (legacy, engine) in pairs {
        ids.bind_texts(Some("no"), legacy, engine);
    }
    ids
}

#[test]
fn references_follow_the_ids() {
    let ids = ids(&[("17", "18"), ("ord_abc", "run_0190")]);
    assert!(ids.same_text("/orders/17", "/orders/18"));
    assert!(ids.same_text("/orders/17/lines?order_id=17", "/orders/18/lines?order_id=18"));
    assert!(ids.same_text("see ord_abc.", "see run_0190."));
    assert!(!ids.same_text("/orders/17", "/orders/17"), "the engine gave out no 17");
    assert!(!ids.same_text("see ord_abc", "see ord_abc"));
    assert!(!ids.same_text("/orders/17", "/orders/19"));
}

#[test]
fn quantities_and_dates_are_no_references() {
    let ids = ids(&[("17", "18")]);
    assert!(ids.same_text("2026-11-17", "2026-11-17"));
    assert!(ids.same_text("17", "17"));
    assert!(ids.same_text("17.50 EUR", "17.50 EUR"));
    assert!(!ids.same_text("117", "118"));
}

#[test]
fn short_numbers_are_references_only_after_a_slash_a_hash_or_an_id_parameter() {
    let ids = ids(&[("1", "0"), ("2", "1"), ("3", "2"), ("1017", "1018")]);
    for (legacy, engine) in [("2.50 EUR", "1.50 EUR"), ("3", "2"), ("Line 3", "Line 2"), ("2 of 3", "1 of 2")] {
        assert!(!ids.same_text(legacy, engine), "{legacy} {engine}");
    }
    assert!(ids.same_text("/lines/2?id=3#1", "/lines/1?id=2#0"));
    assert!(ids.same_text("Order 1017 is paid", "Order 1018 is paid") && ids.same_text("1017", "1018"));
    let engine = serde_json::json!({ "amount": 1, "price": "1.50", "order": 1018, "text": "order 1018, line 1" });
    let expected = serde_json::json!({ "amount": 1, "price": "1.50", "order": 1017, "text": "order 1017, line 1" });
    assert_eq!(ids.value_with_legacy_ids(&engine), expected);
}

#[test]
fn a_short_number_after_an_equals_sign_is_a_reference_only_if_the_parameter_takes_an_id() {
    let ids = ids(&[("2", "1"), ("1017", "1018")]);
    for name in ["amount", "qty", "paid", "bid", "filter%5Bbid%5D", "amount_paid", "of", ""] {
        let of = |value: &str| format!("/charges?{name}={value}");
        assert!(!ids.same_text(&of("2"), &of("1")), "{name}");
        assert!(ids.same_text(&of("2"), &of("2")), "{name}");
        let is_amount = ["amount", "qty", "paid", "amount_paid"].contains(&name);
        assert_eq!(ids.same_text(&of("1017"), &of("1018")), !is_amount, "{name}");
        assert_eq!(ids.same_text(&of("1017"), &of("1017")), is_amount, "{name}");
    }
    // The last name is the key under which the ids were bound.
    for name in ["id", "ID", "orderid", "orderId", "order_id", "order-id", "x?line.id", "filter[id]", "id[]", "no"]
        .into_iter()
        .chain(["filter%5Bid%5D", "order_ids[]", "ids%5b%5d"])
    {
        let of = |value: &str| format!("/lines?{name}={value}");
        assert!(ids.same_text(&of("2"), &of("1")), "{name}");
        assert!(!ids.same_text(&of("2"), &of("2")), "{name}: the engine gave out no 2");
    }
    assert!(ids.same_text("/lines?amount=2&id=2", "/lines?amount=2&id=1"));
    let engine = serde_json::json!("http://bank/charges?amount=1&id=1");
    assert_eq!(ids.value_with_legacy_ids(&engine), "http://bank/charges?amount=1&id=2");
}

#[test]
fn a_binding_is_one_to_one() {
    let ids = ids(&[("1", "9"), ("2", "9"), ("1", "8")]);
    assert!(ids.are_bound(IdKind::ANY, "1", "9"));
    assert!(!ids.are_bound(IdKind::ANY, "2", "9"));
    assert!(!ids.are_bound(IdKind::ANY, "1", "8"));
}

#[test]
fn unusual_ids_do_not_hang_or_panic() {
    let ids = ids(&[("-", "."), ("", "x"), ("ä", "ö"), ("...", "a")]);
    for text in ["-", "--.--", "...", "", "ä-ä.ä", "a.-b", "👍.👍"] {
        ids.same_text(text, "x");
    }
    assert!(ids.same_text("/ä/1", "/ö/1"));
}

#[test]
fn an_amount_does_not_hide_behind_an_id() {
    let ids = ids(&[("4000", "5000"), ("12345678", "87654321")]);
    for (legacy, engine) in [
        ("pay 4000 cents", "pay 5000 cents"),
        ("4000.00 EUR", "5000.00 EUR"),
        ("EUR 4000", "EUR 5000"),
        ("12345678 EUR", "87654321 EUR"),
        ("Total: 4000", "Total: 5000"),
        ("/charges?amount=4000", "/charges?amount=5000"),
    ] {
        assert!(!ids.same_text(legacy, engine), "{legacy} {engine}");
        assert!(ids.same_text(legacy, legacy), "{legacy}");
    }
    assert!(ids.same_text("Order 4000 placed", "Order 5000 placed"));
    for stale in ["Order 4000 placed", "no 4000", "Invoice no. 4000", "Order #4000"] {
        assert!(!ids.same_text(stale, stale), "{stale}: the engine gave out no 4000");
    }
    assert!(ids.same_text("4000 of 9000", "4000 of 9000"), "it may be a quantity");
    let engine = serde_json::json!({"amount": 5000, "total_price": "5000", "order": 5000, "note": "EUR 5000"});
    let expected = serde_json::json!({"amount": 5000, "total_price": "5000", "order": 4000, "note": "EUR 5000"});
    assert_eq!(ids.value_with_legacy_ids(&engine), expected);
}

/// Legacy's id is a plain number and the engine's is not: what legacy has behind the name of an amount may be its id by
/// chance, and the engine would charge its own id.
#[test]
fn a_quantity_of_legacy_is_equal_to_no_id_of_the_engine() {
    let ids = ids(&[("4006", "run-xk12ab90"), ("4007", "c7d2")]);
    for (before, after) in
        [("amount=", ""), ("/charges?amount=", "&x=1"), ("Total: ", ""), ("", " cents"), ("EUR ", "")]
    {
        for (legacy, engine) in [("4006", "run-xk12ab90"), ("4007", "c7d2")] {
            let [legacy, engine] = [legacy, engine].map(|id| format!("{before}{id}{after}"));
            assert!(!ids.same_text(&legacy, &engine), "{legacy} {engine}");
            assert_eq!(ids.with_legacy_ids(&engine), engine);
        }
    }
    for (legacy, engine) in
        [("order=4006", "order=run-xk12ab90"), ("/orders/4006/items", "/orders/run-xk12ab90/items"), ("4007", "c7d2")]
    {
        assert!(ids.same_text(legacy, engine), "{legacy} {engine}");
    }
    let intent = serde_json::json!({"amount": "c7d2", "order": "c7d2"});
    assert_eq!(ids.value_with_legacy_ids(&intent), serde_json::json!({"amount": "c7d2", "order": "4007"}));
}

#[test]
fn ids_are_found_within_words() {
    let (a, b) = ("3f2a1b4c-0000-4000-8000-00000000000a", "9b9b9b9b-0000-4000-8000-00000000000b");
    let ids = ids(&[("4000", "5000"), ("1234567", "7654321"), ("abc-12345", "xyz-1"), (a, b)]);
    let of = |before: &str, id: &str, after: &str| format!("{before}{id}{after}");
    for (before, legacy, engine, after) in [
        ("A", "4000", "5000", "DE"),
        ("order_", "1234567", "7654321", ".pdf"),
        ("", "abc-12345", "xyz-1", "-A"),
        ("inv-", a, b, ".pdf"),
        ("inv_", a, b, ".pdf"),
        ("see inv_", a, b, ".pdf."),
        ("", &a.to_uppercase(), &b.to_uppercase(), ""),
        ("INV-", &a.to_uppercase(), &b.to_uppercase(), "-X"),
    ] {
        assert!(ids.same_text(&of(before, legacy, after), &of(before, engine, after)), "{before}{legacy}{after}");
        assert!(!ids.same_text(&of(before, legacy, after), &of(before, "x1", after)), "{before}{legacy}{after}");
    }
    assert!(!ids.same_text(&format!("inv-{a}.pdf"), &format!("inv-{a}.pdf")), "the engine gave out no such id");
    assert!(!ids.same_text("A40001DE", "A50001DE") && !ids.same_text("A4000EUR", "A5000EUR"));
    let mixed = |order: &str, id: &str| format!("Order {order}: inv-{id}.pdf");
    assert!(ids.same_text(&mixed("4000", a), &mixed("5000", b)));
}

#[test]
fn ids_are_found_percent_encoded() {
    let ids = ids(&[("a/b 17", "c:d"), ("ord:17", "run:9"), ("4017", "4018")]);
    assert!(ids.same_text("/orders/a%2Fb%2017/x", "/orders/c:d/x") && ids.same_text("/o/ord%3a17", "/o/run%3A9"));
    assert!(ids.same_text("/o/ord%3A17?n=4017", "/o/run%3A9?n=4018"));
    assert!(!ids.same_text("/o/ord%3A17", "/o/ord%3A17") && !ids.same_text("/o/ord%3A17", "/o/run%3A8"));
    assert!(ids.same_text("100%", "100%") && !ids.same_text("100%", "90%"));
}

#[test]
fn an_id_of_one_kind_is_not_that_of_another() {
    let kinds = ["", "order", "customer"].map(str::to_owned);
    let [order, customer] = [1, 2].map(IdKind::of_index);
    let mut ids = IdMap::of_kinds(&kinds);
    let found = || FoundIds {
        path: String::new(),
        shown_as: ShownAs::UnderKey,
        legacy: Value::Null,
        engine: Value::Null,
        rule: None,
        unproven: None,
    };
    ids.bind_as(order, Some("order"), "4012", "5001", found);
    ids.bind_as(customer, Some("customer"), "4012", "7001", found);
    assert!(ids.are_bound(order, "4012", "5001") && ids.are_bound(customer, "4012", "7001"));
    assert!(!ids.are_bound(order, "4012", "7001"));
    assert!(ids.are_bound(IdKind::ANY, "4012", "7001"), "of any kind");
    assert!(ids.same_text("/customers/4012/orders/4012", "/customers/7001/orders/5001"));
    assert!(!ids.same_text("/customers/4012/orders/4012", "/customers/5001/orders/7001"));
    assert!(ids.same_text("/x/4012", "/x/7001") && ids.same_text("/x/4012", "/x/5001"), "no kind is named");
    assert!(!ids.same_text("/x/4012", "/x/7002"));
    ids.bind(None, "4012", "9", found);
    assert!(!ids.are_bound(IdKind::ANY, "4012", "9"), "it is bound already");
}

#[test]
fn an_id_with_a_dash_is_confirmed_by_a_text() {
    let mut ids = IdMap::default();
    let found = |unproven| {
        move || FoundIds {
            path: String::new(),
            shown_as: ShownAs::UnderKey,
            legacy: Value::Null,
            engine: Value::Null,
            rule: None,
            unproven: Some(unproven),
        }
    };
    ids.bind(None, "ord-17", "run-9", found(1));
    ids.bind(None, "ord-18", "run-8", found(2));
    assert!(ids.are_bound(IdKind::ANY, "ord-17", "run-9") && ids.are_bound(IdKind::ANY, "ord-18", "run-8"));
    assert!(ids.same_text("/orders/ord-17", "/orders/run-9"));
    assert_eq!(ids.unproven(), [2]);
}
