//! What a person declares as secret (`redact:`), in addition to what is secret by its name anyway.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::detect::Detectors;
use super::names::{has_declared, is_secret, plain_name};
use super::redact::{STARS, is_hidden};
use super::text_hash::TextHash;
use super::walk::{FoundSecret, replace_secrets};

/// What is redacted in addition to secrets that are known by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedactRules {
    /// Names of headers, parameters and keys, plain ([`plain_name`]).
    names: Vec<String>,
    /// Which values in bodies are secret: in those of requests and replies, of calls and their replies.
    paths: Vec<JsonPath>,
    /// Which detectors search.
    detectors: Detectors,
    /// Whether a parameter in the path of a request has a secret name.
    is_path_secret: bool,
    /// Tells apart shown texts in which something is masked, such as those of invariants and rules of comparisons.
    text_hash: TextHash,
}

impl RedactRules {
    /// These rules.
    pub fn new(names: impl IntoIterator<Item = String>, paths: Vec<JsonPath>, detectors: Detectors) -> Self {
        let names = names.into_iter().map(|name| plain_name(&name)).collect();
        Self { names, paths, detectors, ..Self::default() }
    }
    /// These rules and others.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let names = self.names.iter().chain(&other.names).cloned().collect();
        let paths = self.paths.iter().chain(&other.paths).cloned().collect();
        let detectors = Detectors { email: self.detectors.email || other.detectors.email };
        Self { names, paths, detectors, ..self.clone() }
    }
    /// These rules, for a route with these parameters in its path.
    #[must_use]
    pub fn for_path(self, params: &[&str]) -> Self {
        Self { is_path_secret: params.iter().any(|name| self.is_secret(name)), ..self }
    }
    /// Whether the path of a request may have a secret in it.
    pub fn is_path_secret(&self) -> bool {
        self.is_path_secret
    }
    /// These rules, with this hash for shown texts in which something is masked.
    #[must_use]
    pub fn with_text_hash(&self, text_hash: &TextHash) -> Self {
        Self { text_hash: text_hash.clone(), ..self.clone() }
    }
    /// Tells apart shown texts in which something is masked, such as those of invariants and rules of comparisons.
    pub fn text_hash(&self) -> &TextHash {
        &self.text_hash
    }
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty() && self.detectors == Detectors::default()
    }
    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }
    /// Whether the value under this name is declared as secret.
    pub fn has_name(&self, name: &str) -> bool {
        has_declared(&self.names, name)
    }
    /// Whether the value under this name is secret, declared or not.
    pub fn is_secret(&self, name: &str) -> bool {
        is_secret(name) || self.has_name(name)
    }
    /// Whether a text has a secret in it: a credential, something that a detector finds, or the value after a secret
    /// name.
    pub fn finds_secret_in(&self, text: &str) -> bool {
        let mut is_found = false;
        let mut note = |found: FoundSecret<'_>| {
            is_found |= !is_hidden(found.value);
            None
        };
        replace_secrets(text, &|name| self.is_secret(name), self.detectors, &mut note);
        is_found
    }
    /// A text that a person wrote, with stars in place of the secrets in it.
    pub fn shown_line(&self, text: &str) -> String {
        let mut stars = |found: FoundSecret<'_>| (!is_hidden(found.value)).then(|| STARS.to_owned());
        let shown = replace_secrets(text, &|name| self.is_secret(name), self.detectors, &mut stars);
        shown.unwrap_or_else(|| text.to_owned())
    }
    /// Whether places in bodies are declared as secret by a JSONPath.
    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }
    /// Which detectors search.
    pub fn detectors(&self) -> Detectors {
        self.detectors
    }
    /// The values in a body that the declared JSONPaths select, as JSON pointers.
    pub fn located_in(&self, body: &Value) -> Vec<String> {
        let located = self.paths.iter().flat_map(|path| path.query_located(body));
        located.map(|node| node.location().to_json_pointer()).collect()
    }
}

impl RedactRules {
    /// Hides what is declared as secret in a value by stars.
    pub fn hide(&self, value: &mut Value) {
        for pointer in self.located_in(value) {
            if let Some(place) = value.pointer_mut(&pointer).filter(|place| !place.is_null()) {
                *place = STARS.into();
            }
        }
        self.hide_named(value);
    }

    fn hide_named(&self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match self.has_name(key) && !value.is_null() {
                        true => *value = STARS.into(),
                        false => self.hide_named(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_named(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_in_a_text_are_found() {
        let rules = RedactRules::new(["customer_ref".to_owned()], Vec::new(), Detectors::default());
        let email = rules.and(&RedactRules::new([], Vec::new(), Detectors { email: true }));
        for text in [
            "4111111111111111",
            "4111 1111 1111 1111 (web)",
            "Bearer sk12345secret9",
            "Basic dXNlcjpwYXNz",
            "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
            "web; password=hunter2",
            "customerRef=7",
            r#"{"token": "hunter2"}"#,
        ] {
            assert!(rules.finds_secret_in(text), "{text}");
        }
        for text in ["", "web", "order-4111111111111111a", "web; version=2", "password=***"] {
            assert!(!rules.finds_secret_in(text), "{text}");
        }
        assert!(email.finds_secret_in("jane@example.com") && !rules.finds_secret_in("jane@example.com"));
        assert!(rules.is_secret("x-api-key") && rules.is_secret("Customer-Ref") && !rules.is_secret("x-channel"));
    }

    #[test]
    fn names_are_compared_without_their_punctuation() {
        let rules = RedactRules::new(["customer_ref".to_owned()], Vec::new(), Detectors::default());
        for name in ["customer_ref", "customerRef", "Customer-Ref"] {
            assert!(rules.has_name(name), "{name}");
        }
        assert!(rules.has_name("order[customer_ref]") && rules.has_name("order.customerRef"));
        for nested in ["customer_ref[0]", "c[customer_ref][]", "order[customer_ref][kind]", "/customer_ref/0"] {
            assert!(rules.has_name(nested), "{nested}");
        }
        assert!(!rules.has_name("order[customer][ref]") && !rules.has_name("[]"));
        assert!(!rules.has_name("customer") && !RedactRules::default().has_name(""));
    }

    #[test]
    fn paths_locate_values_in_a_body() {
        let paths = vec![JsonPath::parse("$.people[*].name").unwrap()];
        let rules = RedactRules::new([], paths, Detectors::default());
        let body = json!({"people": [{"name": "Jane"}, {"name": "Joe"}], "name": "x"});
        assert_eq!(rules.located_in(&body), ["/people/0/name", "/people/1/name"]);
    }
}
