//! Finds the places where a text quotes a value: unchanged, in an escaped form ([`forms_in_texts`]), or
//! percent-encoded.
//!
//! Writers of URLs differ in which characters they escape. Therefore the escapes of the searched text are decoded, and
//! the value is searched for in the result: this finds every mixture of escaped and plain characters, even if a URL is
//! part of another one. The references and CDATA delimiters of XML and the escapes of JSON are decoded in the same way.
//!
//! Always true: the places are positions in the text before decoding; they are sorted and do not overlap.
//!
//! [`forms_in_texts`]: super::forms_in_texts

use std::ops::Range;

use super::cut::{CUT, beginnings_before_cuts};
use super::markup::{CDATA, reference};

/// How many times a text is decoded, for a URL within the query of a URL within another one.
const NESTING_MAX: usize = 3;

/// The places where the text quotes one of these forms of values.
pub fn quotes_in<'a>(text: &str, forms: impl Iterator<Item = &'a str> + Clone) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for view in views(text, forms.clone()) {
        let searched = view.searched(text);
        for form in forms.clone() {
            found.extend(searched.match_indices(form).map(|(at, _)| (view.place(at..at + form.len()), 0)));
        }
    }
    joined(found).into_iter().map(|(place, _)| place).collect()
}

/// Like [`quotes_in`]; also the places where only the beginning of a value is left before a cut ([`CUT`]).
pub fn quotes_and_cut_quotes_in<'a>(text: &str, forms: impl Iterator<Item = &'a str> + Clone) -> Vec<Range<usize>> {
    ranked_quotes_in(text, forms.map(|form| (0, form))).into_iter().map(|(place, _)| place).collect()
}

/// Like [`quotes_and_cut_quotes_in`], for forms with ranks: each place has the lowest rank of the forms there. The text
/// is decoded once for all forms.
pub(super) fn ranked_quotes_in<'a>(
    text: &str,
    forms: impl Iterator<Item = (usize, &'a str)> + Clone,
) -> Vec<(Range<usize>, usize)> {
    let mut found = Vec::new();
    for view in views(text, forms.clone().map(|(_, form)| form)) {
        let searched = view.searched(text);
        let has_cut = searched.contains(CUT);
        for (rank, form) in forms.clone() {
            let cut = if has_cut { beginnings_before_cuts(searched, form) } else { Vec::new() };
            let whole = searched.match_indices(form).map(|(at, _)| at..at + form.len());
            found.extend(whole.chain(cut).map(|range| (view.place(range), rank)));
        }
    }
    joined(found)
}

/// Whether the text quotes one of these forms of values.
pub fn is_quoted_in<'a>(text: &str, forms: impl Iterator<Item = &'a str> + Clone) -> bool {
    let quotes = |searched: &str| forms.clone().any(|form| searched.contains(form));
    // Most texts have no escapes, and need no decoding.
    quotes(text) || views(text, forms.clone()).iter().skip(1).any(|view| quotes(view.searched(text)))
}

/// Replaces these places of the text; `None` if `replace` fails.
pub fn replaced(text: &str, places: &[Range<usize>], replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (mut result, mut written) = (String::with_capacity(text.len()), 0);
    for place in places {
        result.push_str(&text[written..place.start]);
        result.push_str(&replace(&text[place.clone()])?);
        written = place.end;
    }
    result.push_str(&text[written..]);
    Some(result)
}

/// Sorts the places, and joins those that overlap, with the lowest of their ranks.
fn joined(mut found: Vec<(Range<usize>, usize)>) -> Vec<(Range<usize>, usize)> {
    found.sort_by_key(|(place, _)| (place.start, place.end));
    let mut places: Vec<(Range<usize>, usize)> = Vec::with_capacity(found.len());
    for (place, rank) in found {
        match places.last_mut() {
            Some((last, lowest)) if place.start < last.end => {
                last.end = last.end.max(place.end);
                *lowest = rank.min(*lowest);
            }
            _ => places.push((place, rank)),
        }
    }
    places
}

/// The searched text, as it is or decoded.
enum View {
    /// The text itself.
    Plain,
    /// The text with its escapes decoded.
    Decoded(Decoded),
}

