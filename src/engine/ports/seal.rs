//! Encrypts callers' credentials and sensitive values for the store, and hashes the names of locks.
//!
//! Always true: a run's credentials are sealed with a key of their own. That key is sealed with one derived from
//! `store_key`, and is deleted from the store in the commit that ends the run. So the store alone reveals nothing, and
//! the store with `store_key` reveals no credentials of runs that have ended.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::names::RunId;
use crate::secret::Secret;
use crate::workflow::HASHED_LOCK;

const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
/// The length of the tag by which a sealed value is authenticated.
const TAG_BYTES: usize = 16;

/// Encrypts and decrypts.
pub(in crate::engine) struct Sealer {
    credentials: Option<XChaCha20Poly1305>,
    /// Encrypts sensitive values, which can be opened for as long as their run is stored.
    values: Option<XChaCha20Poly1305>,
    /// Hashes the names of locks that are computed from sensitive values: a name has the same hash in every run.
    locks: Option<[u8; KEY_BYTES]>,
}

impl Sealer {
    /// Derives the ciphers from the store key. Without a store key nothing can be sealed.
    pub fn new(store_key: Option<&Secret>) -> Self {
        let cipher = |purpose: &str| {
            store_key.map(|key| XChaCha20Poly1305::new(&blake3::derive_key(purpose, key.reveal().as_bytes()).into()))
        };
        Self {
            credentials: cipher("pointsman 1 credentials of callers"),
            values: cipher("pointsman 1 sensitive values"),
            locks: store_key.map(|key| blake3::derive_key("pointsman 1 names of locks", key.reveal().as_bytes())),
        }
    }

    /// Whether anything can be sealed.
    pub fn has_key(&self) -> bool {
        self.values.is_some()
    }

    /// Seals a sensitive value; it opens only for the same run.
    pub fn seal_text(&self, run: RunId, text: &str) -> Option<String> {
        encrypt(self.values.as_ref()?, run, text.as_bytes()).map(|sealed| STANDARD.encode(sealed))
    }

    /// The hash that the table of locks has in place of a sensitive name; `None` without a store key. A name that is a
    /// hash already is returned as it is, because no lock that a run asks for is named like a hash. The hash depends on
    /// the store key, not on the store's own secret: otherwise somebody who has only the store could find out names by
    /// hashing likely ones.
    pub fn lock_hash(&self, name: &str) -> Option<String> {
        let hash = name.strip_prefix(HASHED_LOCK).filter(|hash| hash.len() == 2 * KEY_BYTES);
        if hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Some(name.to_owned());
        }
        Some(format!("{HASHED_LOCK}{}", blake3::keyed_hash(&self.locks?, name.as_bytes()).to_hex()))
    }

    /// Opens what [`Self::seal_text`] sealed for this run.
    pub fn open_text(&self, run: RunId, sealed: &str) -> Option<String> {
        String::from_utf8(decrypt(self.values.as_ref()?, run, &STANDARD.decode(sealed).ok()?)?).ok()
    }

    /// Whether this has the form of what [`Self::seal_text`] returns, under whatever key.
    pub fn has_sealed_form(sealed: &str) -> bool {
        STANDARD.decode(sealed).is_ok_and(|bytes| bytes.len() >= NONCE_BYTES + TAG_BYTES)
    }

    /// Seals credentials with a new key, and that key with the store key. `None` without a store key or randomness.
    pub fn seal(&self, run: RunId, credentials: &BTreeMap<String, String>) -> Option<Sealed> {
        let outer = self.credentials.as_ref()?;
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).ok()?;
        let inner = XChaCha20Poly1305::new(&key.into());
        let text = serde_json::to_vec(credentials).ok()?;
        Some(Sealed { credentials: STANDARD.encode(encrypt(&inner, run, &text)?), key: encrypt(outer, run, &key)? })
    }

    /// Opens the credentials of this run with its sealed key.
    pub fn open(&self, run: RunId, credentials: &str, key: &[u8]) -> Option<BTreeMap<String, String>> {
        let key: [u8; KEY_BYTES] = decrypt(self.credentials.as_ref()?, run, key)?.try_into().ok()?;
        let inner = XChaCha20Poly1305::new(&key.into());
        serde_json::from_slice(&decrypt(&inner, run, &STANDARD.decode(credentials).ok()?)?).ok()
    }
}

/// Sealed credentials.
pub(in crate::engine) struct Sealed {
    /// Goes into the run's first event.
    pub credentials: String,
    /// The sealed key, stored beside the run until the run ends.
    pub key: Vec<u8>,
}

fn encrypt(cipher: &XChaCha20Poly1305, run: RunId, text: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).ok()?;
    let payload = Payload { msg: text, aad: run.0.as_bytes() };
    let sealed = cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
    Some([&nonce[..], &sealed].concat())
}

fn decrypt(cipher: &XChaCha20Poly1305, run: RunId, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    cipher.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: run.0.as_bytes() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_hash_for_each_store_key() {
        let sealer = |key: &str| Sealer::new(Some(&Secret::new(key)));
        let hash = sealer("k").lock_hash("card:4711").unwrap();
        assert!(hash.starts_with("sensitive:") && !hash.contains("4711"), "{hash}");
        assert_eq!(sealer("k").lock_hash("card:4711").as_ref(), Some(&hash));
        assert_eq!(sealer("k").lock_hash(&hash).as_ref(), Some(&hash));
        assert_ne!(sealer("k").lock_hash("card:4712"), Some(hash.clone()));
        assert_ne!(sealer("other").lock_hash("card:4711"), Some(hash));
        assert_eq!(Sealer::new(None).lock_hash("card:4711"), None);
    }

    #[test]
    fn sealed_credentials_open_only_for_their_run_and_keys() {
        let run = RunId(uuid::Uuid::now_v7());
        let credentials = BTreeMap::from([("cookie".to_owned(), "sid=1".to_owned())]);
        let sealer = Sealer::new(Some(&Secret::new("k")));
        let Sealed { credentials: sealed, key } = sealer.seal(run, &credentials).unwrap();
        assert!(!sealed.contains("sid"));
        assert_eq!(sealer.open(run, &sealed, &key), Some(credentials.clone()));
        assert_eq!(sealer.open(RunId(uuid::Uuid::now_v7()), &sealed, &key), None);
        assert_eq!(Sealer::new(Some(&Secret::new("other"))).open(run, &sealed, &key), None);
        let other = sealer.seal(run, &credentials).unwrap();
        assert_eq!(sealer.open(run, &sealed, &other.key), None);
        assert!(Sealer::new(None).seal(run, &credentials).is_none());
    }
}
