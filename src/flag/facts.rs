//! PURE. What a route's expressions can read of a request: `request.method`, `.path`, `.params`, `.query`, `.headers`
//! and `.peer`, never the body.
//!
//! The question it answers: "what does `request` mean in a key, a cohort or a retry key?" Only what the expression
//! reads is built. A repeated query parameter is a list of its values; the values of a repeated header are joined by
//! commas, unless they are all equal: then the header has this value once. Always true, except in the form of older
//! versions ([`ByteForm::Replaced`]): different bytes give different texts, even if they are not UTF-8, so that
//! different retry keys never become equal (`exact_text`).

use std::sync::Arc;

use http::header::AsHeaderName;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::RequestFacts;
use super::exact_text::{ByteForm, exact_text, replaced, replaced_parameter};
use crate::expression::{ReadPath, Scope, parse_form_with};

/// The members of `request` where the body cannot be read.
pub const REQUEST_PARTS: [&str; 6] = ["method", "path", "params", "query", "headers", "peer"];

/// Request headers that concern one connection (hop-by-hop). The proxy removes or replaces most of them before the
/// facts of a request are read, so nothing may depend on them: in a key, every caller would have the same value.
pub const HOP_BY_HOP_HEADERS: [&str; 10] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The scope of an expression that reads these paths.
pub fn scope(reads: &[ReadPath], facts: &RequestFacts<'_>) -> Scope {
    scope_in(ByteForm::Exact, reads, facts)
}

/// Like [`scope`], with the texts that `form` gives for bytes that are not UTF-8.
pub fn scope_in(form: ByteForm, reads: &[ReadPath], facts: &RequestFacts<'_>) -> Scope {
    let text = |bytes: &[u8]| match form {
        ByteForm::Exact => exact_text(bytes),
        ByteForm::Replaced => replaced(bytes),
    };
    let parameter = |text: &str| match form {
        ByteForm::Exact => text.to_owned(),
        ByteForm::Replaced => replaced_parameter(text),
    };
    let mut request = Map::new();
    for read in reads.iter().filter(|read| read.root() == "request") {
        let Some(part) = read.part(0) else { continue };
        match part {
            "method" => insert_text(&mut request, part, facts.method.as_str()),
            "path" => insert_text(&mut request, part, facts.path),
            "peer" => insert_text(&mut request, part, &facts.peer.to_string()),
            "params" => {
                let params = facts.params.iter().map(|(name, value)| (name.to_string(), parameter(value).into()));
                request.entry(part).or_insert_with(|| Value::Object(params.collect()));
            }
            "query" => {
                request.entry(part).or_insert_with(|| parse_form_with(facts.query.unwrap_or_default(), text));
            }
            "headers" => insert_headers(&mut request, read.part(1), facts, &text),
            _ => {}
        }
    }
    let mut scope = Scope::new();
    scope.set("request", Arc::new(Value::Object(request)));
    scope
}

/// Whether an expression that reads these paths may read this header.
pub fn reads_header(reads: &[ReadPath], name: &HeaderName) -> bool {
    reads.iter().filter(|read| read.root() == "request").any(|read| match (read.part(0), read.part(1)) {
        (None, _) | (Some("headers"), None) => true,
        (Some("headers"), Some(header)) => header.eq_ignore_ascii_case(name.as_str()),
        (Some(_), _) => false,
    })
}

/// The values of a header; only one if all are equal. A client's retry may pass an intermediary that repeats a field,
/// and is the same request nevertheless.
pub(super) fn values_once(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &HeaderValue> {
    let values = headers.get_all(name);
    let mut rest = values.iter();
    let first = rest.next();
    let are_equal = rest.all(|value| Some(value) == first);
    values.into_iter().take(if are_equal { 1 } else { usize::MAX })
}

fn insert_text(request: &mut Map<String, Value>, part: &str, value: &str) {
    request.entry(part).or_insert_with(|| value.into());
}

/// Inserts the one header that the expression names, or all headers if it names none.
fn insert_headers(
    request: &mut Map<String, Value>,
    name: Option<&str>,
    facts: &RequestFacts<'_>,
    text: &dyn Fn(&[u8]) -> String,
) {
    let Value::Object(map) = request.entry("headers").or_insert_with(|| Value::Object(Map::new())) else { return };
    let mut add = |name: &str| {
        if map.contains_key(name) {
            return;
        }
        let values: Vec<_> = values_once(facts.headers, name).map(|value| text(value.as_bytes())).collect();
        if !values.is_empty() {
            map.insert(name.to_owned(), values.join(", ").into());
        }
    };
    match name {
        Some(name) => add(name),
        None => facts.headers.keys().for_each(|name| add(name.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderMap, Method};

    use super::*;
    use crate::expression::Template;
    use crate::flag::Owner;

    #[test]
    fn expressions_see_the_request_without_its_body() {
        let mut headers = HeaderMap::new();
        headers.append("x-tenant", "a".parse().unwrap());
        headers.append("x-tenant", "b".parse().unwrap());
        headers.append("x-twice", "a".parse().unwrap());
        headers.append("x-twice", "a".parse().unwrap());
        let facts = RequestFacts {
            method: &Method::GET,
            path: "/orders/17",
            matched_path: "/orders/17",
            query: Some("a=1&b=x+y%21&b=z&c"),
            headers: &headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            params: &[("id".into(), "17".into())],
            random: 0,
            owner: Owner::NoPin,
            now_s: 0,
        };
        for (template, text) in [
            ("${request.method} ${request.path} ${request.peer}", "GET /orders/17 127.0.0.1"),
            ("${request.params.id}", "17"),
            ("${request.query.a}${request.query.c}", "1"),
            ("${request.query.b[0]} ${request.query.b[1]}", "x y! z"),
            ("${request.headers[\"x-tenant\"]}", "a, b"),
            ("${request.headers[\"X-Tenant\"]}", "a, b"),
            ("${request.headers[\"x-twice\"]}", "a"),
            ("${string(size(request.headers))}", "2"),
        ] {
            let parsed = Template::parse_str(template).unwrap();
            let seen = parsed.evaluate_text(&scope(parsed.reads(), &facts));
            assert_eq!(seen.as_deref(), Ok(text), "{template}");
        }
        let absent = Template::parse_str("${request.headers[\"x-other\"]}").unwrap();
        assert!(absent.evaluate_text(&scope(absent.reads(), &facts)).is_err());
    }
}
