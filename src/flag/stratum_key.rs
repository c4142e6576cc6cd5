//! PURE. The key by which a route tells kinds of requests apart beyond method, status and cohort (`promote.strata_by`).
//!
//! The question it answers: "which value does this request have?" It decides nothing: only the evidence of the route is
//! counted by it.

use std::fmt;
use std::sync::Arc;

use super::RequestFacts;
use super::facts::scope;
use crate::expression::{ExpressionError, ReadPath, Template, without_literals};
use crate::secret::{RedactRules, TextHash};

/// The longest value, before it is escaped; what is longer is cut.
const VALUE_BYTES_MAX: usize = 64;
/// Shown in place of each value that holds a secret. No other value is shown so: they are in quotation marks.
const SECRET_VALUE: &str = "(redacted)";

/// A checked `strata_by:`. Two are equal if their texts are.
#[derive(Clone)]
pub struct StratumKey {
    template: Template,
    /// Kept and shown with what is counted.
    text: Arc<str>,
    /// The key's texts with earlier hashes, which the same store may still have.
    earlier: Arc<[String]>,
}

impl StratumKey {
    /// The key with this template, which reads facts of a request and never its body.
    pub fn new(template: Template, text_hash: &TextHash) -> Self {
        let text = template.text().unwrap_or_default();
        let shown_by = |text_hash: &TextHash| text_hash.append_if_masked(text, without_literals(text));
        let earlier = text_hash.earlier().iter().map(shown_by).collect();
        let text = shown_by(text_hash).into();
        Self { template, text, earlier }
    }
    /// Whether this is the key's text with an earlier hash.
    pub fn is_earlier_text(&self, text: &str) -> bool {
        self.earlier.iter().any(|earlier| earlier == text)
    }
    /// The same key, with this hash appended to its text if literals are masked.
    #[must_use]
    pub fn with_text_hash(&self, text_hash: &TextHash) -> Self {
        Self::new(self.template.clone(), text_hash)
    }
    /// The template without its literals, which may be secrets. If it has literals, a hash is appended, so that the
    /// text changes when they change; without a key for the hash, none is appended.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The value of a request; `None` if it is null or empty. All values in which `redact` finds a secret are one,
    /// because values are stored and shown.
    ///
    /// # Errors
    /// The key cannot be evaluated. The request then has no value.
    pub fn value_of(
        &self,
        facts: &RequestFacts<'_>,
        redact: &RedactRules,
    ) -> Result<Option<StratumValue>, ExpressionError> {
        let value = self.template.evaluate_text_or_null(&scope(self.template.reads(), facts))?;
        let value = value.filter(|value| !value.is_empty());
        Ok(value.map(|value| StratumValue { key: Arc::clone(&self.text), shown: shown(&value, redact).into() }))
    }
    /// What the key reads of a request.
    pub fn reads(&self) -> &[ReadPath] {
        self.template.reads()
    }
}

impl PartialEq for StratumKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for StratumKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StratumKey({})", self.text)
    }
}

/// The value that a request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StratumValue {
    /// The key, as [`StratumKey::text`] shows it.
    pub key: Arc<str>,
    /// The value as the name of a kind of request shows it: cut, escaped and in quotation marks, or `(redacted)`.
    pub shown: Arc<str>,
}

fn shown(value: &str, redact: &RedactRules) -> String {
    // Before it is cut: a part of a secret is not recognised.
    if redact.finds_secret_in(value) {
        return SECRET_VALUE.to_owned();
    }
    let end = value.floor_char_boundary(VALUE_BYTES_MAX);
    format!("{:?}", value.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Detectors;

    fn shown(value: &str) -> String {
        super::shown(value, &RedactRules::default())
    }

    #[test]
    fn all_values_with_a_secret_count_as_one_value() {
        let email = RedactRules::new([], Vec::new(), Detectors { email: true });
        let long = format!("{} 4111111111111111", "x".repeat(VALUE_BYTES_MAX));
        let jwt = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl";
        for secret in ["4111111111111111", "Bearer sk12345secret9", jwt, long.as_str(), "jane@example.com"] {
            assert_eq!(super::shown(secret, &email), SECRET_VALUE, "{secret}");
        }
        assert_eq!((&*shown("jane@example.com"), &*shown("(redacted)")), ("\"jane@example.com\"", "\"(redacted)\""));
    }

    #[test]
    fn the_text_of_a_key_has_no_literals() {
        let key = |template: &str| StratumKey::new(Template::parse_str(template).unwrap(), &TextHash::None);
        let of_store = TextHash::derived_from(None, &[1; 32]);
        let text = |template: &str| key(template).with_text_hash(&of_store).text().to_owned();
        assert_eq!(text("${request.headers[\"x-tier\"]}"), "${request.headers[\"x-tier\"]}");
        let of = |literal: &str| text(&format!("${{request.query.a == \"{literal}\"}}"));
        let masked = of("k3y");
        assert!(masked.starts_with("${request.query.a == \"***\"} (") && !masked.contains("k3y"), "{masked}");
        assert_ne!(masked, of("other"));
        let with = |text_hash: &TextHash| key("${request.query.a == \"k3y\"}").with_text_hash(text_hash);
        assert!(with(&of_store).is_earlier_text(with(&TextHash::Unkeyed).text()));
        assert!(!with(&of_store).is_earlier_text(&of("other")));
        assert_eq!(key("${request.query.a == \"k3y\"}").text(), "${request.query.a == \"***\"}", "without a key");
    }

    #[test]
    fn a_value_is_cut_and_escaped() {
        assert_eq!(shown("web"), "\"web\"");
        assert_eq!(shown("a \"b\"\n\u{1b}"), "\"a \\\"b\\\"\\n\\u{1b}\"");
        let (long, wide) = ("x".repeat(VALUE_BYTES_MAX + 1), "ü".repeat(VALUE_BYTES_MAX));
        assert_eq!(shown(&long), format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX)));
        assert_eq!(shown(&wide), format!("\"{}\"", "ü".repeat(VALUE_BYTES_MAX / 2)));
        assert_eq!(shown(&format!("x{wide}")).len(), 2 + VALUE_BYTES_MAX - 1, "no character is cut in two");
    }
}
