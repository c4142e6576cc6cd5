//! The body of a reply in the form in which it is compared: a document, if it has one.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::bounds::{BoundExceeded, CompareBounds};
use super::decode::Decoded;
use super::json_tree::JsonTree;
use super::multipart;
use super::node::Node;
use super::observation::Observation;
use super::parsed_body::{ParsedBody, decoded, tree_of};
use super::repeated_keys::{Document, RepeatedKey};
use super::structure::Format;
use super::unparsable::Unparsable;

/// The body of a reply.
pub(super) enum ComparedBody {
    /// JSON, in the form in which most of it is compared.
    Tree(JsonTree),
    /// A body with the structure of its text.
    Parsed {
        parsed: ParsedBody,
        /// The document of a text, the keys that it repeats, and its format.
        structure: Option<(Format, Value, Vec<RepeatedKey>)>,
        /// Set if it is not what its content type says.
        unparsable: Option<Unparsable>,
    },
}

impl ComparedBody {
    /// # Errors
    /// The body is too large, or nested too deeply.
    pub fn of(observation: &Observation, bounds: &CompareBounds) -> Result<Self, BoundExceeded> {
        let headers = observation.headers();
        let (parsed, is_plain) = match decoded(observation.body(), headers, bounds)? {
            Decoded::Plain(plain) => match tree_of(headers, &plain, bounds) {
                Some(tree) => return Ok(Self::Tree(tree)),
                None => (ParsedBody::of_plain(headers, plain, bounds)?, true),
            },
            Decoded::Opaque(raw) => (ParsedBody::Bytes(raw), false),
        };
        let structure = match (&parsed, Format::declared(headers)) {
            (ParsedBody::Text(text), Some(format)) => {
                format.document(text, bounds)?.map(|(document, repeated)| (format, document, repeated))
            }
            (ParsedBody::Bytes(bytes), None) => {
                multipart::document(headers, bytes, bounds)?.map(|document| (Format::Multipart, document, Vec::new()))
            }
            _ => None,
        };
        let has_reason = structure.is_none() && is_plain;
        let unparsable = if has_reason { Unparsable::of(headers, &parsed) } else { None };
        Ok(Self::Parsed { parsed, structure, unparsable })
    }

    /// A body of which only the bytes count.
    pub fn unread(body: Bytes) -> Self {
        Self::Parsed { parsed: ParsedBody::Bytes(body), structure: None, unparsable: None }
    }

    /// The body without the structure of its text.
    pub fn parsed(&self) -> Cow<'_, ParsedBody> {
        match self {
            Self::Tree(tree) => Cow::Owned(ParsedBody::Json(tree.root().to_value(), Vec::new())),
            Self::Parsed { parsed, .. } => Cow::Borrowed(parsed),
        }
    }

    /// Why it is not what its content type says.
    pub fn unparsable(&self) -> Option<&Unparsable> {
        match self {
            Self::Parsed { unparsable, .. } => unparsable.as_ref(),
            Self::Tree(_) => None,
        }
    }

    /// The name of the body's type, for a difference between types.
    pub fn type_name(&self) -> Cow<'_, str> {
        match self {
            Self::Tree(_) => "JSON".into(),
            Self::Parsed { parsed, unparsable: Some(unparsable), .. } => unparsable.type_with_reason(parsed).into(),
            Self::Parsed { parsed, .. } => parsed.name().into(),
        }
    }

    /// The texts of two replies without documents that are compared; `None` if they are not both texts. If one of them
    /// is not what its type says, the other one is a text too if its bytes are.
    pub fn texts<'a>(
        [a, b]: [&'a Self; 2],
        of: [&Observation; 2],
        bounds: &CompareBounds,
    ) -> Result<Option<[Cow<'a, str>; 2]>, BoundExceeded> {
        let is_any = a.unparsable().or(b.unparsable()).is_some();
        let text = |body: &'a Self, seen: &Observation| match body {
            Self::Parsed { parsed, .. } if parsed.text().is_some() => Ok(parsed.text().map(Cow::Borrowed)),
            Self::Tree(_) | Self::Parsed { parsed: ParsedBody::Json(..), .. } if is_any => {
                Ok(match decoded(seen.body(), seen.headers(), bounds)? {
                    Decoded::Plain(plain) => String::from_utf8(plain.into()).ok().map(Cow::Owned),
                    Decoded::Opaque(_) => None,
                })
            }
            Self::Tree(_) | Self::Parsed { .. } => Ok(None),
        };
        Ok(text(a, of[0])?.zip(text(b, of[1])?).map(<[_; 2]>::from))
    }

    /// The body as the value that expressions read.
    pub fn value(&self) -> Value {
        match self {
            Self::Tree(tree) => tree.root().to_value(),
            Self::Parsed { parsed, .. } => parsed.value(),
        }
    }

    /// The body's document, and its format if it is that of a text.
    fn document(&self) -> Option<(Option<Format>, Document<'_>)> {
        match self {
            Self::Tree(tree) => Some((None, Document { root: Node::Tree(tree.root()), repeated: &[] })),
            Self::Parsed { structure: Some((format, value, repeated)), .. } => {
                Some((Some(*format), Document { root: value.into(), repeated }))
            }
            Self::Parsed { parsed: ParsedBody::Json(value, repeated), structure: None, .. } => {
                Some((None, Document { root: value.into(), repeated }))
            }
            Self::Parsed { .. } => None,
        }
    }

    /// The documents of two bodies, if both have one and are of the same type.
    pub fn documents<'a>(&'a self, other: &'a Self) -> Option<[Document<'a>; 2]> {
        let ((format, document), (of_other, other)) = (self.document()?, other.document()?);
        (format == of_other).then_some([document, other])
    }
}
