//! The list of the instances that legacy still has (`alive:`): all of its pages.
//!
//! Always true: the list is whole, or an error, and never shorter than legacy's. Errors are:
//! - a page that fails or does not have the declared form;
//! - a page that names as the next one a page of another service, or one that was read before;
//! - more pages than [`ALIVE_PAGES_MAX`].

use std::collections::HashSet;

use http::header::{CONTENT_RANGE, LINK};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use crate::compare::decoded_body;
use crate::expression::{id_text, parse_json};
use crate::flag::{AliveCall, NextPage, Service};
use crate::limits::ALIVE_PAGES_MAX;
use crate::transport::WholeReply;

/// The largest list that legacy may send, all pages together.
const ALIVE_BYTES_MAX: usize = 16 << 20;

/// One page of the list.
#[derive(Debug, PartialEq)]
struct Page {
    ids: HashSet<String>,
    /// The reference to the next page.
    next: Option<String>,
}

/// The ids on all pages. `get` sends a `GET` to a path with its query, and reads at most the given number of bytes of
/// the reply.
///
/// # Errors
/// The list is not whole; the text says why.
pub(super) async fn listed_ids<F>(call: &AliveCall, get: impl Fn(String, usize) -> F) -> Result<HashSet<String>, String>
where
    F: Future<Output = Result<WholeReply, String>>,
{
    let (mut path, mut ids, mut bytes_left) = (call.path.clone(), HashSet::new(), ALIVE_BYTES_MAX);
    let mut read = HashSet::from([path.clone()]);
    for number in 1..=ALIVE_PAGES_MAX {
        let of_page = |why: String| if number == 1 { why } else { format!("page {number}: {why}") };
        let reply = get(path.clone(), bytes_left).await.map_err(of_page)?;
        bytes_left = bytes_left.saturating_sub(reply.body.len());
        let Page { ids: of_this, next } = page(call, &path, &reply).map_err(of_page)?;
        ids.extend(of_this);
        let Some(next) = next else { return Ok(ids) };
        path = next_path(&call.service, &path, &next).map_err(of_page)?;
        if !read.insert(path.clone()) {
            return Err(of_page(format!("it names `{path}` as the next page, and that page was read before")));
        }
    }
    Err(format!("it has more than {ALIVE_PAGES_MAX} pages"))
}

/// The ids in a reply, and the next page that it names; an error says why it is not a page of the declared form.
fn page(call: &AliveCall, path: &str, WholeReply { status, headers, body }: &WholeReply) -> Result<Page, String> {
    if *status != StatusCode::OK {
        return Err(format!("`GET {path}` was answered with {}", status.as_u16()));
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(format!("the reply to `GET {path}` is a part of the list (`content-range`)"));
    }
    let body = decoded_body(headers, body, ALIVE_BYTES_MAX);
    let json = body.and_then(|body| parse_json(&body).ok());
    let json = json.ok_or_else(|| format!("the reply to `GET {path}` is not JSON"))?;
    let Some(Value::Array(list)) = call.list.query(&json).first() else {
        return Err(format!("the reply to `GET {path}` has no list at `{}`", call.list));
    };
    let found = call.ids.query(&json);
    let ids: HashSet<String> = found.iter().filter_map(|id| id_text(id)).collect();
    let count = found.iter().filter(|id| id_text(id).is_some()).count();
    if count != list.len() {
        let (all, without) = (list.len(), list.len().saturating_sub(count));
        return Err(format!("of {all} elements that `GET {path}` lists, {without} have no id at `{}`", call.ids));
    }
    let named = call.next.as_ref().and_then(|next| match next {
        NextPage::Address(at) | NextPage::Cursor { path: at, .. } => at.query(&json).first(),
    });
    let next = match (named, &call.next) {
        (None | Some(Value::Null | Value::Bool(false)), _) => next_link(headers, path)?,
        (Some(Value::String(text)), _) if text.is_empty() => next_link(headers, path)?,
        (Some(Value::String(text)), Some(NextPage::Cursor { parameter, .. })) => {
            Some(with_cursor(path, parameter, text))
        }
        (Some(Value::Number(number)), Some(NextPage::Cursor { parameter, .. })) => {
            Some(with_cursor(path, parameter, &number.to_string()))
        }
        (Some(Value::String(text)), _) => Some(text.clone()),
        (Some(_), Some(NextPage::Cursor { .. })) => {
            return Err(format!(
                "the cursor of the next page in the reply to `GET {path}` is neither a text nor a number"
            ));
        }
        (Some(_), _) => return Err(format!("the reply to `GET {path}` names a next page that is no address")),
    };
    Ok(Page { ids, next })
}

