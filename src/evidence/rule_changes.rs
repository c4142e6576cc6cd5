//! How often the rules were changed after a difference: somebody who does so until no pair happens to differ proves
//! nothing, so each time it takes stronger evidence ([`bound`](super::bound)). A change of anything else that the
//! evidence depends on, except the plans of workflows, counts like one of the rules: it starts the evidence from zero
//! too, and does not correct what the engine answers.
//!
//! Always true: a difference is outweighed once as many pairs were compared without one, under the same files, as the
//! gates ask for by the files in force now. Until then each change of the rules counts, whatever else was changed in
//! between, or together with them. A change of something else alone, after a difference, sets the changes before it
//! aside; but they count again if the rules are changed before the difference is outweighed. What is dropped because
//! there is no room for more entries goes on to count, and counts as not outweighed.

use jiff::Timestamp;

use super::basis::WantedPairs;
use super::bound;
use super::part_names::change_more_than_plans;
use super::route::{DroppedEvidence, EarlierEvidence, RouteEvidence};

/// How many times are kept at which the evidence was started from zero.
pub(super) const EARLIER_MAX: usize = 16;

/// What the earlier evidence says of changes of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleChanges {
    /// How often the rules were changed after a difference, as far as that counts.
    pub after_differences: u32,
    /// Whether a difference has not been outweighed.
    pub has_open_difference: bool,
}

impl DroppedEvidence {
    /// The larger of both figures, not their sum, because both may count the same differences.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            mismatched: self.mismatched.max(other.mismatched),
            rule_changes: self.rule_changes.max(other.rule_changes),
            set_aside: self.set_aside.max(other.set_aside),
            has_open_difference: self.has_open_difference || other.has_open_difference,
        }
    }

    /// Adds what an entry says that came after these.
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

/// Adds to the entries in the store what one process had counted under the files before them.
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

/// Whether the change that ended this evidence counts like one of the rules.
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
    /// How often the rules were changed after a difference, as far as that counts.
    pub(super) fn rule_changes_after_differences(&self) -> u32 {
        self.rule_changes().after_differences
    }

    /// What the earlier evidence says of changes of the rules.
    pub(super) fn rule_changes(&self) -> RuleChanges {
        RuleChanges::of(self.dropped, &self.earlier)
    }

    /// Whether a pair has differed, now or under earlier files.
    pub(super) fn has_ever_differed(&self) -> bool {
        self.mismatched + self.dropped.mismatched > 0 || self.earlier.iter().any(|entry| entry.mismatched > 0)
    }

    /// If no pair differs: how many there are that may outweigh an earlier difference.
    pub(super) fn clean_pairs(&self) -> Option<u64> {
        (self.mismatched == 0).then(|| self.pairs_without_error())
    }

    /// Whether this many pairs without a difference outweigh the differences before them.
    pub(super) fn are_outweighed_by(&self, clean_pairs: Option<u64>, wanted: WantedPairs) -> bool {
        clean_pairs.is_some_and(|pairs| pairs >= needed_pairs(self.rule_changes_after_differences(), wanted))
    }

    /// What this evidence and the earlier ones say of differences, for a route that gets the requests under another id.
    /// The other id counts like a change of the rules, because it corrects no plan.
    pub(super) fn taken_over(&self, now: Timestamp, wanted: WantedPairs) -> DroppedEvidence {
        let clean_pairs = self.clean_pairs();
        let last = EarlierEvidence {
            until: now,
            changed: vec!["its id".to_owned()],
            pairs: self.pairs(),
            mismatched: self.mismatched,
            basis: String::new(),
            outweighed: self.are_outweighed_by(clean_pairs, wanted),
            clean_pairs,
        };
        let mut all = self.dropped;
        self.earlier.iter().for_each(|entry| all.add(entry, entry.outweighed));
        all.add(&last, last.outweighed);
        all
    }

    /// Takes over what the evidence of another route says (`before`). It counts as later than the earlier evidence of
    /// this route, so that none of that outweighs it. Both may count the same differences. Returns whether it adds
    /// anything.
    pub(super) fn take_over(&mut self, before: DroppedEvidence) -> bool {
        if self.dropped.max(before) == self.dropped {
            return false;
        }
        let mut all = self.dropped;
        self.earlier.drain(..).for_each(|entry| all.add(&entry, entry.outweighed));
        self.dropped = all.max(before);
        true
    }

    /// Judges anew which earlier evidence outweighed the differences before it, since the gates may ask for something
    /// else now. Returns whether anything has changed.
    pub(super) fn judge_outweighed(&mut self, wanted: WantedPairs) -> bool {
        let (mut before, mut is_changed) = (self.dropped, false);
        for entry in &mut self.earlier {
            // Evidence that an earlier version stored stays as it was judged.
            if let Some(pairs) = entry.clean_pairs {
                let is_outweighed = pairs >= needed_pairs(before.rule_changes, wanted);
                is_changed |= std::mem::replace(&mut entry.outweighed, is_outweighed) != is_outweighed;
            }
            before.add(entry, entry.outweighed);
        }
        is_changed
    }
}

/// How many pairs without a difference outweigh the differences before them, after this many changes of the rules.
fn needed_pairs(rule_changes: u32, wanted: WantedPairs) -> u64 {
    bound::clean_pairs_after(rule_changes, wanted.mismatch_below).max(wanted.pairs).max(1)
}

/// Adds an entry, and removes the oldest ones beyond [`EARLIER_MAX`]; first those that tell nothing of differences and
/// changes of the rules. What the others say is added to `dropped`.
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
