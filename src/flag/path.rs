//! PURE. Normalises a raw path once; the normalised path is both matched and forwarded.
//!
//! The question it answers: "which path will legacy see, and could servers interpret it differently?" A path that
//! legacy interprets differently would bypass a flag. Therefore dot segments (`..`, `%2e%2E`) are resolved here and
//! never forwarded; other encodings are forwarded as the client wrote them and decoded for matching; a path that
//! servers interpret differently (`//`, `%2F`, `%5C`, a backslash, `;parameters`) is called ambiguous, and [`readings`]
//! lists every interpretation that an origin may choose. NUL, CR, LF, a malformed `%` and a `..` above the root are
//! refused. `matcher` finds the route.

use std::borrow::Cow;

use super::exact_text::{exact_text, raw_byte};

/// A longer ambiguous path is refused, because each of its readings costs a pass over it.
pub const AMBIGUOUS_BYTES_MAX: usize = 4_096;

/// A path with its dot segments resolved: what is forwarded, and what is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// The path to match and forward.
    pub path: Cow<'a, str>,
    /// Why servers may interpret it differently.
    pub ambiguity: Ambiguity,
}

/// Why servers may interpret a path differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ambiguity {
    /// They interpret it in the same way.
    None,
    /// It has parameters (`;`), which some drop from their segment.
    Parameters,
    /// It has `//`, `%2F`, `%5C` or a backslash, so that they may find other segments in it.
    Slashes,
}

/// Why a path is answered with 400: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathRefusal {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` that two hexadecimal digits do not follow")]
    Percent,
    /// NUL, CR or LF, plain or encoded.
    #[error("the path has a NUL, CR or LF")]
    Control,
    /// More `..` than segments.
    #[error("the path goes above the root")]
    AboveRoot,
    /// Ambiguous: one reading matches a route with a workflow, and either the path as written does not match it, or
    /// servers may find other parameters in it.
    #[error(
        "the path has `//`, `%2F`, `%5C`, a backslash or `;`, and one reading leads to a route that has a workflow"
    )]
    Ambiguous,
    /// Ambiguous, and too long to check all its readings.
    #[error("the path has `//`, `%2F`, `%5C`, a backslash or `;`, and is longer than {AMBIGUOUS_BYTES_MAX} bytes")]
    AmbiguousTooLong,
    /// Ambiguous, and one reading is a route that says `paths: strict`.
    #[error("the path has `//`, `%2F`, `%5C`, a backslash or `;`, and one reading leads to a route with strict paths")]
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
            PathRefusal::AmbiguousTooLong => "ambiguous_too_long",
            PathRefusal::Strict => "strict",
        }
    }
}

/// What one pass over the bytes finds.
struct PathScan {
    /// Whether there may be dot segments.
    may_have_dots: bool,
    ambiguity: Ambiguity,
}

/// Resolves a raw path (without query). Borrows where nothing has to change, which is nearly always.
///
/// # Errors
/// A path that no origin should see.
pub fn normalise(raw: &str) -> Result<Normalised<'_>, PathRefusal> {
    let scan = scan(raw)?;
    if !scan.may_have_dots {
        return Ok(Normalised { path: Cow::Borrowed(raw), ambiguity: scan.ambiguity });
    }
    match resolve_dots(raw, DotRules { encoded: true, refuse_above_root: true })? {
        None => Ok(Normalised { path: Cow::Borrowed(raw), ambiguity: scan.ambiguity }),
        // Scanned again, because the ambiguous part may have been in a segment that `..` removed.
        Some(path) => {
            let ambiguity = self::scan(&path)?.ambiguity;
            Ok(Normalised { path: Cow::Owned(path), ambiguity })
        }
    }
}

fn scan(path: &str) -> Result<PathScan, PathRefusal> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathRefusal::NotAbsolute);
    }
    let mut scan = PathScan { may_have_dots: false, ambiguity: Ambiguity::None };
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'/' => match bytes.get(at + 1) {
                Some(b'/') => scan.ambiguity = Ambiguity::Slashes,
                Some(b'.' | b'%') => scan.may_have_dots = true,
                _ => {}
            },
            b'\\' => scan.ambiguity = Ambiguity::Slashes,
            b';' => scan.ambiguity = scan.ambiguity.max(Ambiguity::Parameters),
            0 | b'\r' | b'\n' => return Err(PathRefusal::Control),
            b'%' => {
                match encoded(bytes, at).ok_or(PathRefusal::Percent)? {
                    0 | b'\r' | b'\n' => return Err(PathRefusal::Control),
                    b'/' | b'\\' => scan.ambiguity = Ambiguity::Slashes,
                    _ => {}
                }
                at += 2;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(scan)
}

