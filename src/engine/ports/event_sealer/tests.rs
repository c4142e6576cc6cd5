//! Opening a sealed event gives the original event, whichever paths are declared.

mod sources;

use proptest::prelude::*;
use serde_json::json;

use std::collections::BTreeMap;

use super::*;
use crate::engine::ports::sealed_values::open_value;
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::secret::Secret;
use crate::workflow::{AnswerEvent, AnswerRecord, DeclaredNames, EndingEvent, Payload, Plan};

const RUN: RunId = RunId(uuid::Uuid::from_u128(1));

/// The sealer of runs in which these parts of the output of step `a` are sensitive.
fn event_sealer(paths: &[String]) -> EventSealer {
    let source = json!({
        "workflow": "w",
        "steps": { "a": { "call": "POST ${services.bank}/a", "sensitive": paths } },
        "respond": { "status": 200 },
    });
    let services = BTreeMap::from([(ServiceName::from("bank"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"));
    EventSealer::new(&Arc::new(Sealer::new(Some(&Secret::new("k")))), RUN, Knowledge::for_test(plan))
}

fn computed(output: Value) -> Event {
    Event::Step(StepEvent::Computed { step: "a".into(), output: output.into() })
}

fn sealed_event(sealer: &EventSealer, event: &Event) -> Event {
    sealer.sealed(event).unwrap()
}

fn opened_event(sealer: &EventSealer, event: &Event) -> Event {
    let mut value = serde_json::to_value(event).unwrap();
    open_value(&sealer.sealer, RUN, &mut value);
    serde_json::from_value(value).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    let sealer = Sealer::new(Some(&Secret::new("k")));
    let of_other_run = seal_text(&sealer, RunId(uuid::Uuid::from_u128(2)), "x").unwrap();
    let of_this_run = seal_text(&sealer, RUN, "4111-2222-3333").unwrap();
    prop_oneof![
        4 => "[a-c«»\u{0}\"\\\\/ ]{0,4}",
        2 => prop::sample::select(vec!["4111-2222-3333", "1234567", "«sealed:eA==»", "«sealed:", "\u{0}1234567", "\u{f8f0}0\u{f8f1}"])
            .prop_map(str::to_owned),
        1 => Just(of_other_run),
        // As somebody copied it from the run's events.
        1 => Just(format!("pre {of_this_run}")),
        1 => Just(of_this_run),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i32>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(json!(1234567)),
        5 => text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        prop_oneof![
            3 => prop::collection::btree_map("[a-c]", inner.clone(), 0..3).prop_map(|members| json!(members)),
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            // A body of a call.
            1 => inner.prop_map(|body| Value::from(body.to_string())),
        ]
    })
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    let segment = prop::sample::select(vec![".a", ".a", ".b", ".c", "[0]", "[*]", "['a']"]);
    let path = prop::collection::vec(segment, 0..4).prop_map(|segments| format!("${}", segments.concat()));
    prop::collection::vec(path, 1..5)
}

fn parsed(paths: Vec<String>) -> Vec<SensitivePath> {
    paths.iter().map(|path| SensitivePath::parse(path).unwrap()).collect()
}

proptest! {
    #[test]
    fn an_event_is_opened_as_it_was_whichever_paths_are_declared(paths in paths(), output in value()) {
        let event = computed(output);
        let mut sealer = event_sealer(&paths);
        sealer.knowledge.learn(&event);
        let once = sealed_event(&sealer, &event);
        prop_assert_eq!(&opened_event(&sealer, &once), &event);
        let twice = sealed_event(&sealer, &once);
        prop_assert_eq!(&opened_event(&sealer, &twice), &once, "sealed text counts as a copy, which stays sealed");
    }

    /// Opening gives the original, in whatever way parts overlap: values, texts, and values in texts that hold JSON.
    #[test]
    fn overlapping_parts_are_sealed_once_and_opened_as_they_were(
        parts in prop::collection::vec((paths(), prop::option::of(paths())), 1..4),
        content in value(),
    ) {
        let sealer = event_sealer(&[]);
        let of = |(at, within): (Vec<String>, Option<Vec<String>>)| {
            let form = within.map_or(SensitiveForm::Value, |within| SensitiveForm::Json(parsed(within)));
            parsed(at).into_iter().map(move |at| SensitivePart { at, form: form.clone() })
        };
        let parts: Vec<_> = parts.into_iter().flat_map(of).collect();
        let mut once = content.clone();
        sealer.seal_copies(&mut once).unwrap();
        sealer.seal_parts(&mut once, &parts).unwrap();
        let mut value = once.clone();
        sealer.seal_parts(&mut value, &parts).unwrap();
        prop_assert_eq!(&value, &once, "sealed again");
        open_value(&sealer.sealer, RUN, &mut value);
        prop_assert_eq!(value, content);
    }
}

/// A number that is sealed inside a JSON text gets no quotation marks, so the text is no longer JSON.
#[test]
fn a_number_in_a_text_that_holds_json_is_sealed_once() {
    let sealer = event_sealer(&[]);
    let part = |path: &str| SensitivePart {
        at: parsed(vec!["$".into()]).remove(0),
        form: SensitiveForm::Json(parsed(vec![path.to_owned()])),
    };
    for path in ["$", "$.a"] {
        let content = json!(r#"{"a":17,"b":"said \"no\"","c":["x"]}"#);
        let mut once = content.clone();
        sealer.seal_parts(&mut once, &[part(path)]).unwrap();
        assert!(!once.to_string().contains("17,"), "{once}");
        let mut value = once.clone();
        sealer.seal_parts(&mut value, &[part(path)]).unwrap();
        assert_eq!(value, once, "{path}");
        open_value(&sealer.sealer, RUN, &mut value);
        assert_eq!(value, content);
    }
}

/// The pure core cuts replies that people are shown, before it is known which values in them are sensitive.
#[test]
fn the_beginning_of_a_known_value_before_a_cut_is_sealed() {
    let mut sealer = event_sealer(&["$.card".to_owned()]);
    sealer.knowledge.learn(&computed(json!({ "card": "CARD-4111-2222-3333" })));
    for text in ["no such card: CARD-4111-22…", r#"{"note":"zz CARD-4111…","n":1}"#, "CARD…"] {
        let event = computed(json!({ "text": text }));
        let once = sealed_event(&sealer, &event);
        let stored = serde_json::to_value(&once).unwrap().to_string();
        assert!(!stored.contains("CARD") && stored.contains("«sealed:"), "{text}: {stored}");
        assert_eq!(opened_event(&sealer, &once), event, "{text}");
    }
    let event = computed(json!({ "text": "a CAR… and a CARD-9…" }));
    assert_eq!(sealed_event(&sealer, &event), event, "too short, and another value");
}

/// The API shows sealed values, so whoever sends a run a text may have copied one of them.
#[test]
fn a_copy_of_a_sealed_value_is_never_opened_whichever_member_holds_it() {
    let mut sealer = event_sealer(&["$.card".to_owned()]);
    sealer.knowledge.learn(&computed(json!({ "card": "CARD-4111-2222-3333" })));
    let copied = seal_text(&sealer.sealer, RUN, "CARD-4111-2222-3333").unwrap();
    let payload = json!({ "x": copied, "y": format!("pre {copied} post"), "sensitive": [copied] });
    let signal = WaitEvent::SignalReceived {
        name: "go".to_owned(),
        payload: payload.into(),
        by: copied.clone(),
        id: Some(copied.clone()),
        sensitive: false,
    };
    let cancelled = EndingEvent::Cancelled { by: copied.clone(), reason: Some(copied.clone()), unread: false };
    let answer = AnswerRecord {
        // The path has a known value in the name of a member.
        sensitive: vec![SensitivePath::of(["body", "CARD-4111-2222-3333", "card"])],
        ..AnswerRecord::new(
            200,
            vec![("x-copy".to_owned(), copied.clone())],
            Payload::Text(json!({ "x": copied, copied.as_str(): { "card": "CARD-4111-2222-3333" } }).to_string()),
        )
    };
    let answered = AnswerEvent::Responded { answer: answer.into(), pin: None };
    for event in [Event::Wait(signal), Event::Ending(cancelled), Event::Answer(answered)] {
        let stored = sealed_event(&sealer, &event);
        assert!(!serde_json::to_string(&stored).unwrap().contains(&copied), "{stored:?}");
        assert_eq!(opened_event(&sealer, &stored), event);
    }
}

#[test]
fn nothing_sensitive_stays_in_clear_where_paths_overlap() {
    let card = json!({ "number": "4111-2222-3333", "cvc": "CVC99", "n": 7 });
    let event = computed(json!({ "card": card, "plain": "hello" }));
    for paths in
        [["$.card", "$.card.number"], ["$.card.number", "$['card']"], ["$.card[*]", "$.card"], ["$", "$.plain"]]
    {
        let mut sealer = event_sealer(&paths.map(str::to_owned));
        sealer.knowledge.learn(&event);
        let once = sealed_event(&sealer, &event);
        let written = serde_json::to_string(&once).unwrap();
        assert!(
            !["4111", "CVC", "7"].iter().any(|text| written.contains(&format!("\"{text}"))),
            "{paths:?}: {written}"
        );
        assert_eq!(written.contains("hello"), paths[0] != "$", "{paths:?}: {written}");
        assert_eq!(opened_event(&sealer, &once), event, "{paths:?}");
    }
}
