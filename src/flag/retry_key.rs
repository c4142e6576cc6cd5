//! The keys by which a client's retry is recognised, and the keys under which each arm records a request.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// A client's retry key, scoped by route and caller and hashed, so that no credential is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RetryKey(pub [u8; 32]);

impl RetryKey {
    /// Derives the key of a request from the request's digest; `self` is a key for any caller
    /// ([`RetryKeys::any_caller`]). All keys that are derived from one `self` share their first half, so that a set of
    /// first halves can answer before the body was read.
    pub fn of_request(&self, digest: &[u8; 32]) -> Self {
        self.with_second_half_of(Self(*blake3::keyed_hash(&self.0, digest).as_bytes()))
    }
    /// Derives the key of a request of one verified caller, whose own key is `scoped`; `self` is a key for any caller.
    /// The key differs from the keys of the same request of all other callers, so that it never conflicts with them,
    /// and shares their first three quarters, so that [`RetryKey::range_of_request`] includes all of them.
    pub fn of_verified_request(&self, digest: &[u8; 32], scoped: &Self) -> Self {
        let Self(mut key) = self.of_request(digest);
        key[24..].copy_from_slice(&scoped.0[24..]);
        Self(key)
    }
    /// Returns the least and the greatest key under which an earlier try of the same caller with this digest may have
    /// been recorded; `self` is a key for any caller. For an unverified caller the range includes the keys of all
    /// verified callers, because its earlier try may have been verified. For a verified caller it is only the key of
    /// unverified tries: its verified tries have its own key, and other verified callers are never the same caller.
    pub fn range_of_request(&self, digest: &[u8; 32], is_verified: bool) -> RangeInclusive<Self> {
        let of_request = self.of_request(digest);
        let with_last_quarter = |byte: u8| self.of_verified_request(digest, &Self([byte; 32]));
        if is_verified { of_request..=of_request } else { with_last_quarter(0)..=with_last_quarter(0xff) }
    }
    /// Derives the key that records that legacy took a request of any verified caller; `self` is a key for any caller.
    pub fn of_verified_callers(&self) -> Self {
        Self(*blake3::keyed_hash(&self.0, b"verified callers").as_bytes())
    }
    /// Derives the key of one caller; `self` is a key for any caller. The derived key shares its first half with the
    /// keys of requests, so that a set of first halves needs one entry for both.
    pub(super) fn of_caller(&self, scoped: Self) -> Self {
        self.with_second_half_of(scoped)
    }
    /// Returns the least and the greatest key that callers and requests can have; `self` is a key for any caller.
    pub fn range(&self) -> RangeInclusive<Self> {
        self.with_second_half_of(Self([0; 32]))..=self.with_second_half_of(Self([0xff; 32]))
    }
    fn with_second_half_of(&self, other: Self) -> Self {
        let mut key = *blake3::keyed_hash(&self.0, b"first half").as_bytes();
        key[16..].copy_from_slice(&other.0[16..]);
        Self(key)
    }
}

/// The retry keys of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryKeys {
    /// The key that is scoped by route and caller.
    pub scoped: RetryKey,
    /// The key that is scoped by the route and the headers that are no credentials; set if the caller's scope is a
    /// credential that nobody verified, because the same caller's next try may have another one.
    pub any_caller: Option<RetryKey>,
    /// Set for a verified caller: the `any_caller` key that the caller's next try would have if the token of that try
    /// could not be verified (an issuer may sign with a new key before the files have it). Nothing is recorded under
    /// this key itself, but under two keys that are derived from it: [`RetryKeys::verified_callers`] if legacy takes
    /// the request, [`RetryKey::of_verified_request`] if the engine does. For a verified request, none of the three is
    /// looked up under the files in force: otherwise a caller whom nobody verified could reserve keys against a
    /// verified one. Under earlier files that could not verify the caller's token, `any_caller` is looked up.
    pub unverified_retry: Option<RetryKey>,
    /// Set if the files verify tokens: one key for all verified callers with the same value of `retry_key`. It records
    /// that legacy took a request of one of them. Looked up for requests whose tokens cannot be verified, and for no
    /// others, so that verified callers reserve nothing against each other.
    pub verified_callers: Option<RetryKey>,
}

impl From<RetryKey> for RetryKeys {
    /// The keys of a request whose retries have only this key.
    fn from(scoped: RetryKey) -> Self {
        Self { scoped, any_caller: None, unverified_retry: None, verified_callers: None }
    }
}

impl RetryKeys {
    /// Whether these are the keys of a caller whose token was verified, and whose retries may have tokens that cannot
    /// be.
    pub fn is_verified(&self) -> bool {
        self.unverified_retry.is_some()
    }
    /// All keys under which it is recorded that legacy took the request.
    pub fn of_legacy(self) -> impl Iterator<Item = RetryKey> {
        let verified_callers = self.verified_callers.filter(|_| self.is_verified());
        [Some(self.scoped), self.any_caller, verified_callers].into_iter().flatten()
    }
    /// The keys under which legacy may have taken a first try of the same caller with another credential.
    pub fn of_legacy_under_other_credentials(self) -> impl Iterator<Item = RetryKey> {
        self.any_caller.into_iter().chain(self.looked_up_verified_callers())
    }
    /// [`RetryKeys::verified_callers`] if this request has to look it up, that is, if its own caller is not verified. A
    /// request that legacy took under this key may be another caller's.
    pub fn looked_up_verified_callers(self) -> Option<RetryKey> {
        self.verified_callers.filter(|_| !self.is_verified())
    }
}
