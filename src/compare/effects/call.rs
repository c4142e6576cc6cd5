//! One call of either side, split into the parts that are compared.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::call_template::CallTemplate;
use super::path_text::{authority_of_url, normal_encoding, path_of_url};
use crate::compare::bounds::{BoundExceeded, CompareBounds};
use crate::compare::effect::Effect;
use crate::compare::multipart;
use crate::compare::node::Node;
use crate::compare::observation::{Body, Intent};
use crate::compare::parsed_body::ParsedBody;
use crate::compare::repeated_keys::Document;
use crate::expression::{MediaType, parse_form, parse_form_strictly};
use crate::names::{ServiceName, StepId};

/// A call that legacy made, or that the engine would make.
pub(super) struct Call<'a> {
    pub(super) service: Option<&'a ServiceName>,
    /// Host, and port unless it is the scheme's default, in lower case.
    pub(super) authority: String,
    pub(super) method: &'a Method,
    pub(super) url: &'a str,
    /// In its normal encoding.
    pub(super) path: Cow<'a, str>,
    /// The query parameters by name, each with its values in order.
    pub(super) query: BTreeMap<String, Vec<String>>,
    pub(super) headers: HeaderMap,
    /// Of a call by legacy: its number.
    pub(super) number: Option<u64>,
    /// Of a call by legacy: see [`Effect::replied_before`].
    pub(super) replied_before: Option<u64>,
    /// The body; an error if it cannot be compared within the bounds.
    pub(super) body: Result<CallBody, BoundExceeded>,
}

/// A call that the engine would make.
pub(super) struct EngineCall<'a> {
    pub(super) call: Call<'a>,
    pub(super) step: &'a StepId,
    /// The template of the step's call; `None` if the rules were checked with another plan than the run's.
    pub(super) template: Option<&'a CallTemplate>,
    /// The number of the call by legacy whose reply its step took.
    pub(super) taken_from: Option<u64>,
}

/// The body of a call.
pub(super) struct CallBody {
    pub(super) parsed: ParsedBody,
    pub(super) form: BodyForm,
}

/// How a body was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BodyForm {
    /// As it is parsed.
    Own,
    /// As the fields of a form, which are compared like the members of a JSON object.
    Fields,
    /// In parts, which are compared like the members or elements of JSON.
    Parts,
}

impl<'a> EngineCall<'a> {
    pub(super) fn of(intent: &'a Intent, template: Option<&'a CallTemplate>, bounds: &CompareBounds) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &intent.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
                headers.append(name, value);
            }
        }
        let body = match (&intent.bytes, &intent.body) {
            (Some(bytes), _) => CallBody::of(&headers, &Body::Whole(bytes.clone()), bounds),
            (None, Value::Null) => Ok(CallBody { parsed: ParsedBody::Empty, form: BodyForm::Own }),
            (None, Value::String(text)) => {
                CallBody::of(&headers, &Body::Whole(text.clone().into_bytes().into()), bounds)
            }
            (None, value) => Ok(CallBody { parsed: ParsedBody::Json(value.clone(), Vec::new()), form: BodyForm::Own }),
        };
        let service = intent.service.as_ref().or(template.map(|template| &template.service));
        Self {
            call: Call::of(service, &intent.method, &intent.url, headers, body),
            step: &intent.step,
            template,
            taken_from: intent.taken_from,
        }
    }
}

impl<'a> Call<'a> {
    /// Splits a call that legacy made.
    pub(super) fn of_legacy(effect: &'a Effect, bounds: &CompareBounds) -> Self {
        let body = CallBody::of(&effect.headers, &effect.body, bounds);
        let call = Self::of(effect.service.as_ref(), &effect.method, &effect.url, effect.headers.clone(), body);
        Self { number: Some(effect.number), replied_before: effect.replied_before, ..call }
    }

    fn of(
        service: Option<&'a ServiceName>,
        method: &'a Method,
        url: &'a str,
        headers: HeaderMap,
        body: Result<CallBody, BoundExceeded>,
    ) -> Self {
        let before_fragment = url.split('#').next().unwrap_or_default();
        let (_, query) = before_fragment.split_once('?').unwrap_or_default();
        let query = match parse_form(query) {
            Value::Object(map) => map.into_iter().map(|(name, value)| (name, texts(value))).collect(),
            _ => BTreeMap::new(),
        };
        let (authority, path) = (authority_of_url(url), normal_encoding(path_of_url(url)));
        Self { service, authority, method, url, path, query, headers, number: None, replied_before: None, body }
    }

    /// Whether both calls go to the same service, or, if one of them goes to no service, to the same address.
    pub(super) fn is_to_service_of(&self, other: &Call<'_>) -> bool {
        match (self.service, other.service) {
            (Some(a), Some(b)) => a == b,
            _ => self.authority == other.authority,
        }
    }

    /// The body, if it is compared by structure (JSON or a form).
    pub(super) fn json(&self) -> Option<Node<'_>> {
        match &self.body {
            Ok(CallBody { parsed: ParsedBody::Json(value, _), .. }) => Some(value.into()),
            Ok(_) | Err(_) => None,
        }
    }

    /// The body, if it is compared line by line.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.body {
            Ok(CallBody { parsed, .. }) => parsed.text(),
            Err(_) => None,
        }
    }

    /// The body with the keys that its text repeats, if it is compared by structure.
    pub(super) fn document(&self) -> Option<Document<'_>> {
        match &self.body {
            Ok(CallBody { parsed: ParsedBody::Json(value, repeated), .. }) => {
                Some(Document { root: value.into(), repeated })
            }
            Ok(_) | Err(_) => None,
        }
    }
}

impl CallBody {
    fn of(headers: &HeaderMap, body: &Body, bounds: &CompareBounds) -> Result<Self, BoundExceeded> {
        let parsed = ParsedBody::of_parts(headers, body, bounds)?;
        match &parsed {
            ParsedBody::Bytes(bytes) => Ok(match multipart::document(headers, bytes, bounds)? {
                Some(parts) => Self { parsed: ParsedBody::Json(parts, Vec::new()), form: BodyForm::Parts },
                None => Self { parsed, form: BodyForm::Own },
            }),
            ParsedBody::Text(text) if is_form(headers) => match parse_form_strictly(text.as_bytes()) {
                Ok(fields) => Ok(Self { parsed: ParsedBody::Json(fields, Vec::new()), form: BodyForm::Fields }),
                Err(_) => Ok(Self { parsed, form: BodyForm::Own }),
            },
            ParsedBody::Text(_) | ParsedBody::NotJson(_) | ParsedBody::Json(..) | ParsedBody::Empty => {
                Ok(Self { parsed, form: BodyForm::Own })
            }
        }
    }

    /// The name of the body's type, for a difference between types.
    pub(super) fn name(&self) -> &'static str {
        match self.form {
            BodyForm::Own => self.parsed.name(),
            BodyForm::Fields => "a form",
            BodyForm::Parts => "parts",
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| MediaType::of(value).is_form())
}

fn texts(value: Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.into_iter().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}
