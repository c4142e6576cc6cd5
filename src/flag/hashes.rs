//! PURE. Keyed hashes of a request: the bucket that places a caller inside or outside a share, and the retry key.
//!
//! The question it answers: "is this caller among the first N percent?" Always true: the same secret, family and key
//! give the same bucket, so that raising a share only adds keys, and a caller in 10 % live is also in 20 % dark. The
//! share of `shadow` (sampling) and the shares of `dark` and `live` are hashed under different keys, so that the sample
//! does not depend on who is in `dark` or `live`. The family is hashed instead of the route, so that a caller's
//! follow-ups are on the same side of the share as the request that created the instance.

use super::exact_text::ByteForm;
use super::facts::values_once;
use super::key_text::{AmbiguousKey, key_of_request};
use super::retry::KeyForm;
use super::{CallerScope, EarlierScope, Percent, RequestFacts, RetryKey, RetryKeys, Route, VerifiedCaller};
use crate::names::RouteId;

/// The keys of the hashes, one for each purpose.
pub struct HashKeys {
    sample: [u8; 32],
    /// The key for the shares of `dark` and `live`.
    dark_live: [u8; 32],
    retry: [u8; 32],
    /// The key for the shares of candidates.
    candidate: [u8; 32],
}

/// A number from 0 to 9,999. It is inside a share if it is below the share in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(u16);

impl HashKeys {
    /// Derives the hash keys from the store's secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let derive = |name: &[u8]| *blake3::keyed_hash(secret, name).as_bytes();
        // "cohort" is kept, although it is no longer the name: another text would select other callers for the shares.
        Self {
            sample: derive(b"share: sample"),
            dark_live: derive(b"share: cohort"),
            retry: derive(b"retry"),
            candidate: derive(b"share: candidate"),
        }
    }
    /// The bucket of a key for sampling in `shadow`.
    pub fn sampling_bucket(&self, family: &RouteId, key: &str) -> Bucket {
        bucket(&self.sample, family, key)
    }
    /// The bucket of a key for the shares of `dark` and `live`.
    pub fn dark_live_bucket(&self, family: &RouteId, key: &str) -> Bucket {
        bucket(&self.dark_live, family, key)
    }
    /// The bucket of a caller's key, or of an instance, for the share of a candidate.
    pub fn candidate_bucket(&self, family: &RouteId, key: &str) -> Bucket {
        bucket(&self.candidate, family, key)
    }
    /// The hashed retry keys, scoped by route and caller. `None` if the request has none. The route's oldest id is
    /// hashed, so that a renamed route keeps its keys.
    ///
    /// # Errors
    /// See [`AmbiguousKey`].
    pub fn retry_keys(&self, route: &Route, facts: &RequestFacts<'_>) -> Result<Option<RetryKeys>, AmbiguousKey> {
        let form = KeyForm::of(&route.caller);
        let key = key_of_request(route.retry_key.as_ref(), ByteForm::Exact, facts)?;
        let verified = || verified_caller(&route.caller, facts);
        Ok(key.map(|key| self.derive_keys(route.first_id(), &key, &route.caller, form, facts, verified().as_ref())))
    }
    /// The retry keys under a scope of earlier files:
    ///
    /// - None if the scope is no longer looked up, or if the request has no key or an ambiguous one under it.
    /// - Two if the scope verifies tokens and its public keys do not verify the request's, but those of other files do
    ///   (`verified_elsewhere`): the issuer may have changed its key since the first try, whose token may have been
    ///   verified.
    /// - One otherwise.
    pub fn earlier_retry_keys(
        &self,
        earlier: &EarlierScope,
        facts: &RequestFacts<'_>,
        verified_elsewhere: &dyn Fn() -> Option<VerifiedCaller>,
    ) -> impl Iterator<Item = RetryKeys> + use<> {
        let EarlierScope { route, key, caller, form, bytes, times, matched: _ } = earlier;
        let is_looked_up = facts.now_s < times.retries_until_s;
        let key = is_looked_up.then(|| key_of_request(key.as_ref(), *bytes, facts).ok().flatten()).flatten();
        let keys = key.map(|key| {
            let verified = verified_caller(caller, facts);
            let elsewhere = if caller.token.is_some() && verified.is_none() { verified_elsewhere() } else { None };
            let keys =
                |verified: Option<&VerifiedCaller>| self.derive_keys(route, &key, caller, *form, facts, verified);
            let (own, elsewhere) = (keys(verified.as_ref()), elsewhere.map(|verified| keys(Some(&verified))));
            [Some(own), elsewhere]
        });
        keys.into_iter().flatten().flatten()
    }
    fn derive_keys(
        &self,
        route: &RouteId,
        key: &[u8],
        caller: &CallerScope,
        form: KeyForm,
        facts: &RequestFacts<'_>,
        verified: Option<&VerifiedCaller>,
    ) -> RetryKeys {
        let mut parts = KeyHasher(blake3::Hasher::new_keyed(&self.retry));
        parts.add(route.as_str().as_bytes());
        parts.add(key);
        let mut any_caller = parts.clone();
        any_caller.add(b"\0any caller");
        if form == KeyForm::LastingHeaders {
            add_headers(&mut any_caller, caller.lasting_headers(), facts);
        }
        let any_caller = caller.is_refreshable().then(|| any_caller.key());
        let verified_callers =
            any_caller.filter(|_| caller.token.is_some()).map(|any_caller| any_caller.of_verified_callers());
        if let Some(VerifiedCaller { issuer, subject }) = verified {
            parts.add(issuer.as_bytes());
            parts.add(subject.as_bytes());
            // Without a verified token, a list of parts ends with a header name or with `\0any caller`, or has only two
            // parts: it is never equal to this list, so the keys never collide.
            parts.add(b"\0verified");
            return RetryKeys { scoped: parts.key(), any_caller: None, unverified_retry: any_caller, verified_callers };
        }
        add_headers(&mut parts, caller.headers.iter(), facts);
        let scoped = match &any_caller {
            Some(any_caller) if form != KeyForm::Whole => any_caller.of_caller(parts.key()),
            _ => parts.key(),
        };
        RetryKeys { scoped, any_caller, unverified_retry: None, verified_callers }
    }
}

