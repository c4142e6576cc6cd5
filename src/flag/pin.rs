//! The keys of pins and of client retries.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Route;
use crate::names::{RouteId, RunId};

/// A family, named by the route that creates its instances: the route's id, and its other ids. An instance may be
/// pinned under any of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Family {
    id: RouteId,
    /// Its creator's other ids, the newest first; see [`Route::was`].
    was: Arc<[RouteId]>,
}

impl Family {
    /// The family of a creator with this id and these other ids, the newest first.
    pub fn new(id: RouteId, was: Arc<[RouteId]>) -> Self {
        Self { id, was }
    }
    /// The family of what this route creates.
    pub fn of(creator: &Route) -> Self {
        Self::new(creator.id.clone(), creator.was.iter().cloned().collect())
    }
    /// Its creator's id now.
    pub fn id(&self) -> &RouteId {
        &self.id
    }
    /// Its creator's oldest id: a rename does not change it, so new instances are pinned under it, and a hash of it
    /// chooses the callers in a share.
    pub fn first_id(&self) -> &RouteId {
        self.was.last().unwrap_or(&self.id)
    }
    /// All ids that its creator has and had before.
    pub fn ids(&self) -> impl Iterator<Item = &RouteId> {
        std::iter::once(&self.id).chain(self.was.iter().filter(|id| **id != self.id))
    }
}

impl From<RouteId> for Family {
    /// The family of a creator without earlier ids.
    fn from(id: RouteId) -> Self {
        Self { id, was: Arc::default() }
    }
}

/// An instance as requests name it. Its pin is stored under one of its family's ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceKey {
    /// Its family.
    pub family: Family,
    /// Its id as text, as in the reply and in paths.
    pub id: Arc<str>,
}

impl InstanceKey {
    /// The keys under one of which its pin may be stored.
    pub fn pin_keys(&self) -> impl Iterator<Item = PinKey> {
        let ids = [Some(self.id.clone()), lower_case_uuid(&self.id).map(Arc::from)];
        let keys_in = move |family: &RouteId| {
            let family = family.clone();
            ids.clone().into_iter().flatten().map(move |id| PinKey { family: family.clone(), id })
        };
        self.family.ids().flat_map(keys_in)
    }
}

/// The spelling in lower case of an id that is a UUID with upper-case digits. Such an id is pinned and looked up under
/// both, because clients that parse a UUID may print it in the other case.
pub fn lower_case_uuid(id: &str) -> Option<String> {
    let is_uuid = matches!(id.len(), 32 | 36) && Uuid::try_parse(id).is_ok();
    (is_uuid && id.bytes().any(|byte| byte.is_ascii_uppercase())).then(|| id.to_ascii_lowercase())
}

impl From<PinKey> for InstanceKey {
    /// An instance of a family whose creator has no earlier ids.
    fn from(PinKey { family, id }: PinKey) -> Self {
        Self { family: family.into(), id }
    }
}

/// The key of a stored pin: an id that the family's creator has or had, and the instance's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinKey {
    /// The creator's route id, or an earlier one of it.
    pub family: RouteId,
    /// The instance's id as text, as in the reply and in paths.
    pub id: Arc<str>,
}

/// An instance that a request follows up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId {
    /// Its family and id, as the caller knows them.
    pub key: InstanceKey,
    /// The run that created it on the engine's side (real or dark), where there is one.
    pub run: Option<RunId>,
}

/// A client's retry key, scoped by route and caller and hashed, so that no credential is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RetryKey(pub [u8; 32]);

