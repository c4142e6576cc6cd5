//! `creates:`, where the reply has the id of a new instance.

use std::collections::BTreeMap;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json_path::JsonPath;

use crate::expression::{CreatedIdSource, IdHeader, last_name, parse_json_path};
use crate::flag::HOP_BY_HOP_HEADERS;
use crate::problem::{Problems, Site};
use crate::secret::RedactRules;

const EXAMPLE: &str = "for example `creates: header.location`, or with a pattern of its value: `creates: { \
                       header.location: \"/orders/{id}\" }`";

/// Where the reply has the id of a new instance: a text, or a header with the pattern of its value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CreatesDraft {
    /// A JSONPath of the reply's body (`$.id`), or a header (`header.location`).
    Text(String),
    /// `header.NAME`, and the path in that header with `{id}` for the id: `/orders/{id}`.
    Header(BTreeMap<String, String>),
}

/// Checks where the reply has the id of a new instance.
pub(super) fn created_id_source(
    draft: &CreatesDraft,
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Option<CreatedIdSource> {
    match draft {
        CreatesDraft::Text(text) => match text.strip_prefix("header.") {
            Some(name) => in_header((name, None), redact, site, site, problems),
            None => in_body(text, redact, site, problems),
        },
        CreatesDraft::Header(map) => {
            let mut entries = map.iter();
            let (Some((key, pattern)), None) = (entries.next(), entries.next()) else {
                problems.error(site, "`creates` does not name exactly one header").hint(EXAMPLE);
                return None;
            };
            let of_pattern = site.key(key.as_str());
            let Some(name) = key.strip_prefix("header.") else {
                problems.error(&of_pattern.at_key(), format!("`{key}` is no header of a reply")).hint(EXAMPLE);
                return None;
            };
            in_header((name, Some(pattern)), redact, &of_pattern.clone().at_key(), &of_pattern, problems)
        }
    }
}

fn in_body(path: &str, redact: &RedactRules, site: &Site, problems: &mut Problems) -> Option<CreatedIdSource> {
    match parse_json_path(path) {
        Ok(_) if !selects_one_value(path) => {
            let message = format!("`{path}` may select several values, and a reply creates one instance");
            problems.error(site, message).hint("name one value, for example $.id or $.orders[0].id");
            None
        }
        Ok(id) => {
            refuse_secret(&id, redact, site, "for example $.id, or header.location", problems)?;
            Some(CreatedIdSource::Body(id))
        }
        Err(error) => {
            problems
                .error(site, format!("`{path}` is not a JSONPath: {error}"))
                .hint("for example $.id, or header.location");
            None
        }
    }
}

fn in_header(
    (name, pattern): (&str, Option<&str>),
    redact: &RedactRules,
    of_name: &Site,
    of_pattern: &Site,
    problems: &mut Problems,
) -> Option<CreatedIdSource> {
    let Ok(header) = HeaderName::try_from(name) else {
        problems.error(of_name, format!("`{name}` is not the name of a header")).hint(EXAMPLE);
        return None;
    };
    let why = match header.as_str() {
        name if HOP_BY_HOP_HEADERS.contains(&name) => "concerns one connection (hop-by-hop), and callers do not get it",
        name if redact.is_secret(name) => "is a secret, and ids of instances are stored and shown",
        _ => {
            return match IdHeader::new(header, pattern) {
                Ok(header) => Some(CreatedIdSource::Header(header)),
                Err(error) => {
                    problems.error(of_pattern, error.message).hint(error.hint);
                    None
                }
            };
        }
    };
    problems.error(of_name, format!("`{header}` {why}")).hint(EXAMPLE);
    None
}

/// Refuses an id whose last name in the path says that it is a secret.
pub(super) fn refuse_secret(
    path: &JsonPath,
    redact: &RedactRules,
    site: &Site,
    example: &str,
    problems: &mut Problems,
) -> Option<()> {
    let Some(name) = last_name(path).filter(|name| redact.is_secret(name)) else { return Some(()) };
    problems.error(site, format!("`{name}` is a secret, and ids of instances are stored and shown")).hint(example);
    None
}

/// Whether a JSONPath has only names and indexes (a singular query of RFC 9535), so that it selects at most one value.
pub(super) fn selects_one_value(path: &str) -> bool {
    let (mut quote, mut before) = (None, ' ');
    for c in path.chars() {
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if matches!(c, '*' | '?' | ':' | ',') || (c == '.' && before == '.') => return false,
            None => {}
        }
        before = if before == '\\' && c == '\\' { ' ' } else { c };
    }
    true
}
