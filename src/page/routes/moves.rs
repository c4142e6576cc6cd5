//! Flips, freezes and what guards did, as rows: who, when, from what to what, and why.

use maud::{Markup, html};

use crate::admin::types::{FlipRow, State};
use crate::page::client::segment;
use crate::page::html::time;
use crate::page::routes::rungs::{freeze_words, share};

/// A table of moves, the newest first. `id`: of the table. `of_route`: all of them are of one route.
pub(in crate::page) fn table(id: &str, label: &str, moves: &[FlipRow], of_route: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table #(id) data-live {
                thead {
                    tr {
                        th scope="col" { "#" }
                        th scope="col" { "When" }
                        @if !of_route { th scope="col" { "Route" } }
                        th scope="col" { "Move" }
                        th scope="col" { "Who" }
                        th scope="col" { "Why" }
                    }
                }
                tbody {
                    @if moves.is_empty() {
                        tr { td colspan=(if of_route { 5 } else { 6 }) { "Nothing was moved yet." } }
                    }
                    @for row in moves {
                        tr {
                            td.number { (row.number) }
                            td.when { (time(row.at)) }
                            @if !of_route { td { (subject(row)) } }
                            td.move { (what(row)) }
                            td { bdi { (row.by) } }
                            td { (reason(row)) }
                        }
                    }
                }
            }
        }
    }
}

/// What was moved: a route, or the kill switch.
fn subject(row: &FlipRow) -> Markup {
    html! {
        @match &row.route {
            Some(route) => a href=(format!("/routes/{}", segment(route.as_str()))) { (route) },
            None => a href="/freeze" { "kill switch" },
        }
    }
}

/// From what to what.
pub(in crate::page) fn what(row: &FlipRow) -> Markup {
    let words = |state: &str| match row.route {
        Some(_) => state.to_owned(),
        None => freeze_words(state).to_owned(),
    };
    let percent = row.to.parse::<State>().ok().zip(row.shares).and_then(|(rung, shares)| share(&shares, rung));
    html! {
        @match (row.guard, row.candidate) {
            (Some(guard), _) => { "guard " (guard.as_str()) ": " }
            (None, Some(candidate)) => { "candidate " (candidate.as_str()) ": " }
            (None, None) => {}
        }
        (words(&row.from)) " " span aria-hidden="true" { "→" } span.unseen { "to" } " " strong { (words(&row.to)) }
        @if let (Some(percent), None, None) = (percent, row.guard, row.candidate) { " at " (percent) " %" }
    }
}

fn reason(row: &FlipRow) -> Markup {
    html! {
        @if let Some(reason) = &row.reason { bdi { (reason) } } @else { span.sub { "no reason given" } }
        @if let Some(forced) = forced(row) { " " span.wait { span aria-hidden="true" { "◆ " } (forced) } }
    }
}

/// Which gate was passed by force; `None` if none was.
pub(in crate::page) fn forced(row: &FlipRow) -> Option<String> {
    let before = row.forced_above.filter(|rung| rung.as_str() != row.from);
    row.forced.then(|| match (row.forced_now_above, before) {
        (Some(now), Some(rung)) if rung < now => format!("forced; the gate above {rung} was forced before, too"),
        (None, Some(rung)) => format!("the gate above {rung} was forced before"),
        (Some(_), _) | (None, None) => "forced".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn row(more: &Value) -> FlipRow {
        let mut row = json!({
            "number": 17, "route": "orders.create", "from": "dark", "to": "live",
            "shares": { "shadow": 100.0, "dark": 100.0, "live": 10.0 }, "by": "ann", "at": "2026-12-01T12:00:00Z",
            "reason": "evidence suffices", "forced": false,
        });
        for (name, value) in more.as_object().unwrap() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_row_says_who_when_from_to_and_why() {
        let shown = table("moves", "Moves", &[row(&json!({}))], false).into_string();
        for text in
            ["17", "2026-12-01 12:00:00 UTC", "orders.create", "dark", "live", " at 10 %", "ann", "evidence suffices"]
        {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert!(!shown.contains("forced"), "{shown}");
    }

    #[test]
    fn a_forced_flip_and_a_freeze_are_named() {
        let forced = row(&json!({ "forced": true, "forced_now_above": "dark", "forced_above": "dark" }));
        assert!(table("moves", "Moves", &[forced], true).into_string().contains("forced"));
        let freeze = row(&json!({ "route": null, "from": "no", "to": "effects", "shares": null, "reason": null }));
        let shown = table("moves", "Moves", &[freeze], false).into_string();
        assert!(shown.contains("kill switch") && shown.contains("freeze of effects too"), "{shown}");
        assert!(shown.contains("no reason given"), "{shown}");
    }

    #[test]
    fn what_people_wrote_is_no_markup() {
        let hostile = row(&json!({ "by": "<img src=x>", "reason": "\"><script>x</script>", "route": "a/../<b>" }));
        let shown = table("moves", "Moves", &[hostile], false).into_string();
        assert!(!shown.contains("<img") && !shown.contains("<script") && !shown.contains("<b>"), "{shown}");
        assert!(shown.contains("/routes/a%2F%2E%2E%2F%3Cb%3E"), "{shown}");
    }
}