/// The byte that `%XY` at an index encodes.
fn encoded(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let (high, low) = (digit(bytes.get(at + 1)?)?, digit(bytes.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

/// How a server resolves dot segments.
#[derive(Clone, Copy)]
struct DotRules {
    /// Whether `%2e` counts as a dot.
    encoded: bool,
    /// Whether a `..` above the root is refused; otherwise the path stays at the root, as in most servers.
    refuse_above_root: bool,
}

/// The number of dots of a dot segment (1 or 2); 0 for any other segment.
fn dot_count(segment: &str, encoded: bool) -> usize {
    let (mut rest, mut count) = (segment.as_bytes(), 0);
    loop {
        rest = match rest {
            [] => return count,
            [b'.', rest @ ..] => rest,
            [b'%', b'2', b'e' | b'E', rest @ ..] if encoded => rest,
            _ => return 0,
        };
        count += 1;
        if count > 2 {
            return 0;
        }
    }
}

/// Resolves `.` and `..`. `None` where there are none.
fn resolve_dots(path: &str, rule: DotRules) -> Result<Option<String>, PathRefusal> {
    let segments = path.get(1..).unwrap_or_default();
    if segments.split('/').all(|segment| dot_count(segment, rule.encoded) == 0) {
        return Ok(None);
    }
    let mut remaining: Vec<&str> = Vec::new();
    let mut ends_with_dots = false;
    for segment in segments.split('/') {
        ends_with_dots = match dot_count(segment, rule.encoded) {
            0 => {
                remaining.push(segment);
                false
            }
            1 => true,
            _ => {
                if remaining.pop().is_none() && rule.refuse_above_root {
                    return Err(PathRefusal::AboveRoot);
                }
                true
            }
        };
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &remaining {
        resolved.push('/');
        resolved.push_str(segment);
    }
    // A dot segment at the end is removed, and the slash before it stays.
    if ends_with_dots {
        resolved.push('/');
    }
    Ok(Some(resolved))
}

/// The key that a path is matched by: every encoding is decoded once. Different bytes give different keys: an encoded
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
            // Neither byte can be part of a multi-byte character, so what came before is complete.
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

/// Every key by which an origin may match an ambiguous path. An origin may or may not
///
/// - decode `%2F` and the backslash to a slash,
/// - drop the parameters of segments, before or after decoding,
/// - merge repeated slashes,
/// - resolve dot segments, before or after merging, with or without `%2e` as a dot,
/// - drop a slash at the end.
pub fn readings(path: &str) -> Vec<String> {
    let mut readings: Vec<String> = Vec::new();
    let mut read = |reading: &str| {
        let key = match_key(reading);
        for key in [key.trim_end_matches('/'), &key] {
            if !key.is_empty() && !readings.iter().any(|known| known == key) {
                readings.push(key.to_owned());
            }
        }
    };
    for (slash, backslash) in [(false, false), (true, false), (false, true), (true, true)] {
        let decoded = decode_slashes(path, slash, backslash);
        let mut texts = Vec::new();
        if path.contains(';') {
            // Parameters are dropped after slash and backslash are decoded, before that, or between the two.
            texts.push(drop_parameters(&decoded));
            texts.push(decode_slashes(&drop_parameters(path), slash, backslash));
            texts.push(decode_slashes(&drop_parameters(&decode_slashes(path, slash, false)), slash, backslash));
            texts.push(decode_slashes(&drop_parameters(&decode_slashes(path, false, backslash)), slash, backslash));
        }
        texts.push(decoded);
        for text in texts {
            let merged = merge_slashes(&text);
            read(&text);
            read(&merged);
            for encoded in [true, false] {
                let dots = DotRules { encoded, refuse_above_root: false };
                let resolve = |text: &str| resolve_dots(text, dots).ok().flatten();
                if let Some(resolved) = resolve(&text) {
                    read(&resolved);
                    read(&merge_slashes(&resolved));
                }
                if let Some(resolved) = resolve(&merged) {
                    read(&resolved);
                }
            }
        }
    }
    readings
}

/// Drops what follows a `;` in each segment, as servers do that know path parameters.
fn drop_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// Turns `%2F`, and both spellings of the backslash, into slashes, as some servers do.
fn decode_slashes(path: &str, slash: bool, backslash: bool) -> String {
    let bytes = path.as_bytes();
    let mut text = String::with_capacity(path.len());
    let mut skip = 0;
    for (at, letter) in path.char_indices() {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        match letter {
            '%' => match encoded(bytes, at) {
                Some(b'/') if slash => (text.push('/'), skip = 2).1,
                Some(b'\\') if backslash => (text.push('/'), skip = 2).1,
                _ => text.push('%'),
            },
            '\\' if backslash => text.push('/'),
            other => text.push(other),
        }
    }
    text
}

fn merge_slashes(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !text.ends_with('/') {
            text.push(letter);
        }
    }
    text
}
