//! A table of runs, with a box for selecting each, and the form that gives a command to those selected.

use maud::{Markup, html};

use crate::admin::types::{Mode, RunRow};
use crate::page::client::segment;
use crate::page::html::{Frame, form_key, time};
use crate::page::recorded_text::{beginning, clean, prose};
use crate::page::runs::run_words::{badge, mode_badge, run_look};

/// How much of a note is shown in a row.
const NOTE_MAX: usize = 300;

/// The commands that several runs can be given at once.
const ACTIONS: [(&str, &str); 4] = [
    ("pause", "Pause"),
    ("resume", "Resume"),
    ("cancel", "Cancel"),
    ("retry", "Retry now what waits for its next attempt"),
];

/// The runs. Only who may decide can select them.
pub(in crate::page) fn table(id: &str, label: &str, runs: &[RunRow], may_select: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table.runs id=(id) data-live {
                thead { tr {
                    @if may_select { th scope="col" { "Select" } }
                    th scope="col" { "Run" } th scope="col" { "Status" } th scope="col" { "Waits for, or why" }
                    th scope="col" { "Workflow" } th scope="col" { "Route" } th scope="col" { "Mode" }
                    th scope="col" { "Started" } th scope="col" { "Last event" }
                } }
                tbody { @for run in runs { (row(run, may_select)) } }
            }
        }
    }
}

fn row(run: &RunRow, may_select: bool) -> Markup {
    let is_sent = run.mode == Mode::Real;
    html! {
        tr.rehearsed[!is_sent] {
            @if may_select {
                td {
                    input type="checkbox" name="run" value=(run.run_id) form="bulk"
                        aria-label={ "Select " (run.run_id) };
                }
            }
            th scope="row" {
                a href={ "/runs/" (segment(&run.run_id)) } { code { (run.run_id) } }
                @if let Some(parent) = &run.parent {
                    div.sub { "of " a href={ "/runs/" (segment(parent)) } { code { (parent) } } }
                }
            }
            td { (badge(run_look(run.status))) }
            td { (waits(run)) }
            td { bdi { (run.workflow) } }
            td {
                @match &run.route {
                    Some(route) => a href={ "/routes/" (segment(route.as_str())) } { bdi { (route) } },
                    None => "-",
                }
            }
            td { (mode_badge(run.mode)) }
            td { (time(run.started)) }
            td { (time(run.updated)) }
        }
    }
}

/// What a run waits for, or why it ended early.
fn waits(run: &RunRow) -> Markup {
    html! {
        @if let Some(trouble) = &run.trouble {
            div.trouble { strong { "This process cannot go on with it: " } (prose(&beginning(trouble, NOTE_MAX))) }
        }
        @if let Some(checkpoint) = &run.checkpoint {
            div { "an answer, " strong { (checkpoint.risk.as_str()) " risk" } }
        }
        @if let Some(note) = &run.note { div { (prose(&beginning(note, NOTE_MAX))) } }
        @if let Some(wake) = run.wake.filter(|_| !run.status.is_final()) { div.sub { "next timer: " (time(wake)) } }
    }
}

/// The form for all selected runs; for who may not decide, the reason why there is none.
pub(in crate::page) fn bulk_form(frame: &Frame, may_decide: bool) -> Markup {
    html! {
        @if may_decide {
            form #bulk.bulk method="post" action="/runs" {
                (form_key(frame))
                label for="bulk-action" { "With the selected runs" }
                select #bulk-action name="action" {
                    @for (action, shown) in ACTIONS { option value=(action) { (shown) } }
                }
                button type="submit" { "Preview" }
                p.hint { "The preview says what would happen to each of them. Nothing is done before that." }
            }
        } @else {
            p.hint {
                "To pause, resume, cancel or retry runs you need the scope " code { "decide" }
                ", which your token does not have."
            }
        }
    }
}

/// The id of a run as text, for titles.
pub(in crate::page) fn shown_id(id: &str) -> String {
    clean(&beginning(id, 60)).into_owned()
}

#[cfg(test)]
pub(in crate::page) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A row as the API gives it, with other values for some of its fields.
    pub(in crate::page) fn run(id: &str, changed: Value) -> RunRow {
        let mut row = json!({
            "run_id": id, "job_id": "job_1", "workflow": "orders", "plan_id": "plan_1", "route": "orders.create",
            "parent": null, "mode": "real", "status": "paused", "checkpoint": null, "started": "2026-12-01T12:00:00Z",
            "updated": "2026-12-01T12:01:00Z", "wake": null, "note": null,
        });
        let changed = changed.as_object().cloned().unwrap_or_default();
        row.as_object_mut().unwrap().extend(changed);
        serde_json::from_value(row).unwrap()
    }

    fn shown(changed: Value) -> String {
        table("runs", "Runs", &[run("run_1", changed)], true).into_string()
    }

    #[test]
    fn a_row_says_what_the_run_waits_for() {
        let shown = shown(json!({ "checkpoint": { "id": "chk_1", "risk": "high" }, "note": "`pay` needs a decision",
            "wake": "2026-12-02T12:00:00Z", "trouble": "no plan", "parent": "run_0" }));
        for expected in [
            "href=\"/runs/run%5F1\"",
            "paused",
            "<strong>high risk</strong>",
            "<code>pay</code> needs a decision",
            "next timer: ",
            "cannot go on with it: </strong>no plan",
            "href=\"/runs/run%5F0\"",
            "value=\"run_1\" form=\"bulk\"",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
    }

    #[test]
    fn a_run_that_is_not_real_looks_different_and_says_so() {
        let dark = shown(json!({ "mode": "dark" }));
        assert!(dark.contains("<tr class=\"rehearsed\">") && dark.contains("shared effects were not sent"), "{dark}");
        assert!(shown(json!({ "mode": "rehearse" })).contains("nothing was sent"));
        assert!(!shown(json!({})).contains("not-sent"));
    }

    #[test]
    fn recorded_text_is_escaped_and_long_notes_are_cut() {
        const HOSTILE: &str = "\"><script>alert(1)</script>\u{202e}";
        let hostile =
            shown(json!({ "workflow": HOSTILE, "route": HOSTILE, "note": HOSTILE.repeat(50), "trouble": HOSTILE }));
        assert!(!hostile.contains("<script") && hostile.contains('…'), "{hostile}");
    }

    #[test]
    fn who_may_not_decide_sees_no_button_and_the_scope_that_is_missing() {
        let frame = Frame { viewer: None, form_key: "key".into(), path: "/runs".into(), part: "runs" };
        let refused = bulk_form(&frame, false).into_string();
        assert!(!refused.contains("<button") && refused.contains("<code>decide</code>"), "{refused}");
        let offered = bulk_form(&frame, true).into_string();
        assert!(offered.contains("id=\"bulk\"") && offered.contains("value=\"retry\""), "{offered}");
        assert!(!table("runs", "Runs", &[run("run_1", json!({}))], false).into_string().contains("checkbox"));
    }
}
