//! Finds the secrets in the columns of a table that a text is, or quotes: lines of cells below a line of names.
//!
//! Always true: if a row has more or fewer cells than there are names, or a quote that does not end in its line, it is
//! not known which cell belongs to which name. Then everything from the first secret column to the end of the line
//! counts as secret. The table ends at an empty line.

use std::ops::Range;

use super::walk::{CELL_DELIMITERS, Edited, SecretWalk, may_have_columns};

/// A longer cell is no name of a column.
const NAME_BYTES_MAX: usize = 64;
/// A cell with more words is no name of a column.
const NAME_WORDS_MAX: usize = 3;

/// The names of a table, as far as they are secret.
struct Columns<'t> {
    delimiter: char,
    /// How many columns there are.
    count: usize,
    /// The secret ones, by their number.
    secret: Vec<(usize, &'t str)>,
}

impl SecretWalk<'_, '_> {
    /// Replaces the cells below secret names.
    pub(super) fn replace_in_columns(&mut self, text: &str) -> Option<String> {
        if !may_have_columns(text) {
            return None;
        }
        let (mut edited, mut columns, mut start) = (Edited::of(text), None, 0);
        for line in text.split_inclusive('\n') {
            let content = line.trim_end_matches(['\n', '\r']);
            match &columns {
                Some(_) if content.trim().is_empty() => columns = None,
                Some(names) => {
                    for (name, place, is_line) in secrets(names, content) {
                        if let Some(shown) = self.replacement(name, &content[place.clone()], is_line) {
                            edited.replace(start + place.start..start + place.end, &shown);
                        }
                    }
                }
                None => columns = Columns::named_in(content, self.is_secret),
            }
            start += line.len();
        }
        edited.changed()
    }
}

impl<'t> Columns<'t> {
    /// The columns that a line names. `None` if the line is no list of names, or none of them is secret.
    fn named_in(line: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Option<Self> {
        CELL_DELIMITERS.iter().find_map(|&delimiter| {
            let (cells, is_whole) = cells(line, delimiter);
            let names: Vec<&str> = cells.into_iter().map(|cell| line[cell].trim_matches(['"', '\'', ' '])).collect();
            if names.len() < 2 || !is_whole || !names.iter().all(|name| is_name(name)) {
                return None;
            }
            let secret: Vec<_> = names.iter().copied().enumerate().filter(|(_, name)| is_secret(name)).collect();
            (!secret.is_empty()).then_some(Self { delimiter, count: names.len(), secret })
        })
    }
}

fn is_name(cell: &str) -> bool {
    let is_name_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '[' | ']');
    (1..=NAME_BYTES_MAX).contains(&cell.len())
        && cell.chars().all(is_name_char)
        && cell.split_whitespace().count() <= NAME_WORDS_MAX
        && cell.chars().any(char::is_alphabetic)
}

/// The secrets of a row: the name, where the value is, and whether it reaches to the end of the line.
fn secrets<'c>(columns: &Columns<'c>, line: &str) -> Vec<(&'c str, Range<usize>, bool)> {
    let (cells, is_whole) = cells(line, columns.delimiter);
    if !is_whole || cells.len() != columns.count {
        let first = columns.secret.first().and_then(|(number, name)| Some((*name, cells.get(*number)?.start)));
        return first.into_iter().map(|(name, start)| (name, start..line.len(), true)).collect();
    }
    let place = |(number, name): &(usize, &'c str)| {
        let cell = cells.get(*number)?.clone();
        let (text, quotes) = (&line[cell.clone()], ['"', '\'', ' ']);
        let inner = text.trim_start_matches(quotes);
        let begin = cell.start + text.len() - inner.len();
        let value = begin..begin + inner.trim_end_matches(quotes).len();
        (!value.is_empty()).then_some((*name, value, false))
    };
    columns.secret.iter().filter_map(place).collect()
}

/// The places of the cells of a line, with their quotes, and whether each quote that begins a cell ends in the line.
fn cells(line: &str, delimiter: char) -> (Vec<Range<usize>>, bool) {
    let (mut cells, mut start, mut quote, mut is_begin) = (Vec::new(), 0, None, true);
    for (at, character) in line.char_indices() {
        match quote {
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if character == delimiter => {
                cells.push(start..at);
                start = at + character.len_utf8();
                is_begin = true;
                continue;
            }
            // A doubled quote within a quoted cell opens it again.
            None if character == '"' && (is_begin || line[..at].ends_with('"')) => quote = Some(character),
            None => {}
        }
        is_begin &= character == ' ';
    }
    cells.push(start..line.len());
    (cells, quote.is_none())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::walk::{FoundSecret, replace_secrets};
    use super::super::{Detectors, STARS, is_secret};

    fn shown(text: &str) -> String {
        let found = RefCell::new(0);
        let mut replace = |_: FoundSecret<'_>| {
            *found.borrow_mut() += 1;
            Some(STARS.to_owned())
        };
        replace_secrets(text, &is_secret, Detectors::default(), &mut replace).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn cells_below_a_secret_name_are_found_in_every_table() {
        for (text, expected) in [
            ("user,password\nbob,hunter2\namy,hunter3\n", "user,password\nbob,***\namy,***\n"),
            ("password;user\r\n\"hun;ter2\";bob\r\n", "password;user\r\n\"***\";bob\r\n"),
            ("user\tapi key\nbob\thunter2", "user\tapi key\nbob\t***"),
            ("user|password|n\nbob|hunter2|1", "user|password|n\nbob|***|1"),
            // Rows that do not fit.
            ("user,password\nbob,hunter2,extra\n", "user,password\nbob,***\n"),
            ("user,password\nbob,\"hunter2\n", "user,password\nbob,***\n"),
            ("password,user\nhunter2\n", "password,user\n***\n"),
            // Behind and before other lines.
            ("the list:\nuser,password\nbob,hunter2\n\nbob,2\n", "the list:\nuser,password\nbob,***\n\nbob,2\n"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
            let in_json = serde_json::json!({ "rows": text, "n": 1 }).to_string();
            assert_eq!(shown(&in_json), serde_json::json!({ "rows": expected, "n": 1 }).to_string(), "{text}");
        }
    }

    #[test]
    fn ordinary_lines_stay() {
        for text in [
            "id,name\n1,bob\n",
            "Dear customer, your new password has been sent to you by mail,\nplease look, and change it\n",
            "password, 17 characters or more!\nsee you, bob\n",
            "a,b",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
