//! The classes of effect that a run has performed, or may have performed.

use serde::{Deserialize, Serialize};

use super::EffectClass;

/// Classes of effect that were performed, or may have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PerformedEffects {
    pub private: bool,
    pub shared: bool,
}

impl PerformedEffects {
    /// Records that an effect of this class was performed, or may have been.
    pub fn note(&mut self, effect: EffectClass) {
        match effect {
            EffectClass::Read => {}
            EffectClass::Private => self.private = true,
            EffectClass::Shared => self.shared = true,
        }
    }
}
