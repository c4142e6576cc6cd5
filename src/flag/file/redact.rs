//! The check of `redact:`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json_path::JsonPath;

use crate::problem::{Problems, Site};
use crate::secret::{Detectors, RedactRules};

/// The most names and JSONPaths of one `redact:`: each value that is stored is compared with all of them.
const REDACTED_MAX: usize = 200;

/// What is redacted in addition to the names that are secret anyway, before anything is stored or logged.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedactDraft {
    /// Names of headers, parameters and keys whose values are secret. Case and punctuation do not matter.
    pub names: Vec<String>,
    /// Where secret values are in a body, of a request, a reply or a call: JSONPath (`$.customer.name`).
    pub paths: Vec<String>,
    /// Detectors in addition to those for the numbers of cards (`luhn`) and bearer tokens (`bearer`), which always
    /// search.
    pub detect: Vec<DetectorDraft>,
}

/// Finds what looks like a secret, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DetectorDraft {
    /// Numbers of payment cards, by their check digit. Always on.
    Luhn,
    /// Bearer tokens and JSON web tokens. Always on.
    Bearer,
    /// E-mail addresses.
    Email,
}

/// Checks a draft.
pub fn redact_rules(draft: &RedactDraft, site: &Site, problems: &mut Problems) -> RedactRules {
    let RedactDraft { names, paths, detect } = draft;
    for (key, number) in [("names", names.len()), ("paths", paths.len())] {
        if number > REDACTED_MAX {
            problems
                .error(&site.key(key), format!("{number} are listed; at most {REDACTED_MAX} are allowed"))
                .hint("a JSONPath such as `$..name` covers many places");
        }
    }
    for (index, name) in names.iter().enumerate() {
        if !name.chars().any(char::is_alphanumeric) {
            problems
                .error(&site.key("names").index(index), "this is no name")
                .hint("the name of a header, a parameter or a key: customer_ref");
        }
    }
    let mut parsed = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match JsonPath::parse(path) {
            Ok(path) => parsed.push(path),
            Err(error) => {
                problems
                    .error(&site.key("paths").index(index), format!("`{path}` is no JSONPath: {}", error.message()))
                    .hint("such as $.customer.name or $.people[*].birthday");
            }
        }
    }
    let email = detect.contains(&DetectorDraft::Email);
    RedactRules::new(names.iter().cloned(), parsed, Detectors { email })
}
