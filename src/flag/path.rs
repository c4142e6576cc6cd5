//! PURE. Finds what is unusual in the spelling of a path, and makes the key by which the path is matched.
//!
//! The question it answers: "is this path plain, so that all servers find the same segments in it, and which text is
//! matched?" Most paths are plain, which one pass finds out. For matching, dot segments (`..`, `%2e%2E`) are resolved
//! and other encodings are decoded once. `readings` finds the routes that servers may see in an unusual path, `resolve`
//! decides what is forwarded, `matcher` finds the route of a key.

use std::borrow::Cow;

use super::exact_text::{exact_text, raw_byte};

/// A set of unusual properties of a path's spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnusualParts(u8);

impl UnusualParts {
    /// There are dot segments.
    pub const DOTS: Self = Self(1);
    /// There are parameters (`;`), which some servers drop from their segment.
    pub const PARAMETERS: Self = Self(1 << 1);
    /// There is `//`, `%2F`, `%5C` or a backslash: servers may find other segments.
    pub const SLASHES: Self = Self(1 << 2);
    /// There is a `%25` before a hexadecimal digit or a `%`: a server that decodes twice decodes what it stands for.
    pub const DOUBLE: Self = Self(1 << 3);
    /// There is a NUL, CR or LF, plain or encoded.
    pub const CONTROL: Self = Self(1 << 4);
    /// There is a `%` that two hexadecimal digits do not follow.
    pub const PERCENT: Self = Self(1 << 5);
    /// The path does not start with a slash.
    pub const NOT_ABSOLUTE: Self = Self(1 << 6);

    /// Whether all servers find the same segments.
    pub fn is_plain(self) -> bool {
        self.0 == 0
    }
    /// Whether all of these are in the set.
    pub fn has(self, some: Self) -> bool {
        self.0 & some.0 == some.0
    }
    /// The union of both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// This set without another one.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Why a path is answered with 400: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathRefusal {
    /// The path does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a `%` that two hexadecimal digits do not follow")]
    Percent,
    /// NUL, CR or LF, plain or encoded.
    #[error("the path has a NUL, CR or LF")]
    Control,
    /// More `..` than segments.
    #[error("the path goes above the root")]
    AboveRoot,
    /// Ambiguous: one reading matches a route with a workflow, but the path as written does not match that route, or
    /// servers may find other parameters in it.
    #[error("the path is written in an unusual way, and a server could take it for that of a route with a workflow")]
    Ambiguous,
    /// Ambiguous, with too many readings to check them all.
    #[error("the path can be read in too many ways to tell whether one leads to a route that has a workflow")]
    TooManyReadings,
    /// Ambiguous: one reading matches a route that says `paths: strict`.
    #[error("a server could take the path for that of a route with strict paths, but it is written in another way")]
    Strict,
}

impl PathRefusal {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            PathRefusal::NotAbsolute => "not_absolute",
            PathRefusal::Percent => "percent",
            PathRefusal::Control => "control",
            PathRefusal::AboveRoot => "above_root",
            PathRefusal::Ambiguous => "ambiguous",
            PathRefusal::TooManyReadings => "too_many_readings",
            PathRefusal::Strict => "strict",
        }
    }
}

