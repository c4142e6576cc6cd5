//! URLs of calls. A value can fill a path segment or a part of the query, and never add one.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::bounds::Bounds;
use super::error::ExpressionError;
use super::reads::{self, ReadPath};
use super::scan;
use super::scope::Scope;
use super::template::{Piece, evaluate_in_text, pieces};

/// All characters except those that RFC 3986 calls unreserved.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A call's URL: `${services.stock}/reservations/${output.id}?q=${item}`. Each value in path or query is
/// percent-encoded as one component; an expression in scheme or host must be `services.NAME` at the very start. Cheap
/// to clone.
#[derive(Clone)]
pub struct UrlTemplate(Arc<Inner>);

struct Inner {
    source: String,
    service: Option<String>,
    /// The literal base, where no service is named.
    base: Option<String>,
    pieces: Vec<Piece>,
    reads: Vec<ReadPath>,
}

impl UrlTemplate {
    /// Parses a URL template.
    ///
    /// # Errors
    /// An expression that does not parse, or a URL that begins with anything but `${services.NAME}` or a literal base.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        Self::parse_within(text, &Bounds::default())
    }

    /// Parses within other bounds.
    ///
    /// # Errors
    /// As [`UrlTemplate::parse`].
    pub fn parse_within(text: &str, bounds: &Bounds) -> Result<Self, ExpressionError> {
        let mut pieces = pieces(text, bounds)?;
        let reads = reads::union(pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Expression(expression) => Some(expression.reads()),
        }));
        let (mut service, mut base_length) = (None, None);
        match pieces.first() {
            Some(Piece::Expression(expression)) => {
                let name = match expression.reads() {
                    [path] if path.root() == "services" && path.0.len() == 2 => path.part(0),
                    _ => None,
                };
                let plain = name.filter(|name| names_service(expression.source(), name));
                service = Some(plain.ok_or_else(|| {
                    let message = "a URL begins with `${services.NAME}`; a computed host is not allowed";
                    ExpressionError::at(message, 0)
                })?);
            }
            Some(Piece::Literal(literal)) => {
                let host = ["http://", "https://"].iter().find_map(|scheme| literal.strip_prefix(scheme));
                let host = host.ok_or_else(|| ExpressionError::at("a URL begins with `${services.NAME}`", 0))?;
                let length = host.find(['/', '?']);
                if (length.is_none() && pieces.len() > 1) || length == Some(0) || host.is_empty() {
                    return Err(ExpressionError::at("a computed host is not allowed; use `${services.NAME}`", 0));
                }
                base_length = Some(literal.len() - host.len() + length.unwrap_or(host.len()));
            }
            None => return Err(ExpressionError::at("the URL is empty", 0)),
        }
        let service = service.map(str::to_owned);
        let base = match (&mut pieces[..], base_length) {
            ([Piece::Literal(literal), ..], Some(length)) => {
                let rest = literal.split_off(length);
                Some(std::mem::replace(literal, rest))
            }
            _ => {
                pieces.remove(0);
                None
            }
        };
        for (index, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Literal(literal) => check_literal(literal)?,
                Piece::Expression(_) => {}
            }
            let begins_path = match piece {
                Piece::Literal(literal) => literal.is_empty() || literal.starts_with(['/', '?']),
                Piece::Expression(_) => false,
            };
            if index == 0 && !begins_path {
                return Err(ExpressionError::new("after the service comes `/`, and then the path"));
            }
        }
        Ok(Self(Arc::new(Inner { source: text.to_owned(), service, base, pieces, reads })))
    }

    /// The service that is called, where it is a named one.
    pub fn service(&self) -> Option<&str> {
        self.0.service.as_deref()
    }

    /// The literal base (`https://host:port`), where no service is named.
    pub fn base(&self) -> Option<&str> {
        self.0.base.as_deref()
    }

    /// The path after the service's base, with `{}` in place of each segment that has a value in it. It is empty, or
    /// begins with `/`.
    pub fn path_template(&self) -> String {
        let mut path = String::new();
        for piece in &self.0.pieces {
            match piece {
                Piece::Literal(literal) => path.push_str(literal),
                // Marks a value: no literal contains this character.
                Piece::Expression(_) => path.push('{'),
            }
        }
        let path = path.split('?').next().unwrap_or_default();
        let segments = path.split('/').map(|segment| if segment.contains('{') { "{}" } else { segment });
        segments.collect::<Vec<_>>().join("/")
    }

    /// The source text.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Every full path that it reads.
    pub fn reads(&self) -> &[ReadPath] {
        &self.0.reads
    }

    /// Whether this may evaluate to this path and query. Only the literal text before the first value is compared.
    pub fn may_evaluate_to(&self, path: &str) -> bool {
        match &self.0.pieces[..] {
            [] => path.is_empty(),
            [Piece::Literal(literal)] => path == literal,
            [Piece::Literal(literal), ..] => path.starts_with(literal.as_str()),
            [Piece::Expression(_), ..] => true, // does not occur: a path begins with a literal
        }
    }

    /// The path and query after the service's base, each value percent-encoded. It is empty, or begins with `/` or `?`.
    ///
    /// # Errors
    /// An expression that fails; a value that is no scalar or contains a line break; a dot segment or an empty segment
    /// made by a value.
    pub fn evaluate(&self, scope: &Scope) -> Result<String, ExpressionError> {
        let mut url = String::new();
        // The start of the current path segment, and whether a value is part of it.
        let (mut segment, mut has_value, mut in_path) = (0, false, true);
        for piece in &self.0.pieces {
            match piece {
                Piece::Literal(literal) => {
                    for c in literal.chars() {
                        if in_path && (c == '/' || c == '?') {
                            check_segment(&url[segment..], has_value)?;
                            (segment, has_value, in_path) = (url.len() + 1, false, c == '/');
                        }
                        url.push(c);
                    }
                }
                Piece::Expression(expression) => {
                    let text = evaluate_in_text(expression, scope)?;
                    // Percent-encoded, a line break would be harmless here, but not in a service that decodes it into a
                    // header or a log.
                    if text.contains(['\r', '\n']) {
                        return Err(ExpressionError::new("a line break is not allowed in a URL"));
                    }
                    url.extend(utf8_percent_encode(&text, COMPONENT));
                    has_value = true;
                }
            }
        }
        if in_path {
            check_segment(url.get(segment..).unwrap_or(""), has_value)?;
        }
        Ok(url)
    }
}

