//! Redacts texts that are shown to people. Only this module decides which names are secret.
//!
//! Always true: a value under a secret name is replaced by stars, in JSON, queries and forms alike; so are a text that
//! begins with a scheme such as `Bearer` or that is a JWT, the `user:password@` of a URL within a text, and what a
//! detector finds in it (`detect`).

use percent_encoding::percent_decode_str;

use super::detect::{Detectors, replace_detected};
use super::names::is_secret_in_process;

/// Shown in place of a secret.
pub const STARS: &str = "***";
/// The delimiters of a value that is encrypted in the store; the ciphertext is between them.
pub const SEALED: [&str; 2] = ["«sealed:", "»"];

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
    &["card", "pan", "cvv", "cvc", "iban", "ssn", "pin", "pwd", "auth", "otp", "session", "jwt"];

/// Whether the value under this key is secret.
pub fn is_secret(key: &str) -> bool {
    let plain: String = key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if SECRET_WORDS.iter().any(|word| plain.contains(word)) {
        return true;
    }
    // `cardHolder`, `card_holder` and `card-holder` have the same parts.
    let mut parts = vec![String::new()];
    let mut lower_before = false;
    for c in key.chars() {
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
    parts.iter().any(|part| SECRET_PARTS.contains(&part.as_str())) || is_secret_in_process(key)
}

/// Replaces the credentials in a line of text (a URL, a header, a string in a body).
pub fn redact_line(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let scheme = ["bearer ", "basic ", "digest "].iter().find(|scheme| lower.trim_start().starts_with(**scheme));
    if let Some(scheme) = scheme {
        return format!("{}{STARS}", &text.trim_start()[..scheme.len()]);
    }
    if text.split('.').count() == 3 && text.starts_with("eyJ") {
        return STARS.to_owned();
    }
    let text = without_user_info(text);
    let text = replace_detected(&text, Detectors::default(), &mut |_| STARS.to_owned());
    let mut out = String::with_capacity(text.len());
    // `key=value` in queries and forms.
    for piece in text.split_inclusive(['?', '&', ';', '#']) {
        let (body, end) = match piece.char_indices().last() {
            Some((at, '?' | '&' | ';' | '#')) => piece.split_at(at),
            _ => (piece, ""),
        };
        match body.split_once('=') {
            Some((key, value)) if !value.is_empty() && is_secret_parameter(key) => {
                out.push_str(key);
                out.push('=');
                out.push_str(STARS);
            }
            _ => out.push_str(body),
        }
        out.push_str(end);
    }
    out
}

/// Whether the name of a parameter is secret, as written or percent-decoded.
fn is_secret_parameter(name: &str) -> bool {
    is_secret(name) || (name.contains('%') && is_secret(&percent_decode_str(name).decode_utf8_lossy()))
}

/// Replaces each `user:password@` of a URL in the text. Everything between `://` and the last `@` before the path
/// counts as one, so that more may be replaced if a URL is a value in a query.
fn without_user_info(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let authority = &piece[..piece.find(['/', '?', '#']).unwrap_or(piece.len())];
        out.push_str("://");
        match authority.rfind('@') {
            Some(at) => {
                out.push_str(STARS);
                out.push_str(&piece[at..]);
            }
            None => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_before_and_after_a_url_in_a_query_are_replaced() {
        for (line, redacted) in [
            ("/cb?token=T1&redirect=https://example.com&email=a@b.c", "/cb?token=***&redirect=https://***@b.c"),
            ("/cb?to=https://u:p@x/y&password=T2", "/cb?to=https://***@x/y&password=***"),
            ("/a?b=http://x/1&c=http://u:p@y/2", "/a?b=http://x/1&c=http://***@y/2"),
        ] {
            assert_eq!(redact_line(line), redacted);
        }
    }

    #[test]
    fn keys_with_secret_values_are_recognised() {
        for key in [
            "authorization",
            "Set-Cookie",
            "userPassword",
            "api_key",
            "x-api-key",
            "cardNumber",
            "card",
            "CVV",
            "IBAN",
            "access_token",
            "client-secret",
            "pin",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["discard", "spinner", "company", "author", "total", "sku", "opinion"] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn values_in_queries_and_forms_are_redacted_by_key() {
        assert_eq!(redact_line("amount=7&card_number=4111&note=a"), "amount=7&card_number=***&note=a");
        assert_eq!(redact_line("card%5Bnumber%5D=4111"), "card%5Bnumber%5D=***");
        assert_eq!(redact_line("/p?%63ard=4111&pass%57ord=x&%=1"), "/p?%63ard=***&pass%57ord=***&%=1");
        assert_eq!(redact_line("https://u:p@x/y?token=1&page=2"), "https://***@x/y?token=***&page=2");
        assert_eq!(redact_line("Bearer abc"), "Bearer ***");
    }
}
