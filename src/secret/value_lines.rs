//! The lines of values after secret names: where a value that is folded ends, and what stands between a name and its
//! delimiter.

/// The most bytes of remarks between a name and its delimiter: `Password (case sensitive): V`.
const REMARKS_BYTES_MAX: usize = 256;
/// The most further lines of a value that is folded.
const FOLDED_LINES_MAX: usize = 64;
/// The most bytes of a line that is nothing but a name, up to the name's end.
const NAMED_LINE_BYTES_MAX: usize = 256;
pub(super) const QUOTES: [char; 4] = ['"', '\'', '`', '\\'];

pub(super) fn line_end(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '[' | ']' | '$')
}

/// The texts that may end with the name, for a text before a delimiter: the text itself, and each beginning of it that
/// only remarks in brackets may follow. For `Password (case sensitive) [root]`, the last of them is `Password `.
/// Brackets in a remark need not be closed.
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

/// The indentation of the last line of a text, if that line is nothing but this name.
pub(super) fn indent_of_named_line(text: &str, name: &str) -> Option<usize> {
    let end = &text[text.floor_char_boundary(text.len().saturating_sub(NAMED_LINE_BYTES_MAX))..];
    let line = match end.rsplit_once(['\n', '\r']) {
        Some((_, line)) => line,
        None if end.len() == text.len() => end,
        None => return None,
    };
    (line.trim().trim_start_matches("- ") == name).then(|| indent_of(line))
}

/// Where a value without quotes ends whose first line ends at `line_end_of_value`: after its folded lines, which are
/// indented more than the line with the name, as in a header (`x-token: V`).
pub(super) fn folded_end(text: &str, indent: usize, line_end_of_value: usize) -> usize {
    let mut end = line_end_of_value;
    for _ in 0..FOLDED_LINES_MAX {
        let start = end + if text[end..].starts_with("\r\n") { 2 } else { 1 };
        let Some(next) = text.get(start..).map(|rest| &rest[..line_end(rest)]) else { break };
        let content = next.trim();
        let word = content.split(|c: char| !is_name_char(c)).next().unwrap_or_default();
        let after = content[word.len()..].trim_start();
        // `=` at the end of the line is the padding of base64.
        let has_name = after.starts_with(':') || after.starts_with('=') && !after.trim_matches('=').is_empty();
        if indent_of(next) <= indent || content.is_empty() || has_name || content.starts_with('-') {
            break;
        }
        end = start + next.len();
    }
    end
}