struct Decoded {
    text: String,
    /// For each byte of the decoded text, and for its end, the position in the original text.
    places: Vec<usize>,
    /// For each byte of the decoded text, where the character that it belongs to ends in the original text.
    ends: Vec<usize>,
}

impl View {
    fn searched<'t>(&'t self, text: &'t str) -> &'t str {
        match self {
            Self::Plain => text,
            Self::Decoded(decoded) => &decoded.text,
        }
    }
    /// Where a range of the searched text is in the original text.
    fn place(&self, range: Range<usize>) -> Range<usize> {
        match self {
            Self::Plain => range,
            Self::Decoded(decoded) => match range.end.checked_sub(1) {
                Some(last) if last >= range.start => decoded.places[range.start]..decoded.ends[last],
                _ => decoded.places[range.start]..decoded.places[range.start],
            },
        }
    }
}

/// The texts in which values are searched for: the text itself, then what each decoding of it gives.
fn views<'a>(text: &str, mut forms: impl Iterator<Item = &'a str> + Clone) -> Vec<View> {
    let mut views = vec![View::Plain];
    let has_plus = text.contains('+') || text.contains("%2");
    let has_escapes = has_plus || text.contains(['%', '\\']) || has_markup(text);
    // A run without sensitive values has no forms.
    if forms.clone().next().is_none() || !has_escapes {
        return views;
    }
    // In HTML forms and queries `+` stands for a space. If no value has a space, `+` need not be decoded.
    let may_be_space = has_plus && forms.any(|form| form.contains(' '));
    let mut next = None;
    for _ in 0..NESTING_MAX {
        let source = next.as_ref();
        let spaced = may_be_space.then(|| decoded(text, source, true)).flatten();
        let plain = decoded(text, source, false);
        views.extend(std::mem::replace(&mut next, plain).into_iter().chain(spaced).map(View::Decoded));
        if next.is_none() {
            break;
        }
    }
    views.extend(next.map(View::Decoded));
    views
}

/// Decodes the escapes (percent, XML, JSON) of the text, or of its `earlier` decoded form if there is one; also decodes
/// each `+` as a space if `spaced`. `None` if that changes nothing. Percent escapes that are not UTF-8 stay; one that
/// is cut off is left out, so that what precedes it stands directly before the cut.
fn decoded(text: &str, earlier: Option<&Decoded>, spaced: bool) -> Option<Decoded> {
    let source = earlier.map_or(text, |earlier| &earlier.text);
    let has_any = source.contains(['%', '\\']) || (spaced && source.contains('+')) || has_markup(source);
    if !has_any {
        return None;
    }
    let place = |at: usize| earlier.map_or(at, |earlier| earlier.places[at]);
    let end = |at: usize| earlier.map_or(at, |earlier| earlier.ends[at - 1]);
    let (mut text, mut places) = (String::with_capacity(source.len()), Vec::with_capacity(source.len() + 1));
    let mut ends: Vec<usize> = Vec::with_capacity(source.len());
    let (mut at, mut is_changed) = (0, false);
    while let Some(character) = source[at..].chars().next() {
        let escape = match character {
            '%' => Escape::of_percent(&source.as_bytes()[at..]),
            '&' | '<' | ']' => Escape::of_markup(&source[at..]),
            '\\' => Escape::of_json(&source[at..]),
            _ => Escape::None,
        };
        is_changed |= !matches!(escape, Escape::None) || (spaced && character == '+');
        let (character, bytes) = match escape {
            Escape::None if spaced && character == '+' => (Some(' '), 1),
            Escape::None => (Some(character), character.len_utf8()),
            Escape::Char(character, bytes) => (Some(character), bytes),
            Escape::CutOff(bytes) => {
                // The cut begins where the value ends.
                ends.last_mut().into_iter().for_each(|last| *last = end(at + bytes));
                (None, bytes)
            }
            Escape::Delimiter(bytes) => (None, bytes),
        };
        if let Some(character) = character {
            text.push(character);
            // Only the first byte of the character is ever looked up: values begin and end between characters.
            places.resize(text.len(), place(at));
            ends.resize(text.len(), end(at + bytes));
        }
        at += bytes;
    }
    places.push(place(at));
    is_changed.then_some(Decoded { text, places, ends })
}

