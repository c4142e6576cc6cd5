//! Finds where a line of text begins to be secret.
//!
//! A line has no key, so the words in it are taken for one: what follows the name of a secret (`Password : …`,
//! `"token": …`, `<password>…`, `--password …`) is hidden, up to the end of the line.

use crate::secret::CDATA;

/// A value behind a name and a blank alone is taken for a secret if it has a digit or so many characters: `password
/// hunter2`, but not `password has expired`.
const SECRET_CHARS_MIN: usize = 16;
/// The longest line that may be nothing but a name.
const NAME_BYTES_MAX: usize = 40;
/// The shortest line of signs that may underline a heading.
const UNDERLINE_BYTES_MIN: usize = 3;
const UNDERLINES: [char; 4] = ['-', '=', '~', '_'];
/// Quotes in which a text may go on for several lines. An apostrophe is none.
const LONG_QUOTES: [&str; 5] = ["\"\"\"", "'''", "```", "\"", "`"];
/// Fences between which a block of Markdown stands.
const FENCES: [&str; 2] = ["```", "~~~"];
/// What may be before the name of a variable that a line sets.
const COMMANDS: [&str; 6] = ["export ", "set ", "setx ", "local ", "readonly ", "declare -x "];
const QUOTES: [char; 5] = ['"', '\'', '`', ']', ')'];

/// The offset in a line from which on it is secret.
pub(super) fn secret_from(line: &str, is_secret: &dyn Fn(&str) -> bool) -> Option<usize> {
    words(line).find_map(|word| secret_behind(line, word, is_secret))
}

/// The offset in a line from which on it is secret because of a word in it.
fn secret_behind(line: &str, (start, end): (usize, usize), is_secret: &dyn Fn(&str) -> bool) -> Option<usize> {
    let (before, word, rest) = (&line[..start], &line[start..end], &line[end..]);
    if word.starts_with("eyJ") && rest.starts_with('.') {
        return Some(start); // a JWT
    }
    let behind = rest.trim_start_matches(QUOTES);
    let blank = behind.len() - behind.trim_start().len();
    let next = behind.split_whitespace().next().unwrap_or_default();
    let is_scheme = ["bearer", "basic", "digest"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
    if is_scheme && blank > 0 && (may_be_secret(next) || word.eq_ignore_ascii_case("bearer") && !next.is_empty()) {
        return Some(end);
    }
    if !is_secret(word) {
        return None;
    }
    if before.ends_with('<') || before.ends_with(':') && before.contains('<') {
        return Some(rest.find('>').map_or(end, |at| end + at + 1));
    }
    // XML that is a text of XML.
    if before.ends_with("&lt;") || before.ends_with(':') && before.contains("&lt;") {
        return Some(rest.find("&gt;").map_or(end, |at| end + at + "&gt;".len()));
    }
    let is_between = |c: char| QUOTES.contains(&c) || c.is_whitespace();
    let after = rest.trim_start_matches(is_between);
    let after = if blank > 0 { behind_remarks(after) } else { after };
    let sign = sign_of(after);
    if let Some(sign) = sign {
        return Some(line.len() - after.len() + sign.len());
    }
    let is_option = word.starts_with('-') && !next.is_empty();
    (blank > 0 && (is_option || may_be_secret(next) || is_name_of_scheme(next))).then_some(end)
}

/// Whether a line that is named as a secret is blank or only opens CDATA, so that the next line is the secret.
pub(super) fn only_begins_a_secret(line: &str) -> bool {
    ["", CDATA[0]].contains(&line.trim())
}

/// The fence that a line opens; a longer line of tildes underlines the line before.
pub(super) fn fence(line: &str) -> Option<&'static str> {
    let line = line.trim();
    let opened = FENCES.into_iter().find(|fence| line.starts_with(fence))?;
    (line == opened || !is_underline(line)).then_some(opened)
}

/// Whether a line has nothing but signs that underline the line before, which is a heading then.
pub(super) fn is_underline(line: &str) -> bool {
    let line = line.trim();
    line.len() >= UNDERLINE_BYTES_MIN && UNDERLINES.iter().any(|sign| line.trim_matches(*sign).is_empty())
}

/// Whether a secret of several lines begins behind a bracket: `"password": {`. Where it ends is not known.
pub(super) fn opens_a_secret(line: &str, is_secret: &dyn Fn(&str) -> bool) -> bool {
    let line = line.trim_end();
    line.ends_with(['{', '[']) && secret_from(line, is_secret).is_some()
}

/// The quotes that open a text of several lines behind the name of a secret, and that have to close it. `None` if the
/// value ends on the line, or is in no such quotes.
pub(super) fn unclosed_quote(line: &str, is_secret: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let value = line[secret_from(line, is_secret)?..].trim_start();
    let quote = LONG_QUOTES.into_iter().find(|quote| value.starts_with(quote))?;
    // A line with a label: `print("Password: ")`.
    (unescaped(line, quote) % 2 == 1).then_some(quote)
}

