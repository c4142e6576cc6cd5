//! The steps of a run on one time axis (a Gantt chart), and the same as a table.
//!
//! Always true: a step that has begun and not ended reaches to now; the table says all that the picture says.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::types::StepRow;
use crate::page::duration::duration_text;
use crate::page::html::{count, time};
use crate::page::recorded_text::clean;
use crate::page::runs::flowchart::{cut, is_open, look};
use crate::page::runs::run_links::RunLinks;
use crate::page::runs::run_words::badge;

/// The widths of the names, of the bars, and of the durations after them.
const NAMES: f64 = 200.0;
const BARS: f64 = 620.0;
const DURATIONS: f64 = 90.0;
/// The height of the axis and of a row.
const AXIS: f64 = 26.0;
const ROW: f64 = 22.0;
/// The shortest bar that is drawn.
const BAR_MIN: f64 = 2.0;
const NAME_COLUMNS: usize = 26;

/// A step that has begun, in seconds after the start of the run.
struct Bar<'a> {
    step: &'a StepRow,
    begins: f64,
    seconds: f64,
}

/// The timeline of steps in the order in which they began. `until` is now, or the end of the run.
pub(in crate::page) fn timeline(steps: &[StepRow], started: Timestamp, until: Timestamp, links: &RunLinks) -> Markup {
    let bars: Vec<Bar<'_>> = steps.iter().filter_map(|step| bar(step, started, until)).collect();
    let total = bars.iter().map(|bar| bar.begins + bar.seconds).fold(0.0, f64::max);
    html! {
        @if bars.is_empty() { p #timeline data-live { "No step has begun." } } @else {
            div.scroll.tall tabindex="0" role="region" aria-label="Timeline of the steps" {
                (picture(&bars, total))
            }
        }
        details {
            summary { "The same as a table" }
            div.scroll tabindex="0" role="region" aria-label="Table of the steps" {
                (table(steps, started, until, links))
            }
        }
    }
}

fn bar(step: &StepRow, started: Timestamp, until: Timestamp) -> Option<Bar<'_>> {
    let begins = step.started?.duration_since(started).as_secs_f64().max(0.0);
    Some(Bar { step, begins, seconds: seconds(step, until)? })
}

/// How long a step took; up to `until` where it has not ended.
pub(in crate::page) fn seconds(step: &StepRow, until: Timestamp) -> Option<f64> {
    let started = step.started?;
    match is_open(&step.status) {
        true => Some(until.duration_since(started).as_secs_f64().max(0.0)),
        false => step.duration_ms.map(|ms| std::time::Duration::from_millis(ms).as_secs_f64()),
    }
}

fn picture(bars: &[Bar<'_>], total: f64) -> Markup {
    #[allow(clippy::cast_precision_loss)] // a number of rows
    let height = AXIS + ROW * bars.len() as f64 + 6.0;
    let width = NAMES + BARS + DURATIONS;
    // Steps that took no measurable time: all bars are at the beginning.
    let scale = if total > 0.0 { BARS / total } else { 0.0 };
    let said =
        format!("{} steps within {}. The table below says the same.", count(bars.len() as u64), duration_text(total));
    html! {
        svg #timeline.timeline data-live role="img" aria-label=(said) width=(width) height=(height)
            viewBox={ "0 0 " (width) " " (height) } {
            @for quarter in 0..=4_u8 {
                @let part = f64::from(quarter) / 4.0;
                @let x = number(NAMES + BARS * part);
                line.grid x1=(x) x2=(x) y1=(AXIS - 6.0) y2=(height) {}
                text.tick x=(x) y="14" text-anchor="middle" { (duration_text(total * part)) }
            }
            @for (row, bar) in bars.iter().enumerate() { (picture_row(row, bar, scale)) }
        }
    }
}

fn picture_row(row: usize, bar: &Bar<'_>, scale: f64) -> Markup {
    #[allow(clippy::cast_precision_loss)] // a number of rows
    let top = AXIS + ROW * row as f64;
    let look = look(&bar.step.status);
    let begins = NAMES + bar.begins * scale;
    let width = (bar.seconds * scale).max(BAR_MIN);
    let open = if is_open(&bar.step.status) { " open" } else { "" };
    html! {
        g class={ (look.class) (open) } {
            text.name x=(NAMES - 10.0) y=(number(top + 15.0)) text-anchor="end" {
                (cut(&clean(&bar.step.step_id), NAME_COLUMNS))
            }
            rect.bar x=(number(begins)) y=(number(top + 4.0)) width=(number(width)) height=(ROW - 8.0) rx="2" {}
            text.took x=(number(begins + width + 6.0)) y=(number(top + 15.0)) { (took(bar.step, bar.seconds)) }
        }
    }
}

fn number(length: f64) -> String {
    format!("{length:.1}")
}

/// The text behind a bar.
fn took(step: &StepRow, seconds: f64) -> String {
    match step.attempts {
        attempts if attempts > 1 && step.items.is_none() => format!("{} · {attempts} attempts", duration_text(seconds)),
        _ => duration_text(seconds),
    }
}

fn table(steps: &[StepRow], started: Timestamp, until: Timestamp, links: &RunLinks) -> Markup {
    html! {
        table #timeline-table data-live {
            thead { tr {
                th scope="col" { "Step" } th scope="col" { "State" } th scope="col" { "Began" }
                th scope="col" { "After" } th scope="col" { "Took" } th scope="col" { "Attempts" }
                th scope="col" { "Items" }
            } }
            tbody { @for step in steps { (table_row(step, started, until, links)) } }
        }
    }
}

