//! Twins that lack something that legacy did.
//!
//! Always true: what is marked stays marked until it is forgotten for newer marks, at most [`MARKED_TWINS_MAX`].

use std::collections::{HashSet, VecDeque};

use crate::flag::{InstanceKey, PinKey};
use crate::limits::MARKED_TWINS_MAX;

/// Marked twins; the oldest are forgotten when there are too many, which does no harm once the store has them.
#[derive(Default)]
pub(super) struct MarkedTwins {
    all: HashSet<PinKey>,
    by_age: VecDeque<PinKey>,
    /// Those that the store does not have yet.
    unstored: VecDeque<InstanceKey>,
}

impl MarkedTwins {
    /// Marks a twin; returns `false` if it is marked already.
    pub(super) fn insert(&mut self, key: &InstanceKey) -> bool {
        let pin = key.stored_key();
        if !self.all.insert(pin.clone()) {
            return false;
        }
        self.by_age.push_back(pin);
        if self.by_age.len() > MARKED_TWINS_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.all.remove(&oldest);
        }
        true
    }

    /// Queues a mark for the store.
    pub(super) fn store_later(&mut self, key: &InstanceKey) {
        match self.unstored.len() < MARKED_TWINS_MAX {
            true => self.unstored.push_back(key.clone()),
            false => tracing::error!(
                family = %key.family.id(), id = %key.id, waiting = MARKED_TWINS_MAX,
                "the store takes no marks of incomplete twins, and too many wait: that of this instance is dropped; \
                 after a restart its follow-ups may show false differences"
            ),
        }
    }

    pub(super) fn contains(&self, pin: &PinKey) -> bool {
        self.all.contains(pin)
    }

    /// Whether a mark waits for the store.
    pub(super) fn is_unstored(&self, key: &InstanceKey) -> bool {
        self.unstored.contains(key)
    }

    pub(super) fn is_any_unstored(&self) -> bool {
        !self.unstored.is_empty()
    }

    /// Takes the first mark that the store does not have and that may be stored now.
    pub(super) fn take_unstored(&mut self, may_be_stored: impl FnMut(&InstanceKey) -> bool) -> Option<InstanceKey> {
        let at = self.unstored.iter().position(may_be_stored)?;
        self.unstored.remove(at)
    }
}
