//! A bounded set of secrets that are looked for wherever a text quotes them.
//!
//! Always true: a secret is found in each of these forms: as it is; escaped for JSON or XML; percent-encoded, or
//! encoded as in an HTML form; and what [`redact_line`] leaves of it. Where secrets overlap, the replacement of the
//! longest is shown. If there are more secrets, or more forms of them, than the set holds, no text is shown at all:
//! nobody knows which texts quote the others.
//!
//! The caller decides which values are secrets, and which of them are too short to be looked for.

use std::collections::BTreeSet;

use super::escaped::forms_in_texts;
use super::redact::{STARS, redact_line};
use super::search::ranked_quotes_in;

/// The most secrets that a set holds, because every text is compared with each of them.
pub const QUOTED_SECRETS_MAX: usize = 256;
/// The most forms that a set holds, of all secrets together, for the same reason: a secret of many special characters
/// has several dozen.
const FORMS_MAX: usize = 4_096;
/// For a longer secret, only two forms are looked for: unchanged, and escaped for JSON as this program writes it. All
/// forms would take some hundred times its length.
const ALL_FORMS_BYTES_MAX: usize = 4 << 10;
/// A secret is also looked for as what [`redact_line`] leaves of it, if that has at least this many characters.
const MASKED_CHARS_MIN: usize = 6;

/// Secrets that are looked for in texts.
#[derive(Default)]
pub struct QuotedSecrets {
    /// Each secret with the forms in which texts quote it; the longest secret first.
    secrets: Vec<(String, BTreeSet<String>)>,
    /// How many forms they have together.
    forms: usize,
    is_full: bool,
}

impl QuotedSecrets {
    /// The set for texts whose secrets are not all known: none of the texts is shown.
    pub fn of_unknown() -> Self {
        Self { is_full: true, ..Self::default() }
    }

    /// Adds a secret.
    pub fn add(&mut self, secret: &str) {
        if self.is_full || secret.is_empty() || self.contains(secret) {
            return;
        }
        let forms = match secret.len() <= ALL_FORMS_BYTES_MAX {
            true => forms_in_shown_texts(secret, MASKED_CHARS_MIN),
            false => BTreeSet::from([secret.to_owned(), in_json(secret)]),
        };
        self.forms += forms.len();
        if self.secrets.len() == QUOTED_SECRETS_MAX || self.forms > FORMS_MAX {
            *self = Self::of_unknown();
            return;
        }
        let place = self.secrets.partition_point(|(known, _)| known.len() >= secret.len());
        self.secrets.insert(place, (secret.to_owned(), forms));
    }

    /// Whether there are secrets that the set does not hold, so that no text is shown.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether this text is one of the secrets; always, if there were more than the set holds.
    pub fn contains(&self, text: &str) -> bool {
        self.is_full || self.secrets.iter().any(|(known, _)| known == text)
    }

    /// The text with each secret in it replaced by what `replace` makes of the secret. If there were more secrets than
    /// the set holds: what `replace` makes of the whole text.
    pub fn hide(&self, text: &str, replace: &dyn Fn(&str) -> String) -> String {
        if self.is_full {
            return replace(text);
        }
        let ranked = self.secrets.iter().enumerate();
        let forms = ranked.flat_map(|(rank, (_, forms))| forms.iter().map(move |form| (rank, form.as_str())));
        let (mut shown, mut written) = (String::with_capacity(text.len()), 0);
        for (place, rank) in ranked_quotes_in(text, forms) {
            shown.push_str(&text[written..place.start]);
            shown.push_str(&self.secrets.get(rank).map_or_else(|| STARS.to_owned(), |(secret, _)| replace(secret)));
            written = place.end;
        }
        shown.push_str(&text[written..]);
        shown
    }
}

