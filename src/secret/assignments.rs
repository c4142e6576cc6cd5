//! Finds values after secret names in a text of lines: in queries and forms (`a=1;token=V&b=2`), quoted headers
//! (`x-api-key: V`), sentences and log lines (`the password: V`, `password=V`), and parts of JSON (`"token": "V"`).
//!
//! Always true: where a text does not tell where a value ends, the value reaches to the end of the line, because a
//! secret may have whitespace and any delimiter in it. After a colon, a name that has other meanings too
//! (`session: …`) is that of a secret only if the value looks like one.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use super::forms::decoded_component;
use super::names::is_weakly_secret;
use super::value_lines::{QUOTES, before_remarks, folded_end, indent_of_named_line, is_name_char, line_end};

/// The most characters of a name, with its escapes.
const NAME_CHARS_MAX: usize = 128;
/// After a colon, the value of a name with other meanings is a secret if it has a digit or this many characters.
const SECRET_CHARS_MIN: usize = 16;
/// How much of a line is read to tell whether a value or the rest of a sentence follows a name.
const SENTENCE_BYTES_MAX: usize = 256;
/// The first words of a remark about a field, which is followed by no value: `password: must not be empty`.
const REMARK_FIRST_WORDS: [&str; 14] =
    ["must", "is", "are", "may", "should", "shall", "can", "cannot", "can't", "has", "was", "not", "too", "needs"];
/// Remarks of one word: `token: expired`.
const ONE_WORD_REMARKS: [&str; 8] =
    ["required", "invalid", "missing", "expired", "empty", "optional", "unknown", "none"];
/// Words that may stand between the name of a secret and its value: `card number: V`.
const LABELS: [&str; 9] = ["number", "no", "id", "key", "code", "value", "is", "was", "hash"];
/// The most bytes that the quote before a value has, with the backslashes that escape it.
const QUOTE_BYTES_MAX: usize = 8;

/// A value after a secret name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment<'t> {
    pub name: Cow<'t, str>,
    pub value: Range<usize>,
    pub form: ValueForm,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueForm {
    /// As in a query or a form.
    Parameter,
    /// In quotes, as in JSON.
    Quoted,
    /// As it is, up to the end of the line.
    Line,
}

impl Assignment<'_> {
    /// Whether the value reaches to the end of its line because nothing tells where it ends.
    pub(super) fn is_line(&self) -> bool {
        self.form == ValueForm::Line
    }
    /// The value without its encoding, so that equal values compare equal.
    pub(super) fn plain(&self, text: &str) -> String {
        let value = &text[self.value.clone()];
        match self.form {
            ValueForm::Parameter if !value.contains(char::is_whitespace) => decoded_component(value),
            ValueForm::Quoted => serde_json::from_str(&format!("\"{value}\"")).unwrap_or_else(|_| value.to_owned()),
            ValueForm::Parameter | ValueForm::Line => value.trim().to_owned(),
        }
    }
}

/// Finds the values after secret names in a text, in order.
pub(super) struct Assignments<'t, 'n> {
    text: &'t str,
    is_secret: &'n dyn Fn(&str) -> bool,
    /// Names begin at or after this offset: the text before it has been searched.
    from: usize,
    /// The offset from which the next delimiter is searched for.
    at: usize,
    /// Quotes, with the number of escapes before them, that are not closed anywhere after `at`: remembered so that the
    /// text is searched to its end only once for each.
    unclosed: BTreeSet<(usize, char)>,
}

impl<'t, 'n> Assignments<'t, 'n> {
    pub(super) fn of(text: &'t str, is_secret: &'n dyn Fn(&str) -> bool) -> Self {
        Self { text, is_secret, from: 0, at: 0, unclosed: BTreeSet::new() }
    }

    /// Continues the search at this offset, which must not lie before the end of the value that was found last.
    pub(super) fn skip_to(&mut self, offset: usize) {
        (self.from, self.at) = (offset, offset);
    }

