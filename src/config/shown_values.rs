//! What findings quote of the files, without what looks like a secret: findings go to the log and to the API.
//!
//! Always true: no scalar below the name of a secret is quoted, nor below `secrets:`, nor what a detector finds
//! (numbers of cards, bearer tokens, private keys), nor a value behind the name of a secret within another text, such
//! as a URL or a comment. Not secret are the names of files, environment variables and tokens (`file`, `env`, `name`,
//! `may`), and a part of a file that somebody named after a secret: a step, a service. An expression stays as it is
//! written, apart from what a detector finds: what is wrong with it could not be seen otherwise.

use std::borrow::Cow;
use std::ops::Range;

use super::render::Finding;
use super::tree::{Node, NodeKind, ParsedFile};
use crate::secret::{Detectors, STARS, is_secret, redact_line, replace_detected, singular};

/// A shorter value is found only in quotes.
const WORD_BYTES_MIN: usize = 4;
/// Below the name of a secret: keys whose values say where it is, whose it is, and what it is for.
const KEYS_OF_NO_SECRET: [&str; 4] = ["env", "file", "name", "may"];
/// Below these, keys are names that somebody has given to parts of the files.
const MAPS_OF_NAMES: [&str; 5] = ["steps", "services", "effects", "cohorts", "invariants"];

/// A finding without secrets of the file.
pub(super) fn without_secrets(finding: Finding, file: &ParsedFile) -> Finding {
    let mut scalars = Vec::new();
    file.root.iter().for_each(|root| add_scalars(root, None, false, &mut scalars));
    let text = |text: &str| {
        let shown = scalars.iter().fold(text.to_owned(), |text, scalar| match &scalar.value {
            Value::Shown => text,
            Value::MayHoldSecret(value) => without_secrets_of(&text, value),
            Value::Secret(secret) => without(&text, secret),
        });
        detected(&shown).into_owned()
    };
    let (message, hint) = (text(&finding.message), finding.hint.as_deref().map(text));
    let start = line_start(&file.text, finding.line);
    let line = match &file.root {
        Some(_) => without_scalars(&finding.source, start, &scalars),
        None if is_below_secret(&file.text[..start], &finding.source) => without_content(&finding.source).into(),
        None => line_without_secrets(&finding.source).into_owned().into(),
    };
    let source = detected(&line.shown).into_owned();
    let at = |byte: usize| source.floor_char_boundary(line.moved(byte).min(source.len()));
    let span = match source == finding.source {
        true => finding.span.clone(),
        false => at(finding.span.start)..at(finding.span.end),
    };
    Finding { message, hint, source, span, ..finding }
}

/// A line of a file that could not be parsed.
pub(super) fn line_without_secrets(line: &str) -> Cow<'_, str> {
    match without_value(line) {
        Cow::Borrowed(_) => Cow::Owned(redact_line(line)),
        masked => masked,
    }
}

/// A key or a scalar of a file.
struct Scalar {
    span: Range<usize>,
    value: Value,
}

/// What is shown of a key or a scalar.
enum Value {
    /// All of it.
    Shown,
    /// What is not behind the name of a secret within it.
    MayHoldSecret(String),
    /// Nothing.
    Secret(String),
}

/// Adds the keys and scalars of a node, in the order of the file; `key`: the one above it.
fn add_scalars(node: &Node, key: Option<&str>, is_below_secret: bool, scalars: &mut Vec<Scalar>) {
    let text = match &node.kind {
        NodeKind::Map(entries) => {
            for entry in entries.iter() {
                scalars.push(Scalar { span: entry.key_span.clone(), value: Value::Shown });
                let has_given_names = key.is_some_and(|key| MAPS_OF_NAMES.contains(&key));
                let is_of_issuer = key == Some("caller") && &*entry.key == "jwt";
                let is_secret = (is_below_secret || is_secret_name(&entry.key) && !has_given_names && !is_of_issuer)
                    && !(is_below_secret && KEYS_OF_NO_SECRET.contains(&&*entry.key));
                add_scalars(&entry.value, Some(&entry.key), is_secret, scalars);
            }
            return;
        }
        NodeKind::List(items) => {
            return items.iter().for_each(|item| add_scalars(item, key, is_below_secret, scalars));
        }
        NodeKind::Text(text) => text.to_string(),
        NodeKind::Number(number) => number.to_string(),
        NodeKind::Null | NodeKind::Bool(_) => return,
    };
    let value = match text.is_empty() || text.contains("${") {
        true => Value::Shown,
        false if is_below_secret => Value::Secret(text),
        false => Value::MayHoldSecret(text),
    };
    scalars.push(Scalar { span: node.span.clone(), value });
}