/// How often these quotes are in a line without a backslash that escapes them.
pub(super) fn unescaped(line: &str, quote: &str) -> usize {
    let escapes = |before: &str| before.len() - before.trim_end_matches('\\').len();
    line.match_indices(quote).filter(|(at, _)| escapes(&line[..*at]).is_multiple_of(2)).count()
}

/// Whether a text in quotes of several lines ends on this line.
pub(super) fn closes(line: &str, quote: &str) -> bool {
    line.trim_end_matches([',', ';', '}', ')', ']', ' ', '\r']).ends_with(quote)
}

/// The sign with which a text begins that says that a value follows.
fn sign_of(text: &str) -> Option<&'static str> {
    ["->", "=>", "→", ":=", ":", "="].into_iter().find(|sign| text.starts_with(sign))
}

/// The rest of a text behind remarks in brackets, which describe a value and are none, if it begins with a sign: `: x`
/// of `(case sensitive) [root]: x`. Brackets within the remarks need not be closed.
fn behind_remarks(text: &str) -> &str {
    if !text.starts_with(['(', '[']) {
        return text;
    }
    let is_between = |c: char| QUOTES.contains(&c) || c.is_whitespace();
    let mut ends = text.match_indices([')', ']']).map(|(at, _)| text[at..].trim_start_matches(is_between));
    ends.find(|behind| sign_of(behind).is_some()).unwrap_or(text)
}

/// The part of a line before remarks that stand between the name of a secret and the sign at the end: `password ` of
/// `password (8 characters):`. The line itself if there are none.
fn before_remarks<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> &'l str {
    let named = line.trim_end_matches([':', '=', ' ']);
    let is_name = |before: &&str| {
        let name = before.trim_end().trim_end_matches(QUOTES);
        words(name).last().is_some_and(|(start, end)| end == name.len() && is_secret(&name[start..end]))
    };
    let starts = line.match_indices(['(', '[']).map(|(at, _)| &line[..at]).filter(|before| before.ends_with(' '));
    let before = starts.filter(is_name).last();
    before.filter(|_| named.len() < line.len() && named.ends_with([')', ']'])).unwrap_or(line)
}

/// A name of a secret in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameInLine<'l> {
    pub name: &'l str,
    /// How many bytes are before it and its quotes.
    pub column: usize,
}

impl<'l> NameInLine<'l> {
    fn at(line: &'l str, start: usize, end: usize) -> Self {
        Self { name: &line[start..end], column: line[..start].trim_end_matches(QUOTES).len() }
    }
}

/// The name of a secret whose value begins on the line after this one: `password:`, `password: |`, `<password>`,
/// `Authorization: Bearer`, `password: abc\`.
pub(super) fn named_on_the_next_line<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> Option<NameInLine<'l>> {
    let line = line.trim_end();
    let last = line.rsplit(char::is_whitespace).next().unwrap_or_default();
    let before_scheme = || &line[..line.len() - last.len()];
    named_at_end(line, is_secret)
        .or_else(|| is_name_of_scheme(last).then(|| named_at_end(before_scheme(), is_secret)).flatten())
        .or_else(|| line.ends_with('\\').then(|| first_named(line, is_secret).map(|(_, found)| found)).flatten())
}

/// The name of a secret with which a line begins, also as the last part of a path (`db.password`), with its value
/// behind it.
pub(super) fn named_at_start<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> Option<NameInLine<'l>> {
    let is_before_path = |c: char| c.is_whitespace() || c == '-' || QUOTES.contains(&c);
    let is_of_path = |c: char| c.is_alphanumeric() || "_-./:@$[]".contains(c) || QUOTES.contains(&c);
    let (start, found) = first_named(line, is_secret)?;
    let path = line[..start].trim_start_matches(is_before_path);
    let path = COMMANDS.into_iter().find_map(|command| path.strip_prefix(command)).unwrap_or(path);
    path.chars().all(is_of_path).then_some(found)
}

/// The first name of a secret in a line that has its value behind it, and where it begins. Its column is that of the
/// content of the line.
fn first_named<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> Option<(usize, NameInLine<'l>)> {
    let is_named = |(start, end): &(usize, usize)| {
        is_secret(&line[*start..*end]) && secret_behind(line, (*start, *end), is_secret).is_some()
    };
    let (start, end) = words(line).find(is_named)?;
    let mut content = line.trim_start();
    while let Some(item) = content.strip_prefix("- ") {
        content = item.trim_start();
    }
    Some((start, NameInLine { name: &line[start..end], column: line.len() - content.len() }))
}

/// Whether a line ends with `Bearer`, so that the next one may be a token.
pub(super) fn ends_with_bearer(line: &str) -> bool {
    let last = line.trim_end().rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    last.eq_ignore_ascii_case("bearer")
}