impl RetryKey {
    /// `self` is a key for any caller ([`RetryKeys::any_caller`]): derives a request's key from the request's digest.
    /// The keys of all its requests share their first half, so that a set of first halves can answer before the body
    /// was read.
    pub fn of_request(&self, digest: &[u8; 32]) -> Self {
        self.with_second_half_of(Self(*blake3::keyed_hash(&self.0, digest).as_bytes()))
    }
    /// `self` is a key for any caller: derives the key of a request of one verified caller, whose own key is `scoped`.
    /// It differs from the keys of the same request of all others, so that it never conflicts with them, and shares
    /// their first three quarters, so that [`RetryKey::range_of_request`] has them all.
    pub fn of_verified_request(&self, digest: &[u8; 32], scoped: &Self) -> Self {
        let Self(mut key) = self.of_request(digest);
        key[24..].copy_from_slice(&scoped.0[24..]);
        Self(key)
    }
    /// `self` is a key for any caller. Returns the least and the greatest key that a request with this digest can have
    /// as an earlier try of the same caller. If the caller is verified, its earlier tries with a verified token have
    /// its own key, and those of other verified callers are no concern of it: only the key of unverified tries counts.
    pub fn range_of_request(&self, digest: &[u8; 32], is_verified: bool) -> RangeInclusive<Self> {
        let of_request = self.of_request(digest);
        let with_last_quarter = |byte: u8| self.of_verified_request(digest, &Self([byte; 32]));
        if is_verified { of_request..=of_request } else { with_last_quarter(0)..=with_last_quarter(0xff) }
    }
    /// `self` is a key for any caller: derives the key under which it is recorded that legacy took a request of any
    /// verified caller.
    pub fn of_verified_callers(&self) -> Self {
        Self(*blake3::keyed_hash(&self.0, b"verified callers").as_bytes())
    }
    /// `self` is a key for any caller: derives the key of one caller. It shares its first half with keys of requests,
    /// so that a set of first halves needs one entry for both.
    pub(super) fn of_caller(&self, scoped: Self) -> Self {
        self.with_second_half_of(scoped)
    }
    /// `self` is a key for any caller. Returns the least and the greatest key that its callers and requests can have.
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
    /// Scoped by route and caller.
    pub scoped: RetryKey,
    /// Scoped by the route alone, where the caller's scope is a credential that nobody verified: the same caller's next
    /// try may carry another one.
    pub any_caller: Option<RetryKey>,
    /// The key for any caller that the next try of a verified caller has if its token cannot be verified: an issuer may
    /// sign with a new key before the files have it. Nothing is recorded under this key itself, but under two that are
    /// derived from it: [`RetryKeys::verified_callers`] if legacy takes the request, [`RetryKey::of_verified_request`]
    /// if the engine does. For a verified request, neither this key nor the two are looked up under the files in force:
    /// otherwise a caller whom nobody verified could reserve keys against a verified one. Under earlier files that
    /// could not verify its token, `any_caller` is looked up.
    pub unverified_retry: Option<RetryKey>,
    /// Where the files verify tokens: one key for all verified callers with the same value of `retry_key`. It records
    /// that legacy took a request of one of them. Looked up for requests whose tokens cannot be verified, and for no
    /// others, so that verified callers reserve nothing against each other.
    pub verified_callers: Option<RetryKey>,
}

impl From<RetryKey> for RetryKeys {
    /// The keys of a request whose retries have no other key.
    fn from(scoped: RetryKey) -> Self {
        Self { scoped, any_caller: None, unverified_retry: None, verified_callers: None }
    }
}

impl RetryKeys {
    /// Whether they are those of a caller whose token was verified, and whose retries may have tokens that cannot be.
    pub fn is_verified(&self) -> bool {
        self.unverified_retry.is_some()
    }
    /// All keys under which legacy's taking the request is recorded.
    pub fn of_legacy(self) -> impl Iterator<Item = RetryKey> {
        let verified_callers = self.verified_callers.filter(|_| self.is_verified());
        [Some(self.scoped), self.any_caller, verified_callers].into_iter().flatten()
    }
    /// The keys under which legacy may have taken a first try of the same caller that had another credential.
    pub fn of_legacy_under_other_credentials(self) -> impl Iterator<Item = RetryKey> {
        self.any_caller.into_iter().chain(self.looked_up_verified_callers())
    }
    /// [`RetryKeys::verified_callers`] if this request has to look it up: only if its own caller is not verified. What
    /// legacy took under this key may be a request of another caller.
    pub fn looked_up_verified_callers(self) -> Option<RetryKey> {
        self.verified_callers.filter(|_| !self.is_verified())
    }
}
