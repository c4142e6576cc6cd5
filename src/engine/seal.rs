//! Credentials of callers, as ciphertext.
//!
//! Always true: what is sealed for one run opens only for that run, with the same key. The key is derived from
//! `store_key`, so who has the store alone reads nothing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::names::RunId;
use crate::secret::Secret;

const NONCE_BYTES: usize = 24;

/// Seals and opens.
pub(super) struct Sealer(Option<XChaCha20Poly1305>);

impl Sealer {
    /// With this key, if there is one.
    pub fn new(store_key: Option<&Secret>) -> Self {
        Self(store_key.map(|key| {
            let key = blake3::derive_key("pointsman 1 credentials of callers", key.reveal().as_bytes());
            XChaCha20Poly1305::new(&key.into())
        }))
    }

    /// Whether anything can be sealed.
    pub fn has_key(&self) -> bool {
        self.0.is_some()
    }

    /// Ciphertext of credentials; `None` without a key or without randomness.
    pub fn seal(&self, run: RunId, credentials: &BTreeMap<String, String>) -> Option<String> {
        let cipher = self.0.as_ref()?;
        let text = serde_json::to_vec(credentials).ok()?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let payload = Payload { msg: &text, aad: run.0.as_bytes() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed for this run.
    pub fn open(&self, run: RunId, sealed: &str) -> Option<BTreeMap<String, String>> {
        let cipher = self.0.as_ref()?;
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let payload = Payload { msg: sealed, aad: run.0.as_bytes() };
        serde_json::from_slice(&cipher.decrypt(&XNonce::from(nonce), payload).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_for_its_run_and_key() {
        let run = RunId(uuid::Uuid::now_v7());
        let credentials = BTreeMap::from([("cookie".to_owned(), "sid=1".to_owned())]);
        let sealer = Sealer::new(Some(&Secret::new("k")));
        let sealed = sealer.seal(run, &credentials).unwrap();
        assert!(!sealed.contains("sid"));
        assert_eq!(sealer.open(run, &sealed), Some(credentials.clone()));
        assert_eq!(sealer.open(RunId(uuid::Uuid::now_v7()), &sealed), None);
        assert_eq!(Sealer::new(Some(&Secret::new("other"))).open(run, &sealed), None);
        assert_eq!(Sealer::new(None).seal(run, &credentials), None);
    }
}
