//! Counts how often the rules (`compare:`) were changed after a difference. Each such change raises the number of pairs
//! that the gates need ([`bound`](super::bound)): otherwise somebody could change the rules again and again, which
//! starts the evidence from zero each time, until by chance no pair differs.
//!
//! Words: at a *restart* the basis of the evidence changes, and the evidence starts from zero (or goes on, if the rules
//! only allow more). The evidence up to then becomes an *entry* ([`EarlierEvidence`]). A *rule change* is a restart
//! because of anything but plans: a changed plan may correct what the engine answers; changed rules, or another address
//! or `match:`, do not.
//! *Clean pairs* are pairs without an error, in evidence in which no pair differs. They *outweigh* the differences
//! before them if there are as many as the gates require by the files in force now, and at that number of rule changes.
//!
//! Always true:
//!
//! - A rule change counts while there is a difference before it that is not outweighed, whatever else was changed in
//!   between or at the same time.
//! - Evidence that outweighs the differences before it sets the count to zero.
//! - If a difference is followed by a change of plans alone, the rule changes counted so far are *set aside*: they do
//!   not count, because the plan was corrected. They count again at the next rule change, unless the difference was
//!   outweighed before.
//! - There is room for [`EARLIER_MAX`] entries. What the dropped ones say is summed up in [`DroppedEvidence`], as if
//!   none of them outweighed anything.
//!
//! Example, of five entries in a row:
//!
//! | entry | pairs that differ | changed at its end | rule changes that count | set aside |
//! |---|---|---|---|---|
//! | 1 | 3 | rules | 1 | 0 |
//! | 2 | 1 | rules | 2 | 0 |
//! | 3 | 1 | a plan | 0 | 2 |
//! | 4 | 0, too few to outweigh | rules | 3 | 0 |
//! | 5 | 0, enough to outweigh | rules | 0 | 0 |

use jiff::Timestamp;

use super::basis::WantedPairs;
use super::bound;
use super::part_names::change_more_than_plans;
use super::route::{DroppedEvidence, EarlierEvidence, RouteEvidence};

/// The most entries that are kept.
pub(super) const EARLIER_MAX: usize = 16;

/// What the entries say of rule changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleChanges {
    /// The rule changes after a difference that count.
    pub after_differences: u32,
    /// Whether there is a difference that has not been outweighed.
    pub has_open_difference: bool,
}

impl DroppedEvidence {
    /// Combines two of these that may count the same differences: the larger of each figure, not the sum.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            mismatched: self.mismatched.max(other.mismatched),
            rule_changes: self.rule_changes.max(other.rule_changes),
            set_aside: self.set_aside.max(other.set_aside),
            has_open_difference: self.has_open_difference || other.has_open_difference,
        }
    }

    /// Adds an entry that is newer than all that were added before.
    fn add(&mut self, entry: &EarlierEvidence, is_outweighed: bool) {
        let Self { mismatched, rule_changes, set_aside, has_open_difference } = self;
        *mismatched += entry.mismatched;
        if entry.mismatched > 0 {
            *has_open_difference = true;
        } else if is_outweighed {
            (*rule_changes, *set_aside, *has_open_difference) = (0, 0, false);
        }
        if counts_as_rule_change(entry) {
            if *has_open_difference {
                (*rule_changes, *set_aside) = (*rule_changes + *set_aside + 1, 0);
            }
        } else if entry.mismatched > 0 {
            (*rule_changes, *set_aside) = (0, *rule_changes + *set_aside);
        }
    }
}

/// Adds to the entries in the store (`own`) what one process counted in them between `before` and `after`. The process
/// may have counted on after another one had recorded the restart.
pub(super) fn add_change(own: &mut Vec<EarlierEvidence>, before: &[EarlierEvidence], after: &[EarlierEvidence]) {
    for entry in after {
        let known = before.iter().rfind(|before| before.basis == entry.basis);
        let (pairs, mismatched, clean_pairs) =
            known.map_or((0, 0, 0), |known| (known.pairs, known.mismatched, known.clean_pairs.unwrap_or(0)));
        let mismatched = entry.mismatched.saturating_sub(mismatched);
        let pairs = entry.pairs.saturating_sub(pairs);
        match own.iter_mut().rfind(|own| own.basis == entry.basis) {
            Some(own) => {
                own.pairs += pairs;
                own.mismatched += mismatched;
                own.outweighed = (own.outweighed || entry.outweighed) && own.mismatched == 0;
                let more = entry.clean_pairs.unwrap_or(0).saturating_sub(clean_pairs);
                own.clean_pairs = own.clean_pairs.filter(|_| own.mismatched == 0).map(|pairs| pairs + more);
            }
            None if mismatched > 0 => {
                own.push(EarlierEvidence { pairs, mismatched, outweighed: false, clean_pairs: None, ..entry.clone() });
            }
            None => {}
        }
    }
}

