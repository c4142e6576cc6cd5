//! Where the reply to a request that creates an instance has the id of the new instance: `creates:` in the files.
//!
//! The question it answers: "under which id will later requests name what this reply created?" Always true: the same
//! source gives the same id for legacy's reply and for the engine's. A reply without an id at this place, or with the
//! header more than once, has none.

use std::fmt;

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderName};
use serde_json::{Number, Value};
use serde_json_path::JsonPath;

use super::header_pattern::{HeaderPattern, HeaderPatternError, decoded_id};

/// What the text of a header begins with.
const HEADER: &str = "header.";
/// Between the name of a header and its pattern.
const OF_PATTERN: &str = ": ";

/// Where the reply of a creator has the id of the new instance.
#[derive(Clone, Debug)]
pub enum CreatedIdSource {
    /// At a JSONPath of its body (`$.id`).
    Body(JsonPath),
    /// In one of its headers (`header.location`).
    Header(IdHeader),
}

/// A header that has the id of a new instance.
#[derive(Clone, Debug)]
pub struct IdHeader {
    name: HeaderName,
    pattern: Option<IdPattern>,
}

#[derive(Clone, Debug)]
struct IdPattern {
    text: String,
    pattern: HeaderPattern,
    /// Which of its names is that of the instance's id.
    index: usize,
}

impl CreatedIdSource {
    /// Reads what [`fmt::Display`] wrote, as stored events have it; `None` if it is no source that this version knows.
    pub fn from_text(text: &str) -> Option<Self> {
        // Without the bounds of `parse_json_path`: a checked path may be longer in its normal form.
        let Some(header) = text.strip_prefix(HEADER) else { return JsonPath::parse(text).ok().map(Self::Body) };
        let (name, pattern) = match header.split_once(OF_PATTERN) {
            Some((name, pattern)) => (name, Some(pattern)),
            None => (header, None),
        };
        Some(Self::Header(IdHeader::new(HeaderName::try_from(name).ok()?, pattern).ok()?))
    }

    /// The id in a reply with these headers and this body: a text that is not empty, or a number.
    pub fn find(&self, headers: &[(String, String)], body: &Value) -> Option<Value> {
        match self {
            Self::Body(path) => path.query(body).first().filter(|id| id_text(id).is_some()).cloned(),
            Self::Header(header) => {
                let is_named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case(header.name.as_str());
                let values = headers.iter().filter(is_named).map(|(_, value)| value.as_str());
                header.id_among(values).map(Value::String)
            }
        }
    }

    /// The header, if the id is in one.
    pub fn header(&self) -> Option<&IdHeader> {
        match self {
            Self::Body(_) => None,
            Self::Header(header) => Some(header),
        }
    }
}

impl From<JsonPath> for CreatedIdSource {
    fn from(path: JsonPath) -> Self {
        Self::Body(path)
    }
}

/// As the files have it, and the events of runs.
impl fmt::Display for CreatedIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(path) => path.fmt(f),
            Self::Header(IdHeader { name, pattern: None }) => write!(f, "{HEADER}{name}"),
            Self::Header(IdHeader { name, pattern: Some(IdPattern { text, .. }) }) => {
                write!(f, "{HEADER}{name}{OF_PATTERN}{text}")
            }
        }
    }
}

impl IdHeader {
    /// A header whose value has this pattern. Without one the id is the last segment of the path of a `location` (or
    /// `content-location`), and the whole value of another header.
    ///
    /// # Errors
    /// The pattern does not say which part of the value is the id.
    pub fn new(name: HeaderName, pattern: Option<&str>) -> Result<Self, HeaderPatternError> {
        let Some(text) = pattern else { return Ok(Self { name, pattern: None }) };
        let pattern = HeaderPattern::parse(text)?;
        let is_id = |name: &&String| *name == "id";
        let index = match pattern.names() {
            [_] => 0,
            names if names.iter().filter(is_id).count() == 1 => {
                names.iter().position(|name| name == "id").unwrap_or_default()
            }
            _ => {
                return Err(HeaderPatternError {
                    message: format!("`{text}` has several names, and one id is that of the new instance"),
                    hint: "call that one `id`: `/customers/{customer}/orders/{id}`",
                });
            }
        };
        Ok(Self { name, pattern: Some(IdPattern { text: text.to_owned(), pattern, index }) })
    }

