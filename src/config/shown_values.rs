//! What findings quote of the files, without what looks like a secret: findings go to the log and to the API.
//!
//! Always true: these are never quoted:
//!
//! - a scalar below a key with the name of a secret, or below `secrets:`; also if a map has such a key twice, or if an
//!   alias repeats the scalar below such a key;
//! - what a detector finds (numbers of cards, bearer tokens, private keys);
//! - within another text, such as a URL or a comment, the value that follows the name of a secret.
//!
//! Quoted although they are below or have the name of a secret: the names of files, environment variables and tokens
//! (keys `file`, `env`, `name`, `may`; but directly below `secrets:` these keys are names of secrets like any other);
//! parts of a file, such as steps and services, that somebody named like a secret; and expressions, apart from what a
//! detector finds, because otherwise nobody could see what is wrong with them.
//!
//! Between scalars only punctuation is quoted, and comments without secrets. `unparsed_lines` does the same for a file
//! that could not be parsed.

use std::borrow::Cow;
use std::ops::Range;

use super::render::Finding;
use super::secret_keys::{is_secret_name, is_variable_name};
use super::store_url::shown_store;
use super::tree::{MapEntry, Node, NodeKind, ParsedFile};
use super::unparsed_lines::shown_line;
use crate::secret::{Detectors, STARS, redact_line, replace_detected};

/// A shorter value is found only in quotes.
const WORD_BYTES_MIN: usize = 4;
/// Below the name of a secret: keys whose values are not secret. They say where it is, whose it is, and what it is for.
const DESCRIBING_KEYS: [&str; 4] = ["env", "file", "name", "may"];
/// Keys whose values are URLs of stores.
const STORE_KEYS: [&str; 2] = ["store", "store_direct"];
/// The same in an entry of [`SECRETS`].
const DESCRIBING_KEYS_IN_SECRETS: [&str; 2] = ["env", "file"];
/// Below this, all keys are names of secrets.
const SECRETS: &str = "secrets";
/// Below these, keys are names that somebody has given to parts of the files.
const MAPS_OF_NAMES: [&str; 5] = ["steps", "services", "effects", "cohorts", "invariants"];

/// A finding without secrets of the file.
pub(super) fn without_secrets(finding: Finding, file: &ParsedFile) -> Finding {
    let mut scalars = Vec::new();
    file.root.iter().for_each(|root| add_scalars(file, root, NodeContext::default(), &mut scalars));
    // A scalar that aliases repeat is listed several times: it is secret if one of its places is.
    scalars.sort_by_key(|scalar| (scalar.span.start, std::cmp::Reverse(scalar.value.rank())));
    let text = |text: &str| {
        let shown = scalars.iter().fold(text.to_owned(), |text, scalar| match &scalar.value {
            Visibility::Shown | Visibility::Expression => text,
            Visibility::MayHoldSecret(value) => without_secrets_of(&text, value),
            Visibility::Secret(secret) => without(&text, secret),
            Visibility::Store(url) if shown_store(url) == *url => text,
            Visibility::Store(url) => without(&text, url),
        });
        detected(&without_query_secrets_in_quotes(&shown)).into_owned()
    };
    let start = line_start(&file.text, finding.line);
    let line = match &file.root {
        Some(_) => without_scalars(&finding.source, start, &scalars),
        None => shown_line(&file.text[..start], &finding.source).into(),
    };
    let source = detected(&line.shown).into_owned();
    let is_hidden = |quoted: &str| {
        file.root.is_none()
            && quoted.contains(char::is_alphanumeric)
            && finding.source.contains(quoted)
            && !source.contains(quoted)
    };
    let text = |quoting: &str| without_hidden(&text(quoting), &is_hidden);
    let (message, hint) = (text(&finding.message), finding.hint.as_deref().map(text));
    let at = |byte: usize| source.floor_char_boundary(line.moved(byte).min(source.len()));
    let span = match source == finding.source {
        true => finding.span.clone(),
        false => at(finding.span.start)..at(finding.span.end),
    };
    Finding { message, hint, source, span, ..finding }
}

