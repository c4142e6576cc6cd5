//! What declares a value secret, and whether the value is then searched for in all texts.
//!
//! A value that is too short or too common is hidden only where it stands: in other texts it would be found by chance.

use crate::secret::{REDACTED, RedactRules, STARS, is_secret};

/// A shorter value that the files declare as secret is hidden only where it stands.
const DECLARED_BYTES_MIN: usize = 4;
/// The same for a value of which only a built-in name says that it is secret.
const NAMED_BYTES_MIN: usize = 6;
/// A value of nothing but letters, of which only a built-in name says that it is secret, is taken for a word, and not
/// searched for, if it has fewer letters: `{"auth": "required"}`.
const NAMED_LETTERS_MIN: usize = 12;
/// The end, as letters in lower case, of the names of values that say of which kind a token is: `token_type`,
/// `issued_token_type`.
const KIND_OF_TOKEN: &str = "tokentype";
/// What the names of passwords contain, as letters in lower case.
const PASSWORDS: [&str; 4] = ["passw", "passphrase", "pwd", "secret"];

/// What declares a value secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SecretSource {
    /// Only its name, by what is built in.
    Name,
    /// Only its name too, which is that of a password: words are passwords.
    PasswordName,
    /// The files.
    Rules,
}

impl SecretSource {
    /// What declares the value under this name secret; `None` if nothing does.
    pub(super) fn of_name(name: &str, rules: &RedactRules) -> Option<Self> {
        match rules.has_name(name) {
            true => Some(Self::Rules),
            false if is_secret(name) && is_password(name) => Some(Self::PasswordName),
            false => (is_secret(name) && !is_kind_of_token(name)).then_some(Self::Name),
        }
    }

    /// Whether a value is a secret wherever a text quotes it.
    pub(super) fn is_searched_in_texts(self, secret: &str) -> bool {
        // Where the whole secret is hidden already, what stands beside the stars is none: `Bearer ***`.
        let shown = secret.replace(STARS, "");
        let shown = shown.trim();
        let is_word = || shown.chars().all(char::is_alphabetic) && shown.chars().count() < NAMED_LETTERS_MIN;
        let is_long_enough = match self {
            Self::Rules => shown.len() >= DECLARED_BYTES_MIN,
            Self::Name => shown.len() >= NAMED_BYTES_MIN && !is_word(),
            Self::PasswordName => shown.len() >= NAMED_BYTES_MIN,
        };
        is_long_enough && !shown.contains(REDACTED)
    }
}

/// Whether a name is that of a kind of tokens, which is no secret: `token_type`.
pub(super) fn is_kind_of_token(name: &str) -> bool {
    plain(name).ends_with(KIND_OF_TOKEN)
}

/// Whether a secret name is that of a password.
fn is_password(name: &str) -> bool {
    let plain = plain(name);
    PASSWORDS.iter().any(|word| plain.contains(word))
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