    /// The name of the header.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The id in the headers of a reply.
    pub fn id_in(&self, headers: &HeaderMap) -> Option<String> {
        // What is not visible ASCII is no id, and counts as a second value if there is one.
        self.id_among(headers.get_all(&self.name).iter().map(|value| value.to_str().unwrap_or_default()))
    }

    fn id_among<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let mut values = values.into_iter();
        let value = values.next().filter(|_| values.next().is_none())?.trim();
        let id = match &self.pattern {
            Some(IdPattern { pattern, index, text: _ }) => decoded_id(pattern.ids_in(value)?.get(*index)?)?,
            None if [LOCATION, CONTENT_LOCATION].contains(&self.name) => decoded_id(last_segment(value)?)?,
            None => value.to_owned(),
        };
        Some(id).filter(|id| !id.is_empty())
    }
}

/// The last segment of the path of a URL, or of a reference to one, before a slash at its end.
fn last_segment(url: &str) -> Option<&str> {
    let path = url.find(['?', '#']).map_or(url, |end| &url[..end]);
    let after_scheme = path.split_once("://").filter(|(scheme, _)| !scheme.contains('/')).map(|(_, rest)| rest);
    let path = match after_scheme.or_else(|| path.strip_prefix("//")) {
        Some(authority) => &authority[authority.find('/')?..],
        None => path,
    };
    let segment = path.strip_suffix('/').unwrap_or(path).rsplit('/').next()?;
    Some(segment).filter(|segment| !["", ".", ".."].contains(segment))
}

/// An id as paths contain it; `None` if the value is no id. A whole number is in its shortest integer form, whatever
/// the sender made of it: `100` for `100`, `100.0` and `1e2`, which Python and PHP send for a float.
pub fn id_text(id: &Value) -> Option<String> {
    id_spellings(id).map(|(written, integer)| integer.unwrap_or(written))
}

