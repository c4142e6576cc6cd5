//! Formats output for a terminal: colours, tables, durations, numbers.
//!
//! Always true: colour only repeats what the text says; text that came from recorded traffic or from another machine is
//! escaped before it is shown ([`escape_control`]), so that it cannot control the terminal.

pub(crate) use crate::page::duration_text;
use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use jiff::Timestamp;
use owo_colors::{OwoColorize, Style};

use super::args::Colour;
use crate::flag::{EffectiveReason, State};
use crate::secret::{SEALED, STARS};

/// The meaning of a piece of text, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Faint,
    Bad,
    Warn,
    Good,
    Info,
    Notice,
}

impl Tone {
    /// The tone of a route's state, the same everywhere.
    pub fn of(state: State) -> Self {
        match state {
            State::Off => Tone::Faint,
            State::Shadow => Tone::Info,
            State::Dark => Tone::Notice,
            State::Live | State::Only => Tone::Good,
        }
    }
    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
            Tone::Bad => Style::new().red().bold(),
            Tone::Warn => Style::new().yellow(),
            Tone::Good => Style::new().green(),
            Tone::Info => Style::new().cyan(),
            Tone::Notice => Style::new().magenta(),
        }
    }
    fn cell(self, text: &str) -> Cell {
        let cell = Cell::new(text);
        match self {
            Tone::Plain => cell,
            Tone::Strong => cell.add_attribute(Attribute::Bold),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
            Tone::Bad => cell.fg(Color::Red).add_attribute(Attribute::Bold),
            Tone::Warn => cell.fg(Color::DarkYellow),
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Info => cell.fg(Color::DarkCyan),
            Tone::Notice => cell.fg(Color::DarkMagenta),
        }
    }
}

/// A cell of a table.
pub(crate) type TableCell = (String, Tone);

/// A cell without a tone.
pub(crate) fn plain(text: impl std::fmt::Display) -> TableCell {
    (text.to_string(), Tone::Plain)
}

/// Formats with colours, or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Formatter(pub bool);

impl Formatter {
    /// A formatter for an output stream.
    pub fn new(choice: Colour, stream: &impl IsTerminal) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Formatter(match choice {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => stream.is_terminal() && !no_color && !dumb,
        })
    }
    /// The text, coloured by its tone.
    pub fn tone(self, text: impl std::fmt::Display, tone: Tone) -> String {
        self.style(text, tone.style())
    }
    /// The text in a style.
    pub fn style(self, text: impl std::fmt::Display, style: Style) -> String {
        if self.0 { text.style(style).to_string() } else { text.to_string() }
    }
    /// A table without borders; the columns in `right` are aligned to the right.
    pub fn table(self, header: &[&str], right: &[usize], rows: Vec<Vec<TableCell>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        if self.0 {
            table.enforce_styling();
        }
        table.set_header(header.iter().map(|name| Tone::Faint.cell(name)));
        for row in &rows {
            table.add_row(row.iter().map(|(text, tone)| tone.cell(&escape_control(text))));
        }
        for (n, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if n == 0 { 0 } else { 1 }, 1));
            column.set_cell_alignment(if right.contains(&n) { CellAlignment::Right } else { CellAlignment::Left });
        }
        table.trim_fmt() + "\n"
    }
    /// As [`Formatter::table`], with the texts of one column broken at their spaces, so that the table has at most
    /// [`COLUMNS_MAX`] columns, if that is possible.
    pub fn table_with_broken(
        self,
        header: &[&str],
        right: &[usize],
        mut rows: Vec<Vec<TableCell>>,
        broken: usize,
    ) -> String {
        let widest = |(n, name): (usize, &&str)| {
            let cells = rows.iter().filter_map(|row| row.get(n)).flat_map(|(text, _)| text.lines());
            cells.map(|line| line.chars().count()).max().unwrap_or_default().max(name.chars().count())
        };
        let widths: Vec<usize> = header.iter().enumerate().map(widest).collect();
        let others: usize = widths.iter().enumerate().filter(|(n, _)| *n != broken).map(|(_, width)| width + 2).sum();
        let room = COLUMNS_MAX.saturating_sub(others).max(BROKEN_MIN);
        if widths.get(broken).is_some_and(|width| *width > room) {
            for (text, _) in rows.iter_mut().filter_map(|row| row.get_mut(broken)) {
                let indent = COLUMNS_MAX - room;
                let lines = wrapped(text, indent);
                *text = lines.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
            }
        }
        self.table(header, right, rows)
    }
}

/// The columns that a list of long texts takes at most.
pub(crate) const COLUMNS_MAX: usize = 120;

