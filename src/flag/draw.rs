//! PURE. Which side of a share a caller is on.
//!
//! The question it answers: "is this one among the first N percent?" Always true: the same secret, family and key give
//! the same place, so raising a share only adds keys, and whoever is in 10 % live is in 20 % dark. Sampling and cohort
//! use keys of their own, so that the sampled are no special part of the cohort. The family and not the route counts:
//! a caller's follow-ups stand where their creator stands.

use http::header::HeaderName;

use super::facts::scope;
use super::{Percent, RequestFacts, RetryKey, RetryKeys, Route, VerifiedCaller};
use crate::names::RouteId;

/// The keys of the hashes, one for each purpose.
pub struct Salts {
    sample: [u8; 32],
    cohort: [u8; 32],
    retry: [u8; 32],
}

/// A place from 0 to 9,999: inside a share where it is below the share's hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u16);

impl Salts {
    /// From the store's secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let salt = |name: &[u8]| *blake3::keyed_hash(secret, name).as_bytes();
        Self { sample: salt(b"share: sample"), cohort: salt(b"share: cohort"), retry: salt(b"retry") }
    }
    /// Where a key stands for sampling, in `shadow`.
    pub fn sample(&self, family: &RouteId, key: &str) -> Place {
        place(&self.sample, family, key)
    }
    /// Where a key stands for `dark` and `live`.
    pub fn cohort(&self, family: &RouteId, key: &str) -> Place {
        place(&self.cohort, family, key)
    }
    /// What tells a client's retry: hashed, and scoped by route and caller. `None` where the request names none.
    pub fn retry(&self, route: &Route, facts: &RequestFacts<'_>) -> Option<RetryKeys> {
        const DEFAULT: HeaderName = HeaderName::from_static("idempotency-key");
        let mut parts = Parts(blake3::Hasher::new_keyed(&self.retry));
        // A route keeps its keys when it is renamed.
        parts.add(route.first_id().as_str().as_bytes());
        match &route.retry_key {
            Some(template) => {
                let key = template.evaluate_text(&scope(template.reads(), facts)).ok();
                parts.add(key.filter(|key| !key.is_empty())?.as_bytes());
            }
            None => parts.add(facts.headers.get(DEFAULT).filter(|key| !key.is_empty())?.as_bytes()),
        }
        let mut any_caller = parts.clone();
        let verified = route.caller.token.as_ref().and_then(|keys| keys.verified(facts.headers, facts.now_s));
        if let Some(VerifiedCaller { issuer, subject }) = &verified {
            parts.add(issuer.as_bytes());
            parts.add(subject.as_bytes());
            // No name of a header, which is what stands last otherwise.
            parts.add(b"\0verified");
            return Some(RetryKeys { scoped: parts.key(), any_caller: None });
        }
        for name in &route.caller.headers {
            for value in facts.headers.get_all(name) {
                parts.add(value.as_bytes());
            }
            parts.add(name.as_str().as_bytes());
        }
        any_caller.add(b"\0any caller");
        let any_caller = route.caller.is_refreshable().then(|| any_caller.key());
        Some(RetryKeys { scoped: parts.key(), any_caller })
    }
}

/// A hash over a list of parts.
#[derive(Clone)]
struct Parts(blake3::Hasher);

impl Parts {
    /// With its length in front, so that no two lists of parts look alike.
    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    fn key(&self) -> RetryKey {
        RetryKey(*self.0.finalize().as_bytes())
    }
}

fn place(salt: &[u8; 32], family: &RouteId, key: &str) -> Place {
    let mut hasher = blake3::Hasher::new_keyed(salt);
    hasher.update(family.as_str().as_bytes()).update(&[0]).update(key.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Place::of_draw(u64::from_le_bytes(first))
}

impl Place {
    /// The place of an evenly drawn number.
    pub fn of_draw(draw: u64) -> Self {
        // The upper part of the product is below 10,000.
        Self(u16::try_from((u128::from(draw) * 10_000) >> 64).unwrap_or(u16::MAX))
    }
    /// Whether it is inside a share.
    pub fn is_in(self, share: Percent) -> bool {
        self.0 < share.hundredths()
    }
}