/// The reference to the next page: the query of the page at `path`, with this cursor in place of an earlier one. For
/// example `?open=1&after=7`, if the parameter is `after`.
fn with_cursor(path: &str, parameter: &str, cursor: &str) -> String {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let of_cursor = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        percent_decode_str(name).decode_utf8_lossy() == parameter
    };
    let others = query.split('&').filter(|pair| !pair.is_empty() && !of_cursor(pair)).map(str::to_owned);
    let [name, value] = [parameter, cursor].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
    let pairs: Vec<String> = others.chain([format!("{name}={value}")]).collect();
    format!("?{}", pairs.join("&"))
}

/// The target of the link to the next page.
///
/// # Errors
/// A link to a next page cannot be read.
fn next_link(headers: &HeaderMap, path: &str) -> Result<Option<String>, String> {
    let values = || headers.get_all(LINK).iter().map(|link| String::from_utf8_lossy(link.as_bytes()));
    // A link that is not well-formed counts too: it may be one to a next page.
    let may_name_one = |value: &str| value.split(',').any(has_relation_next);
    if !values().any(|value| may_name_one(&value)) {
        return Ok(None);
    }
    let target = values().find_map(|value| next_target(&value).map(str::to_owned));
    target.map(Some).ok_or_else(|| format!("the reply to `GET {path}` has a `link` to a next page that cannot be read"))
}