/// A key or a scalar of a file.
struct Scalar {
    span: Range<usize>,
    value: Visibility,
}

/// What is shown of a key or a scalar.
enum Visibility {
    /// All of it.
    Shown,
    /// What is not behind the name of a secret within it.
    MayHoldSecret(String),
    /// What is shown of the URL of a store.
    Store(String),
    /// An expression: all but what is behind the name of a secret in a query.
    Expression,
    /// Nothing.
    Secret(String),
}

impl Visibility {
    /// How much of it is hidden.
    fn rank(&self) -> u8 {
        match self {
            Self::Shown => 0,
            Self::MayHoldSecret(_) | Self::Store(_) | Self::Expression => 1,
            Self::Secret(_) => 2,
        }
    }
}

/// What the keys above a node of a file say about it.
#[derive(Clone, Copy, Default)]
struct NodeContext<'a> {
    /// The key above the node.
    key: Option<&'a str>,
    is_secret: bool,
    /// The keys of the node whose values are not secret ([`DESCRIBING_KEYS`]).
    descriptions: &'static [&'static str],
}

impl<'a> NodeContext<'a> {
    /// What is shown of a key that is here: below the name of a secret it may be the secret itself, and so may a key
    /// that is no name.
    fn shown_key(self, key: &str) -> Visibility {
        let is_name = self.key == Some(SECRETS) || self.key.is_none() || !self.is_secret;
        match is_name || self.descriptions.contains(&key) || is_secret_name(key) || key == "value" {
            true if !key.starts_with(['[', '{']) => Visibility::Shown,
            _ => Visibility::Secret(key.to_owned()),
        }
    }

    /// What is above the value of an entry.
    fn entry(self, entry: &'a MapEntry) -> Self {
        let key: &str = &entry.key;
        let has_given_names = self.key.is_some_and(|above| MAPS_OF_NAMES.contains(&above));
        let is_of_issuer = self.key == Some("caller") && key == "jwt";
        let names_secret = is_secret_name(key) && !has_given_names && !is_of_issuer;
        let is_variable = || matches!(&entry.value.kind, NodeKind::Text(name) if is_variable_name(name));
        let is_description = self.descriptions.contains(&key) && has_no_map(&entry.value);
        let is_description = is_description && (key != "env" || is_variable());
        let descriptions: &[&str] = match self.key {
            _ if key == SECRETS => &[],
            Some(SECRETS) => &DESCRIBING_KEYS_IN_SECRETS,
            _ if names_secret => &DESCRIBING_KEYS,
            _ => &[],
        };
        Self { key: Some(key), is_secret: (self.is_secret || names_secret) && !is_description, descriptions }
    }
}

/// A text with expressions, without what is behind the names of secrets in the query of a URL.
fn without_query_secrets(text: &str) -> String {
    let parameters = text.split_inclusive(['?', '&', ' ']).map(|part| {
        let end = part.trim_end_matches(['?', '&', ' ', '"', '\'']).len();
        match part[..end].split_once('=') {
            Some((name, value)) if is_secret_name(name) && !value.contains("${") && !value.is_empty() => {
                format!("{name}={STARS}{}", &part[end..]).into()
            }
            _ => Cow::Borrowed(part),
        }
    });
    parameters.collect()
}

/// A message, as [`without_query_secrets`] shows what it quotes.
fn without_query_secrets_in_quotes(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let shown = parts.map(|(n, part)| match n % 2 == 1 && part.contains('=') {
        true => without_query_secrets(part).into(),
        false => Cow::Borrowed(part),
    });
    shown.collect::<Vec<_>>().join("`")
}

fn has_no_map(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Map(_) => false,
        NodeKind::List(items) => items.iter().all(has_no_map),
        NodeKind::Text(_) | NodeKind::Number(_) | NodeKind::Null | NodeKind::Bool(_) => true,
    }
}

