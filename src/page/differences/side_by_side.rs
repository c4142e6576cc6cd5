//! Two recorded texts side by side, line by line, with what differs marked.
//!
//! Always true: it is bounded in time and in size, and says what it leaves out; it does not depend on colours: a line
//! that differs has a sign and, for screen readers, words.

use std::ops::Range;
use std::time::{Duration, Instant};

use maud::{Markup, html};
use similar::{DiffOp, TextDiff};

use crate::page::differences::line_words::{compared_part, differing};
use crate::page::differences::text_marks::{LINE_BYTES_MAX, Side, marked, shown};
use crate::page::html::count;

/// How long aligning all texts of a page may take.
const ALIGN_TIME_MAX: Duration = Duration::from_millis(300);
/// How much of recorded texts one page shows, in bytes: beyond that, it says that the rest is left out.
const PAGE_BYTES_MAX: usize = 400_000;
/// The longest text that is compared, in bytes.
const TEXT_BYTES_MAX: usize = 512 << 10;
/// How many lines of one text are shown.
const ROWS_MAX: usize = 200;
/// How many equal lines are shown around a line that differs.
const CONTEXT_LINES: usize = 3;
/// How many lines of two equal texts are shown.
const EQUAL_LINES_MAX: usize = 12;
/// What is left of the time and of the room for the recorded texts of a page.
pub(in crate::page) struct Budget {
    until: Instant,
    bytes: usize,
}

impl Budget {
    /// That of a whole page.
    pub(in crate::page) fn of_page() -> Self {
        Self { until: Instant::now() + ALIGN_TIME_MAX, bytes: PAGE_BYTES_MAX }
    }

    /// Takes the room of a row; `false` if there is none.
    fn take(&mut self, row: &Row<'_>) -> bool {
        let shown = |line: &str| line.len().min(LINE_BYTES_MAX);
        let bytes = match row {
            Row::Same(legacy, engine) | Row::Differ(legacy, engine) => shown(legacy) + shown(engine),
            Row::Only { line, .. } => shown(line),
            Row::EqualLines(_) => 0,
        };
        let fits = bytes <= self.bytes;
        self.bytes = if fits { self.bytes - bytes } else { 0 };
        fits
    }

    fn is_time_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// A part of a pair: the status, the body, a call.
#[derive(Debug, Default)]
pub(in crate::page) struct Section {
    pub title: String,
    /// What to know about it; may be empty.
    pub note: String,
    /// Legacy's text; `None` if it has none.
    pub legacy: Option<String>,
    /// The engine's.
    pub engine: Option<String>,
    /// Whether commas at the ends of lines have no meaning, as in indented JSON.
    pub ignores_commas: bool,
    /// Whether the two sides were compared; if not, nothing is marked.
    pub is_compared: bool,
}

/// Some sections in one table. `columns`: how the two sides are called; `rest`: a sentence that says where to find what
/// is left out.
pub(in crate::page) fn table(
    caption: &str,
    columns: (&str, &str),
    sections: &[Section],
    rest: &str,
    budget: &mut Budget,
) -> Markup {
    html! {
        table.sides {
            caption.for-readers { (caption) }
            thead {
                tr {
                    th.sign scope="col" { span.for-readers { "Difference" } }
                    th scope="col" { (columns.0) }
                    th scope="col" { (columns.1) }
                }
            }
            @for section in sections {
                tbody {
                    tr.section {
                        th colspan="3" scope="rowgroup" {
                            (shown(&section.title))
                            @if !section.note.is_empty() { " " span.sub { (section.note) } }
                        }
                    }
                    (rows(section, rest, budget))
                }
            }
        }
    }
}

/// The rows of a section.
fn rows(section: &Section, rest: &str, budget: &mut Budget) -> Markup {
    let ((legacy, is_legacy_cut), (engine, is_engine_cut)) = (cut(&section.legacy), cut(&section.engine));
    let (aligned, mut is_cut) = match (legacy, engine) {
        (Some(legacy), Some(engine)) => align(legacy, engine, section.ignores_commas, budget.until),
        (legacy, engine) => one_sided(legacy, engine),
    };
    is_cut |= is_legacy_cut || is_engine_cut;
    let was_late = budget.is_time_over();
    let mut out = Vec::new();
    for aligned_row in &aligned {
        if !budget.take(aligned_row) {
            is_cut = true;
            break;
        }
        out.push(row(aligned_row, section, budget.until));
    }
    html! {
        @for row in &out { (row) }
        @if is_cut { tr.left-out-row { td colspan="3" { "The rest is not shown here. " (rest) } } }
        @if was_late {
            tr.left-out-row { td colspan="3" { "There was not enough time to find all lines that belong together." } }
        }
    }
}

/// The beginning of a text that is not longer than what is compared, and whether that is not all of it.
fn cut(text: &Option<String>) -> (Option<&str>, bool) {
    match text {
        Some(text) => (Some(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]), text.len() > TEXT_BYTES_MAX),
        None => (None, false),
    }
}

