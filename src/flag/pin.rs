//! The keys of pins: families of instances, and their ids.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Route;
use crate::names::{RouteId, RunId};

/// A family, named by the present id of the route that creates its instances and by that route's other ids. An instance
/// may be pinned under any of these ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Family {
    id: RouteId,
    /// The creator's other ids, the newest first; see [`Route::was`].
    was: Arc<[RouteId]>,
}

impl Family {
    /// The family of a creator with this present id and these other ids, the newest first.
    pub fn new(id: RouteId, was: Arc<[RouteId]>) -> Self {
        Self { id, was }
    }
    /// The family of the instances that this route creates.
    pub fn of(creator: &Route) -> Self {
        Self::new(creator.id.clone(), creator.was.iter().cloned().collect())
    }
    /// The creator's present id.
    pub fn id(&self) -> &RouteId {
        &self.id
    }
    /// The creator's oldest id. A rename does not change it, so new instances are pinned under it, and a hash of it
    /// selects the callers in a share.
    pub fn first_id(&self) -> &RouteId {
        self.was.last().unwrap_or(&self.id)
    }
    /// All ids of the creator: the present one, then the others.
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
    /// The instance's family.
    pub family: Family,
    /// The instance's id as text, as in the reply and in paths.
    pub id: Arc<str>,
}

impl InstanceKey {
    /// The key under which new facts about an instance of legacy are stored: one for all spellings of its id, under the
    /// creator's oldest id. For lookups use [`InstanceKey::stored_keys`].
    pub fn stored_key(&self) -> PinKey {
        self.stored_under(self.family.first_id())
    }
    /// All keys under which facts about an instance of legacy may be stored: [`InstanceKey::stored_key`], then those
    /// under the creator's other ids, because earlier files may have had another oldest id, or separate creators.
    pub fn stored_keys(&self) -> impl Iterator<Item = PinKey> {
        let first_id = self.family.first_id();
        let others = self.family.ids().filter(move |id| *id != first_id);
        std::iter::once(first_id).chain(others).map(move |family| self.stored_under(family))
    }
    fn stored_under(&self, family: &RouteId) -> PinKey {
        let id = lower_case_uuid(&self.id).map_or_else(|| self.id.clone(), Arc::from);
        PinKey { family: family.clone(), id }
    }
    /// The keys under which the instance's pin may be stored.
    pub fn pin_keys(&self) -> impl Iterator<Item = PinKey> {
        let ids = [Some(self.id.clone()), lower_case_uuid(&self.id).map(Arc::from)];
        let keys_in = move |family: &RouteId| {
            let family = family.clone();
            ids.clone().into_iter().flatten().map(move |id| PinKey { family: family.clone(), id })
        };
        self.family.ids().flat_map(keys_in)
    }
}

/// The lower-case spelling of an id that is a UUID with upper-case digits; else `None`. Such an id is pinned and looked
/// up in both spellings, because clients that parse a UUID may print it in the other case.
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
    /// The creator's present id, or an earlier one.
    pub family: RouteId,
    /// The instance's id as text, as in the reply and in paths.
    pub id: Arc<str>,
}

/// An instance that a request follows up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId {
    /// The instance's family and id, as the caller knows them.
    pub key: InstanceKey,
    /// The run that created the instance on the engine's side (real or dark), if there is one.
    pub run: Option<RunId>,
}
