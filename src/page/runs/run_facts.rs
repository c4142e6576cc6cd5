//! The facts of a run: who started what and when, why it ended early, what was undone, what its caller got.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::types::{ExplanationView, Mode, RunData, RunVersion, UndoRow, UndoState};
use crate::page::client::segment;
use crate::page::duration::duration_text;
use crate::page::html::time;
use crate::page::recorded_text::{clean, prose};
use crate::page::runs::json_view::json_view;
use crate::page::runs::run_words::{badge, mode_badge, name_words, run_look};

/// The sentence on top: what the run does or waits for, or how it ended.
pub(in crate::page) fn summary(run: &RunData, explained: Option<&ExplanationView>) -> Markup {
    html! {
        div #run-summary data-live {
            (not_sent_notice(run.run.mode))
            p.summary {
                (badge(run_look(run.status))) " "
                @match explained {
                    Some(explained) => strong { (prose(&explained.sentence)) },
                    None => @if let Some(note) = &run.run.note { strong { (prose(note)) } },
                }
            }
            @if let Some(explained) = explained { (waits(explained)) }
            @if let Some(trouble) = &run.trouble {
                p.problem { strong { "This process cannot go on with the run. " } (prose(trouble)) }
            }
        }
    }
}

/// What else the run waits for, where the sentence does not say it.
fn waits(explained: &ExplanationView) -> Markup {
    let others: Vec<&String> =
        explained.waits.iter().filter(|wait| !explained.sentence.contains(wait.as_str())).take(20).collect();
    html! {
        @if !others.is_empty() { ul { @for wait in others { li { (prose(wait)) } } } }
        @if let Some(wake) = explained.wake { p.hint { "Its next timer fires at " (time(wake)) "." } }
    }
}

/// Says of a run that is not real, before anything else, that effects were not sent.
pub(in crate::page) fn not_sent_notice(mode: Mode) -> Markup {
    html! {
        @match mode {
            Mode::Real => {}
            Mode::Dark => p.notice.not-sent {
                strong { "Shared effects were not sent. " }
                "This run is dark: what legacy also does, such as charging a card, was recorded and not sent."
            },
            Mode::Rehearse => p.notice.not-sent {
                strong { "Nothing was sent. " }
                "This run was a rehearsal: it called only what reads, and recorded what it would have sent."
            },
        }
    }
}

/// The facts as a list of names and values.
pub(in crate::page) fn facts(run: &RunData, explained: Option<&ExplanationView>, now: Timestamp) -> Markup {
    let part = &run.run;
    let until = if run.status.is_final() { part.updated } else { now.max(part.updated) };
    let took = duration_text(until.duration_since(part.started).as_secs_f64().max(0.0));
    html! {
        dl #run-facts.facts data-live {
            div { dt { "Workflow" } dd { bdi { (part.workflow) } } }
            @if let Some(route) = &part.route {
                div { dt { "Route" } dd { a href={ "/routes/" (segment(route.as_str())) } { bdi { (route) } } } }
            }
            @if let Some(by) = &part.started_by { div { dt { "Started by" } dd { bdi { (clean(by)) } } } }
            @if let Some(parent) = &part.parent { div { dt { "Started by the run" } dd { (run_link(parent)) } } }
            @if let Some(earlier) = &part.rerun_of { div { dt { "Rerun of" } dd { (run_link(earlier)) } } }
            div { dt { "Mode" } dd { (mode_badge(part.mode)) } }
            div { dt { "Started" } dd { (time(part.started)) } }
            div { dt { @if run.status.is_final() { "Ended" } @else { "Last event" } } dd { (time(part.updated)) } }
            div { dt { "Took" } dd { (took) @if !run.status.is_final() { " until now" } } }
            div { dt { "Job" } dd { a href={ "/runs?job=" (segment(&run.job_id)) } { code { (clean(&run.job_id)) } } } }
            div { dt { "Plan" } dd {
                code { (run.plan_id) }
                @if let Some(version) = version(explained) { " (" (version) ")" }
            } }
            div { dt { "Other runs" } dd {
                a href={ "/runs?parent=" (segment(&run.run_id)) } { "runs that this run began" }
            } }
            @if !run.audit_receipt.source.route.is_empty() {
                div { dt { "Request" } dd {
                    (run.audit_receipt.source.method) " " (clean(&run.audit_receipt.source.route))
                    div.sub {
                        (name_words(&run.audit_receipt.auth_mode)) ", " code { (clean(&run.audit_receipt.request_id)) }
                    }
                } }
            }
        }
    }
}

/// Which version of the route's workflow the plan is.
fn version(explained: Option<&ExplanationView>) -> Option<&'static str> {
    Some(match explained?.version? {
        RunVersion::InForce => "in force now",
        RunVersion::Candidate => "the candidate of the route",
        RunVersion::Earlier => "an earlier version",
    })
}

pub(in crate::page) fn run_link(run: &str) -> Markup {
    html! { a href={ "/runs/" (segment(run)) } { code { (clean(run)) } } }
}

