//! The page of a rehearsal that is not stored: of a sample, only its events are kept.

use http::StatusCode;
use maud::{Markup, html};

use crate::admin::types::{EventRow, Mode};
use crate::page::client::segment;
use crate::page::html::time;
use crate::page::recorded_text::{clean, prose};
use crate::page::runs::event_fields::{Subject, Subjects, content, text};
use crate::page::runs::event_words::place;
use crate::page::runs::run_facts::not_sent_notice;
use crate::page::runs::run_links::RunLinks;
use crate::page::runs::run_step::{intent_of, request};
use crate::page::runs::run_trail::{first_shown, trail};

/// How many intents are listed.
const INTENTS_MAX: usize = 100;

/// What is known of a rehearsal.
pub(in crate::page) fn rehearsed(id: &str, rows: &[EventRow], links: &RunLinks) -> (StatusCode, Markup) {
    let started = rows.iter().find(|row| row.kind == "run_started");
    let fields = started.map(content);
    let last = rows.last().map_or(0, |row| row.seq);
    let content = html! {
        h1 {
            "Rehearsal"
            @if let Some(workflow) = fields.and_then(|fields| text(fields, "workflow")) {
                " of " bdi { (clean(workflow)) }
            }
        }
        p { code { (clean(id)) } }
        (not_sent_notice(Mode::Rehearse))
        p.hint { "Rehearsals are not stored. This one was kept as a sample of a difference, without a chart." }
        dl.facts {
            @if let Some(route) = fields.and_then(|fields| text(fields, "route")) {
                div { dt { "Route" } dd { a href={ "/routes/" (segment(route)) } { bdi { (clean(route)) } } } }
            }
            @if let Some(started) = started { div { dt { "Started" } dd { (time(started.at)) } } }
        }
        h2 #intents { "What it would have sent" }
        (intents(rows))
        h2 #events { "Events" }
        (trail(rows, first_shown(links.events_after, last), last, links))
    };
    (StatusCode::OK, content)
}

/// The requests that a run recorded and did not send.
pub(in crate::page) fn intents(rows: &[EventRow]) -> Markup {
    let subjects = Subjects::of(rows);
    let found: Vec<(Option<Subject<'_>>, &serde_json::Value)> =
        rows.iter().filter_map(|row| Some((subjects.subject(row), intent_of(row)?))).collect();
    html! {
        @if found.is_empty() { p { "No request was recorded: its steps only read or compute." } }
        ol.intents {
            @for (subject, intent) in found.iter().take(INTENTS_MAX) {
                li {
                    @if let Some(subject) = subject { p { (prose(&place(*subject))) " would have sent:" } }
                    (request(intent))
                }
            }
        }
        @if found.len() > INTENTS_MAX { p.hint { "And " (found.len() - INTENTS_MAX) " more." } }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::runs::event_fields::tests::event;

    #[test]
    fn a_rehearsal_says_that_nothing_was_sent_and_lists_what_it_would_have_sent() {
        let intent =
            json!({ "method": "POST", "url": "http://bank/<script>", "headers": [], "body": { "text": "{\"a\":1}" } });
        let rows = [
            event(1, "run_started", json!({ "workflow": "<script>", "route": "orders.create" })),
            event(
                2,
                "step_finished",
                json!({ "step": "pay", "item": 4, "outcome": { "rehearsed": { "intent": intent } } }),
            ),
            event(3, EventRow::NOT_KEPT, json!({ "events": 40, "child_runs": 0, "why": "a bound" })),
        ];
        let (_, shown) = rehearsed("run_1", &rows, &RunLinks::default());
        let shown = shown.into_string();
        for expected in [
            "Nothing was sent.",
            "POST http://bank/&lt;script&gt;",
            "<code>pay</code> (item 4) would have sent:",
            "40 later events",
            "href=\"/routes/orders%2Ecreate\"",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(!shown.contains("<script"), "{shown}");
    }

    #[test]
    fn a_rehearsal_without_intents_says_so() {
        assert!(intents(&[event(1, "completed", json!({}))]).into_string().contains("No request was recorded"));
    }
}
