//! PURE. What a route's expressions can read of a request: `request.method`, `.path`, `.params`, `.query`, `.headers`
//! and `.peer`, never the body.
//!
//! The question it answers: "what does `request` mean in a key, a cohort or a retry key?" Only what the expression
//! reads is built. A repeated query parameter is a list of its values; the values of a repeated header are joined by
//! commas. Always true: values of different bytes are different texts, also where they are not UTF-8, so that
//! different retry keys never become equal.

use std::sync::Arc;

use http::HeaderName;
use serde_json::{Map, Value};

use super::RequestFacts;
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
    let mut request = Map::new();
    for read in reads.iter().filter(|read| read.root() == "request") {
        let Some(part) = read.part(0) else { continue };
        match part {
            "method" => insert_text(&mut request, part, facts.method.as_str()),
            "path" => insert_text(&mut request, part, facts.path),
            "peer" => insert_text(&mut request, part, &facts.peer.to_string()),
            "params" => {
                let params = facts.params.iter().map(|(name, value)| (name.to_string(), value.clone().into()));
                request.entry(part).or_insert_with(|| Value::Object(params.collect()));
            }
            "query" => {
                request.entry(part).or_insert_with(|| parse_form_with(facts.query.unwrap_or_default(), exact_text));
            }
            "headers" => insert_headers(&mut request, read.part(1), facts),
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

fn insert_text(request: &mut Map<String, Value>, part: &str, value: &str) {
    request.entry(part).or_insert_with(|| value.into());
}

/// Inserts the one header that the expression names, or all headers if it names none.
fn insert_headers(request: &mut Map<String, Value>, name: Option<&str>, facts: &RequestFacts<'_>) {
    let Value::Object(map) = request.entry("headers").or_insert_with(|| Value::Object(Map::new())) else { return };
    let mut add = |name: &str| {
        if map.contains_key(name) {
            return;
        }
        let values = facts.headers.get_all(name).iter().map(|v| exact_text(v.as_bytes()));
        let values: Vec<_> = values.collect();
        if !values.is_empty() {
            map.insert(name.to_owned(), values.join(", ").into());
        }
    };
    match name {
        Some(name) => add(name),
        None => facts.headers.keys().for_each(|name| add(name.as_str())),
    }
}

/// A text that is different for different bytes. UTF-8 stays as it is. Each other byte becomes one of the last 256
/// characters of Unicode, which are for private use. If the bytes are such a character in UTF-8, each of them is replaced
/// too, so that no other bytes give the same text.
fn exact_text(bytes: &[u8]) -> String {
    const FIRST: u32 = 0x10_FF00;
    let character = |byte: &u8| char::from_u32(FIRST + u32::from(*byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for valid in chunk.valid().chars() {
            if u32::from(valid) < FIRST {
                text.push(valid);
            } else {
                text.extend(valid.encode_utf8(&mut [0; 4]).as_bytes().iter().map(character));
            }
        }
        text.extend(chunk.invalid().iter().map(character));
    }
    text
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
        let facts = RequestFacts {
            method: &Method::GET,
            path: "/orders/17",
            query: Some("a=1&b=x+y%21&b=z&c"),
            headers: &headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            params: &[("id".into(), "17".into())],
            random: 0,
            owner: Owner::Nobody,
            first_try: None,
            now_s: 0,
        };
        for (template, text) in [
            ("${request.method} ${request.path} ${request.peer}", "GET /orders/17 127.0.0.1"),
            ("${request.params.id}", "17"),
            ("${request.query.a}${request.query.c}", "1"),
            ("${request.query.b[0]} ${request.query.b[1]}", "x y! z"),
            ("${request.headers[\"x-tenant\"]}", "a, b"),
            ("${request.headers[\"X-Tenant\"]}", "a, b"),
            ("${string(size(request.headers))}", "1"),
        ] {
            let parsed = Template::parse_str(template).unwrap();
            let seen = parsed.evaluate_text(&scope(parsed.reads(), &facts));
            assert_eq!(seen.as_deref(), Ok(text), "{template}");
        }
        let absent = Template::parse_str("${request.headers[\"x-other\"]}").unwrap();
        assert!(absent.evaluate_text(&scope(absent.reads(), &facts)).is_err());
    }

    #[test]
    fn different_bytes_are_different_texts() {
        let all: [&[u8]; 9] = [
            b"M\xfcller",
            b"M\xf6ller",
            "Müller".as_bytes(),
            "M\u{FFFD}ller".as_bytes(),
            "M\u{10FFFC}ller".as_bytes(),
            b"M\xf4\x8f\xbfller",
            b"M%FCller",
            b"\xfc",
            b"\xfc\xfc",
        ];
        for (n, bytes) in all.iter().enumerate() {
            for other in &all[..n] {
                assert_ne!(exact_text(bytes), exact_text(other), "{bytes:?} and {other:?}");
            }
        }
        assert_eq!(exact_text("Müller, \u{10FEFF}".as_bytes()), "Müller, \u{10FEFF}");
    }
}
