//! The escaped forms in which a text may contain a value: in a string of a JSON document, or of a JSON document that is
//! itself a string of another one. [`super::search`] finds the forms in URLs.

use std::collections::BTreeSet;

/// Characters that JSON writers escape although JSON does not require it. There are four kinds of writer, and each
/// escapes more than the one before: nothing; what is not ASCII; what has a meaning in HTML; quotes and further
/// punctuation.
const ALSO_ESCAPED: [fn(char) -> bool; 4] = [
    |_| false,
    |c| !c.is_ascii(),
    |c| !c.is_ascii() || matches!(c, '<' | '>' | '&'),
    |c| !c.is_ascii() || matches!(c, '<' | '>' | '&' | '"' | '\'' | '+' | '`'),
];

/// The value itself, and its forms in JSON.
pub fn forms_in_texts(value: &str) -> BTreeSet<String> {
    let mut forms = json_forms(value);
    forms.insert(value.to_owned());
    forms
}

/// The forms of a value escaped for a JSON string, once or twice; without a form that equals the value.
fn json_forms(value: &str) -> BTreeSet<String> {
    let differs = |c: char| !c.is_ascii() || c.is_ascii_control() || "\"\\/<>&'+`".contains(c);
    if !value.contains(differs) {
        return BTreeSet::new();
    }
    let mut forms = BTreeSet::new();
    for also in ALSO_ESCAPED {
        for upper in [false, true] {
            for slash in [false, true] {
                let once = escaped(value, also, upper, slash);
                forms.insert(escaped(&once, |_| false, upper, false));
                forms.insert(escaped(&once, also, upper, slash));
                forms.insert(once);
            }
        }
    }
    forms.remove(value);
    forms
}

/// Escapes a text for a JSON string. `also`: further characters to escape; `upper`: hex digits in upper case; `slash`:
/// `/` is escaped too.
fn escaped(text: &str, also: fn(char) -> bool, upper: bool, slash: bool) -> String {
    let mut to = String::with_capacity(text.len() + 8);
    let unit = |to: &mut String, unit: u16| match upper {
        true => to.push_str(&format!("\\u{unit:04X}")),
        false => to.push_str(&format!("\\u{unit:04x}")),
    };
    for c in text.chars() {
        match c {
            c if also(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|one| unit(&mut to, *one)),
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '/' if slash => to.push_str("\\/"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            c if c.is_ascii_control() => unit(&mut to, u16::try_from(u32::from(c)).unwrap_or_default()),
            c => to.push(c),
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_forms_contain_what_json_writers_write_and_read_back_as_the_value() {
        assert!(json_forms("Zq81-4b7c_99ab").is_empty());
        let value = "a\"b\\é€𝄞/<\n";
        let forms = json_forms(value);
        let read = |form: &str| serde_json::from_str::<String>(&format!("\"{form}\"")).expect("a JSON string");
        for form in &forms {
            let once = read(form);
            assert!(once == value || read(&once) == value, "{form}");
        }
        let inner = Value::from(value).to_string();
        let outer = Value::from(inner.as_str()).to_string();
        for text in [
            inner.as_str(),
            &outer,
            r#""a\"b\\\u00e9\u20ac\ud834\udd1e/<\n""#,
            r#""a\u0022b\\\u00E9\u20AC\uD834\uDD1E/\u003C\n""#,
        ] {
            assert!(forms.iter().any(|form| text.contains(form.as_str())), "{text}");
        }
    }
}