    /// The next value whose name ends before this offset.
    pub(super) fn next_before(&mut self, limit: usize) -> Option<Assignment<'t>> {
        let (text, from) = (self.text, self.from);
        while let Some(delimiter) = text[self.at..limit.max(self.at)].find([':', '=', '>', '→']) {
            let delimiter = self.at + delimiter;
            let rest = &text[delimiter..];
            self.at = delimiter + rest.chars().next().map_or(1, char::len_utf8);
            let is_arrow =
                rest.starts_with('→') || rest.starts_with('>') && text[from..delimiter].ends_with(['-', '=']);
            if rest.starts_with('>') && !is_arrow || rest.starts_with("://") || rest.starts_with("=>") {
                continue;
            }
            let is_parameter = rest.starts_with('=');
            let before = text[from..delimiter].trim_end_matches(|c: char| is_arrow && matches!(c, '-' | '='));
            let Some((name, is_quoted)) = name_at_end(before, self.is_secret) else { continue };
            let after = &text[self.at..];
            let after = after.strip_prefix('=').unwrap_or(after).trim_start_matches([' ', '\t']);
            let start = text.len() - after.len();
            let found = self.value(after, is_parameter, is_quoted, is_weakly_secret(&name));
            if let Some((place, form)) = found.filter(|(place, _)| !after[place.clone()].trim().is_empty()) {
                let mut value = start + place.start..start + place.end;
                if form == ValueForm::Line
                    && !is_quoted
                    && let Some(indent) = indent_of_named_line(&text[..delimiter], &name)
                {
                    value.end = folded_end(text, indent, value.end);
                }
                self.skip_to(value.end);
                return Some(Assignment { name, value, form });
            }
        }
        None
    }

    /// Where the value is in what follows a name and its delimiter.
    fn value(
        &mut self,
        after: &str,
        is_parameter: bool,
        is_quoted: bool,
        is_weak: bool,
    ) -> Option<(Range<usize>, ValueForm)> {
        let escapes = after.len() - after.trim_start_matches('\\').len();
        let Some(last @ ('"' | '\'')) = after[escapes..].chars().next() else {
            return unquoted_value(after, is_parameter, is_quoted, is_weak);
        };
        let quote = &after[..escapes + last.len_utf8()];
        let may_be_closed = !self.unclosed.contains(&(escapes, last));
        let end = may_be_closed.then(|| closing_quote(after, quote)).flatten().unwrap_or_else(|| {
            self.unclosed.insert((escapes, last));
            line_end(after)
        });
        Some((quote.len().min(end)..end, ValueForm::Quoted))
    }
}

impl<'t> Iterator for Assignments<'t, '_> {
    type Item = Assignment<'t>;

    fn next(&mut self) -> Option<Assignment<'t>> {
        self.next_before(self.text.len())
    }
}

/// The name and delimiter at the end of a text that may belong to a value in the next text, such as the next element:
/// `Your password:`.
pub(super) fn trailing_name(text: &str, is_secret: &dyn Fn(&str) -> bool) -> Option<String> {
    let text = text.trim_end();
    if !text.ends_with([':', '=', '>', '→']) {
        return None;
    }
    let line = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    let name = &line[line.ceil_char_boundary(line.len().saturating_sub(2 * NAME_CHARS_MAX))..];
    value_after_name(name, "1", is_secret).is_some().then(|| name.to_owned())
}

/// A value at the beginning of a text for which the end of the text before it has the name.
pub(super) struct ValueAfterName {
    pub name: String,
    pub place: Range<usize>,
    /// The value without its encoding.
    pub plain: String,
    /// Whether it reaches to the end of its line.
    pub is_line: bool,
}

/// The value with which a text begins if it follows this name and delimiter.
pub(super) fn value_after_name(
    trailing_name: &str,
    text: &str,
    is_secret: &dyn Fn(&str) -> bool,
) -> Option<ValueAfterName> {
    let value = text.trim_start();
    let joined = format!("{trailing_name} {value}");
    let (in_joined, in_text) = (trailing_name.len() + 1, text.len() - value.len());
    let found = Assignments::of(&joined, is_secret).find(|found| found.value.start >= trailing_name.len())?;
    let place = found.value.start + in_text - in_joined..found.value.end + in_text - in_joined;
    (found.value.start <= in_joined + QUOTE_BYTES_MAX).then(|| ValueAfterName {
        plain: found.plain(&joined),
        is_line: found.is_line(),
        name: found.name.into_owned(),
        place,
    })
}

/// The secret name at the end of a text, before any remarks in brackets, and whether it stands in quotes.
fn name_at_end<'t>(text: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Option<(Cow<'t, str>, bool)> {
    before_remarks(text).find_map(|text| name_at_very_end(text, is_secret))
}