fn verified_caller(scope: &CallerScope, facts: &RequestFacts<'_>) -> Option<VerifiedCaller> {
    scope.token.as_ref()?.verify(facts.headers)
}

fn add_headers<'n>(parts: &mut KeyHasher, names: impl Iterator<Item = &'n http::HeaderName>, facts: &RequestFacts<'_>) {
    for name in names {
        for value in values_once(facts.headers, name) {
            parts.add(value.as_bytes());
        }
        parts.add(name.as_str().as_bytes());
    }
}

/// Hashes a list of parts.
#[derive(Clone)]
struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// Adds a part, prefixed with its length, so that different lists of parts have different hashes.
    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    fn key(&self) -> RetryKey {
        RetryKey(*self.0.finalize().as_bytes())
    }
}

fn bucket(hash_key: &[u8; 32], family: &RouteId, key: &str) -> Bucket {
    let mut hasher = blake3::Hasher::new_keyed(hash_key);
    hasher.update(family.as_str().as_bytes()).update(&[0]).update(key.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Bucket::from_hash(u64::from_le_bytes(first))
}

impl Bucket {
    /// The bucket of a uniformly distributed number.
    pub fn from_hash(number: u64) -> Self {
        // The upper part of the product is below 10,000.
        Self(u16::try_from((u128::from(number) * 10_000) >> 64).unwrap_or(u16::MAX))
    }
    /// Whether the bucket is inside a share.
    pub fn is_in(self, share: Percent) -> bool {
        self.0 < share.hundredths()
    }
}
