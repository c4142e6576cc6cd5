//! Which names are secret: those that are built in, and those that the files declare for the whole process. Only this
//! module decides that.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;

/// A name as names are compared: `X-Customer_Ref` and `xCustomerRef` are one.
pub(super) fn plain_name(name: &str) -> String {
    name.chars().map(narrow).filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The ASCII character that corresponds to a full-width one; any other character unchanged.
fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        c => c,
    }
}

/// Words that make a key secret wherever they occur in it.
const SECRET_WORDS: &[&str] = &[
    "authorization",
    "cookie",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "credential",
    "cardnumber",
    "creditcard",
    "privatekey",
    "accesskey",
    "signature",
    "sessionid",
];
/// Words that make a key secret if they are a whole part of it (`card`, `card_cvv`, but not `discard`).
const SECRET_PARTS: &[&str] =
    &["card", "pan", "cvv", "cvc", "iban", "ssn", "pin", "pwd", "auth", "otp", "session", "jwt", "sig"];
/// Those of `SECRET_PARTS` that have no other meaning.
const STRONG_PARTS: &[&str] = &["cvv", "cvc", "iban", "ssn", "pwd", "otp", "jwt"];

/// The longest key that is taken for the name of a field below a secret name; a longer one may itself be a secret.
const FIELD_NAME_CHARS_MAX: usize = 24;

/// Whether the value under this key is secret.
pub fn is_secret(key: &str) -> bool {
    has_secret_word(key) || has_part_of(SECRET_PARTS, key) || is_secret_in_process(key)
}

/// Whether a key has one of the words that make it secret wherever they occur.
fn has_secret_word(key: &str) -> bool {
    let plain = plain_name(key);
    SECRET_WORDS.iter().any(|word| plain.contains(word))
}

fn has_part_of(words: &[&str], key: &str) -> bool {
    // `cardHolder`, `card_holder` and `card-holder` have the same parts.
    let mut parts = vec![String::new()];
    let mut lower_before = false;
    for c in key.chars().map(narrow) {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower_before) {
            parts.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(part) = parts.last_mut()
        {
            part.extend(c.to_lowercase());
        }
        lower_before = c.is_lowercase();
    }
    // The digits of a numbered field do not count: `cvv2`, `pin1`.
    parts.iter().any(|part| words.contains(&part.trim_end_matches(|c: char| c.is_ascii_digit())))
}

/// Whether a key is secret only because of a word that also has harmless meanings: the session of a conference, a card
/// for a birthday.
pub fn is_weakly_secret(key: &str) -> bool {
    let is_strong = has_secret_word(key) || has_part_of(STRONG_PARTS, key) || is_secret_in_process(key);
    !is_strong && has_part_of(SECRET_PARTS, key)
}

/// The name of one of the values of a list with this name: `pin` of `pins`.
pub fn singular(name: &str) -> Option<&str> {
    name.strip_suffix(['s', 'S']).filter(|name| !name.is_empty())
}

/// Whether a key below a secret name is plainly the name of a field: `number` in `card`.
pub fn is_field_name(key: &str) -> bool {
    key.len() <= FIELD_NAME_CHARS_MAX && key.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-'))
}

/// The names that `redact:` of pointsman.yaml declares. They are known to the whole process, because the log and the
/// access log show texts that belong to no route.
static NAMES_OF_PROCESS: LazyLock<ArcSwap<Vec<String>>> = LazyLock::new(ArcSwap::default);

/// Sets the names that are secret everywhere in this process, in place of those that were set before.
pub fn set_secret_names(names: &[String]) {
    NAMES_OF_PROCESS.store(Arc::new(names.iter().map(|name| plain_name(name)).collect()));
}

/// Whether a name is one of those that [`set_secret_names`] set last, or has such a part.
fn is_secret_in_process(name: &str) -> bool {
    has_declared(&NAMES_OF_PROCESS.load(), name)
}

/// What may stand between the parts of a nested name: `order[customer_ref][0]`, `order.customer_ref`,
/// `/customer_ref/0`.
const PART_DELIMITERS: [char; 5] = ['[', ']', '.', '/', ':'];

/// Whether a name, or a part of a nested name, is one of `names`, which are plain ([`plain_name`]). The parts count
/// because what is below a secret name is secret.
pub(super) fn has_declared(names: &[String], name: &str) -> bool {
    let has = |name: &str| names.contains(&plain_name(name));
    let is_nested = || name.contains(PART_DELIMITERS);
    !names.is_empty() && (has(name) || is_nested() && name.split(PART_DELIMITERS).any(has))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::redact_line;

    #[test]
    fn names_of_the_process_are_secret_everywhere() {
        assert!(is_secret("\u{ff50}assword") && is_secret("\u{ff30}\u{ff29}\u{ff2e}"), "full-width letters");
        assert!(!is_secret("customer_ref"));
        set_secret_names(&["customer_ref".to_owned()]);
        assert!(is_secret("customerRef") && redact_line("/x?customer_ref=7") == "/x?customer_ref=***");
        assert_eq!(redact_line("/x?order[customer_ref]=7&n=1"), "/x?order[customer_ref]=***&n=1");
        assert_eq!(redact_line("/x?order%5BcustomerRef%5D=7"), "/x?order%5BcustomerRef%5D=***");
        assert_eq!(redact_line("/x?c[customer_ref][0]=7&c[n][0]=1"), "/x?c[customer_ref][0]=***&c[n][0]=1");
        assert_eq!(redact_line("/x?c%5Bcustomer_ref%5D%5B%5D=7"), "/x?c%5Bcustomer_ref%5D%5B%5D=***");
        set_secret_names(&[]);
        assert!(!is_secret("customer_ref"));
    }
}
