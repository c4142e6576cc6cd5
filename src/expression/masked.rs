//! The text of an expression without its literals, to be shown and kept where the expression may compare with a secret.

use std::borrow::Cow;

use super::parsed::Expression;
use super::scan::{Token, Tokens};
use crate::secret::{RedactRules, STARS};

/// What is shown of the text of a condition: it has no literals, if one of them may be a secret.
pub fn shown_condition<'a>(source: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    match may_hold_secret(source, redact) {
        true => Cow::Owned(without_literals(source)),
        false => Cow::Borrowed(source),
    }
}

/// Whether a literal of the text may be a secret: it looks like one, or the expression reads what may be secret.
fn may_hold_secret(source: &str, redact: &RedactRules) -> bool {
    let mut names =
        source.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').filter(|name| !name.is_empty());
    if names.any(|name| redact.is_secret(name)) || redact.finds_secret_in(source) {
        return true;
    }
    let expression = source.trim().strip_prefix("${").and_then(|text| text.strip_suffix('}')).unwrap_or(source);
    // A text that does not parse may read anything.
    let Ok(expression) = Expression::parse(expression) else { return true };
    expression.reads().iter().any(|read| {
        let last = read.0.last().map_or("", |last| last);
        // It reads all of them, or one whose name is computed.
        let is_any_name = ["headers", "query", "params"].contains(&last);
        let is_secret_path = redact.is_path_secret() && read.root() == "request" && read.part(0) == Some("path");
        is_any_name || is_secret_path || redact.has_paths() && read.0.iter().any(|part| &**part == "body")
    })
}

/// The text of a CEL expression with stars in place of each text and number, and without comments. What follows a value
/// in brackets stays, because it is a name: `request.headers["x-tenant"]`. Such a text, also one that was cut, stays as
/// it is if it is masked again.
pub fn without_literals(source: &str) -> String {
    let items: Vec<_> = Tokens::new(source).collect();
    let text_of = |at: usize| items.get(at).map_or("", |(_, range)| &source[range.clone()]);
    // `a["b"]`, `f()["b"]`, `a[0]["b"]`; not `in ["b"]`, which is a list.
    let is_member = |at: usize| {
        let Some(of) = at.checked_sub(2).filter(|_| text_of(at - 1) == "[" && text_of(at + 1) == "]") else {
            return false;
        };
        match items[of].0 {
            Token::Word => text_of(of) != "in" && !is_number(text_of(of)),
            Token::Close(closed) => closed != '}',
            Token::Text { .. } | Token::Open(_) | Token::Unary | Token::Question | Token::Other => false,
        }
    };
    let (mut shown, mut end) = (String::with_capacity(source.len()), 0);
    for (at, (item, range)) in items.iter().enumerate() {
        let (between, text) = (&source[end..range.start], &source[range.clone()]);
        shown.push_str(if between.contains("//") { " " } else { between });
        match item {
            Token::Text { .. } if !is_member(at) => {
                shown.push('"');
                shown.push_str(STARS);
                shown.push('"');
            }
            Token::Word if is_number(text) && !is_member(at) => shown.push_str(STARS),
            Token::Text { .. }
            | Token::Word
            | Token::Open(_)
            | Token::Close(_)
            | Token::Unary
            | Token::Question
            | Token::Other => shown.push_str(text),
        }
        end = range.end;
    }
    shown
}

/// Whether a word is a number, or the part of one before or after the point.
fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_literals_are_masked_and_names_stay() {
        for (source, shown) in [
            (r#"request.headers["x-api-key"] == "k3y""#, r#"request.headers["x-api-key"] == "***""#),
            (r#"request.headers["x-api-key"].startsWith('k3y')"#, r#"request.headers["x-api-key"].startsWith("***")"#),
            (
                r#"request.headers.authorization in ["a", "sk_live"]"#,
                r#"request.headers.authorization in ["***", "***"]"#,
            ),
            (r#"request.headers.a in ["sk_live"]"#, r#"request.headers.a in ["***"]"#),
            (r#""k3y" in request.query["of"]"#, r#""***" in request.query["of"]"#),
            (r#"{"k3y": true}[request.query.key]"#, r#"{"***": true}[request.query.key]"#),
            (r#"{"a": {"k3y": 1}}["k3y"]"#, r#"{"***": {"***": ***}}["***"]"#),
            (r#"["k3y"][0] == request.path"#, r#"["***"][0] == request.path"#),
            (r#"int(request.query.pin) == 1234"#, r#"int(request.query.pin) == ***"#),
            (r#"request.path.split("/")[2] == r"k3\y""#, r#"request.path.split("***")[2] == "***""#),
            ("request.query.a == \"\"\"k\n3y\"\"\" // k3y", r#"request.query.a == "***""#),
            ("request.query.a // k3y\n == 'k\\'3y'", r#"request.query.a == "***""#),
            (r#"request.query.a == "k3y…"#, r#"request.query.a == "***""#),
        ] {
            assert_eq!(without_literals(source), shown);
            assert_eq!(without_literals(shown), shown, "masked again");
        }
    }
}
