//! Which keys of the files have a secret as their value.

use crate::secret::{is_secret, singular};

/// Names of secrets that are recognised even if they are misspelt.
const OFTEN_MISSPELT: [&str; 10] = [
    "api_key",
    "credential",
    "passwd",
    "password",
    "private_key",
    "redact_key",
    "secret",
    "store_key",
    "store_password",
    "token",
];

/// Whether the value of a key of the files is a secret, or a list of secrets. Also if the key is misspelt, because its
/// value would else be quoted as that of an unknown key.
pub(super) fn is_secret_name(name: &str) -> bool {
    let is_store_key = || {
        let letters = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
        letters.eq("storekey".chars())
    };
    is_store_key()
        || is_secret(name)
        || singular(name).is_some_and(is_secret)
        || OFTEN_MISSPELT.iter().any(|known| is_misspelt(name, known))
}

/// Whether a name is another one with a letter too many, too few, or wrong, or with two that are swapped.
fn is_misspelt(name: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(name, known) <= 1
}

/// Whether a text looks like the name of an environment variable. If not, it may be the secret itself.
pub(super) fn is_variable_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}
