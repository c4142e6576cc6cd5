//! What findings quote of the files, without what looks like a secret: findings go to the log and to the API.
//!
//! Always true: a value under the name of a secret is not quoted, nor is what a detector finds (numbers of cards,
//! bearer tokens, private keys). An expression stays as it is written, apart from that: what is wrong with it could not
//! be seen otherwise.

use std::borrow::Cow;

use super::render::Finding;
use super::tree::{NodeKind, ParsedFile};
use crate::problem::{Segment, Site};
use crate::secret::{Detectors, STARS, is_secret, replace_detected, singular};

/// A shorter value is found only in quotes.
const WORD_BYTES_MIN: usize = 4;

/// A finding without secrets of the file; `site`: the value that it is about.
pub(super) fn without_secrets(finding: Finding, file: &ParsedFile, site: Option<&Site>) -> Finding {
    let secret = site.and_then(|site| secret_at(file, site));
    let text = |text: &str| match &secret {
        Some(secret) => detected(&without(text, secret)).into_owned(),
        None => detected(text).into_owned(),
    };
    let (message, hint) = (text(&finding.message), finding.hint.as_deref().map(text));
    let line = match &secret {
        Some(secret) if finding.source.contains(secret.as_str()) => Cow::Owned(finding.source.replace(secret, STARS)),
        // The value is written in another way than it reads: with escapes, or on several lines.
        Some(_) if site.is_some_and(|site| site.at_key) => {
            Cow::Owned(finding.source.get(..finding.span.end).unwrap_or_default().to_owned() + ": " + STARS)
        }
        Some(_) => Cow::Owned(finding.source.get(..finding.span.start).unwrap_or_default().to_owned() + STARS),
        None => Cow::Borrowed(&*finding.source),
    };
    let source = detected(&without_value(&line)).into_owned();
    let at = |byte: usize| source.floor_char_boundary(byte.min(source.len()));
    let span = match source == finding.source {
        true => finding.span.clone(),
        false => at(finding.span.start)..at(finding.span.end),
    };
    Finding { message, hint, source, span, ..finding }
}

/// The value at a position, or under the key there, if its name is that of a secret and it is no expression.
fn secret_at(file: &ParsedFile, site: &Site) -> Option<String> {
    let is_secret = match site.path.as_slice() {
        [.., Segment::Key(of), Segment::Key(name)] => &**of == "secrets" || is_secret_name(name),
        [.., Segment::Key(name)] => is_secret_name(name),
        [.., Segment::Key(list), Segment::Index(_)] => is_secret_name(list),
        _ => false,
    };
    if !is_secret {
        return None;
    }
    let value = site.path.iter().try_fold(file.root.as_ref()?, |node, segment| match segment {
        Segment::Key(key) => node.get(key),
        Segment::Index(index) => node.items().get(*index),
    });
    let value = match &value?.kind {
        NodeKind::Text(text) => text.to_string(),
        NodeKind::Number(number) => number.to_string(),
        NodeKind::Null | NodeKind::Bool(_) | NodeKind::List(_) | NodeKind::Map(_) => return None,
    };
    Some(value).filter(|value| !value.is_empty() && !value.contains("${"))
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

/// A line of a file without the value of a secret name, if the line is nothing but both.
fn without_value(line: &str) -> Cow<'_, str> {
    let Some((key, value)) = line.split_once(": ") else { return Cow::Borrowed(line) };
    let name = key.trim().trim_start_matches("- ").trim_matches(['"', '\'']);
    let value = value.trim();
    let is_other =
        value.is_empty() || value.starts_with(['{', '[', '|', '>', '&', '*', '#', '!']) || value.contains("${");
    match is_secret_name(name) && !is_other {
        true => Cow::Owned(format!("{key}: {STARS}")),
        false => Cow::Borrowed(line),
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
            ("store_key: 471147", "471147", "store_key: ***"),
            ("limits: { password: \"hun\\u0074er2\" }", "hun", "password"),
            ("listen: 4111 1111 1111 1111", "1111", "listen: ***"),
            ("admin: { listen: \"Bearer abc123def\" }", "abc123def", "Bearer ***"),
            ("password: hunter2\n  token: : x", "hunter2", "***"),
        ] {
            let main = format!("{line}\nservices: {{ shop: 'http://127.0.0.1:9' }}\ndefault_legacy: shop\n");
            let found = Set::valid().put("pointsman.yaml", main.as_str()).shown();
            assert!(!found.contains(hidden) && found.contains(shown), "{line}: {found}");
        }
        let other = format!("{valid}\nlimits: {{ queue: 17 }}\n");
        let found = Set::valid().put("pointsman.yaml", other.as_str()).shown();
        assert!(found.contains("queue: 17"), "{found}");
    }
}