/// Why the run ended early, what became of its effects, and the answer of its caller: what there is of these.
pub(in crate::page) fn results(run: &RunData) -> Markup {
    html! {
        div #run-results data-live {
            @if let Some(error) = &run.error {
                h2 { "Why it ended early" }
                p.problem {
                    (prose(&error.message))
                    span.sub {
                        " (" (name_words(&error.kind))
                        @if let Some(step) = &error.step_id { ", step " code { (clean(step)) } }
                        @if let Some(item) = error.item { ", item " (item) }
                        @if let Some(status) = error.status { ", HTTP " (status) }
                        ")"
                    }
                }
            }
            @if !run.undone.is_empty() {
                h2 { "What became of its effects" }
                div.scroll tabindex="0" role="region" aria-label="Effects" { (undone(&run.undone)) }
            }
            @if !run.output.is_null() {
                h2 { "What the caller got" }
                (json_view("The body of the answer", &run.output))
            }
        }
    }
}

fn undone(rows: &[UndoRow]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Step" } th scope="col" { "Effect" } th scope="col" { "Why" } } }
            tbody { @for row in rows { tr {
                th scope="row" {
                    bdi { (clean(&row.step_id)) } @if let Some(item) = row.item { " (item " (item) ")" }
                }
                td { (undo_words(row.state)) }
                td { @if let Some(why) = &row.why { (prose(why)) } }
            } } }
        }
    }
}

fn undo_words(state: UndoState) -> &'static str {
    match state {
        UndoState::NotYet => "to be undone",
        UndoState::Undone => "undone",
        UndoState::Rehearsed => "rehearsed: nothing was sent, nothing to undo",
        UndoState::NotUndone => "not undone",
    }
}

#[cfg(test)]
pub(in crate::page) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A run as the API shows it, with other values for some of its fields.
    pub(in crate::page) fn run(changed: Value) -> RunData {
        let mut run = json!({
            "job_id": "job_1", "run_id": "run_1", "plan_id": "plan_1", "status": "paused",
            "job": { "object": "job", "id": "job_1", "kind": "orchestration", "status": "paused", "mode": "sync",
                "durability": "persisted", "run_id": "run_1" },
            "run": { "object": "run", "id": "run_1", "job_id": "job_1", "status": "paused", "mode": "real",
                "plan_id": "plan_1", "workflow": "orders", "route": "orders.create", "parent": null, "rerun_of": null,
                "started_by": null, "started": "2026-12-01T12:00:00Z", "updated": "2026-12-01T12:01:00Z", "seq": 7,
                "note": null },
            "steps": [], "pending_checkpoint": null, "checkpoints": [], "conflicts": [], "output": null, "undone": [],
            "error": null,
            "audit_receipt": { "object": "audit_receipt", "request_id": "req_1", "auth_mode": "route",
                "source": { "method": "POST", "route": "/orders" } },
            "links": { "self": "", "stream": "", "events": "", "explain": "" },
        });
        merge(&mut run, changed);
        serde_json::from_value(run).unwrap()
    }

    fn merge(into: &mut Value, changed: Value) {
        match (into, changed) {
            (Value::Object(into), Value::Object(changed)) => {
                changed.into_iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
            }
            (into, changed) => *into = changed,
        }
    }

    const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=y>";

    #[test]
    fn a_rehearsed_run_says_first_that_nothing_was_sent() {
        let shown = summary(&run(json!({ "run": { "mode": "rehearse" } })), None).into_string();
        assert!(shown.find("Nothing was sent").unwrap() < shown.find("paused").unwrap(), "{shown}");
        let real = summary(&run(json!({})), None).into_string();
        assert!(!real.contains("not-sent"), "{real}");
    }

    #[test]
    fn the_sentence_and_what_it_does_not_say_are_shown() {
        let explained = json!({ "run_id": "run_1", "status": "paused", "sentence": "It waits: `pay` needs a decision.",
            "waits": ["`pay` needs a decision", "it is paused"], "wake": null, "stuck": false });
        let explained: ExplanationView = serde_json::from_value(explained).unwrap();
        let shown = summary(&run(json!({ "trouble": "the plan cannot be read" })), Some(&explained)).into_string();
        assert!(shown.contains("<strong>It waits: <code>pay</code> needs a decision.</strong>"), "{shown}");
        assert_eq!(shown.matches("<li>").count(), 1, "what the sentence says is not repeated");
        assert!(shown.contains("the plan cannot be read"));
    }

    #[test]
    fn what_went_wrong_and_what_was_undone_are_shown_only_where_there_is_something() {
        let empty = results(&run(json!({}))).into_string();
        assert!(!empty.contains("<h2>"), "{empty}");
        let failed = run(json!({
            "error": { "kind": "refused", "step_id": "pay", "item": 3, "status": 402, "message": HOSTILE },
            "undone": [{ "step_id": "reserve", "item": null, "state": "left", "why": HOSTILE }],
            "output": { "error": HOSTILE },
        }));
        let shown = results(&failed).into_string();
        for expected in ["refused, step <code>pay</code>, item 3, HTTP 402", "not undone", "What the caller got"] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
    }

    #[test]
    fn facts_link_to_route_parent_and_earlier_run_and_are_escaped() {
        let hostile =
            run(json!({ "run": { "route": HOSTILE, "parent": "run_0", "rerun_of": "run_9", "started_by": HOSTILE } }));
        let shown = facts(&hostile, None, "2026-12-01T12:03:00Z".parse().unwrap()).into_string();
        for expected in
            ["href=\"/runs/run%5F0\"", "href=\"/runs/run%5F9\"", "href=\"/routes/%3Cscript", "3 min until now"]
        {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
    }
}