/// Whether the restart that ended this evidence is a rule change.
fn counts_as_rule_change(entry: &EarlierEvidence) -> bool {
    change_more_than_plans(&entry.changed)
}

impl RuleChanges {
    fn of(dropped: DroppedEvidence, earlier: &[EarlierEvidence]) -> Self {
        let mut all = dropped;
        earlier.iter().for_each(|entry| all.add(entry, entry.outweighed));
        Self { after_differences: all.rule_changes, has_open_difference: all.has_open_difference }
    }
}

impl RouteEvidence {
    /// The rule changes after a difference that count.
    pub(super) fn rule_changes_after_differences(&self) -> u32 {
        self.rule_changes().after_differences
    }

    /// What the entries say of rule changes.
    pub(super) fn rule_changes(&self) -> RuleChanges {
        RuleChanges::of(self.dropped, &self.earlier)
    }

    /// Whether a pair has differed, now or under earlier files.
    pub(super) fn has_ever_differed(&self) -> bool {
        self.mismatched + self.dropped.mismatched > 0 || self.earlier.iter().any(|entry| entry.mismatched > 0)
    }

    /// The number of clean pairs; `None` if a pair differs.
    pub(super) fn clean_pairs(&self) -> Option<u64> {
        (self.mismatched == 0).then(|| self.pairs_without_error())
    }

    /// Whether this many clean pairs outweigh the differences in the entries.
    pub(super) fn outweighs_differences(&self, clean_pairs: Option<u64>, wanted: WantedPairs) -> bool {
        clean_pairs.is_some_and(|pairs| pairs >= pairs_to_outweigh(self.rule_changes_after_differences(), wanted))
    }

    /// What this evidence and its entries say of differences, to be handed over to a route that gets the requests under
    /// another id, without `was`. Another id counts as a rule change, because it corrects no plan.
    pub(super) fn differences_to_hand_over(&self, now: Timestamp, wanted: WantedPairs) -> DroppedEvidence {
        let clean_pairs = self.clean_pairs();
        let last = EarlierEvidence {
            until: now,
            changed: vec!["its id".to_owned()],
            pairs: self.pairs(),
            mismatched: self.mismatched,
            basis: String::new(),
            outweighed: self.outweighs_differences(clean_pairs, wanted),
            clean_pairs,
        };
        let mut all = self.dropped;
        self.earlier.iter().for_each(|entry| all.add(entry, entry.outweighed));
        all.add(&last, last.outweighed);
        all
    }

    /// Takes over what the evidence of another route says of differences (`before`). It counts as newer than the
    /// entries of this route, so that none of these outweighs it. Both may count the same differences. Returns whether
    /// it adds anything.
    pub(super) fn take_over_differences(&mut self, before: DroppedEvidence) -> bool {
        if self.dropped.max(before) == self.dropped {
            return false;
        }
        let mut all = self.dropped;
        self.earlier.drain(..).for_each(|entry| all.add(&entry, entry.outweighed));
        self.dropped = all.max(before);
        true
    }

    /// Judges again which entries outweigh the differences before them: the gates may require another number of pairs
    /// now. Returns whether anything has changed.
    pub(super) fn judge_outweighed(&mut self, wanted: WantedPairs) -> bool {
        let (mut before, mut is_changed) = (self.dropped, false);
        for entry in &mut self.earlier {
            // An entry without `clean_pairs` has differences, or an earlier version stored it: it stays as it was
            // judged.
            if let Some(pairs) = entry.clean_pairs {
                let is_outweighed = pairs >= pairs_to_outweigh(before.rule_changes, wanted);
                is_changed |= std::mem::replace(&mut entry.outweighed, is_outweighed) != is_outweighed;
            }
            before.add(entry, entry.outweighed);
        }
        is_changed
    }
}

/// How many clean pairs outweigh the differences before them, at this number of rule changes that count.
fn pairs_to_outweigh(rule_changes: u32, wanted: WantedPairs) -> u64 {
    bound::clean_pairs_after(rule_changes, wanted.mismatch_below).max(wanted.pairs).max(1)
}

/// Adds an entry. If there are more than [`EARLIER_MAX`], removes the oldest one that says nothing of differences and
/// rule changes. If all say something, removes the oldest one, and adds what it says to `dropped`.
pub(super) fn add_earlier(earlier: &mut Vec<EarlierEvidence>, dropped: &mut DroppedEvidence, entry: EarlierEvidence) {
    earlier.push(entry);
    while earlier.len() > EARLIER_MAX {
        let tells_nothing =
            |entry: &EarlierEvidence| entry.mismatched == 0 && !entry.outweighed && !counts_as_rule_change(entry);
        let at = earlier.iter().position(tells_nothing);
        let entry = earlier.remove(at.unwrap_or_default());
        if at.is_none() {
            dropped.add(&entry, false);
        }
    }
}
