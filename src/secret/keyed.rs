//! What stands in place of a redacted value where equality has to stay visible: a keyed hash of it.
//!
//! Always true: equal values have equal texts and different values different ones (64 bits of BLAKE3), within one key;
//! without the key, nobody can find a value by trying all of them. A number and a text of the same characters count as
//! one value, because one service takes a card as a number and the other as a text.

use serde_json::Value;

/// The beginning of the placeholder of a redacted value.
pub const REDACTED: &str = "[redacted ";
/// How many hexadecimal digits of the hash are shown.
const DIGITS: usize = 16;
/// The context of the key derivation: separates this key from others that are derived from the same secret.
const CONTEXT: &str = "pointsman 2026-11-26 redacted values";

/// The key of the hashes that stand in place of redacted values.
#[derive(Clone)]
pub struct RedactionKey([u8; 32]);

impl RedactionKey {
    /// The key that is derived from the store's secret, or from `store_key`.
    pub fn derived_from(secret: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }

    /// The placeholder of a text. A text that is itself a placeholder stays as it is.
    pub fn redacted(&self, text: &str) -> String {
        if is_redacted(text) {
            return text.to_owned();
        }
        let hash = blake3::keyed_hash(&self.0, text.as_bytes()).to_hex();
        format!("{REDACTED}{}]", &hash[..DIGITS])
    }

    /// The placeholder of a value.
    pub fn redacted_value(&self, value: &Value) -> String {
        match value {
            Value::String(text) => self.redacted(text),
            other => self.redacted(&other.to_string()),
        }
    }
}

impl std::fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Whether a text is nothing but the placeholder of one value.
pub fn is_redacted(text: &str) -> bool {
    let hash = text.strip_prefix(REDACTED).and_then(|rest| rest.strip_suffix(']'));
    hash.is_some_and(|hash| hash.len() == DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_equal_texts_and_the_key_matters() {
        let key = RedactionKey::derived_from(&[1; 32]);
        let card = key.redacted("4111111111111111");
        assert_eq!(card, key.redacted_value(&json!(4_111_111_111_111_111_u64)));
        assert_eq!(card, key.redacted(&card), "not redacted twice");
        assert!(is_redacted(&card) && !is_redacted("[redacted 1]") && !card.contains("4111"));
        assert_ne!(card, key.redacted("4111111111111112"));
        assert_ne!(card, RedactionKey::derived_from(&[2; 32]).redacted("4111111111111111"));
    }
}
