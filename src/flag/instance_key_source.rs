//! Where a request has the id of the instance that it follows up.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::exact_text::exact_text;
use crate::expression::{id_text, parse_form_with};

/// The longest id in the body of a request. An id in the head needs no such bound: the head is bounded as a whole.
const BODY_ID_BYTES_MAX: usize = 4 << 10;

/// Where a follow-up has the id of its instance (`key:` of an `instance`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceKeySource {
    /// A parameter of the path (`path.id`).
    Path(String),
    /// A parameter of the query (`query.order`).
    Query(String),
    /// A header (`header.x-order-id`).
    Header(HeaderName),
    /// A JSONPath of the body, JSON or a form (`body.order.id`).
    Body(JsonPath),
}

impl InstanceKeySource {
    /// The id in a request; `None` if it has none, or more than one: nobody could tell which of them legacy reads.
    /// `body` gives the value of its body, if that is known; it is called only if the id is in the body.
    pub(super) fn id_in(
        &self,
        params: &[(Arc<str>, String)],
        query: Option<&str>,
        headers: &HeaderMap,
        body: impl FnOnce() -> Option<Value>,
    ) -> Option<String> {
        let id = match self {
            Self::Path(name) => params.iter().find(|(param, _)| **param == **name).map(|(_, id)| id.clone()),
            Self::Query(name) => parse_form_with(query?, exact_text).get(name)?.as_str().map(str::to_owned),
            Self::Header(name) => {
                let mut values = headers.get_all(name).iter();
                let only = values.next().filter(|_| values.next().is_none())?;
                only.to_str().ok().map(|id| id.trim().to_owned())
            }
            Self::Body(path) => {
                let id = path.query(&body()?).first().and_then(id_text);
                id.filter(|id| id.len() <= BODY_ID_BYTES_MAX)
            }
        };
        id.filter(|id| !id.is_empty())
    }
    /// The name of the path parameter, if it is one.
    pub fn path_parameter(&self) -> Option<&str> {
        match self {
            Self::Path(name) => Some(name),
            Self::Query(_) | Self::Header(_) | Self::Body(_) => None,
        }
    }
}

/// As the files have it.
impl fmt::Display for InstanceKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(name) => write!(f, "path.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Body(path) => write!(f, "body.{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_read_from_the_query_or_a_header_if_there_is_one_alone() {
        let id = |source: &InstanceKeySource, query: Option<&str>, values: &[&str]| {
            let name = HeaderName::from_static("x-order");
            let headers = values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect();
            source.id_in(&[("order".into(), "of the path".into())], query, &headers, || None)
        };
        let query = InstanceKeySource::Query("order".into());
        for (text, expected) in [
            (None, None),
            (Some("order=4%2F7&x=1"), Some("4/7")),
            (Some("order=4+7"), Some("4 7")),
            (Some("order=4&order=7"), None),
            (Some("order="), None),
            (Some("other=4"), None),
        ] {
            assert_eq!(id(&query, text, &["9"]).as_deref(), expected, "{text:?}");
        }
        let header = InstanceKeySource::Header(HeaderName::from_static("x-order"));
        for (values, expected) in [(&["4711"][..], Some("4711")), (&[], None), (&["4", "7"], None), (&[""], None)] {
            assert_eq!(id(&header, Some("order=9"), values).as_deref(), expected, "{values:?}");
        }
        assert_eq!(id(&InstanceKeySource::Path("order".into()), None, &[]).as_deref(), Some("of the path"));
    }

    #[test]
    fn an_id_is_read_from_the_body_if_there_is_one_of_bounded_length() {
        let source = InstanceKeySource::Body(JsonPath::parse("$.order.id").unwrap());
        let long = "x".repeat(BODY_ID_BYTES_MAX + 1);
        for (body, expected) in [
            (None, None),
            (Some(json!({ "order": { "id": "4711" } })), Some("4711")),
            (Some(json!({ "order": { "id": 4711 } })), Some("4711")),
            (Some(json!({ "order": { "id": 4711.0 } })), Some("4711")),
            (Some(json!({ "order": { "id": "4711.0" } })), Some("4711.0")),
            (Some(json!({ "order": { "id": ["4711"] } })), None),
            (Some(json!({ "order": { "id": "" } })), None),
            (Some(json!({ "order": { "id": null } })), None),
            (Some(json!({ "order": { "id": long } })), None),
            (Some(json!({ "id": "4711" })), None),
            (Some(json!("order")), None),
        ] {
            let shown = format!("{body:?}");
            assert_eq!(source.id_in(&[], None, &HeaderMap::new(), || body).as_deref(), expected, "{shown}");
        }
        assert_eq!(source.to_string(), "body.$.order.id");
    }
}