/// Whether the source is exactly `services.NAME` or `services["NAME"]`: nothing is computed from it.
fn names_service(source: &str, name: &str) -> bool {
    let source: String = source.chars().filter(|c| !c.is_whitespace()).collect();
    [format!("services.{name}"), format!("services[\"{name}\"]"), format!("services['{name}']")].contains(&source)
}

/// Literals are sent unchanged, so they must be valid in a URL.
fn check_literal(literal: &str) -> Result<(), ExpressionError> {
    match literal
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '#' | '\\' | '"' | '<' | '>' | '{' | '}' | '`' | '^' | '|'))
    {
        Some(c) => {
            let message =
                format!("{c:?} cannot stand in a URL (`{}`); write it percent-encoded", scan::shorten(literal));
            Err(ExpressionError::new(message))
        }
        None => Ok(()),
    }
}

/// A value must not make a segment `..`, `.` or empty: the URL would name another resource.
fn check_segment(segment: &str, has_value: bool) -> Result<(), ExpressionError> {
    if !has_value {
        return Ok(());
    }
    match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
        "" => Err(ExpressionError::new("a value in the path is empty")),
        "." | ".." => Err(ExpressionError::new("a value in the path makes a dot segment (`.` or `..`)")),
        _ => Ok(()),
    }
}
