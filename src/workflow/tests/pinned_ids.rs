//! Which ids in answers are pinned.

use super::harness::plan;
use super::*;
use crate::workflow::{AnswerEvent, Creates};

/// Declares that the run creates an order, whose id is in the answer.
fn creating(started: &mut RunStarted) {
    started.creates = Some(Creates::Engine { family: "orders".into(), path: "$.id".into() });
}

/// A caller that was given an id may follow it up, however the run ended.
#[test]
fn an_id_in_the_answer_of_a_failed_run_is_pinned_and_one_in_an_error_is_not() {
    let failed = |status: u16| {
        format!(
            "{{ workflow: w, steps: {{ a: {{ call: 'POST ${{services.bank}}/a' }} }},
                respond: [{{ when: '${{failed.status == 402}}', status: {status}, body: {{ id: o-1 }} }}, {{ status: 200 }}] }}"
        )
    };
    let declared = |status: u16| {
        format!(
            "{{ workflow: w, steps: {{ a: {{ call: 'POST ${{services.bank}}/a', accept: [2xx, 402] }},
                  no: {{ needs: [a], if: '${{steps.a.status == 402}}', fail: {{ status: {status}, body: {{ id: o-1 }} }} }} }},
                respond: {{ status: 200 }} }}"
        )
    };
    for (text, is_pinned) in [
        (failed(201), true),
        (failed(402), false),
        (declared(202), true),
        (declared(303), true),
        (declared(409), false),
    ] {
        let plan = plan(&text);
        let mut harness = Harness::started_with(&plan, creating);
        harness.settle();
        harness.call("a", status(402));
        let expected = is_pinned.then_some("o-1");
        assert_eq!(harness.run.pinned().map(|pin| pin.id.as_str()), expected, "{text}: {:?}", harness.run.answer());
        assert!(harness.run.is_final(), "{text}");
    }
}

#[test]
fn an_id_in_a_redirect_is_pinned_and_one_in_a_not_modified_is_not() {
    for (status, is_pinned) in [(201, true), (303, true), (302, true), (304, false), (400, false)] {
        let plan = plan(&format!(
            "{{ workflow: w, steps: {{ a: {{ set: 1 }} }}, respond: {{ status: {status}, body: {{ id: 7 }} }} }}"
        ));
        let mut harness = Harness::started_with(&plan, creating);
        harness.settle();
        assert_eq!(harness.run.pinned().map(|pin| pin.id.as_str()), is_pinned.then_some("7"), "{status}");
    }
}

#[test]
fn an_id_in_a_header_of_the_answer_is_pinned() {
    for (path, location, expected) in [
        ("header.location", "/orders/o-7", Some("o-7")),
        ("header.location: /orders/{id}", "https://shop.example/orders/o-7", Some("o-7")),
        ("header.location: /orders/{id}", "/login", None),
        ("header.x-order", "/orders/o-7", None),
    ] {
        let plan = plan(&format!(
            "{{ workflow: w, steps: {{ a: {{ set: 1 }} }},
                respond: {{ status: 201, headers: {{ Location: '{location}' }} }} }}"
        ));
        let mut harness = Harness::started_with(&plan, |started| {
            started.creates = Some(Creates::Engine { family: "orders".into(), path: path.into() });
        });
        harness.settle();
        assert!(harness.run.is_final());
        assert_eq!(harness.run.pinned().map(|pin| pin.id.as_str()), expected, "{path}");
        assert_eq!(harness.run.lacks_instance_id(), expected.is_none(), "{path}");
    }
}

#[test]
fn the_pending_answer_is_pinned_once() {
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'GET ${services.bank}/a' } }, respond: [{ pending: { status: 202, body: { id: '${run.id}' } } }, { status: 200, body: { id: '${run.id}' } }] }",
    );
    let mut harness = Harness::started_with(&plan, creating);
    harness.settle();
    harness.command(Command::AnswerPending).unwrap();
    let pinned = harness.run.pinned().cloned();
    assert!(pinned.is_some() && harness.run.pending().is_some_and(|answer| answer.status == 202));
    assert_eq!(harness.command(Command::AnswerPending), Err(CommandRefusal::Answered));
    harness.call("a", ok(json!({})));
    assert!(matches!(
        harness.events.iter().find(|event| event.kind() == "responded"),
        Some(Event::Answer(AnswerEvent::Responded { pin: None, .. }))
    ));
    assert_eq!(harness.run.pinned().cloned(), pinned);
}