/// The name at the end of a line, alone or with what says that a value follows.
fn named_at_end<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> Option<NameInLine<'l>> {
    let (full, indent) = (line, line.len() - line.trim_start().len());
    let line = line.trim();
    let line = line.strip_suffix(CDATA[0]).map_or(line, str::trim_end);
    let is_candidate = line.len() <= NAME_BYTES_MAX || line.ends_with([':', '=', '|', '>', '-', '+', '\\', '"', '\'']);
    if !is_candidate || line.is_empty() {
        return None;
    }
    let name = before_remarks(line, is_secret).trim_end_matches(|c: char| {
        c.is_whitespace() || QUOTES.contains(&c) || matches!(c, ':' | '=' | '|' | '>' | '-' | '+' | '\\' | '*' | '#')
    });
    let (start, _) = words(name).last().filter(|(start, end)| *end == name.len() && is_secret(&name[*start..]))?;
    let ends_with_sign = line[name.len()..].contains([':', '=', '\\']);
    let is_tag = name[..start].ends_with(['<', ':']) && name.contains('<') && line.ends_with('>');
    let is_alone = || name.trim_start_matches(['#', '*', '"', '\'', ' ']).len() == name.len() - start;
    let is_named = ends_with_sign || is_tag || is_alone();
    is_named.then(|| NameInLine::at(full, indent + start, indent + name.len()))
}

fn words(line: &str) -> impl Iterator<Item = (usize, usize)> {
    let is_word_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + line[at..].find(is_word_char)?;
        let run = line[start..].find(|c| !is_word_char(c)).map_or(line.len(), |end| start + end);
        at = run;
        // The dash of an arrow belongs to no word.
        let end = if line[run..].starts_with('>') { start + line[start..run].trim_end_matches('-').len() } else { run };
        Some((start, end.max(start)))
    })
}

/// Whether a value looks like a secret.
pub(super) fn may_be_secret(value: &str) -> bool {
    value.bytes().any(|b| b.is_ascii_digit()) || value.chars().count() >= SECRET_CHARS_MIN
}

fn is_name_of_scheme(word: &str) -> bool {
    ["bearer", "basic", "digest", "token"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::is_secret;

    #[test]
    fn what_follows_the_name_of_a_secret_is_secret() {
        for line in [
            "Password : hunter2",
            "\"password\": \"hunter2\"",
            "{\"user\":\"a\",\"password\":\"hunter2\",\"n\":1}",
            "<password>hunter2</password>",
            "<a:password x='1'>hunter2</a:password>",
            "<password><![CDATA[hunter2]]></password>",
            "<a>&lt;password&gt;hunter2&lt;/password&gt;</a>",
            "curl --password hunter2",
            "curl --password=hunter2",
            "password -> hunter2",
            "password->hunter2",
            "password => hunter2",
            "password hunter2",
            "Authorization Bearer hunter2",
            "Authorization: Basic hunter2",
            "got Bearer hunter2 from a",
            "seen eyJhbGciOi.hunter2.x",
            "[password] hunter2",
            "Password (case sensitive): hunter2",
            "Password (for the admin (root) user): hunter2",
            "\"Password\" (8 to 16 characters) = hunter2",
            "Password (a) (b): hunter2",
            "Password [root]: hunter2",
            "Password (a :) b): hunter2",
            "Password (of the user that the installation created for the administrator of the shop): hunter2",
        ] {
            let shown = secret_from(line, &is_secret).map(|from| &line[..from]);
            assert!(shown.is_some_and(|shown| !shown.contains("hunter2")), "{line}: {shown:?}");
        }
        for line in [
            "Your password has expired",
            "discard 17",
            "Basic plan",
            "total: 5",
            "a->b",
            "the tokens are gone",
            "get_token(a): string",
            "the password (yours) has expired",
        ] {
            assert_eq!(secret_from(line, &is_secret), None, "{line}");
        }
    }

    #[test]
    fn a_secret_may_go_on_for_several_lines() {
        for (line, opens) in
            [("  \"password\": {", true), ("tokens: [ ", true), ("\"total\": {", false), ("pin: 1", false)]
        {
            assert_eq!(opens_a_secret(line, &is_secret), opens, "{line}");
        }
        for (line, quote) in [
            ("password: \"hun", Some("\"")),
            ("\"pin\": \"\"\"", Some("\"\"\"")),
            ("password: \"hunter2\"", None),
            ("print(\"Password: \")", None),
            ("password: 'tis", None),
            ("total: \"5", None),
        ] {
            assert_eq!(unclosed_quote(line, &is_secret), quote, "{line}");
        }
        assert!(closes("ter2\",", "\"") && !closes("ter\"2", "\""));
    }

    #[test]
    fn the_value_may_be_on_the_next_line() {
        for line in [
            "password:",
            "  \"password\":",
            "password: |",
            "password: >-",
            "<password>",
            "<password><![CDATA[",
            "Password",
            "--token \\",
            "# API key token =",
            "Authorization: Bearer",
            "x-token: abc\\",
            "Password (case sensitive):",
            "Password (for the admin (root) user):",
        ] {
            assert!(named_on_the_next_line(line, &is_secret).is_some(), "{line}");
        }
        for line in ["", "password: x", "the password", "total:", "Your password has expired"] {
            assert!(named_on_the_next_line(line, &is_secret).is_none(), "{line}");
        }
    }
}
