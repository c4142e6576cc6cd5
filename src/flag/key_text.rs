//! PURE. The text of a request's retry key, before it is hashed.
//!
//! The question it answers: "which value marks the retries of this request, if any?" Always true: a request that names
//! several keys is an error ([`AmbiguousKey`]). Servers differ in which of the keys they take. If the request counted
//! as having one of them, or none, its retries could go to the other arm.

use std::borrow::Cow;

use super::RequestFacts;
use super::exact_text::{ByteForm, exact_text};
use super::facts::scope_in;
use super::route::RETRY_KEY_DEFAULT;
use crate::expression::{ReadPath, Template, parse_form_with};

/// Why the retry key of a request is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmbiguousKey {
    /// A header that the key is read from occurs several times, with different values.
    RepeatedHeader,
    /// A query parameter that the key is read from occurs several times.
    RepeatedParameter,
}

impl AmbiguousKey {
    /// The reason, worded as a part of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            AmbiguousKey::RepeatedHeader => {
                "a header that the route's retry key is read from is repeated with another value"
            }
            AmbiguousKey::RepeatedParameter => "a query parameter that the route's retry key is read from is repeated",
        }
    }
}

/// The key of a request: by the template, or by the default header if there is no template. `None` if the request has
/// no key.
pub(super) fn key_of_request<'a>(
    template: Option<&Template>,
    form: ByteForm,
    facts: &RequestFacts<'a>,
) -> Result<Option<Cow<'a, [u8]>>, AmbiguousKey> {
    let Some(template) = template else {
        if has_several_values(facts, RETRY_KEY_DEFAULT.as_str()) {
            return Err(AmbiguousKey::RepeatedHeader);
        }
        let key = facts.headers.get(RETRY_KEY_DEFAULT).filter(|key| !key.is_empty());
        return Ok(key.map(|key| Cow::Borrowed(key.as_bytes())));
    };
    let reads = template.reads();
    if names_read(reads, "headers").any(|name| has_several_values(facts, name)) {
        return Err(AmbiguousKey::RepeatedHeader);
    }
    // A key may contain line breaks: it is not sent anywhere.
    match template.evaluate_lines(&scope_in(form, reads, facts)) {
        // If all values are empty, every such request would have the same key.
        Ok(key) => {
            Ok(Some(key).filter(|key| key.len() > template.literal_len()).map(|key| Cow::Owned(key.into_bytes())))
        }
        // A template that picks one of the repeated values (`query.k[0]`) does not fail, and does not get here.
        Err(_) if repeats_any(facts, reads) => Err(AmbiguousKey::RepeatedParameter),
        Err(_) => Ok(None),
    }
}

/// The names of the headers or of the query parameters that are read.
fn names_read<'r>(reads: &'r [ReadPath], part: &'r str) -> impl Iterator<Item = &'r str> {
    let read = reads.iter().filter(move |read| read.root() == "request" && read.part(0) == Some(part));
    read.filter_map(|read| read.part(1))
}

fn has_several_values(facts: &RequestFacts<'_>, header: &str) -> bool {
    let mut values = facts.headers.get_all(header).iter();
    values.next().is_some_and(|first| values.any(|other| other != first))
}

fn repeats_any(facts: &RequestFacts<'_>, reads: &[ReadPath]) -> bool {
    let Some(query) = facts.query.filter(|_| names_read(reads, "query").next().is_some()) else { return false };
    let query = parse_form_with(query, exact_text);
    names_read(reads, "query").any(|name| query.get(name).is_some_and(serde_json::Value::is_array))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderMap, Method};

    use super::*;
    use crate::flag::tests::{route, set};
    use crate::flag::{Freeze, Owner, Route};

    #[test]
    fn a_request_with_several_retry_keys_is_ambiguous() {
        let keyed = |id: &str, template: &str| Route {
            retry_key: Some(Template::parse_str(template).unwrap()),
            ..route(id, Method::POST, &format!("/{id}"))
        };
        let routes = vec![
            route("plain", Method::POST, "/plain"),
            keyed("header", "${request.headers[\"X-Order\"]}"),
            keyed("query", "${request.query.k}-${request.query.j}"),
            keyed("first", "${request.query.k[0]}"),
            keyed("both", "${request.query.k}-${request.headers[\"x-order\"]}"),
        ];
        let set = set(routes, BTreeMap::new(), Freeze::No);
        let keys = |id: &str, values: &[&str], query: &str| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", value.parse().unwrap());
                headers.append("x-order", value.parse().unwrap());
            }
            let facts = RequestFacts {
                method: &Method::POST,
                path: "/orders",
                matched_path: "/orders",
                query: Some(query),
                headers: &headers,
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                params: &[],
                random: 0,
                owner: Owner::NoPin,
                now_s: 0,
            };
            set.retry_keys(set.route(&id.into()).unwrap(), &facts)
        };
        let (header, parameter) = (Err(AmbiguousKey::RepeatedHeader), Err(AmbiguousKey::RepeatedParameter));
        for id in ["plain", "header"] {
            for repeated in [["a", "b"], ["", "b"]] {
                assert_eq!(keys(id, &repeated, ""), header, "{id}");
            }
            assert_eq!(keys(id, &[], ""), Ok(None), "{id}");
            assert!(keys(id, &["a"], "").unwrap().is_some(), "{id}");
        }
        for id in ["plain", "header", "both"] {
            assert_eq!(keys(id, &["a", "a"], "k=1"), keys(id, &["a"], "k=1"), "{id}: one key, sent twice");
        }
        for repeated in ["k=1&k=2&j=1", "k=1&k=1&j=1", "j=1&k=1&j=2", "k=1&k=2"] {
            assert_eq!(keys("query", &[], repeated), parameter, "{repeated}");
        }
        assert_eq!(keys("query", &[], "k=1"), Ok(None), "the request has no `j`");
        assert_eq!(keys("query", &[], "k=&j="), Ok(None), "both are empty");
        for part in ["k=1&j=", "k=&j=1"] {
            assert!(keys("query", &[], part).unwrap().is_some(), "{part}");
        }
        assert!(keys("query", &["a", "b"], "k=1&j=2&other=1&other=2").unwrap().is_some());
        assert!(keys("query", &[], "k=1%0A2&j=2").unwrap().is_some(), "a line break in a key");
        assert!(keys("first", &[], "k=1&k=2").unwrap().is_some(), "the template says which");
    }
}