/// Adds the keys and scalars of a node.
fn add_scalars(file: &ParsedFile, node: &Node, above: NodeContext<'_>, scalars: &mut Vec<Scalar>) {
    let text = match &node.kind {
        NodeKind::Map(entries) => {
            let repeated = file.repeated.get(&node.span.start).into_iter().flatten();
            for entry in entries.iter().chain(repeated) {
                scalars.push(Scalar { span: entry.key_span.clone(), value: above.shown_key(&entry.key) });
                add_scalars(file, &entry.value, above.entry(entry), scalars);
            }
            return;
        }
        NodeKind::List(items) => {
            return items.iter().for_each(|item| add_scalars(file, item, above, scalars));
        }
        NodeKind::Text(text) => text.to_string(),
        NodeKind::Number(number) => number.to_string(),
        NodeKind::Null | NodeKind::Bool(_) => String::new(),
    };
    let value = match text.contains("${") {
        _ if text.is_empty() => Visibility::Shown,
        true => Visibility::Expression,
        false if above.is_secret => Visibility::Secret(text),
        false if above.key.is_some_and(|key| STORE_KEYS.contains(&key)) => Visibility::Store(text),
        false => Visibility::MayHoldSecret(text),
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
        shown.push_str(&between_scalars(&line[at..from]));
        ends.push((from, shown.len()));
        // Of a value of several lines only the content is hidden, and not how it is indented.
        let text = &line[from..to];
        match value {
            Visibility::Secret(_) if !text.trim().is_empty() => {
                shown.push_str(&text[..text.len() - text.trim_start().len()]);
                shown.push_str(STARS);
            }
            Visibility::MayHoldSecret(_) => shown.push_str(&redact_line(text)),
            Visibility::Store(_) => shown.push_str(&shown_store(text)),
            Visibility::Expression => shown.push_str(&without_query_secrets(text)),
            Visibility::Shown | Visibility::Secret(_) => shown.push_str(text),
        }
        ends.push((to, shown.len()));
        at = to;
    }
    shown.push_str(&between_scalars(&line[at..]));
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

/// What is shown of what is between two scalars: punctuation, and what is not secret in a comment. Words that are no
/// scalar are names of anchors, or of a part that the tree does not have.
fn between_scalars(between: &str) -> String {
    let (text, comment) = between.split_at(between.find('#').unwrap_or(between.len()));
    let is_word_char = |c: char| c.is_alphanumeric() || c == '_';
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word_char) {
        shown.push_str(&rest[..start]);
        let is_header =
            rest[..start].ends_with(['|', '>', '-', '+']) && rest[start..].starts_with(|c| matches!(c, '1'..='9'));
        let is_punctuation = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | ',');
        let end = rest[start..].find(is_punctuation).map_or(rest.len(), |end| start + end);
        shown.push_str(if is_header { &rest[start..end] } else { STARS });
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown.push_str(&redact_line(comment));
    shown
}

/// Where a line begins, counted from 1.
fn line_start(text: &str, line: Option<usize>) -> usize {
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    line.and_then(|line| line.checked_sub(2)).map_or(0, |line| ends.clone().nth(line).unwrap_or(text.len()))
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

/// A message without what it quotes, as far as that is hidden in the line.
fn without_hidden(text: &str, is_hidden: &dyn Fn(&str) -> bool) -> String {
    let parts = text.split('`').enumerate();
    let shown = parts.map(|(n, part)| match n % 2 == 1 && is_hidden(part.trim_end_matches('…')) {
        true => STARS,
        false => part,
    });
    shown.collect::<Vec<_>>().join("`")
}

fn detected(text: &str) -> Cow<'_, str> {
    replace_detected(text, Detectors::default(), &mut |_| STARS.to_owned())
}

#[cfg(test)]
mod tests;