/// A line that begins at this byte of its file, without the secret scalars, and what is secret in others and between
/// them.
fn without_scalars(line: &str, start: usize, scalars: &[Scalar]) -> MaskedLine {
    let (mut shown, mut at, mut ends) = (String::with_capacity(line.len()), 0, Vec::new());
    let boundary = |byte: usize| line.floor_char_boundary(byte.min(line.len()));
    for Scalar { span, value } in scalars {
        let (from, to) = (boundary(span.start.saturating_sub(start)), boundary(span.end.saturating_sub(start)));
        if from < at || from >= to {
            continue;
        }
        shown.push_str(&without_comment(&line[at..from]));
        ends.push((from, shown.len()));
        // Of a value of several lines only the content is hidden, and not how it is indented.
        let text = &line[from..to];
        match value {
            Value::Secret(_) if !text.trim().is_empty() => {
                shown.push_str(&text[..text.len() - text.trim_start().len()]);
                shown.push_str(STARS);
            }
            Value::MayHoldSecret(_) => shown.push_str(&redact_line(text)),
            Value::Shown | Value::Secret(_) => shown.push_str(text),
        }
        ends.push((to, shown.len()));
        at = to;
    }
    shown.push_str(&without_comment(&line[at..]));
    MaskedLine { shown, ends }
}

/// A line without what is secret.
struct MaskedLine {
    shown: String,
    /// The ends of its parts: where each was in the whole line, and where it is.
    ends: Vec<(usize, usize)>,
}

impl MaskedLine {
    /// Where a byte of the whole line is.
    fn moved(&self, byte: usize) -> usize {
        let end = self.ends.iter().rev().find(|(end, _)| *end <= byte);
        end.map_or(byte, |(end, moved)| moved + (byte - end))
    }
}

impl From<String> for MaskedLine {
    fn from(shown: String) -> Self {
        Self { shown, ends: Vec::new() }
    }
}

/// What is between two scalars, without what is secret in a comment.
fn without_comment(between: &str) -> Cow<'_, str> {
    match between.find('#') {
        Some(at) => Cow::Owned(format!("{}{}", &between[..at], redact_line(&between[at..]))),
        None => Cow::Borrowed(between),
    }
}

/// Where a line begins, counted from 1.
fn line_start(text: &str, line: Option<usize>) -> usize {
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    line.and_then(|line| line.checked_sub(2)).map_or(0, |line| ends.clone().nth(line).unwrap_or(text.len()))
}

/// Whether a line is below the name of a secret, by how the lines before it are indented.
fn is_below_secret(before: &str, line: &str) -> bool {
    let indent_of = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let mut indent = indent_of(line);
    let lines = before.lines().rev().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    for line in lines {
        if indent_of(line) < indent {
            indent = indent_of(line);
            if line.split_once(':').is_some_and(|(key, _)| is_secret_name(key_of(key))) {
                return true;
            }
        }
    }
    false
}

fn key_of(text: &str) -> &str {
    text.trim().trim_start_matches("- ").trim_matches(['"', '\''])
}

/// Whether a key of the files has a secret, or a list of some.
fn is_secret_name(name: &str) -> bool {
    name == "store_key" || is_secret(name) || singular(name).is_some_and(is_secret)
}

/// A message without a value, of which it may quote only the beginning.
fn without(text: &str, secret: &str) -> String {
    let shown = match secret.len() >= WORD_BYTES_MIN {
        true => text.replace(secret, STARS),
        // It would be found in other words too.
        false => text.replace(&format!("`{secret}`"), &format!("`{STARS}`")),
    };
    let mut parts: Vec<Cow<'_, str>> = shown.split('`').map(Cow::Borrowed).collect();
    for quoted in parts.iter_mut().skip(1).step_by(2) {
        let is_beginning = quoted.strip_suffix('…').is_some_and(|begin| !begin.is_empty() && secret.starts_with(begin));
        if is_beginning {
            *quoted = Cow::Borrowed(STARS);
        }
    }
    parts.join("`")
}

/// A message without what is secret in a value that it quotes, or of which it quotes the beginning.
fn without_secrets_of(text: &str, value: &str) -> String {
    if redact_line(value) == value {
        return text.to_owned();
    }
    let mut parts: Vec<Cow<'_, str>> = text.split('`').map(Cow::Borrowed).collect();
    for quoted in parts.iter_mut().skip(1).step_by(2) {
        let begin = quoted.trim_end_matches('…');
        if begin.len() >= WORD_BYTES_MIN && value.contains(begin) {
            *quoted = Cow::Owned(redact_line(quoted));
        }
    }
    parts.join("`")
}

