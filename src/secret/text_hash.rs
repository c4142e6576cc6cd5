//! The hash that is shown after the text of a rule (of a comparison, an invariant, a cohort, a key) in which something
//! is masked: it tells apart texts that differ only in what is masked.
//!
//! Always true: equal texts have equal hashes, so that another literal in a rule shows as another text, also after a
//! restart with the same store. Nobody without the key can find a literal by trying all of them; without a key there is
//! no hash.

/// How many hexadecimal digits of the hash are shown.
const DIGITS: usize = 16;
/// The context of the key derivation: separates this key from others that are derived from the same secret.
const CONTEXT: &str = "pointsman 2026-11-29 masked texts of rules";

/// Tells apart texts that are equal once something is masked in them.
#[derive(Clone, Default, PartialEq)]
pub enum TextHash {
    /// No hash: there is no store, and so no key.
    #[default]
    None,
    /// The hash of earlier versions, which has no key. Never shown; it serves to recognise what those versions stored.
    Unkeyed,
    /// A hash under a key of the store.
    Keyed {
        /// The key.
        key: [u8; 32],
        /// The key that was used before the store had a `store_key`.
        earlier: Option<[u8; 32]>,
    },
}

impl TextHash {
    /// The hash under a key that is derived from `store_key`, or from the store's own secret if there is none.
    pub fn derived_from(store_key: Option<&[u8]>, store_secret: &[u8; 32]) -> Self {
        let of_secret = blake3::derive_key(CONTEXT, store_secret);
        match store_key {
            Some(store_key) => Self::Keyed { key: blake3::derive_key(CONTEXT, store_key), earlier: Some(of_secret) },
            None => Self::Keyed { key: of_secret, earlier: None },
        }
    }

    /// The hashes by which the same store may have told texts apart before.
    pub fn earlier(&self) -> Vec<Self> {
        match self {
            Self::None | Self::Unkeyed => Vec::new(),
            Self::Keyed { key: _, earlier } => {
                let of_secret = earlier.map(|key| Self::Keyed { key, earlier: None });
                [Self::Unkeyed].into_iter().chain(of_secret).collect()
            }
        }
    }

    /// The hash of a text; `None` without a key.
    pub fn of(&self, text: &str) -> Option<blake3::Hash> {
        match self {
            Self::None => None,
            Self::Unkeyed => Some(blake3::hash(text.as_bytes())),
            Self::Keyed { key, earlier: _ } => Some(blake3::keyed_hash(key, text.as_bytes())),
        }
    }

    /// What is appended to a text in which something is masked; empty without a key.
    pub fn suffix(&self, text: &str) -> String {
        self.of(text).map(|hash| format!(" ({})", &hash.to_hex()[..DIGITS])).unwrap_or_default()
    }

    /// `shown`, followed by the hash of the text if something is masked in `shown`.
    pub fn append_if_masked(&self, text: &str, shown: String) -> String {
        match shown == text {
            true => shown,
            false => shown + &self.suffix(text),
        }
    }
}

impl std::fmt::Debug for TextHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Unkeyed => "Unkeyed",
            Self::Keyed { .. } => "Keyed(***)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_be_found_by_trying_all_without_the_key() {
        let (text, shown) = ("${request.query.pin == 1234}", "${request.query.pin == ***}");
        let with_hash = |hash: &TextHash, text: &str| hash.append_if_masked(text, shown.to_owned());
        let of_store = TextHash::derived_from(None, &[1; 32]);
        let one = with_hash(&of_store, text);
        assert_eq!(one, with_hash(&TextHash::derived_from(None, &[1; 32]), text), "after a restart");
        assert!(one.starts_with(shown) && one.len() == shown.len() + DIGITS + 3, "{one}");
        assert_ne!(one, with_hash(&of_store, "${request.query.pin == 1235}"));
        assert_ne!(one, with_hash(&TextHash::derived_from(None, &[2; 32]), text));
        assert_ne!(one, with_hash(&TextHash::Unkeyed, text));
        assert_eq!(with_hash(&TextHash::None, text), shown, "no hash at all rather than one without a key");
        assert_eq!(
            of_store.append_if_masked("${request.query.a}", "${request.query.a}".to_owned()),
            "${request.query.a}"
        );
    }

    #[test]
    fn what_the_store_had_before_its_store_key_is_known() {
        let (before, now) = (
            TextHash::derived_from(None, &[1; 32]),
            TextHash::derived_from(Some(b"a key of thirty-two bytes......."), &[1; 32]),
        );
        assert!(now != before && now.earlier().contains(&before) && now.earlier().contains(&TextHash::Unkeyed));
        assert_eq!(before.earlier(), [TextHash::Unkeyed]);
        assert_eq!(format!("{now:?}"), "Keyed(***)");
    }
}
