//! The lines of values behind secret names: where a value that is folded ends, and what stands between a name and its
//! delimiter.

/// Remarks between a name and its delimiter are not longer: `Password (case sensitive): V`.
const REMARKS_BYTES_MAX: usize = 256;
/// A value that is folded has at most so many more lines.
const FOLDED_LINES_MAX: usize = 64;
/// A name with what may be before it on its line is not longer.
const NAMED_LINE_BYTES_MAX: usize = 256;
pub(super) const QUOTES: [char; 4] = ['"', '\'', '`', '\\'];

pub(super) fn line_end(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '[' | ']' | '$')
}

/// A text that ends with a name, and the texts before what may be remarks in brackets about the value of the name:
/// `Password (case sensitive) [root]`. Brackets in a remark need not be closed.
pub(super) fn before_remarks(text: &str) -> impl Iterator<Item = &str> {
    let trimmed = text.trim_end_matches([' ', '\t']);
    let begin = text.ceil_char_boundary(trimmed.len().saturating_sub(REMARKS_BYTES_MAX));
    let begin = trimmed[begin..].rfind(['\n', '\r']).map_or(begin, |at| begin + at);
    let remarks = if trimmed.ends_with([')', ']']) { &trimmed[begin..] } else { "" };
    let starts =
        remarks.char_indices().rev().filter(|(_, c)| matches!(c, '(' | '[')).map(move |(at, _)| &text[..begin + at]);
    std::iter::once(text).chain(starts.filter(|before| before.ends_with([' ', '\t'])))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// By how much the line is indented with which a text ends, if it is nothing but this name.
pub(super) fn indent_of_named_line(text: &str, name: &str) -> Option<usize> {
    let end = &text[text.floor_char_boundary(text.len().saturating_sub(NAMED_LINE_BYTES_MAX))..];
    let line = match end.rsplit_once(['\n', '\r']) {
        Some((_, line)) => line,
        None if end.len() == text.len() => end,
        None => return None,
    };
    (line.trim().trim_start_matches("- ") == name).then(|| indent_of(line))
}

/// Where a value without quotes ends that is written as a line which ends here: behind the lines that are folded, as
/// those of a header (`x-token: V` and then lines that are indented more than the one with the name).
pub(super) fn folded_end(text: &str, indent: usize, line_end_of_value: usize) -> usize {
    let mut end = line_end_of_value;
    for _ in 0..FOLDED_LINES_MAX {
        let start = end + if text[end..].starts_with("\r\n") { 2 } else { 1 };
        let Some(next) = text.get(start..).map(|rest| &rest[..line_end(rest)]) else { break };
        let content = next.trim();
        let word = content.split(|c: char| !is_name_char(c)).next().unwrap_or_default();
        let behind = content[word.len()..].trim_start();
        // Signs at the end of the line fill up a text in base64.
        let has_name = behind.starts_with(':') || behind.starts_with('=') && !behind.trim_matches('=').is_empty();
        if indent_of(next) <= indent || content.is_empty() || has_name || content.starts_with('-') {
            break;
        }
        end = start + next.len();
    }
    end
}
