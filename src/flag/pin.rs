//! The keys of pins: families of instances, and their ids.

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