fn name_at_very_end<'t>(text: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Option<(Cow<'t, str>, bool)> {
    let text = text.trim_end_matches([' ', '\t']);
    let name_end = text.trim_end_matches(QUOTES);
    let (word, before) = last_word(name_end);
    let is_quoted = name_end.len() < text.len();
    if word.is_empty() {
        return None;
    }
    let plain = |word: &'t str| match word.contains('%') {
        true => Cow::Owned(last_word(decoded_component(word).trim_end_matches(QUOTES)).0.to_owned()),
        false => Cow::Borrowed(word),
    };
    let words = [without_escape(word, before), Some(word)];
    if let Some(name) = words.into_iter().flatten().map(plain).find(|name| is_secret(name)) {
        return (!is_in_resource_name(before)).then_some((name, is_quoted));
    }
    let word = plain(word);
    // A name of two words: `api key: V`, `card number: V`.
    let (earlier, before) = before.strip_suffix(' ').map(last_word)?;
    let earlier = without_escape(earlier, before).filter(|name| is_secret(name)).unwrap_or(earlier);
    let is_label = || LABELS.iter().any(|label| word.eq_ignore_ascii_case(label)) && is_secret(earlier);
    let both = format!("{earlier} {word}");
    (!earlier.is_empty() && (is_label() || !is_secret(earlier) && is_secret(&both))).then_some((both.into(), is_quoted))
}

/// A word without the end of an escape that stands before it, in a text as a string of JSON or of a program has it:
/// `pin` of `\npin` or `\u0026pin`.
fn without_escape<'t>(word: &'t str, before: &str) -> Option<&'t str> {
    let mut letters = word.chars();
    let digits = match letters.next().filter(|_| before.ends_with('\\'))? {
        'n' | 'r' | 't' | 'b' | 'f' | 'v' | '0' => 0,
        'x' => 2,
        'u' => 4,
        _ => return None,
    };
    let is_escape = letters.by_ref().take(digits).filter(char::is_ascii_hexdigit).count() == digits;
    Some(letters.as_str()).filter(|word| is_escape && !word.is_empty())
}

/// Whether what follows belongs to the name of a resource: `urn:oauth:token:jwt`, `arn:aws:secret:name`.
fn is_in_resource_name(before: &str) -> bool {
    let end = &before[before.floor_char_boundary(before.len().saturating_sub(NAME_CHARS_MAX))..];
    let run = end.rsplit(|c: char| c.is_whitespace() || QUOTES.contains(&c)).next().unwrap_or_default();
    ["urn:", "arn:"].iter().any(|scheme| run.starts_with(scheme))
}

/// The last word of a text, and what is before it.
fn last_word(text: &str) -> (&str, &str) {
    let word = text.char_indices().rev().take(NAME_CHARS_MAX).take_while(|(_, c)| is_name_char(*c)).last();
    let (before, word) = text.split_at(word.map_or(text.len(), |(at, _)| at));
    (word, before)
}

/// Where a value without quotes is in what follows its name and delimiter.
fn unquoted_value(
    after: &str,
    is_parameter: bool,
    is_quoted: bool,
    is_weak: bool,
) -> Option<(Range<usize>, ValueForm)> {
    if is_parameter {
        return Some((0..parameter_end(after), ValueForm::Parameter));
    }
    let first = after.split_whitespace().next().unwrap_or_default();
    let has_digit = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    if is_weak && !has_digit(first) && first.chars().count() < SECRET_CHARS_MIN && !is_quoted {
        return None;
    }
    let beginning = &after[..after.floor_char_boundary(SENTENCE_BYTES_MAX)];
    let sentence = beginning.lines().next().unwrap_or_default();
    let word = first.trim_end_matches(['.', ',', ';', '!']);
    let is_one_of = |words: &[&str]| words.iter().any(|other| word.eq_ignore_ascii_case(other));
    let is_remark = is_one_of(&ONE_WORD_REMARKS) || is_one_of(&REMARK_FIRST_WORDS) && sentence.trim() != first;
    if is_remark && !has_digit(sentence) {
        return None;
    }
    // A value of JSON that is not a string.
    let is_literal = is_quoted && !first.starts_with(['{', '[']);
    let end = if is_literal { after.find([',', '}', ']', '\n', '\r']).unwrap_or(after.len()) } else { line_end(after) };
    Some((0..end, ValueForm::Line))
}

/// Where a quoted value ends: `quote` is the quote with the escapes before it.
fn closing_quote(text: &str, quote: &str) -> Option<usize> {
    let mut at = quote.len();
    loop {
        let found = at + text[at..].find(quote)?;
        let after = text[found + quote.len()..].chars().next();
        let is_end = after.is_none_or(|c| c.is_whitespace() || ",;:}])&<>\"'\\.".contains(c));
        if is_end && !text[..found].ends_with('\\') {
            return Some(found);
        }
        at = found + quote.len();
    }
}

