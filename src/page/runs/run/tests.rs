//! The page of a run as a whole.

use serde_json::json;

use super::*;
use crate::page::client::problem;
use crate::page::runs::event_fields::tests::event;
use crate::page::runs::run_facts::tests::run;

const HOSTILE: &str = "<script>alert(1)</script>\"'\u{202e}";

fn refused<T>(detail: &str) -> Read<T> {
    Err(Box::new(problem(StatusCode::NOT_FOUND, detail)))
}

fn loaded(run: RunData, events: Vec<EventRow>) -> Loaded {
    Loaded { run, explained: None, graph: refused("no plan"), events: Ok(events), trail: None, output: None }
}

fn shown(loaded: &Loaded, links: &RunLinks) -> String {
    loaded.shown(html! { p { "ACTIONS" } }, links, "2026-12-01T12:03:00Z".parse().unwrap()).into_string()
}

fn step(name: &str, status: &str) -> Value {
    json!({ "step_id": name, "status": status, "started": "2026-12-01T12:00:00Z", "duration_ms": 1_000, "attempts": 1,
        "effect": "shared", "items": null, "items_ended": null, "http_status": null, "note": HOSTILE })
}

#[test]
fn the_page_opens_on_the_step_that_needs_a_person() {
    let run = run(json!({ "steps": [step("reserve", "done"), step("pay", "conflict")] }));
    let page =
        shown(&loaded(run, vec![event(1, "run_started", json!({ "workflow": "orders" }))]), &RunLinks::default());
    assert!(page.contains("<h3><bdi>pay</bdi></h3>"), "{page}");
    assert!(page.contains("Somebody has to look at:") && page.contains("href=\"?step=pay#step\""));
    assert!(page.find("paused").unwrap() < page.find("ACTIONS").unwrap());
    assert!(page.contains("no plan"), "the chart's problem stands in its place");
    assert!(page.contains("The run of <code>orders</code> began."));
    let links = RunLinks { step: Some("reserve".into()), ..RunLinks::default() };
    assert!(shown(&loaded(self::run_of(&["reserve"]), Vec::new()), &links).contains("<h3><bdi>reserve</bdi></h3>"));
}

fn run_of(names: &[&str]) -> RunData {
    run(json!({ "steps": names.iter().map(|name| step(name, "done")).collect::<Vec<_>>() }))
}

#[test]
fn an_unknown_step_is_said() {
    let links = RunLinks { step: Some(HOSTILE.into()), ..RunLinks::default() };
    let page = shown(&loaded(run_of(&["pay"]), Vec::new()), &links);
    assert!(page.contains("The run has no step <code>&lt;script&gt;"), "{page}");
}

#[test]
fn recorded_text_is_escaped_on_the_whole_page() {
    let run = run(json!({
        "run": { "route": HOSTILE, "started_by": HOSTILE, "note": HOSTILE, "workflow": HOSTILE },
        "steps": [step(HOSTILE, "failed"), step("b", HOSTILE)],
        "trouble": HOSTILE, "output": HOSTILE,
    }));
    let events = vec![
        event(1, HOSTILE, json!({ "step": HOSTILE })),
        event(2, "failed", json!({ "failure": { "message": HOSTILE } })),
    ];
    let page = shown(&loaded(run, events), &RunLinks::default());
    assert!(!page.contains("<script") && !page.contains(" style="), "{page}");
}

#[test]
fn a_dark_run_lists_what_it_did_not_send() {
    let intent = json!({ "method": "POST", "url": "http://bank/charges", "headers": [], "body": "empty" });
    let events =
        vec![event(1, "step_finished", json!({ "step": "pay", "outcome": { "rehearsed": { "intent": intent } } }))];
    let page = shown(&loaded(run(json!({ "run": { "mode": "dark" } })), events), &RunLinks::default());
    assert!(
        page.contains("Shared effects were not sent.") && page.contains("<code>pay</code> would have sent:"),
        "{page}"
    );
}

#[test]
fn an_unknown_run_is_said_with_a_form_that_keeps_its_id() {
    let page = unknown(HOSTILE, &problem(StatusCode::NOT_FOUND, "no run `x`")).into_string();
    assert!(page.contains("no run `x`") && page.contains("name=\"id\" value=\"&lt;script&gt;"), "{page}");
    assert!(!page.contains("<script"));
}

/// The page of a run with a thousand steps and their events.
#[test]
fn a_thousand_steps_are_shown_in_time() {
    let names: Vec<String> = (0..1_000).map(|at| format!("step-{at}")).collect();
    let run = run_of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let events = (1..=3_000).map(|seq| event(seq, "step_computed", json!({ "step": format!("step-{}", seq / 3) })));
    let loaded = loaded(run, events.collect());
    let began = std::time::Instant::now();
    let page = shown(&loaded, &RunLinks { step: Some("step-999".into()), ..RunLinks::default() });
    assert_eq!(page.matches("class=\"bar\"").count(), 1_000);
    // Generous: the tests run without optimisation, many at once.
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}
