//! How often the rules were changed after a difference: somebody who does so until no pair happens to differ proves
//! nothing, so each time it takes stronger evidence ([`bound`](super::bound)).
//!
//! Always true: a difference is answered once so many pairs were compared without one, under the same files, as the
//! gates ask for. Until then each change of the rules counts, whatever else was changed in between, or together with
//! them. A change of something else alone, after a difference, forgives the changes before it; but they count again if
//! the rules are changed before the difference is answered.

use super::basis::WantedPairs;
use super::bound;
use super::route::{EarlierEvidence, RULES, RouteEvidence};

/// What the earlier evidence says of changes of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleChanges {
    /// How often the rules were changed after a difference, as far as that counts.
    pub after_differences: u32,
    /// Whether a difference has not been answered.
    pub has_open_difference: bool,
}

impl RuleChanges {
    pub(super) fn of(earlier: &[EarlierEvidence]) -> Self {
        let (mut counted, mut forgiven, mut is_open) = (0_u32, 0_u32, false);
        for EarlierEvidence { changed, mismatched, answered, .. } in earlier {
            if *mismatched > 0 {
                is_open = true;
            } else if *answered {
                (counted, forgiven, is_open) = (0, 0, false);
            }
            if changed.iter().any(|part| part == RULES) {
                if is_open {
                    (counted, forgiven) = (counted + forgiven + 1, 0);
                }
            } else if *mismatched > 0 {
                (counted, forgiven) = (0, counted + forgiven);
            }
        }
        Self { after_differences: counted, has_open_difference: is_open }
    }
}

impl RouteEvidence {
    /// How often the rules were changed after a difference, as far as that counts.
    pub(super) fn rule_changes_after_differences(&self) -> u32 {
        RuleChanges::of(&self.earlier).after_differences
    }

    /// Whether no pair differs, and there are as many as the gates ask for.
    pub(super) fn answers_differences(&self, wanted: WantedPairs) -> bool {
        let needed = bound::clean_pairs_after(self.rule_changes_after_differences(), wanted.mismatch_below);
        self.mismatched == 0 && self.pairs_without_error() >= needed.max(wanted.pairs).max(1)
    }
}

/// Removes the oldest entries beyond `max`; first those that tell nothing of differences and changes of the rules.
pub(super) fn prune(earlier: &mut Vec<EarlierEvidence>, max: usize) {
    while earlier.len() > max {
        let tells_nothing = |entry: &EarlierEvidence| {
            entry.mismatched == 0 && !entry.answered && !entry.changed.iter().any(|part| part == RULES)
        };
        let at = earlier.iter().position(tells_nothing).unwrap_or_default();
        earlier.remove(at);
    }
}