fn table_row(step: &StepRow, started: Timestamp, until: Timestamp, links: &RunLinks) -> Markup {
    let after = step.started.map(|at| duration_text(at.duration_since(started).as_secs_f64().max(0.0)));
    html! {
        tr {
            th scope="row" { a href=(links.to_step(&step.step_id)) { bdi { (clean(&step.step_id)) } } }
            td { (badge(look(&step.status))) }
            td { @if let Some(at) = step.started { (time(at)) } @else { "-" } }
            td { (after.as_deref().unwrap_or("-")) }
            td {
                @match seconds(step, until) { Some(seconds) => (duration_text(seconds)), None => "-" }
                @if is_open(&step.status) { " until now" }
            }
            td { (step.attempts) }
            td {
                @if let (Some(ended), Some(items)) = (step.items_ended, step.items) { (ended) " of " (items) }
                @else { "-" }
            }
        }
    }
}

#[cfg(test)]
pub(in crate::page) mod tests {
    use super::*;

    pub(in crate::page) fn step(name: &str, status: &str, started: Option<&str>, duration_ms: u64) -> StepRow {
        StepRow {
            step_id: name.to_owned(),
            status: status.to_owned(),
            started: started.map(|at| at.parse().unwrap()),
            duration_ms: started.map(|_| duration_ms),
            attempts: 1,
            effect: None,
            items: None,
            items_ended: None,
            http_status: None,
            note: None,
        }
    }

    fn shown(steps: &[StepRow]) -> String {
        let (started, until) = ("2026-12-01T12:00:00Z".parse().unwrap(), "2026-12-01T12:01:40Z".parse().unwrap());
        timeline(steps, started, until, &RunLinks::default()).into_string()
    }

    #[test]
    fn an_open_step_reaches_to_now_and_a_step_that_has_not_begun_is_in_the_table_only() {
        let steps = [
            step("reserve", "done", Some("2026-12-01T12:00:00Z"), 50_000),
            step("pay", "conflict", Some("2026-12-01T12:00:50Z"), 0),
            step("mail", "pending", None, 0),
        ];
        let shown = shown(&steps);
        // Half of the axis each: 310 of 620 pixels.
        assert!(shown.contains("x=\"200.0\" y=\"30.0\" width=\"310.0\""), "{shown}");
        assert!(shown.contains("x=\"510.0\" y=\"52.0\" width=\"310.0\""), "{shown}");
        assert!(shown.contains("50 s until now") && shown.contains("2 steps within 100 s"));
        assert_eq!(shown.matches("mail").count(), 2, "in the link and its text");
    }

    #[test]
    fn steps_that_took_no_time_are_shown_and_names_are_escaped() {
        let name = "<script>alert(1)</script> with a name that is much too long";
        let shown = shown(&[step(name, "done", Some("2026-12-01T12:00:00Z"), 0)]);
        assert!(shown.contains("width=\"2.0\"") && !shown.contains("NaN"), "{shown}");
        assert!(!shown.contains("<script>") && shown.contains('…'));
    }

    #[test]
    fn a_run_without_steps_says_so() {
        assert!(shown(&[]).contains("No step has begun."));
    }
}