/// A row of two aligned texts.
#[derive(Debug, PartialEq, Eq)]
enum Row<'a> {
    Same(&'a str, &'a str),
    Differ(&'a str, &'a str),
    /// A line that only one side has; `is_first` if it is the first of a text to which the other side has nothing.
    Only {
        side: Side,
        line: &'a str,
        is_first: bool,
    },
    /// So many equal lines.
    EqualLines(usize),
}

/// A text that the other side does not have, and whether it has more lines than are shown.
fn one_sided<'a>(legacy: Option<&'a str>, engine: Option<&'a str>) -> (Vec<Row<'a>>, bool) {
    let (side, text) = match (legacy, engine) {
        (Some(text), _) => (Side::Legacy, text),
        (None, Some(text)) => (Side::Engine, text),
        (None, None) => return (Vec::new(), false),
    };
    let lines = text.split('\n').take(ROWS_MAX).enumerate();
    let rows = lines.map(|(at, line)| Row::Only { side, line, is_first: at == 0 }).collect();
    (rows, text.split('\n').nth(ROWS_MAX).is_some())
}

/// Two texts, line by line, without most of what is equal; and whether there are more lines than are shown.
fn align<'a>(legacy: &'a str, engine: &'a str, ignores_commas: bool, until: Instant) -> (Vec<Row<'a>>, bool) {
    let (old, new): (Vec<&str>, Vec<&str>) = (legacy.split('\n').collect(), engine.split('\n').collect());
    let compared =
        |lines: &[&'a str]| -> Vec<&'a str> { lines.iter().map(|line| compared_part(line, ignores_commas)).collect() };
    let diff = TextDiff::configure().deadline(until).diff_slices(&compared(&old), &compared(&new));
    let mut rows = Vec::new();
    let last = diff.ops().len().saturating_sub(1);
    for (n, op) in diff.ops().iter().enumerate() {
        if rows.len() >= ROWS_MAX {
            return (rows, true);
        }
        let (old, new) = (&old[op.old_range()], &new[op.new_range()]);
        if let DiffOp::Equal { .. } = op {
            add_equal(&mut rows, old, new, (n == 0, n == last));
            continue;
        }
        for at in 0..old.len().max(new.len()) {
            if rows.len() >= ROWS_MAX {
                return (rows, true);
            }
            rows.extend(match (old.get(at), new.get(at)) {
                (Some(old), Some(new)) => Some(Row::Differ(old, new)),
                (Some(old), None) => Some(Row::Only { side: Side::Legacy, line: old, is_first: false }),
                (None, Some(new)) => Some(Row::Only { side: Side::Engine, line: new, is_first: false }),
                (None, None) => None,
            });
        }
    }
    (rows, false)
}

/// Adds equal lines: those next to a difference, and how many others there are.
fn add_equal<'a>(rows: &mut Vec<Row<'a>>, old: &[&'a str], new: &[&'a str], (is_first, is_last): (bool, bool)) {
    let (head, tail) = match (is_first, is_last) {
        (true, true) => (EQUAL_LINES_MAX, 0),
        (true, false) => (0, CONTEXT_LINES),
        (false, true) => (CONTEXT_LINES, 0),
        (false, false) => (CONTEXT_LINES, CONTEXT_LINES),
    };
    let lines = old.len();
    // One line takes no more room than the note that it is left out.
    let (head, tail) = if lines <= head + tail + 1 { (lines, 0) } else { (head, tail) };
    let same = |(old, new): (&&'a str, &&'a str)| Row::Same(old, new);
    rows.extend(old.iter().zip(new).take(head).map(same));
    if lines > head + tail {
        rows.push(Row::EqualLines(lines - head - tail));
    }
    rows.extend(old.iter().zip(new).skip(lines - tail).map(same));
}

/// A row as HTML.
fn row(row: &Row<'_>, section: &Section, until: Instant) -> Markup {
    let all = |line: &str| Vec::from_iter((!line.is_empty()).then_some(0..line.len()));
    match row {
        Row::EqualLines(lines) => html! {
            tr.left-out-row { td colspan="3" { (count(*lines as u64)) " equal lines" } }
        },
        Row::Same(legacy, engine) => cells(None, &cell(legacy, &[], Side::Legacy), &cell(engine, &[], Side::Engine)),
        Row::Differ(legacy, engine) => {
            let (in_legacy, in_engine) = differing(legacy, engine, section.ignores_commas, until);
            let (legacy, engine) = (cell(legacy, &in_legacy, Side::Legacy), cell(engine, &in_engine, Side::Engine));
            cells(Some(("≠", "differs")), &legacy, &engine)
        }
        Row::Only { side, line, is_first } => {
            let range = if section.is_compared { all(line) } else { Vec::new() };
            let (line, nothing) = (cell(line, &range, *side), html! { @if *is_first { span.sub { "nothing" } } });
            let sign = |sign: (&'static str, &'static str)| section.is_compared.then_some(sign);
            match side {
                Side::Legacy => cells(sign(("−", "only on the left")), &line, &nothing),
                Side::Engine => cells(sign(("+", "only on the right")), &nothing, &line),
            }
        }
    }
}