/// Whether the parameters of a link, such as `; rel="next last"`, have the relation type `next`. RFC 8288, section 3.3:
/// `rel` has one or more types, with spaces between them.
fn has_relation_next(parameters: &str) -> bool {
    split_outside_quotes(parameters, ';').any(|part| {
        let (name, types) = part.split_once('=').unwrap_or_default();
        let is_rel = name.trim().eq_ignore_ascii_case("rel");
        is_rel && types.split([' ', '\t', '"']).any(|kind| kind.eq_ignore_ascii_case("next"))
    })
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c: char| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// The first target of a `Link` field whose relation is `next`.
fn next_target(mut rest: &str) -> Option<&str> {
    loop {
        let (_, from_target) = rest.split_once('<')?;
        let (target, after) = from_target.split_once('>')?;
        let parameters = split_outside_quotes(after, ',').next().unwrap_or_default();
        if has_relation_next(parameters) {
            return Some(target.trim());
        }
        rest = &after[parameters.len()..];
    }
}

/// The path and query of the next page, below the service's base URL, by a reference on the page at `path`.
///
/// # Errors
/// The reference leads to no page of the service.
fn next_path(service: &Service, path: &str, reference: &str) -> Result<String, String> {
    let refused = || format!("the next page is said to be `{reference}`, which is no address of `{}`", service.name);
    let reference = reference.split('#').next().unwrap_or_default().trim();
    let (plain, _) = path.split_once('?').unwrap_or((path, ""));
    let below_base = |uri: &Uri| {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let is_same_host = |base: &Uri| {
            uri.authority().is_none() || (uri.scheme() == base.scheme() && uri.authority() == base.authority())
        };
        let bases = service.urls.iter().map(|url| &url.uri).filter(|base| is_same_host(base));
        let mut rests = bases.filter_map(|base| target.strip_prefix(base.path().trim_end_matches('/')));
        rests.find(|rest| rest.starts_with('/')).map(str::to_owned)
    };
    let next = match reference {
        "" => None,
        // Refused: `//host/path` has the scheme of the page that it is on, and the URL of that page is not known here.
        text if text.starts_with("//") => None,
        text if text.starts_with('?') => Some(format!("{plain}{text}")),
        text if text.starts_with('/') || text.contains("://") => text.parse().ok().as_ref().and_then(below_base),
        text => plain.rfind('/').map(|slash| format!("{}{text}", &plain[..=slash])),
    };
    let next = next.filter(|next| {
        let segments = next.split('?').next().unwrap_or_default().split('/');
        let has_dots =
            segments.map(|segment| segment.replace("%2e", ".").replace("%2E", ".")).any(|s| s == "." || s == "..");
        !has_dots && next.parse::<PathAndQuery>().is_ok()
    });
    next.ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::expression::parse_json_path;

    fn call(next: Option<&str>, base: &'static str) -> AliveCall {
        let path = |text: &str| parse_json_path(text).unwrap();
        AliveCall {
            service: Arc::new(Service::at("shop", [Uri::from_static(base)])),
            path: "/orders?open=1".into(),
            headers: Vec::new(),
            list: path("$.items"),
            ids: path("$.items[*].id"),
            next: next.map(|next| NextPage::Address(path(next))),
        }
    }

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> WholeReply {
        let fields = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let (status, body) = (StatusCode::from_u16(status).unwrap(), Bytes::from(body.to_string()));
        WholeReply { status, headers: fields.collect(), body }
    }

    fn ids(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Result<Page, String> {
        page(&call(None, "http://127.0.0.1:9000"), "/orders", &reply(status, headers, body))
    }

    #[test]
    fn only_a_page_of_the_declared_form_says_which_instances_legacy_has() {
        let items = json!({ "items": [{ "id": 17.0 }, { "id": "a b" }] });
        let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(ids(200, &[], &items), Ok(Page { ids: of(&["17", "a b"]), next: None }));
        assert_eq!(ids(200, &[], &json!({ "items": [] })), Ok(Page { ids: of(&[]), next: None }));
        for (status, headers, body, why) in [
            (503, &[][..], &items, "answered with 503"),
            (204, &[], &items, "answered with 204"),
            (206, &[("content-range", "items 0-1/9")], &items, "answered with 206"),
            (200, &[("content-range", "items 0-1/9")], &items, "a part of the list"),
            (200, &[("link", "/orders?page=2; rel=next")], &items, "cannot be read"),
            (200, &[], &json!({ "error": "no" }), "has no list at"),
            (200, &[], &json!({ "items": { "id": 1 } }), "has no list at"),
            (200, &[], &json!({ "items": [{ "id": 1 }, { "name": 2 }] }), "1 have no id"),
            (200, &[], &json!({ "items": [{ "id": null }, { "id": "" }] }), "2 have no id"),
        ] {
            let found = ids(status, headers, body);
            assert!(found.as_ref().is_err_and(|found| found.contains(why)), "{why}: {found:?}");
        }
    }

    #[test]
    fn the_next_page_is_found_in_links() {
        let next = |link: &'static str| ids(200, &[("link", link)], &json!({ "items": [] })).unwrap().next;
        for (link, expected) in [
            ("</orders?page=2>; rel=\"next\"", Some("/orders?page=2")),
            ("</orders?page=9>; rel=\"last next\"", Some("/orders?page=9")),
            ("</a,b>; REL = prev; title=\"x, <y>; rel=next\", </c;d>;rel=Next;title=b", Some("/c;d")),
            ("</orders?page=1>; rel=prev", None),
        ] {
            assert_eq!(next(link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn the_next_page_is_one_of_the_service() {
        let of =
            |reference: &str| next_path(&call(None, "http://shop:9000/api").service, "/v1/orders?p=1", reference).ok();
        for (reference, expected) in [
            ("?p=2", Some("/v1/orders?p=2")),
            ("/api/v1/orders?p=2#x", Some("/v1/orders?p=2")),
            ("http://shop:9000/api/v1/orders?p=2", Some("/v1/orders?p=2")),
            ("orders?p=2", Some("/v1/orders?p=2")),
            ("http://other:9000/api/v1/orders?p=2", None),
            ("https://shop:9000/api/v1/orders?p=2", None),
            ("//other/api/v1/orders", None),
            ("/v1/orders?p=2", None),
            ("/apis/v1/orders", None),
            ("../admin", None),
            ("/api/v1/%2e%2E/admin", None),
            ("", None),
        ] {
            assert_eq!(of(reference).as_deref(), expected, "{reference}");
        }
    }

    /// Lists what these paths are answered with; a path that is not known fails.
    async fn all(call: &AliveCall, pages: &[(&str, WholeReply)]) -> Result<Vec<String>, String> {
        let pages: BTreeMap<&str, &WholeReply> = pages.iter().map(|(path, reply)| (*path, reply)).collect();
        let asked = Mutex::new(0);
        let get = |path: String, _: usize| {
            *asked.lock().unwrap() += 1;
            let found = pages.get(&*path).map(|WholeReply { status, headers, body }| WholeReply {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
            });
            std::future::ready(found.ok_or_else(|| "no connection".to_owned()))
        };
        let mut found: Vec<String> = listed_ids(call, get).await?.into_iter().collect();
        assert_eq!(*asked.lock().unwrap(), pages.len(), "each page is asked for once");
        found.sort();
        Ok(found)
    }

    fn items(ids: &[u64], next: Value) -> Value {
        json!({ "items": ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>(), "paging": { "next": next } })
    }

    #[tokio::test]
    async fn all_pages_are_read() {
        let by_path = call(Some("$.paging.next"), "http://127.0.0.1:9000");
        let first = || ("/orders?open=1", reply(200, &[], &items(&[1, 2], json!("/orders?open=1&after=2"))));
        let last = ("/orders?open=1&after=2", reply(200, &[], &items(&[3], Value::Null)));
        assert_eq!(all(&by_path, &[first(), last]).await, Ok(["1", "2", "3"].map(str::to_owned).to_vec()));
        let by_link = call(None, "http://127.0.0.1:9000");
        let link = [("link", "<?open=1&page=2>; rel=next")];
        let pages = [
            ("/orders?open=1", reply(200, &link, &items(&[1], Value::Null))),
            ("/orders?open=1&page=2", reply(200, &[], &items(&[2], Value::Null))),
        ];
        assert_eq!(all(&by_link, &pages).await, Ok(["1", "2"].map(str::to_owned).to_vec()));
        // A page that fails, has another form, or leads back: nothing is known, not "none".
        for (second, why) in [
            (reply(503, &[], &items(&[3], Value::Null)), "page 2: `GET /orders?open=1&after=2` was answered with 503"),
            (reply(200, &[], &json!({})), "page 2: the reply to"),
            (reply(200, &[], &items(&[3], json!("/orders?open=1"))), "that page was read before"),
            (reply(200, &[], &items(&[3], json!("http://elsewhere/orders"))), "no address of `shop`"),
            (reply(200, &[], &items(&[3], json!(7))), "is no address"),
        ] {
            let found = all(&by_path, &[first(), ("/orders?open=1&after=2", second)]).await;
            assert!(found.as_ref().is_err_and(|found| found.contains(why)), "{why}: {found:?}");
        }
        let found = all(&by_path, &[first()]).await;
        assert_eq!(found, Err("page 2: no connection".to_owned()));
    }

    #[tokio::test]
    async fn pages_with_cursors_are_read() {
        let mut by_cursor = call(None, "http://127.0.0.1:9000");
        let path = parse_json_path("$.paging.next").unwrap();
        by_cursor.next = Some(NextPage::Cursor { path, parameter: "page[after]".into() });
        let pages = |second: Value, third: Value| {
            [
                ("/orders?open=1", reply(200, &[], &items(&[1], json!("a b/=")))),
                ("/orders?open=1&page%5Bafter%5D=a%20b%2F%3D", reply(200, &[], &items(&[2], second))),
                ("/orders?open=1&page%5Bafter%5D=7", reply(200, &[], &items(&[3], third))),
            ]
        };
        for last in [Value::Null, json!(""), json!(false)] {
            let found = all(&by_cursor, &pages(json!(7), last)).await;
            assert_eq!(found, Ok(["1", "2", "3"].map(str::to_owned).to_vec()));
        }
        let found = all(&by_cursor, &pages(json!("a b/="), Value::Null)).await;
        assert!(found.as_ref().is_err_and(|why| why.contains("that page was read before")), "{found:?}");
        let found = all(&by_cursor, &pages(json!({ "after": 7 }), Value::Null)).await;
        assert!(found.as_ref().is_err_and(|why| why.contains("is neither a text nor a number")), "{found:?}");
    }

    #[tokio::test]
    async fn more_pages_than_the_limit_are_refused() {
        let call = call(Some("$.paging.next"), "http://127.0.0.1:9000");
        for (count, is_whole) in [(ALIVE_PAGES_MAX, true), (ALIVE_PAGES_MAX + 1, false)] {
            let get = |path: String, _: usize| {
                let number: usize = path.rsplit_once("after=").map_or(1, |(_, n)| n.parse().unwrap());
                let next = if number < count { json!(format!("?after={}", number + 1)) } else { Value::Null };
                std::future::ready(Ok(reply(200, &[], &items(&[number as u64], next))))
            };
            let found = listed_ids(&call, get).await;
            assert_eq!(found.as_ref().map(HashSet::len).ok(), is_whole.then_some(count), "{found:?}");
        }
    }
}
