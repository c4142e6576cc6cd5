//! What a person declares as secret (`redact:`), in addition to what is secret by its name anyway.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::detect::Detectors;
use super::names::{has_declared, plain_name};
use super::redact::STARS;

/// What is redacted in addition to secrets that are known by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedactRules {
    /// Names of headers, parameters and keys, plain ([`plain_name`]).
    names: Vec<String>,
    /// Where the values are in a body: of a request, of a reply, of a call and of its reply.
    paths: Vec<JsonPath>,
    /// Which detectors search.
    detectors: Detectors,
}

impl RedactRules {
    /// These rules.
    pub fn new(names: impl IntoIterator<Item = String>, paths: Vec<JsonPath>, detectors: Detectors) -> Self {
        let names = names.into_iter().map(|name| plain_name(&name)).collect();
        Self { names, paths, detectors }
    }
    /// These rules and others.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let names = self.names.iter().chain(&other.names).cloned().collect();
        let paths = self.paths.iter().chain(&other.paths).cloned().collect();
        Self { names, paths, detectors: Detectors { email: self.detectors.email || other.detectors.email } }
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
    /// Which detectors search.
    pub fn detectors(&self) -> Detectors {
        self.detectors
    }
    /// The values in a body that its JSONPaths name, as JSON pointers.
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
    fn names_are_compared_without_their_punctuation() {
        let rules = RedactRules::new(["customer_ref".to_owned()], Vec::new(), Detectors::default());
        for name in ["customer_ref", "customerRef", "Customer-Ref"] {
            assert!(rules.has_name(name), "{name}");
        }
        assert!(rules.has_name("order[customer_ref]") && rules.has_name("order.customerRef"));
        assert!(!rules.has_name("order[customer_ref][kind]") && !rules.has_name("[]"));
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