/// An id as it is written, and the shortest integer form of a whole number that is written in another way.
pub fn id_spellings(id: &Value) -> Option<(String, Option<String>)> {
    match id {
        Value::String(text) if !text.is_empty() => Some((text.clone(), None)),
        Value::Number(number) => Some((number.to_string(), integer_text(number))),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text of a whole number for clients that read JSON numbers as doubles (`17.0` becomes `17`, `1e3` becomes
/// `1000`): they send the id back in this form. `None` where the number has this form already.
fn integer_text(number: &Number) -> Option<String> {
    /// Above this value, different integers have the same double.
    const DOUBLE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
    let double = number.as_f64().filter(|double| double.fract() == 0.0 && double.abs() <= DOUBLE_INTEGER_MAX)?;
    // -0.0 + 0.0 is 0.0, which is written without a sign.
    let text = (double + 0.0).to_string();
    (text != number.to_string()).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(text: &str) -> CreatedIdSource {
        CreatedIdSource::from_text(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn an_id_in_a_header_is_found_by_its_pattern_or_as_the_last_segment_of_a_location() {
        let customers = "header.location: /customers/{customer}/orders/{id}";
        for (text, values, expected) in [
            ("header.location", &["/orders/42"][..], Some("42")),
            ("header.location", &["https://shop.example:8443/orders/42?x=/7#/8"], Some("42")),
            ("header.location", &["//shop.example/orders/42/"], Some("42")),
            ("header.location", &[" 42 "], Some("42")),
            ("header.location", &["/orders/a%2Fb"], Some("a/b")),
            ("header.location", &["/orders/a%FFb"], None),
            ("header.location", &["https://shop.example"], None),
            ("header.location", &["/"], None),
            ("header.location", &["/orders/.."], None),
            ("header.location", &[""], None),
            ("header.location", &[], None),
            ("header.location", &["/orders/42", "/orders/43"], None),
            ("header.content-location", &["/orders/42"], Some("42")),
            ("header.location: /orders/{order}", &["/orders/42"], Some("42")),
            ("header.location: /orders/{order}", &["http://shop.example/orders/4%2032?x#y"], Some("4 32")),
            ("header.location: /orders/{order}", &["/login"], None),
            ("header.location: /orders/{order}", &["/orders/42/lines"], None),
            ("header.location: /orders?id={id}", &["/orders?id=42"], Some("42")),
            (customers, &["/customers/7/orders/42"], Some("42")),
            ("header.x-order", &["/orders/a%2Fb"], Some("/orders/a%2Fb")),
            ("header.x-order: order {id}", &["order 42"], Some("42")),
        ] {
            let source = source(text);
            let name = source.header().unwrap().name().as_str().to_uppercase();
            let headers: Vec<_> = values.iter().map(|value| (name.clone(), (*value).to_owned())).collect();
            let found = source.find(&headers, &json!({ "id": 1 }));
            assert_eq!(found, expected.map(Value::from), "{text} {values:?}");
        }
    }

    #[test]
    fn other_headers_and_the_body_do_not_count() {
        let source = source("header.location");
        let header = source.header().unwrap();
        let headers = |values: &[(&'static str, &[u8])]| {
            let parsed =
                values.iter().map(|(name, value)| (HeaderName::from_static(name), value.to_vec().try_into().unwrap()));
            parsed.collect::<HeaderMap>()
        };
        assert_eq!(header.id_in(&headers(&[("content-location", b"/a/1"), ("location", b"/a/2")])).unwrap(), "2");
        assert_eq!(header.id_in(&headers(&[("content-location", b"/a/1")])), None);
        assert_eq!(header.id_in(&headers(&[("location", b"/a/\xE4")])), None);
        assert_eq!(header.id_in(&headers(&[("location", b"/a/\xE4"), ("location", b"/a/2")])), None);
    }

    #[test]
    fn a_source_is_read_as_it_was_written() {
        for text in
            ["$.id", "$.orders[0].id", "header.location", "header.location: /a/{a}/b?x={id}", "header.x: a: {b}"]
        {
            let written = source(text).to_string();
            assert_eq!(written.replace("['", ".").replace("']", ""), text);
            assert_eq!(source(&written).to_string(), written);
        }
        for text in ["id", "header.", "header.a b", "header.location: /orders", "header.location: /{a}/{b}"] {
            assert!(CreatedIdSource::from_text(text).is_none(), "{text}");
        }
        let number = source("$.id").find(&[], &json!({ "id": 100 }));
        assert_eq!((number, source("$.id").find(&[], &json!({ "id": "" }))), (Some(json!(100)), None));
    }

    #[test]
    fn a_whole_number_is_one_id_in_each_spelling() {
        for (json, text) in [
            ("100", "100"),
            ("100.0", "100"),
            ("1e2", "100"),
            ("1.0e2", "100"),
            ("1E+2", "100"),
            ("-0.0", "0"),
            ("100.5", "100.5"),
            ("9007199254740993", "9007199254740993"),
            ("9007199254740993.0", "9007199254740993.0"),
            ("\"100.0\"", "100.0"),
            ("\"1e2\"", "1e2"),
        ] {
            let id: Value = serde_json::from_str(json).unwrap();
            assert_eq!(id_text(&id).as_deref(), Some(text), "{json}");
        }
        let spellings = |json: &str| id_spellings(&serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(spellings("100.0"), ("100.0".to_owned(), Some("100".to_owned())));
        assert_eq!(spellings("100"), ("100".to_owned(), None));
    }

    #[test]
    fn a_pattern_with_several_names_says_which_is_the_id() {
        let refused = |text: &str| IdHeader::new(LOCATION, Some(text)).unwrap_err().message;
        for text in ["/customers/{customer}/orders/{order}", "/{id}/{id}"] {
            assert!(refused(text).contains("has several names"), "{text}");
        }
        assert!(refused("/orders").contains("does not say where the id is"));
        assert!(refused("/orders/{}").contains("does not say where the id is"));
        assert!(refused(&"/{a}".repeat(999)).contains("too long"));
    }
}
