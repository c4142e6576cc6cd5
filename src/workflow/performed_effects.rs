//! The classes of effect that a run has performed, or may have performed.

use serde::{Deserialize, Serialize};

use super::EffectClass;

/// Classes of effect that were performed, or may have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PerformedEffects {
    pub private: bool,
    pub shared: bool,
}

impl FromIterator<EffectClass> for PerformedEffects {
    fn from_iter<I: IntoIterator<Item = EffectClass>>(effects: I) -> Self {
        let mut all = Self::default();
        effects.into_iter().for_each(|effect| all.note(effect));
        all
    }
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
