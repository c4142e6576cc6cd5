//! PURE. Which path a raw path means: resolved once, and the resolved one is both matched and forwarded.
//!
//! The question it answers: "what will the origin read in this path, and can two readers differ over it?" A path
//! confusion is a way round a flag, so: dot segments (`..`, `%2e%2E`) are resolved here and never forwarded; other
//! encodings are forwarded as the client wrote them and decoded for matching; what readers differ over (`//`, `%2F`,
//! `%5C`, a backslash) is called ambiguous, and [`readings`] lists everything that an origin may take it for. NUL, CR,
//! LF, a broken `%` and a `..` above the root are refused. Which route a path belongs to is `matcher`'s business.

use std::borrow::Cow;
use std::fmt::Write as _;

/// An ambiguous path longer than this is not looked at in all its readings, each of which costs a pass.
pub const AMBIGUOUS_BYTES_MAX: usize = 4_096;

/// A path with its dot segments resolved: what is forwarded, and what is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// What is forwarded.
    pub path: Cow<'a, str>,
    /// Two readers may take it for two things: it has `//`, `%2F`, `%5C` or a backslash.
    pub ambiguous: bool,
}

/// Why a path is answered with 400: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
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
    #[error("the path climbs above the root")]
    AboveRoot,
    /// Ambiguous, and one reading is a route whose flag is above `off`.
    #[error("the path has `//`, `%2F`, `%5C` or a backslash, and one way to read it is a route that is being migrated")]
    Ambiguous,
    /// Ambiguous, and longer than what is looked at in all its readings.
    #[error("the path has `//`, `%2F`, `%5C` or a backslash, and is longer than {AMBIGUOUS_BYTES_MAX} bytes")]
    AmbiguousTooLong,
    /// Ambiguous, and one reading is a route that says `paths: strict`.
    #[error("the path has `//`, `%2F`, `%5C` or a backslash, and one way to read it is a route with strict paths")]
    Strict,
}

impl Refusal {
    /// A label: one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::NotAbsolute => "not_absolute",
            Refusal::Percent => "percent",
            Refusal::Control => "control",
            Refusal::AboveRoot => "above_root",
            Refusal::Ambiguous => "ambiguous",
            Refusal::AmbiguousTooLong => "ambiguous_too_long",
            Refusal::Strict => "strict",
        }
    }
}

/// What one look at the bytes tells.
struct Look {
    dots: bool,
    ambiguous: bool,
}

/// Resolves a raw path (without query). Borrows where nothing has to change, which is nearly always.
///
/// # Errors
/// A path that no origin should see.
pub fn normalise(raw: &str) -> Result<Normalised<'_>, Refusal> {
    let look = look(raw)?;
    if !look.dots {
        return Ok(Normalised { path: Cow::Borrowed(raw), ambiguous: look.ambiguous });
    }
    match resolve_dots(raw, Dots { encoded: true, refuse_above_root: true })? {
        None => Ok(Normalised { path: Cow::Borrowed(raw), ambiguous: look.ambiguous }),
        // What was ambiguous may have stood in a segment that `..` took away.
        Some(path) => {
            let ambiguous = self::look(&path)?.ambiguous;
            Ok(Normalised { path: Cow::Owned(path), ambiguous })
        }
    }
}

fn look(path: &str) -> Result<Look, Refusal> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Refusal::NotAbsolute);
    }
    let mut look = Look { dots: false, ambiguous: false };
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'/' => match bytes.get(at + 1) {
                Some(b'/') => look.ambiguous = true,
                Some(b'.' | b'%') => look.dots = true,
                _ => {}
            },
            b'\\' => look.ambiguous = true,
            0 | b'\r' | b'\n' => return Err(Refusal::Control),
            b'%' => {
                match encoded(bytes, at).ok_or(Refusal::Percent)? {
                    0 | b'\r' | b'\n' => return Err(Refusal::Control),
                    b'/' | b'\\' => look.ambiguous = true,
                    _ => {}
                }
                at += 2;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(look)
}

/// The byte that `%XY` at a place stands for.
fn encoded(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let (high, low) = (digit(bytes.get(at + 1)?)?, digit(bytes.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

/// How a reader takes dot segments.
#[derive(Clone, Copy)]
struct Dots {
    /// `%2e` is a dot.
    encoded: bool,
    /// Above the root a path is refused; else, as origins do, it stays there.
    refuse_above_root: bool,
}

/// How many dots a dot segment stands for.
fn dots(segment: &str, encoded: bool) -> usize {
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

/// Takes `.` and `..` out. `None` where there is none.
fn resolve_dots(path: &str, rule: Dots) -> Result<Option<String>, Refusal> {
    let segments = path.get(1..).unwrap_or_default();
    if segments.split('/').all(|segment| dots(segment, rule.encoded) == 0) {
        return Ok(None);
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in segments.split('/') {
        open = match dots(segment, rule.encoded) {
            0 => {
                kept.push(segment);
                false
            }
            1 => true,
            _ => {
                if kept.pop().is_none() && rule.refuse_above_root {
                    return Err(Refusal::AboveRoot);
                }
                true
            }
        };
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    // A dot segment at the end leaves the slash before it.
    if open {
        resolved.push('/');
    }
    Ok(Some(resolved))
}

/// A path as it is matched: every encoding decoded once, but those of slash and backslash. Bytes that are no UTF-8 stay
/// encoded, so that two of them never look alike.
pub fn match_key(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte == b'%').then(|| encoded(bytes, at)).flatten() {
            Some(b'/') => decoded.extend_from_slice(b"%2F"),
            Some(b'\\') => decoded.extend_from_slice(b"%5C"),
            Some(other) => decoded.push(other),
            None => {
                decoded.push(byte);
                at += 1;
                continue;
            }
        }
        at += 3;
    }
    Cow::Owned(String::from_utf8(decoded).unwrap_or_else(|error| {
        let mut text = String::new();
        for chunk in error.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                // Writing to a string does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }))
}

/// Every key that an origin may match an ambiguous path by: slashes merged or not, before the dot segments are
/// resolved or after or they are not resolved, `%2e` a dot or data, `%2F` a slash or data, a backslash a slash or data,
/// a slash at the end dropped or not.
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
        let text = unfold(path, slash, backslash);
        let merged = merge(&text);
        read(&text);
        read(&merged);
        for encoded in [true, false] {
            let resolve = |text: &str| resolve_dots(text, Dots { encoded, refuse_above_root: false }).ok().flatten();
            if let Some(resolved) = resolve(&text) {
                read(&resolved);
                read(&merge(&resolved));
            }
            if let Some(resolved) = resolve(&merged) {
                read(&resolved);
            }
        }
    }
    readings
}

/// Turns `%2F` and both spellings of the backslash into slashes, where a reader does.
fn unfold(path: &str, slash: bool, backslash: bool) -> String {
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

fn merge(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !text.ends_with('/') {
            text.push(letter);
        }
    }
    text
}