/// Breaks a text at its spaces into lines of at most [`COLUMNS_MAX`], each after `indent` spaces. A longer word is not
/// broken, because it may be an id or a path that somebody copies.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width <= COLUMNS_MAX {
            out.push(' ');
            column += 1 + width;
        } else {
            if column > 0 {
                out.push('\n');
            }
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent + width;
        }
        out.push_str(word);
    }
    if column > 0 {
        out.push('\n');
    }
    out
}

/// The fewest columns that a column of a table with broken texts gets.
const BROKEN_MIN: usize = 12;

/// Breaks those lines of a text that are wider than [`COLUMNS_MAX`] at their spaces; what follows is indented by two
/// more than the line. A longer word is not broken.
pub(crate) fn fitted(text: &str) -> String {
    text.split_inclusive('\n').map(fitted_line).collect()
}

fn fitted_line(line: &str) -> String {
    let content = line.trim_end_matches(['\n', ' ']);
    if width_of(content) <= COLUMNS_MAX {
        return line.to_owned();
    }
    let text = content.trim_start_matches(' ');
    let own = content.len() - text.len();
    let (mut out, mut column) = (" ".repeat(own), own);
    for (n, word) in text.split_inclusive(' ').enumerate() {
        if n > 0 && column + width_of(word.trim_end()) > COLUMNS_MAX {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&" ".repeat(own + 2));
            column = own + 2;
        }
        out.push_str(word);
        column += width_of(word);
    }
    if line.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// How many columns a text takes, without the sequences that colour it.
fn width_of(text: &str) -> usize {
    let mut parts = text.split('\u{1b}');
    let plain = parts.next().unwrap_or_default().chars().count();
    plain + parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count())).sum::<usize>()
}

/// Escapes the characters that a terminal would interpret: control characters except line breaks, and those that change
/// the direction of text.
pub(crate) fn escape_control(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let changes_direction =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n') || changes_direction {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Escapes control characters in a text of a run, and replaces ciphertext, which nobody can read, by stars.
pub(crate) fn without_ciphertext(text: &str) -> String {
    let [opens, closes] = SEALED;
    let mut pieces = text.split(opens);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once(closes) {
            Some((_, after)) => out.extend([STARS, after]),
            None => out.extend([opens, piece]),
        }
    }
    escape_control(&out)
}

/// Why a state is in force.
pub(crate) fn why(why: EffectiveReason) -> &'static str {
    match why {
        EffectiveReason::Requested => "as requested",
        EffectiveReason::Unproven => "unproven",
        EffectiveReason::Gate => "limited by the gate",
        EffectiveReason::Guard => "lowered by the guard",
        EffectiveReason::Health => "engine not healthy",
        EffectiveReason::Freeze => "frozen",
    }
}

/// `3 s ago`, `5 min ago`, `2 h ago`, `4 d ago`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration_text(now.duration_since(at).as_secs_f64().max(0.0)))
}

/// A number of things: `1 run`, `2 runs`, `2 entries`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    match (number, thing.strip_suffix('y')) {
        (1, _) => format!("1 {thing}"),
        (_, Some(stem)) => format!("{} {stem}ies", count(number)),
        (_, None) => format!("{} {thing}s", count(number)),
    }
}

/// `1,204`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_lines_are_broken_at_spaces_and_colours_take_no_columns() {
        let words = "needs more pairs ".repeat(20);
        let text = format!("short\n  - {words}\n\nlast");
        let shown = fitted(&text);
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{shown}");
        assert!(shown.starts_with("short\n  - needs") && shown.ends_with("\n\nlast"), "{shown}");
        assert!(shown.contains("\n    "), "{shown}");
        let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(joined(&shown), joined(&text));
        let coloured = Formatter(true).tone("x".repeat(COLUMNS_MAX), Tone::Bad);
        assert!(coloured.len() > COLUMNS_MAX && fitted(&coloured) == coloured);
        let word = "w".repeat(COLUMNS_MAX + 1);
        assert_eq!(fitted(&word), word);
    }

    #[test]
    fn a_table_breaks_the_texts_of_one_column() {
        let rows = vec![vec![plain("errors_not_worse_by"), plain("pass"), plain("a long text ".repeat(30))]];
        let header = ["CONDITION", "VERDICT", "FOUND"];
        let table = Formatter(false).table_with_broken(&header, &[], rows.clone(), 2);
        assert!(table.lines().count() > 3 && table.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{table}");
        let short = vec![vec![plain("a"), plain("pass"), plain("b c")]];
        let same = Formatter(false).table(&header, &[], short.clone());
        assert_eq!(Formatter(false).table_with_broken(&header, &[], short, 2), same);
    }
}