/// Where the value of a parameter ends: at a line break, a fragment, or a separator before the next parameter. What
/// follows another `&` or `;` belongs to a value that was not encoded.
fn parameter_end(text: &str) -> usize {
    let mut at = 0;
    while let Some(separator) = text[at..].find(['&', ';', '#', '\n', '\r']).map(|separator| at + separator) {
        let after = &text[separator + 1..];
        let next = &after[..after.find(['&', ';', '#', '\n', '\r']).unwrap_or(after.len())];
        let name = next.split('=').next().unwrap_or_default().trim_start();
        if !text[separator..].starts_with(['&', ';']) || name.chars().all(is_name_char) {
            return separator;
        }
        at = separator + 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{STARS, is_secret};

    fn shown(text: &str) -> String {
        let (mut out, mut at) = (String::new(), 0);
        for found in Assignments::of(text, &is_secret) {
            out.push_str(&text[at..found.value.start]);
            out.push_str(STARS);
            at = found.value.end;
        }
        out + &text[at..]
    }

    #[test]
    fn values_behind_secret_names_are_found() {
        for (text, expected) in [
            ("x-api-key: hunter2\nfoo", "x-api-key: ***\nfoo"),
            ("got authorization: Basic aHVudGVyMg==", "got authorization: ***"),
            ("a=1;password=hunter2&b=2", "a=1;password=***&b=2"),
            ("password=hun&t<er2 x", "password=***"),
            ("?token=hunter2#x", "?token=***#x"),
            ("the password: hunter2 is yours", "the password: ***"),
            ("the password is: hunter2", "the password is: ***"),
            ("API key = hunter2", "API key = ***"),
            ("card number: hunter2", "card number: ***"),
            ("password := hunter2", "password := ***"),
            ("password -> hunter2", "password -> ***"),
            ("password => hunter2", "password => ***"),
            ("'token' : 'hun ter2', n", "'token' : '***', n"),
            (r#"{"password":"hunter2","n":1"#, r#"{"password":"***","n":1"#),
            (r#"{\"password\":\"hun\\\"ter2\",\"n\":1"#, r#"{\"password\":\"***\",\"n\":1"#),
            (r#""pin": 1234, "n": 1"#, r#""pin": ***, "n": 1"#),
            (r#""password":"hunter2"#, r#""password":"***"#),
            ("spring.datasource.password=hunter2", "spring.datasource.password=***"),
            ("user%5Bpass%77ord%5D=hunter2&n=1", "user%5Bpass%77ord%5D=***&n=1"),
            ("pin: 1234", "pin: ***"),
            ("password: must be hunter2", "password: ***"),
            (r#"body="user=7\npin=1234""#, r#"body="user=7\npin=***"#),
            (r"a=1\u0026otp=123456", r"a=1\u0026otp=***"),
            (r"a=1\x26pin=1234", r"a=1\x26pin=***"),
            (r"C:\token=hunter2", r"C:\token=***"),
            (r"said\npin code: 1234", r"said\npin code: ***"),
            ("the pin (4 digits) = 1234 is new", "the pin (4 digits) = ***"),
            ("x-token: hun\n ter2\n\t3\nfoo: 1", "x-token: ***\nfoo: 1"),
            ("x-token: hun\n  ter2==\n  3=\nfoo: 1", "x-token: ***\nfoo: 1"),
            ("  token: hun\r\n    ter2\r\n  user: bob", "  token: ***\r\n  user: bob"),
            ("token: hunter2\n  user: bob", "token: ***\n  user: bob"),
            ("token: hunter2\n  - bob", "token: ***\n  - bob"),
            ("the token: hunter2\n  and so on", "the token: ***\n  and so on"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "session: opening talk",
            "Card: for a birthday",
            "password: must not be empty",
            "token: expired",
            "https://shop.example/a?page=2&sort=asc;n=1",
            "due: 2026-11-17 10:00:00",
            "the token has expired; total=5",
            "password=&a=1",
            "company: ACME => partner",
            "urn:oauth:token:jwt",
            "role \"arn:aws:secret:prod\"",
            "a->b, 1 > 2, x >= 3",
            "password:",
            "get_token(a): string",
            r"a\nopinion=7\u0026company=8",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_value_is_compared_without_its_encoding() {
        let plain = |text: &str| Assignments::of(text, &is_secret).next().expect("a secret").plain(text);
        for text in ["token=a%22b+c", r#""token":"a\"b c""#, "token: a\"b c "] {
            assert_eq!(plain(text), "a\"b c", "{text}");
        }
    }
}