/// A text as this program writes it within a string of a JSON document.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The forms in which shown texts quote a value. One of them is what is left of the value once the credentials in it
/// are masked by their names, if that has at least `masked_chars_min` characters.
pub fn forms_in_shown_texts(value: &str, masked_chars_min: usize) -> BTreeSet<String> {
    let mut forms = forms_in_texts(value);
    let masked = redact_line(value);
    // `***` and `Bearer ***` are left of many secrets: a text that has them need not quote this one.
    let says_more = masked != STARS && !masked.ends_with(&format!(" {STARS}"));
    if masked != value && says_more && masked.chars().count() >= masked_chars_min {
        forms.extend(forms_in_texts(&masked));
    }
    forms
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets(values: &[&str]) -> QuotedSecrets {
        let mut secrets = QuotedSecrets::default();
        values.iter().for_each(|value| secrets.add(value));
        secrets
    }

    #[test]
    fn a_secret_is_found_in_each_encoding() {
        let known = secrets(&[r"Tr0ub4dor\3", "a/b+c==", "p@ssw0rd1", "see you 9"]);
        let hidden = |text: &str| known.hide(text, &|_| STARS.to_owned());
        assert_eq!(hidden(&json!({"said": r"not Tr0ub4dor\3!"}).to_string()), r#"{"said":"not ***!"}"#);
        assert_eq!(hidden("GET /s/a%2Fb%2Bc%3D%3D?note=p%40ssw0rd1&q=see+you+9"), "GET /s/***?note=***&q=***");
        assert_eq!(hidden("nothing of it: a/b+c="), "nothing of it: a/b+c=");
    }

    #[test]
    fn a_secret_is_found_after_credentials_in_it_were_masked() {
        let link = "https://ann:pw@shop.example/PRIVATE?token=abc&n=7";
        assert_eq!(secrets(&[link]).hide(&redact_line(link), &|_| STARS.to_owned()), STARS);
    }

    #[test]
    fn the_longest_is_replaced_first_and_each_by_what_stands_for_it() {
        for order in [["token-1", "token-1-long"], ["token-1-long", "token-1"]] {
            let hidden = secrets(&order).hide("token-1-long token-1", &|secret| format!("<{}>", secret.len()));
            assert_eq!(hidden, "<12> <7>");
        }
    }

    #[test]
    fn where_secrets_overlap_nothing_of_them_is_left() {
        let hidden = secrets(&["abcdef-1", "ef-1ghi", "n-2"]).hide("abcdef-1ghi n-2", &|secret| format!("<{secret}>"));
        assert_eq!(hidden, "<abcdef-1> <n-2>");
    }

    /// Without optimisation, to decode this text for each secret takes minutes, and once a second.
    #[test]
    fn a_text_is_decoded_once_for_all_secrets() {
        let mut known = QuotedSecrets::default();
        (0..QUOTED_SECRETS_MAX).for_each(|n| known.add(&format!("secret {n:04}")));
        let text = "%73ecret+0001 \\u0073ecret%200002 &amp; ".repeat(1 << 13);
        let begin = std::time::Instant::now();
        let hidden = known.hide(&text, &|_| STARS.to_owned());
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
        assert_eq!(hidden, "*** *** &amp; ".repeat(1 << 13));
    }

    #[test]
    fn with_more_secrets_than_are_held_no_text_is_shown() {
        let mut known = QuotedSecrets::default();
        (0..QUOTED_SECRETS_MAX).for_each(|n| known.add(&format!("secret-{n:04}")));
        known.add("secret-0000");
        assert_eq!((known.is_full(), known.hide("plain", &|_| "*".to_owned())), (false, "plain".to_owned()));
        known.add("one-more");
        assert_eq!((known.is_full(), known.hide("plain", &|_| "*".to_owned())), (true, "*".to_owned()));
    }
    #[test]
    fn the_forms_of_all_secrets_are_bounded_and_a_long_secret_has_two() {
        let mut known = QuotedSecrets::default();
        (0..QUOTED_SECRETS_MAX).for_each(|n| known.add(&format!("é\"/<+{n:04}")));
        assert!(known.is_full() && known.contains("anything"), "fewer secrets, but each has many forms");
        let long = format!("{}é/+\"", "x".repeat(ALL_FORMS_BYTES_MAX));
        let known = secrets(&[&long]);
        assert_eq!(known.forms, 2);
        let quoted = json!({ "a": long }).to_string();
        assert_eq!(known.hide(&quoted, &|_| STARS.to_owned()), r#"{"a":"***"}"#);
    }
}