/// Whether a text may have references of XML, or CDATA delimiters.
fn has_markup(text: &str) -> bool {
    text.contains('&') && text.contains(';') || CDATA.iter().any(|delimiter| text.contains(delimiter))
}

/// What an escape stands for: one that begins with `%`, one of XML (`&…;`, the delimiters of CDATA), or one of JSON.
enum Escape {
    /// An escaped character, and the length of its escapes.
    Char(char, usize),
    /// The beginning of an escaped character, of this length; a cut follows.
    CutOff(usize),
    /// A delimiter of this length that stands for no character.
    Delimiter(usize),
    None,
}

impl Escape {
    fn of_percent(bytes: &[u8]) -> Self {
        let (mut character, mut known, mut at) = ([0; 4], 0, 0);
        loop {
            match bytes.get(at..at + 3) {
                Some([b'%', high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
                    character[known] = digit(*high) * 16 + digit(*low);
                }
                _ => return Self::cut_off(bytes, at),
            }
            (known, at) = (known + 1, at + 3);
            match std::str::from_utf8(&character[..known]) {
                Ok(text) => return text.chars().next().map_or(Self::None, |character| Self::Char(character, at)),
                Err(error) if error.error_len().is_some() || known == character.len() => return Self::None,
                Err(_) => {}
            }
        }
    }
    fn of_markup(text: &str) -> Self {
        if let Some(delimiter) = CDATA.iter().find(|delimiter| text.starts_with(**delimiter)) {
            return Self::Delimiter(delimiter.len());
        }
        reference(text).map_or(Self::None, |(character, bytes)| Self::Char(character, bytes))
    }
    /// The escape in a JSON string with which a text begins.
    fn of_json(text: &str) -> Self {
        let unit = |at: usize| {
            let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
            digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
        };
        let character = match text[1..].chars().next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('u') => {
                let units = [unit(0), unit(6)];
                return match char::decode_utf16(units.into_iter().map_while(|unit| unit)).next() {
                    Some(Ok(c)) => Self::Char(c, 6 * c.len_utf16()),
                    Some(Err(_)) | None => Self::None,
                };
            }
            Some(_) | None => return Self::None,
        };
        Self::Char(character, 2)
    }
    /// The result if no whole escape begins at `at`: [`Self::CutOff`] if a cut follows.
    fn cut_off(bytes: &[u8], at: usize) -> Self {
        let rest = &bytes[at..];
        let begun = match rest {
            [b'%', digit, ..] if digit.is_ascii_hexdigit() => 2,
            [b'%', ..] => 1,
            _ => 0,
        };
        match rest[begun..].starts_with(CUT.encode_utf8(&mut [0; 4]).as_bytes()) {
            true => Self::CutOff(at + begun),
            false => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stars(text: &str, values: &[&str]) -> String {
        let places = quotes_and_cut_quotes_in(text, values.iter().copied());
        let quotes = quotes_in(text, values.iter().copied());
        assert_eq!(is_quoted_in(text, values.iter().copied()), !quotes.is_empty(), "{text}");
        replaced(text, &places, &|_| Some("*".to_owned())).expect("it is replaced")
    }

    #[test]
    fn a_value_is_found_whichever_of_its_characters_are_escaped() {
        let value = "p@ss!word (12345)/x+é";
        for quoted in [
            value,
            "p%40ss!word%20(12345)%2Fx%2B%C3%A9",   // encodeURIComponent
            "p@ss!word%20(12345)/x+%C3%A9",         // a path by the WHATWG
            "p@ss%21word%20%2812345%29%2Fx+%C3%A9", // PathEscape of Go
            "p%40ss%21word+%2812345%29%2Fx%2B%C3%A9",
            "p%40ss%21word%20%2812345%29%2fx%2b%c3%a9",
            "%70%40%73s!word (12345)%2Fx%2Bé",
            "p%2540ss!word%2520(12345)%252Fx%252B%25C3%25A9", // a URL within a URL
        ] {
            assert_eq!(stars(&format!("a%20{quoted}&b=%"), &[value]), "a%20*&b=%", "{quoted}");
        }
        assert_eq!(stars("p%40ss!word%20(12346)", &[value]), "p%40ss!word%20(12346)");
    }

    #[test]
    fn a_value_is_found_in_xml() {
        for quoted in
            ["p&amp;ss&#x21;w&#111;rd", "<![CDATA[p&ss!word]]>", "p&amp;ss<![CDATA[!wo]]>rd", "p&amp;amp;ss!word"]
        {
            let shown = stars(&format!("<a>{quoted}</a>"), &["p&ss!word"]);
            let shown = shown.replace(CDATA[0], "").replace(CDATA[1], "");
            assert_eq!(shown, "<a>*</a>", "{quoted}");
        }
        let other = "a & b; &#xZZ; &#1114112; &none; ]]> p&amp;ss";
        assert_eq!(stars(other, &["p&ss!word"]), other);
    }

    #[test]
    fn a_value_is_found_in_json_within_json() {
        let value = "p\"ss\\w\u{f6}rd\n1\u{1d11e}/x";
        let mut text = value.to_owned();
        for depth in 0..=3 {
            assert_eq!(stars(&format!("<{text}>"), &[value]), "<*>", "{depth}");
            let quoted = serde_json::Value::from(text).to_string();
            text = quoted[1..quoted.len() - 1].replace('\u{f6}', "\\u00f6").replace('\u{1d11e}', "\\ud834\\udd1e");
        }
        let other = r"C:\new\u12 \ud834 \";
        assert_eq!(stars(other, &["x-value"]), other);
    }

    #[test]
    fn text_that_is_no_escape_stays_unchanged() {
        assert_eq!(stars("100% %zz %FF%E9 %C3 a+b %", &["100% %zz", "nothing"]), "* %FF%E9 %C3 a+b %");
        assert_eq!(stars("%FFvalue-1%E2%82", &["value-1"]), "%FF*%E2%82");
        assert_eq!(stars("a%2Bvalue+1", &["value 1", "value-1"]), "a%2B*");
        assert_eq!(stars("%", &["value"]), "%");
    }

    #[test]
    fn places_that_overlap_are_replaced_together() {
        assert_eq!(stars("x token-1-long token-1", &["token-1", "token-1-long"]), "x * *");
        assert_eq!(stars("abcdefgh", &["abcdef", "cdefgh"]), "*");
        assert_eq!(stars("abab", &["ab"]), "**");
    }

    #[test]
    fn the_beginning_of_an_escaped_value_before_a_cut_is_found() {
        for text in
            ["q=tok%2Fen%20…", "q=tok%2Fen%2…", "q=tok%2Fen%…", "q=tok%2fen+…", "q=tok/en%C3…", "q=tok%2Fen%20%C…"]
        {
            assert_eq!(stars(text, &["tok/en é-1"]), "q=*…", "{text}");
        }
        assert_eq!(stars("q=tok%2…", &["tok/en é-1"]), "q=tok%2…", "three characters");
    }

    #[test]
    fn the_beginning_of_a_value_before_a_cut_is_found() {
        for (text, expected) in [
            ("of CARD-12…", "of *…"),
            ("of CARD…", "of *…"),
            ("of CAR…", "of CAR…"),
            ("of CARD-12", "of CARD-12"),
            ("of CARD-12 …", "of CARD-12 …"),
            (r#"{"a":"CARD-…","b":"x CARD-1…"}"#, r#"{"a":"*…","b":"x *…"}"#),
            ("CARDCARDCARD-…", "CARDCARD*…"),
            ("CARD-1234 CARD-1…", "* *…"),
            ("äé CARD-1…é", "äé *…é"),
            ("…", "…"),
        ] {
            assert_eq!(stars(text, &["CARD-1234", "other"]), expected, "{text}");
        }
        // The longest beginning of several values; a value that overlaps itself; a value that contains `CUT`; a value
        // of characters beyond ASCII; a whole value before a cut.
        assert_eq!(stars("xabcdef…", &["defghi", "cdefgh", "abcdefg"]), "x*…");
        assert_eq!(stars("aaaaaaaaa…", &["aaaaab"]), "aaaa*…");
        assert_eq!(stars("abcd…efgh…", &["abcd…efghi"]), "*…");
        assert_eq!(stars("äöüäö…", &["äöüäöü"]), "*…");
        assert_eq!(stars("abcd…", &["abcd"]), "*…");
    }
}
