//! Redacts texts that are shown to people.
//!
//! Always true: stars replace
//!
//! - each value under a secret name (`names`), in every format that the text has or quotes (`walk`);
//! - a text that is a JWT, or what follows a scheme such as `Bearer` at the beginning of a text;
//! - the `user:password@` of a URL within a text;
//! - what a detector finds (`detect`).

use super::detect::Detectors;
use super::keyed::is_redacted;
use super::names::is_secret;
use super::walk::{FoundSecret, replace_secrets};

/// Shown in place of a secret.
pub const STARS: &str = "***";
/// The delimiters of a value that is encrypted in the store; the ciphertext is between them.
pub const SEALED: [&str; 2] = ["«sealed:", "»"];

/// Replaces the credentials in a text (a URL, a header, a string in a body), in whichever formats it has them (`walk`).
pub fn redact_line(text: &str) -> String {
    let mut stars = |found: FoundSecret<'_>| (!is_hidden(found.value)).then(|| STARS.to_owned());
    replace_secrets(text, &is_secret, Detectors::default(), &mut stars).unwrap_or_else(|| text.to_owned())
}

/// Whether nothing of a value is left: stars or a hash stand in its place.
pub fn is_hidden(value: &str) -> bool {
    value == STARS || is_redacted(value)
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
            ("postgres://u:pa#ss@db/x?a=b@c", "postgres://***@db/x?a=b@c"),
            ("to redis://:pa/s?s@w@db, by jo@x", "to redis://***@db, by jo@x"),
            ("http://npm:4873/@scope/a", "http://npm:4873/@scope/a"),
            ("https://[::1]/@scope http://x:80&to=a@b/c", "https://[::1]/@scope http://***@b/c"),
            ("http://x.y/a:b@c \"http://x:y/z\" a@b", "http://x.y/a:b@c \"http://x:y/z\" a@b"),
        ] {
            assert_eq!(redact_line(line), redacted);
        }
    }

    #[test]
    fn remarks_between_a_name_and_its_value_do_not_show_the_value() {
        for name in [
            "Password (case sensitive)",
            "Password (for the admin (root) user)",
            "Password (a) (b)",
            "Password [root]",
            "Password (a :) b)",
            "Password (of the user that the installation created for the administrator of the shop)",
        ] {
            assert_eq!(redact_line(&format!("{name}: hunter2")), format!("{name}: ***"));
            let json = serde_json::json!({ "text": format!("Dear Bob,\n{name}: hunter2\nBye") }).to_string();
            assert!(!redact_line(&json).contains("hunter2"), "{json}");
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
            "cvv2",
            "card_cvc2",
            "pin1",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["discard", "spinner", "company", "author", "total", "sku", "opinion", "spin1", "2"] {
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
