//! The lines of values behind secret names: where a value that is folded ends, and what stands between a name and its
//! delimiter.

/// A remark between a name and its delimiter is not longer: `Password (case sensitive): V`.
const REMARK_BYTES_MAX: usize = 64;
/// A value that is folded has at most so many more lines.
const FOLDED_LINES_MAX: usize = 64;
/// A name with what may be before it on its line is not longer.
const NAMED_LINE_BYTES_MAX: usize = 256;
pub(super) const QUOTES: [char; 4] = ['"', '\'', '`', '\\'];

pub(super) fn line_end(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

pub(super) fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '[' | ']' | '$')
}

/// The end of a name without a remark about its value in brackets: `Password (case sensitive)`.
pub(super) fn without_remark(text: &str) -> &str {
    let trimmed = text.trim_end_matches([' ', '\t']);
    let parts = trimmed.strip_suffix(')').and_then(|inner| {
        let begin = inner.ceil_char_boundary(inner.len().saturating_sub(REMARK_BYTES_MAX));
        let open = begin + open_bracket(&inner[begin..])?;
        Some((&inner[..open], &inner[open + 1..]))
    });
    let is_remark = |before: &str, remark: &str| before.ends_with([' ', '\t']) && !remark.contains('\n');
    parts.filter(|(before, remark)| is_remark(before, remark)).map_or(text, |(before, _)| before)
}

/// Where the bracket is that is still open at the end of a text.
fn open_bracket(text: &str) -> Option<usize> {
    let mut closed = 0_usize;
    for (at, c) in text.char_indices().rev() {
        match c {
            '(' if closed == 0 => return Some(at),
            '(' => closed -= 1,
            ')' => closed += 1,
            _ => {}
        }
    }
    None
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
        let word = content.split(|c: char| !is_of_name(c)).next().unwrap_or_default();
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