/// A line in its cell.
fn cell(line: &str, differing: &[Range<usize>], side: Side) -> Markup {
    html! {
        @if line.is_empty() { span.sub { "(empty line)" } } @else { code { (marked(line, differing, side)) } }
    }
}

/// The three cells of a row. `sign`: how the difference is marked, and in words.
fn cells(sign: Option<(&str, &str)>, legacy: &Markup, engine: &Markup) -> Markup {
    html! {
        tr.differs[sign.is_some()] {
            td.sign {
                @if let Some((sign, words)) = sign {
                    span aria-hidden="true" { (sign) }
                    span.for-readers { (words) }
                }
            }
            td { (legacy) }
            td { (engine) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn section(legacy: &str, engine: &str) -> Section {
        let (legacy, engine) = (Some(legacy.to_owned()), Some(engine.to_owned()));
        Section { title: "Body".into(), legacy, engine, is_compared: true, ..Section::default() }
    }

    fn html(section: Section) -> String {
        let columns = ("Legacy", "The engine");
        table("Both replies", columns, &[section], "See `--json`.", &mut Budget::of_page()).into_string()
    }

    #[test]
    fn lines_are_aligned_and_most_equal_ones_left_out() {
        let lines: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let legacy = lines.join("\n");
        let engine = legacy.replace("\n20\n", "\n20.5\nmore\n");
        let (rows, is_cut) = align(&legacy, &engine, false, later());
        assert!(!is_cut);
        assert_eq!(
            rows[..5],
            [
                Row::EqualLines(17),
                Row::Same("17", "17"),
                Row::Same("18", "18"),
                Row::Same("19", "19"),
                Row::Differ("20", "20.5"),
            ]
        );
        assert_eq!(rows[5], Row::Only { side: Side::Engine, line: "more", is_first: false });
        assert_eq!(rows[8..], [Row::Same("23", "23"), Row::EqualLines(16)]);
        let (rows, _) = align("{\n  1,\n  2\n}", "{\n  1\n}", true, later());
        assert_eq!(rows[1], Row::Same("  1,", "  1"), "a comma at the end is no difference in JSON");
        assert_eq!(rows[2], Row::Only { side: Side::Legacy, line: "  2", is_first: false });
    }

    #[test]
    fn the_words_that_differ_are_marked() {
        let shown = html(section("\"total\": 12.50,", "\"total\": 12.49,"));
        assert!(shown.contains("12.50</del>") && shown.contains("12.49</ins>"), "{shown}");
        assert!(shown.contains("<span aria-hidden=\"true\">≠</span><span class=\"for-readers\">differs</span>"));
    }

    #[test]
    fn what_one_side_lacks_and_what_is_not_compared_is_shown() {
        let shown = html(Section { engine: None, ..section("POST http://bank/charges\n{}", "") });
        assert_eq!(shown.matches("nothing").count(), 1, "{shown}");
        assert!(shown.contains("only on the left") && shown.contains("<del>"), "{shown}");
        let shown = html(Section { engine: None, is_compared: false, ..section("GET http://bank/rates", "") });
        assert!(!shown.contains("<del>") && !shown.contains("only on the left"), "{shown}");
    }

    #[test]
    fn long_and_hostile_texts_stay_small_and_inert() {
        let body = |of: &str| (0..10_000).map(|n| format!("<b>{n}{of}\u{202e}</b>\n")).collect::<String>();
        let began = Instant::now();
        let shown = html(section(&body("x"), &body("y")));
        // Without the bound this takes minutes.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(shown.len() < 400_000, "{}", shown.len());
        assert!(shown.contains("The rest is not shown here. See `--json`."));
        assert!(!shown.contains("<b>") && !shown.contains('\u{202e}'));
        let one_line = |of: &str| format!("{}{of}", "\0\u{1}".repeat(100_000));
        assert!(html(section(&one_line("x"), &one_line("y"))).len() < 400_000);
        let mut none_left = Budget { until: Instant::now(), bytes: 10 };
        let shown = table("", ("", ""), &[section("aaaaaaaaaaaaa", "b")], "Elsewhere.", &mut none_left).into_string();
        assert!(shown.contains("not enough time") && shown.contains("Elsewhere.") && !shown.contains("aaa"), "{shown}");
    }
}
