//! A replay checks the recorded input against another plan's schema, as far as the history shows the input.

use super::*;
use crate::limits::Limits;
use crate::workflow::{DeclaredNames, DivergenceKind, replay_with};

const SEALED: &str = "«sealed:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v»";

fn plan(schema: &Value) -> Plan {
    let source = json!({
        "workflow": "w",
        "input": { "sensitive": ["$.card.pin", "$.n", "$.tags[*].t"], "schema": schema },
        "steps": { "a": { "set": ["${request.body.card}", "${request.body.n}", "${request.body.amount}"] } },
        "respond": { "status": 200 },
    });
    let services = BTreeMap::new();
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Returns the differences that a replay finds in the input.
fn input_differences(schema: &Value, request: Value, sensitive: bool) -> Vec<String> {
    let plan = plan(schema);
    let mut first = started(&plan, Mode::Real, request);
    first.sensitive = sensitive;
    let events = [(Timestamp::UNIX_EPOCH, Event::RunStarted(Arc::new(first)))];
    let found = replay_with(&events, &plan, &inputs()).unwrap();
    assert!(found.iter().all(|found| found.kind == DivergenceKind::Input), "{found:?}");
    found.into_iter().map(|found| found.expected).collect()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["card", "amount", "unread"],
        "properties": {
            "card": {
                "type": "object",
                "additionalProperties": false,
                "properties": { "pin": { "maxLength": 12, "pattern": "^[0-9]+$" }, "of": { "maxLength": 3 } },
                "oneOf": [{ "properties": { "pin": { "const": "1" } } }, { "required": ["of"] }],
            },
            "n": { "type": "integer", "maximum": 9 },
            "amount": { "type": "number", "minimum": 5 },
            "tags": { "uniqueItems": true, "items": { "properties": { "t": { "maxLength": 3 } } } },
        },
    })
}

#[test]
fn an_input_is_not_refused_for_the_form_of_sealed_values_nor_for_what_was_not_kept() {
    let sealed = json!({ "card": { "pin": SEALED }, "n": SEALED, "amount": 7 });
    assert_eq!(input_differences(&schema(), json!({ "body": sealed }), true), Vec::<String>::new());
    let of_items = json!({ "card": { "pin": SEALED }, "amount": 7, "tags": [{ "t": SEALED }, { "t": SEALED }] });
    assert_eq!(input_differences(&schema(), json!({ "body": of_items }), true), Vec::<String>::new());
    assert_eq!(
        input_differences(&schema(), json!({ "method": "POST" }), true),
        Vec::<String>::new(),
        "no body was kept"
    );
    // A sealed value decides which branch of the schema holds.
    let one = json!({ "properties": { "n": { "const": 1 } } });
    let conditional = json!({ "if": one, "else": { "properties": { "amount": { "maximum": 1 } } } });
    assert_eq!(input_differences(&conditional, json!({ "body": sealed }), true), Vec::<String>::new());
}

#[test]
fn an_input_is_refused_for_what_its_history_shows() {
    let refused = |body: Value, sensitive: bool, part: &str| {
        let differences = input_differences(&schema(), json!({ "body": body }), sensitive);
        assert!(differences.len() == 1 && differences[0].contains(part), "{part}: {differences:?}");
    };
    refused(json!({ "card": { "pin": SEALED }, "amount": 3 }), true, "/amount");
    refused(json!({ "card": { "pin": SEALED } }), true, "\"amount\" is a required property");
    refused(json!({ "card": { "pin": SEALED, "of": "four" }, "amount": 7 }), true, "/card/of");
    refused(json!({ "card": { "pin": SEALED, "more": 1 }, "amount": 7 }), true, "/card: Additional properties");
    refused(json!({ "card": 1, "n": SEALED, "amount": 7 }), true, "/card");
    refused(json!({ "card": { "pin": "12345", "of": "a" }, "n": 10, "amount": 7 }), true, "/n");
    refused(json!({ "card": { "pin": SEALED, "of": "a" }, "amount": 7 }), false, "/card/pin");
}
