//! What names an instance, and what names a client's retry.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{RouteId, RunId};

/// A family (the creator's route id) and an instance's id in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinKey {
    /// The creator's route id.
    pub family: RouteId,
    /// The instance's id as text, as it stands in the reply and in paths.
    pub id: Arc<str>,
}

/// An instance that a request follows up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// Family and id, as the caller knows it.
    pub key: PinKey,
    /// The run that created it on the engine's side (real or dark), where there is one.
    pub run: Option<RunId>,
}

/// A client's retry key, scoped by route and caller and hashed, so that no credential is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RetryKey(pub [u8; 32]);

impl RetryKey {
    /// The key under which the engine has one request, whoever sent it: `self` is for any caller. All requests of one such
    /// key share the first half, so that a set can tell before the request's body has come.
    pub fn of_request(&self, digest: &[u8; 32]) -> Self {
        let half = |part: &[u8]| *blake3::keyed_hash(&self.0, part).as_bytes();
        let mut key = half(b"first half");
        key[16..].copy_from_slice(&half(digest)[16..]);
        Self(key)
    }
}

/// What tells a client's retry of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryKeys {
    /// Scoped by route and caller.
    pub scoped: RetryKey,
    /// Scoped by the route alone, where the caller's scope is a credential that nobody verified: it may be another one
    /// in the same caller's next try.
    pub any_caller: Option<RetryKey>,
}