/// Finds in one pass what is unusual in a path (without query).
pub fn unusual(path: &str) -> UnusualParts {
    let bytes = path.as_bytes();
    let mut found = UnusualParts::default();
    if bytes.first() != Some(&b'/') {
        found = UnusualParts::NOT_ABSOLUTE;
    }
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'/' => match bytes.get(at + 1) {
                Some(b'/') => found = found.and(UnusualParts::SLASHES),
                Some(b'.' | b'%') if begins_with_dots(&bytes[at + 1..]) => found = found.and(UnusualParts::DOTS),
                _ => {}
            },
            b'\\' => found = found.and(UnusualParts::SLASHES),
            b';' => found = found.and(UnusualParts::PARAMETERS),
            0 | b'\r' | b'\n' => found = found.and(UnusualParts::CONTROL),
            b'%' => {
                let Some(encoded) = encoded(bytes, at) else {
                    found = found.and(UnusualParts::PERCENT);
                    at += 1;
                    continue;
                };
                match encoded {
                    0 | b'\r' | b'\n' => found = found.and(UnusualParts::CONTROL),
                    b'/' | b'\\' => found = found.and(UnusualParts::SLASHES),
                    b';' => found = found.and(UnusualParts::PARAMETERS),
                    b'%' if bytes.get(at + 3).is_some_and(|next| next.is_ascii_hexdigit() || *next == b'%') => {
                        found = found.and(UnusualParts::DOUBLE);
                    }
                    _ => {}
                }
                at += 2;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether these bytes begin with one or two dots, possibly with parameters, as a whole segment.
fn begins_with_dots(mut bytes: &[u8]) -> bool {
    for _ in 0..2 {
        bytes = match bytes {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => break,
        };
        if matches!(bytes, [] | [b'/' | b';' | b'\\', ..]) {
            return true;
        }
    }
    false
}

/// The byte that `%XY` at an index encodes; `None` if there is no such encoding.
pub(super) fn encoded(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let (high, low) = (digit(bytes.get(at + 1)?)?, digit(bytes.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

/// The number of dots of a dot segment (1 or 2); 0 for any other segment.
fn dot_count(segment: &str) -> usize {
    let (mut rest, mut count) = (segment.as_bytes(), 0);
    loop {
        rest = match rest {
            [] => return count,
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return 0,
        };
        count += 1;
        if count > 2 {
            return 0;
        }
    }
}

/// A path whose dot segments are resolved.
pub struct DotsResolved<'a> {
    /// The path; borrowed if it has no dot segments.
    pub path: Cow<'a, str>,
    /// Whether there were more `..` than segments.
    pub above_root: bool,
}

/// Resolves `.` and `..`, encoded ones too. A `..` above the root stays at the root.
pub fn resolve_dots(path: &str) -> DotsResolved<'_> {
    resolve(path, dot_count)
}

/// Like [`resolve_dots`], and also resolves dot segments that have parameters (`..;v=1`).
pub fn resolve_dots_with_parameters(path: &str) -> DotsResolved<'_> {
    resolve(path, |segment| dot_count(segment.split(';').next().unwrap_or_default()))
}

fn resolve(path: &str, dot_count: impl Fn(&str) -> usize) -> DotsResolved<'_> {
    let segments = path.get(1..).unwrap_or_default();
    let mut above_root = false;
    if segments.split('/').all(|segment| dot_count(segment) == 0) {
        return DotsResolved { path: Cow::Borrowed(path), above_root };
    }
    let mut remaining: Vec<&str> = Vec::new();
    let mut ends_with_dots = false;
    for segment in segments.split('/') {
        ends_with_dots = match dot_count(segment) {
            0 => {
                remaining.push(segment);
                false
            }
            1 => true,
            _ => {
                above_root |= remaining.pop().is_none();
                true
            }
        };
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &remaining {
        resolved.push('/');
        resolved.push_str(segment);
    }
    // A dot segment at the end is removed, but the slash before it stays.
    if ends_with_dots {
        resolved.push('/');
    }
    DotsResolved { path: Cow::Owned(resolved), above_root }
}

/// Checks that all servers read a path in the files alike, apart from parameters and double encodings.
///
/// # Errors
/// Why the path matches nothing, or how it should be written.
pub fn check_plain(path: &str) -> Result<(), NotPlain> {
    let found = unusual(path);
    let DotsResolved { path: resolved, above_root } = resolve_dots(path);
    let refused = |why| Err(NotPlain::Refused(why));
    match () {
        () if found.has(UnusualParts::NOT_ABSOLUTE) => refused(PathRefusal::NotAbsolute),
        () if found.has(UnusualParts::PERCENT) => refused(PathRefusal::Percent),
        () if found.has(UnusualParts::CONTROL) => refused(PathRefusal::Control),
        () if above_root => refused(PathRefusal::AboveRoot),
        () if found.has(UnusualParts::SLASHES) => Err(NotPlain::Slashes),
        () if *resolved != *path => Err(NotPlain::Dots(resolved.into_owned())),
        () => Ok(()),
    }
}

/// What is wrong with a path in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPlain {
    /// It is refused in the requests of a route with a workflow, or in all requests.
    Refused(PathRefusal),
    /// It has `//`, `%2F`, `%5C` or a backslash.
    Slashes,
    /// It has dot segments; the value is the path without them.
    Dots(String),
}

/// The key by which a path is matched: every encoding is decoded once. Different bytes give different keys: an encoded
/// slash or backslash, and bytes that are not UTF-8, become characters that stand for them (`exact_text`).
pub fn match_key(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'%') && path.is_ascii() {
        return Cow::Borrowed(path);
    }
    let (mut text, mut decoded) = (String::with_capacity(bytes.len()), Vec::new());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte == b'%').then(|| encoded(bytes, at)).flatten() {
            // Neither byte can be part of a multi-byte character, so what precedes it is complete.
            Some(separator @ (b'/' | b'\\')) => {
                text.push_str(&exact_text(&decoded));
                text.push(raw_byte(separator));
                decoded.clear();
            }
            Some(other) => decoded.push(other),
            None => {
                decoded.push(byte);
                at += 1;
                continue;
            }
        }
        at += 3;
    }
    text.push_str(&exact_text(&decoded));
    Cow::Owned(text)
}
