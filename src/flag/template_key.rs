//! PURE. The keys by which templates and paths are compared under the conventions of a service.
//!
//! Always true: if a service, by its declared conventions, matches a path to a template, one of the path's keys
//! ([`PathKey`]) equals the key of that template, apart from the values of parameters. A key has as many segments as
//! the path or template that it was made of, apart from a slash at the end.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::conventions::PathConventions;
use super::path::match_key;

/// What a template may have unencoded and a request's target may not, apart from characters beyond ASCII.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');

/// The key of a template. The names of its parameters stay as they are.
pub fn template_key(template: &str, conventions: &PathConventions) -> String {
    let template = without_slash(template, conventions);
    let segments = template.split('/').map(|segment| match segment.starts_with('{') {
        true => segment.to_owned(),
        false => lower_case(&match_key(segment), conventions).into_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

/// The keys of a path.
pub struct PathKey<'p> {
    /// The key of the whole path: decoded once, without the parameters of segments and the slash at the end that the
    /// service ignores, with upper and lower case as the client wrote them (see [`lower_case`]).
    pub as_written: Cow<'p, str>,
}

impl<'p> PathKey<'p> {
    /// The keys of a path without dot segments.
    pub fn new(path: &'p str, conventions: &PathConventions) -> Self {
        let path = match conventions.strips_parameters() {
            true => without_parameters(path),
            false => Cow::Borrowed(path),
        };
        let as_written = match path {
            Cow::Borrowed(path) => match_key(path),
            Cow::Owned(path) => Cow::Owned(match_key(&path).into_owned()),
        };
        let as_written = match as_written {
            Cow::Borrowed(key) => Cow::Borrowed(without_slash(key, conventions)),
            Cow::Owned(mut key) => {
                key.truncate(without_slash(&key, conventions).len());
                Cow::Owned(key)
            }
        };
        Self { as_written }
    }

    /// The keys without suffixes of the last segment, the longest first: for `report.v2.json`, the one with `report.v2`
    /// and the one with `report`.
    pub fn without_suffix(&self) -> impl Iterator<Item = &str> {
        let key = &*self.as_written;
        let last = key.rfind('/').map_or(0, |slash| slash + 1);
        let (shortest, longest) = (key[last..].find('.'), key[last..].rfind('.'));
        let longest = longest.filter(|at| shortest != Some(*at));
        // A suffix is not the whole segment.
        longest.into_iter().chain(shortest).filter(|at| *at > 0).map(move |at| &key[..last + at])
    }
}

/// One spelling of all paths without dot segments that some service may take for the same path: decoded once, in lower
/// case, without `;v=1` and the like, a suffix or a slash at the end. It depends on no file. Different resources may
/// have the same spelling.
///
/// Stored digests of requests depend on this spelling.
pub fn loosest_spelling(path: &str) -> String {
    let conventions = PathConventions::loosest();
    let key = PathKey::new(path, &conventions);
    let shortest = key.without_suffix().last().unwrap_or(&key.as_written);
    lower_case(shortest, &conventions).into_owned()
}

/// The form in which keys are compared: in lower case if the service ignores case.
pub fn lower_case<'k>(key: &'k str, conventions: &PathConventions) -> Cow<'k, str> {
    match conventions.ignores_case() && key.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        true => Cow::Owned(key.to_lowercase()),
        false => Cow::Borrowed(key),
    }
}

fn without_slash<'p>(path: &'p str, conventions: &PathConventions) -> &'p str {
    match path.strip_suffix('/') {
        Some(rest) if !rest.is_empty() && conventions.ignores_trailing_slash() => rest,
        _ => path,
    }
}

fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') {
        return Cow::Borrowed(path);
    }
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

/// A path that matches a template, in the spelling of the template: with its case, and with a slash at the end if it
/// has one. Parameters of segments (`;v=1`) and suffixes stay, because the service may read them.
pub fn respell<'p>(path: &'p str, template: &str, conventions: &PathConventions) -> Cow<'p, str> {
    if !conventions.ignores_trailing_slash() && !conventions.ignores_case() {
        return Cow::Borrowed(path);
    }
    let (segments, templates) = (without_slash(path, conventions), without_slash(template, conventions));
    let mut text = String::with_capacity(path.len());
    for (index, (segment, literal)) in segments.split('/').zip(templates.split('/')).enumerate() {
        if index > 0 {
            text.push('/');
        }
        match literal.starts_with('{') {
            true => text.push_str(segment),
            false => text.push_str(&respell_literal(segment, literal, conventions)),
        }
    }
    text.push_str(&template[templates.len()..]);
    if text == path { Cow::Borrowed(path) } else { Cow::Owned(text) }
}

fn respell_literal<'s>(segment: &'s str, literal: &str, conventions: &PathConventions) -> Cow<'s, str> {
    let stem = match conventions.strips_parameters() {
        true => segment.split(';').next().unwrap_or_default(),
        false => segment,
    };
    let suffixes = [Some(stem.len()), stem.rfind('.'), stem.find('.')].into_iter().flatten();
    let known = match_key(literal);
    for end in suffixes {
        let key = match_key(&segment[..end]);
        if key == known {
            break;
        }
        if lower_case(&key, conventions) == lower_case(&known, conventions) {
            let literal: Cow<'_, str> = utf8_percent_encode(literal, NOT_IN_PATHS).into();
            return Cow::Owned([&literal, &segment[end..]].concat());
        }
    }
    Cow::Borrowed(segment)
}
