//! The tag in the header of a file of retry keys: the id of the file, and the store that uses it.
//!
//! Always true: a store and its copy have the same secret, but differ in both location and incarnation (the identity of
//! the file or database itself); a store that was moved, or restored in place, keeps one of the two.

use uuid::Uuid;

use crate::slot_file::{FileSlot, bytes_at};
use crate::store::StoreIdentity;

/// The tag of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// The id of the file.
    pub file: Uuid,
    /// The store that uses it.
    pub owner: StoreTag,
}

/// Identifies a store in the header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreTag {
    /// A hash of the store's secret: copies of a store have the same.
    store: [u8; 16],
    location: [u8; 8],
    incarnation: [u8; 8],
}

/// To which store a file belongs, as seen by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOwnership {
    /// This store's; also a file without a tag.
    Ours,
    /// It belongs to a copy of this store, or to the store of which this one is a copy.
    OfACopy,
    /// It belongs to another store: its keys mean nothing here.
    OfAnotherStore,
}

impl StoreTag {
    pub(super) fn new(secret: &[u8; 32], identity: &StoreIdentity) -> Self {
        let store = blake3::derive_key("pointsman 2026 store of a file of retry keys", secret);
        Self {
            store: bytes_at(&store, 0),
            location: bytes_at(blake3::hash(identity.location.as_bytes()).as_bytes(), 0),
            incarnation: bytes_at(blake3::hash(identity.incarnation.as_bytes()).as_bytes(), 0),
        }
    }

    /// To which store a file with this tag belongs.
    pub(super) fn ownership(&self, tag: Option<&Tag>) -> FileOwnership {
        let Some(Tag { owner, .. }) = tag else { return FileOwnership::Ours };
        if owner.store != self.store {
            return FileOwnership::OfAnotherStore;
        }
        match owner.location == self.location || owner.incarnation == self.incarnation {
            true => FileOwnership::Ours,
            false => FileOwnership::OfACopy,
        }
    }
}

impl Tag {
    /// A tag with a random id, for a file that has none.
    pub(super) fn random(owner: StoreTag) -> Self {
        Self { file: Uuid::from_u128(fastrand::u128(1..)), owner }
    }

    /// Decodes it from a slot; `None` if an older version wrote the slot.
    pub(super) fn read(slot: &FileSlot) -> Option<Self> {
        let file = Uuid::from_bytes(bytes_at(slot, 16));
        let owner =
            StoreTag { store: bytes_at(slot, 32), location: bytes_at(slot, 48), incarnation: bytes_at(slot, 56) };
        (!file.is_nil()).then_some(Self { file, owner })
    }

    pub(super) fn write(&self, slot: &mut FileSlot) {
        let Self { file, owner: StoreTag { store, location, incarnation } } = self;
        slot[16..32].copy_from_slice(file.as_bytes());
        slot[32..48].copy_from_slice(store);
        slot[48..56].copy_from_slice(location);
        slot[56..64].copy_from_slice(incarnation);
    }
}
