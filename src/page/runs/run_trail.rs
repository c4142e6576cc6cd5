//! The audit trail: every event of a run in plain words, with its time and who did it, newest last.

use maud::{Markup, html};

use crate::admin::types::EventRow;
use crate::page::client::segment;
use crate::page::html::{count, time};
use crate::page::recorded_text::{clean, prose};
use crate::page::runs::event_fields::Subjects;
use crate::page::runs::event_words::{EventWords, event_words};
use crate::page::runs::run_links::RunLinks;

/// How many events the page shows at once.
pub(in crate::page) const EVENTS_SHOWN_MAX: u64 = 200;

/// The events that the page shows: those after the number in the query, else the newest.
pub(in crate::page) fn first_shown(after: Option<u64>, last_seq: u64) -> u64 {
    let newest = last_seq.saturating_sub(EVENTS_SHOWN_MAX);
    after.map_or(newest, |after| after.min(last_seq)) + 1
}

/// The trail. `rows` are the events that were read, of which those from `first` on are shown; `last_seq` is the number
/// of the run's last event.
pub(in crate::page) fn trail(rows: &[EventRow], first: u64, last_seq: u64, links: &RunLinks) -> Markup {
    let subjects = Subjects::of(rows);
    let from = rows.partition_point(|row| row.seq < first);
    let shown: Vec<&EventRow> = rows[from..].iter().take(usize::try_from(EVENTS_SHOWN_MAX).unwrap_or(0)).collect();
    let last = shown.last().map_or(0, |row| row.seq);
    html! {
        div #trail data-live {
            @if shown.is_empty() { p { "No event is shown." } } @else {
                p.hint { "Events " (count(first)) " to " (count(last)) " of " (count(last_seq)) ", newest last." }
            }
            (pages(first, last, last_seq, links))
            @if !shown.is_empty() {
                div.scroll tabindex="0" role="region" aria-label="Events" {
                    table.trail {
                        thead { tr {
                            th scope="col" { "#" } th scope="col" { "Time" } th scope="col" { "What happened" }
                            th scope="col" { "Who" }
                        } }
                        tbody { @for row in &shown { (line(row, event_words(row, subjects.subject(row)))) } }
                    }
                }
            }
        }
    }
}

fn line(row: &EventRow, words: EventWords) -> Markup {
    let EventWords { text, by, reason, later, run } = words;
    html! {
        tr {
            th scope="row" { (row.seq) }
            td { (time(row.at)) }
            td {
                (prose(&without_doubled_stop(&text)))
                @if let Some((what, at)) = later { " " (what) " " (time(at)) "." }
                @if let Some(run) = run { " " a href={ "/runs/" (segment(&run)) } { code { (clean(&run)) } } }
                @if let Some(reason) = reason { div.sub { (prose(&reason)) } }
            }
            td { @if let Some(by) = by { bdi { (clean(&by)) } } }
        }
    }
}

/// Recorded messages may end with a full stop, and so does the sentence around them.
fn without_doubled_stop(text: &str) -> String {
    let text = text.replace(".. ", ". ");
    text.strip_suffix("..").map_or_else(|| text.clone(), |sentence| format!("{sentence}."))
}

/// Links to earlier and later events.
fn pages(first: u64, last: u64, last_seq: u64, links: &RunLinks) -> Markup {
    html! {
        @if first > 1 || (last > 0 && last < last_seq) {
            nav.pages aria-label="Pages of events" {
                @if first > 1 {
                    a href=(links.events_after(first.saturating_sub(EVENTS_SHOWN_MAX + 1))) { "Earlier events" }
                }
                @if last < last_seq { a href=(links.events_after(last)) { "Later events" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::runs::event_fields::tests::event;

    #[test]
    fn the_newest_events_are_shown_and_the_others_are_linked() {
        let rows: Vec<EventRow> =
            (1..=500).map(|seq| event(seq, "step_computed", json!({ "step": format!("s{seq}") }))).collect();
        let links = RunLinks::default();
        assert_eq!((first_shown(None, 500), first_shown(Some(0), 500), first_shown(Some(900), 500)), (301, 1, 501));
        let shown = trail(&rows, first_shown(None, 500), 500, &links).into_string();
        assert_eq!(shown.matches("<tr>").count(), 201);
        assert!(shown.contains("events_after=100") && !shown.contains("Later events"), "{shown}");
        let shown = trail(&rows, 1, 500, &links).into_string();
        assert!(shown.contains("events_after=200") && !shown.contains("Earlier events"));
        assert!(shown.contains("<code>s200</code>") && !shown.contains("<code>s201</code>"));
    }

    #[test]
    fn recorded_text_is_escaped() {
        let rows = [event(
            1,
            "resolved",
            json!({ "step": "<script>alert(1)</script>", "choice": "skip", "by": "\"><img src=x>", "reason": "<b>" }),
        )];
        let shown = trail(&rows, 1, 1, &RunLinks::default()).into_string();
        assert!(!shown.contains("<script") && !shown.contains("<img") && !shown.contains("<b>"), "{shown}");
        assert!(shown.contains("the step is skipped."));
    }
}