/// A line of a file without the value of a secret name, if the line is nothing but both.
fn without_value(line: &str) -> Cow<'_, str> {
    let Some((key, value)) = line.split_once(": ") else { return Cow::Borrowed(line) };
    let value = value.trim();
    let is_other =
        value.is_empty() || value.starts_with(['{', '[', '|', '>', '&', '*', '#', '!']) || value.contains("${");
    match is_secret_name(key_of(key)) && !is_other {
        true => Cow::Owned(format!("{key}: {STARS}")),
        false => Cow::Borrowed(line),
    }
}

/// A line with its key, and nothing of its content.
fn without_content(line: &str) -> String {
    match line.split_once(": ") {
        Some((key, _)) => format!("{key}: {STARS}"),
        None => format!("{}{STARS}", &line[..line.len() - line.trim_start_matches([' ', '-']).len()]),
    }
}

fn detected(text: &str) -> Cow<'_, str> {
    replace_detected(text, Detectors::default(), &mut |_| STARS.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::tests::set::Set;

    #[test]
    fn values_that_look_like_secrets_are_not_quoted() {
        let valid = "listen: 127.0.0.1:8080\nstore: memory";
        for (line, hidden, shown) in [
            ("secrets: { pay: hunter2 }", "hunter2", "pay: ***"),
            ("secrets:\n  pay: hunter2", "hunter2", "pay: ***"),
            ("secrets:\n  pay:\n    value: hunter2", "hunter2", "value"),
            ("secrets: { pay: { value: hunter2 } }", "hunter2", "value"),
            ("secrets: { pay: { file: /x, password: hunter2, foo: 2 } }", "hunter2", "file: /x, password: ***"),
            ("store_key: 471147", "471147", "store_key: ***"),
            ("store_key: { value: hunter2 }", "hunter2", "value: ***"),
            ("limits: { password: \"hun\\u0074er2\" }", "hun", "password"),
            ("limits: { password: hunter2, queue: 17 }", "hunter2", "password: ***, queue: 17"),
            ("admin: { tokens: [{ name: ops, token: hunter2, may: [reed] }] }", "hunter2", "token: ***, may: [reed]"),
            ("limits: { \"password\": \"hunter2\", n: 1 }", "hunter2", "\"password\": ***, n: 1"),
            ("limits: { n: '{\"password\":\"hunter2\"}' }", "hunter2", "password"),
            ("limits: { headers: { authorization: 'Basic aHVudGVyMg==' } }", "aHVudGVyMg", "headers"),
            ("limits: { bank: 'http://127.0.0.1:9/x?token=hunter2' }", "hunter2", "http://127.0.0.1:9/x?token=***"),
            (
                "services: { a: 'http://127.0.0.1:9/x?token=hunter2' }\nx: 1",
                "hunter2",
                "http://127.0.0.1:9/x?token=***",
            ),
            ("foo: 1 # password: hunter2", "hunter2", "foo: 1 # password: ***"),
            ("listen: 4111 1111 1111 1111", "1111", "listen: ***"),
            ("admin: { listen: \"Bearer abc123def\" }", "abc123def", "Bearer ***"),
            ("password: hunter2\n  token: : x", "hunter2", "***"),
            ("secrets:\n  pay:\n    value: : hunter2", "hunter2", "value: ***"),
            ("limits: { password: hunter2, queue: : }", "hunter2", "password: ***"),
        ] {
            let main = format!("{line}\nservices: {{ shop: 'http://127.0.0.1:9' }}\ndefault_legacy: shop\n");
            let found = Set::valid().put("pointsman.yaml", main.as_str()).shown();
            assert!(!found.contains(hidden) && found.contains(shown), "{line}: {found}");
        }
        let other = format!("{valid}\nlimits: {{ queue: 17 }}\n");
        let found = Set::valid().put("pointsman.yaml", other.as_str()).shown();
        assert!(found.contains("queue: 17"), "{found}");
        // A text that is no UTF-8 has no tree either.
        let bytes = b"limits: { password: hunter2, queue: \xff }\n";
        let found = Set::valid().put("pointsman.yaml", bytes).shown();
        assert!(!found.contains("hunter2") && found.contains("not UTF-8"), "{found}");
    }

    #[test]
    fn a_part_that_is_named_after_a_secret_is_quoted() {
        let workflow = "workflow: w\nsteps:\n  auth: { call: 'GET ${services.shop}/a', timeout: 5x }\n\
                        respond: { status: 200 }\n";
        let found = Set::valid().put("workflows/w.yaml", workflow).shown();
        assert!(found.contains("timeout: 5x"), "{found}");
    }
}
