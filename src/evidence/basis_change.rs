//! What happens to the evidence of a route when its basis changes.
//!
//! Always true: evidence of different bases is never added up, with one exception: the rules only allow more than
//! before. A pair that was equal is equal under such rules too, and the pairs that differed are judged again
//! (`rejudged`). If an earlier basis returns, its evidence goes on, with its differences.
//!
//! Two parts of the evidence do not come from pairs, and may outlive any change: how legacy answers (`legacy_replies`),
//! and that the guard has stopped a candidate (`guard_stop`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::basis::{BasisParts, EvidenceBasis};
use super::counters::Counters;
use super::guard_stop;
use super::kept_on_restart::KeptOnRestart;
use super::legacy_replies;
use super::part_names::{ADDED, REMOVED, RULES};
use super::rejudging::Rejudging;
use super::route::{EarlierEvidence, EvidenceRestart, KeptEvidence, RouteEvidence};
use super::rule_changes;
use super::uncompared_headers::UncomparedHeaders;
use crate::compare::{Allowances, RulesDraft};
use crate::flag::SkipReason;

/// For how many earlier bases the evidence is kept.
pub(super) const KEPT_MAX: usize = 4;
/// How many changed parts of a basis are named.
const CHANGED_PARTS_MAX: usize = 8;

/// What became of the evidence of a route because its basis changed.
#[derive(Clone, Debug, PartialEq)]
pub struct BasisChange {
    /// The parts that changed, as text.
    pub changed: String,
    /// What each of these parts said before, and what it says now.
    pub parts: Vec<PartChange>,
    /// Which evidence there is from now on.
    pub next: NextEvidence,
    /// The pairs that had been compared.
    pub pairs_before: u64,
    /// Of these, those that differed.
    pub mismatched_before: u64,
    /// The evidence at that moment.
    pub evidence_before: RouteEvidence,
}

/// A part of a basis that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartChange {
    /// Its name.
    pub part: String,
    /// What it said; `None` if it was not part of the basis, or an earlier version stored the evidence.
    pub before: Option<String>,
    /// What it says now; `None` if it is no part of the basis any more.
    pub after: Option<String>,
}

/// The evidence after a change of its basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextEvidence {
    /// None yet.
    FromZero,
    /// That of an earlier basis, because the change was taken back.
    Earlier,
    /// The present evidence goes on, because the rules only allow more; the pairs that differ are judged again.
    GoesOn,
}

impl NextEvidence {
    /// What the evidence does, as the predicate of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FromZero => "starts from zero",
            Self::Earlier => "goes on as it was under these files before",
            Self::GoesOn => "goes on, because the rules only allow more; what differed is judged again",
        }
    }
}

impl Counters {
    /// Sets the basis that the files have from this version on. Returns what became of the evidence
    /// ([`NextEvidence`] lists the cases); `None` if there was no basis, or the same one.
    pub(super) fn set_basis(
        &mut self,
        files_version: u64,
        basis: &EvidenceBasis,
        now: Timestamp,
    ) -> Option<BasisChange> {
        let plan_before = std::mem::replace(&mut self.plan, basis.plan.clone());
        let rules = std::mem::replace(&mut self.rules, basis.rules.clone());
        self.dirty |= rules != basis.rules;
        let added = allowances(&rules, &basis.rules);
        let noise_changed = self.noise.set_basis(basis, added.is_some_and(|added| added.leave_out_only));
        self.dirty |= noise_changed;
        self.dirty |= self.evidence.judge_outweighed(basis.wanted);
        if self.basis.as_deref() == Some(&basis.hash) {
            if noise_changed {
                self.evidence.judge_groups(&self.noise);
            }
            // An earlier version stored no parts.
            if self.parts != basis.parts {
                self.parts = basis.parts.clone();
                self.dirty = true;
            }
            return None;
        }
        let before = std::mem::replace(&mut self.parts, basis.parts.clone());
        // The hash also covers the names of path parameters, which are a part only if something reads them: the hash
        // may change although no part does.
        if self.basis.is_some() && !before.hashes.is_empty() && before.hashes == basis.parts.hashes {
            self.basis = Some(basis.hash.clone());
            self.dirty = true;
            return None;
        }
        let old_basis = self.basis.replace(basis.hash.clone());
        self.dirty = true;
        let Some(old_basis) = old_basis else {
            self.basis_since = files_version;
            return None;
        };
        self.keep_match(&before);
        let differing = differing_parts(&before.hashes, &basis.parts.hashes);
        let legacy = legacy_replies::are_kept(&before, &basis.parts).then(|| self.evidence.legacy.clone());
        let is_same_candidate = guard_stop::is_same_candidate((plan_before.as_ref(), &before), basis);
        let stopped = self.evidence.stopped_by_guard.clone().filter(|_| is_same_candidate);
        let changed: Vec<String> = differing.iter().map(|name| text_of(name, &before, &basis.parts)).collect();
        let part_change = |name: &&String| PartChange {
            part: String::clone(name),
            before: value_of(name, &before, &rules),
            after: value_of(name, &basis.parts, &basis.rules),
        };
        let parts = differing.iter().map(part_change).collect();
        let (text, evidence_before) = (changed.join(", "), self.evidence.clone());
        let (pairs, mismatched) = (self.evidence.pairs(), self.evidence.mismatched);
        let clean_pairs = self.evidence.clean_pairs();
        let is_outweighed = self.evidence.outweighs_differences(clean_pairs, basis.wanted);
        let has_open_difference = self.evidence.rule_changes().has_open_difference && !is_outweighed;
        let is_only_of_rules = changed == [RULES];
        let taken_back = self.kept.iter().position(|kept| kept.basis == basis.hash);
        let returning = taken_back.map(|index| self.kept.remove(index).evidence);
        let was_judged = self.rejudging.take().is_none();
        let next = match returning {
            Some(_) => NextEvidence::Earlier,
            None if is_only_of_rules && added.is_some() && was_judged => NextEvidence::GoesOn,
            None => NextEvidence::FromZero,
        };
        let mut old = std::mem::take(&mut self.evidence);
        // Where the evidence goes on, requests under way still count: the earlier rules are stricter, so they find at
        // least the differences that the new ones would.
        if next != NextEvidence::GoesOn {
            self.basis_since = files_version;
            self.generation += 1;
        }
        if !is_only_of_rules {
            self.engine_generation += 1;
        }
        let mut earlier = std::mem::take(&mut old.earlier);
        let mut dropped = std::mem::take(&mut old.dropped);
        let mut restarted = old.restarted.clone();
        // Nothing was compared since the last change, so what changed now is added to the entry of that change.
        let joins_last = pairs == 0 && next != NextEvidence::Earlier && restarted.is_some();
        if joins_last {
            let lists = restarted.iter_mut().map(|last| &mut last.changed);
            for list in lists.chain(earlier.last_mut().map(|last| &mut last.changed)) {
                let new = changed.iter().filter(|part| !list.contains(part)).cloned().collect::<Vec<_>>();
                list.extend(new);
            }
        }
        if old.rank() > 0 {
            // If the evidence goes on, a change of the rules is recorded only if there was a difference before it.
            if !joins_last && (next != NextEvidence::GoesOn || mismatched > 0 || has_open_difference) {
                let (basis, changed, outweighed) = (old_basis.clone(), changed.clone(), is_outweighed);
                let entry = EarlierEvidence { until: now, changed, pairs, mismatched, basis, outweighed, clean_pairs };
                rule_changes::add_earlier(&mut earlier, &mut dropped, entry);
            }
            // The groups of differences (`seen`) are not kept: their samples are cleared at a change of the basis, and
            // kept evidence should be small, because it is written again with each change of the present evidence.
            let mut evidence = RouteEvidence { seen: BTreeMap::new(), ..old.clone() };
            // The outcomes of requests under way will not be counted in this evidence: it counts them as not compared
            // now, in case its basis returns.
            evidence.count_lost(&self.in_flight, SkipReason::FilesChanged);
            self.kept.push(KeptEvidence { basis: old_basis, parts: before.hashes.clone(), evidence });
            self.kept.drain(..self.kept.len().saturating_sub(KEPT_MAX));
            if next != NextEvidence::GoesOn && !joins_last {
                restarted = Some(EvidenceRestart { at: now, changed, pairs_before: pairs });
            }
        }
        self.evidence = match (returning, next) {
            // This evidence is the present one again, so the list of earlier evidence must not have it.
            (Some(evidence), _) => {
                earlier.retain(|earlier| earlier.basis != basis.hash);
                RouteEvidence { earlier, dropped, ..evidence }
            }
            (None, NextEvidence::GoesOn) => {
                if added.is_some_and(|added| added.ignores_calls) {
                    let uncompared = old.uncompared_calls.forget_unlisted();
                    let counts = [&mut old.all, &mut old.dark].into_iter();
                    counts.for_each(|counts| counts.legacy_calls.forget_unexpected(uncompared));
                }
                let (seen, differing) = (std::mem::take(&mut old.seen), mismatched + old.noise.ignored);
                self.rejudging = (differing > 0).then_some(Rejudging { rules, since: now, differing, pairs, seen });
                // The new rules may ignore some of these headers.
                let uncompared_headers = UncomparedHeaders::default();
                RouteEvidence { restarted, earlier, dropped, uncompared_headers, ..old }
            }
            (None, _) => KeptOnRestart { restarted, earlier, dropped, ..KeptOnRestart::default() }.into_evidence(),
        };
        // These two outlive a change of parts that do not concern them; see the module.
        self.evidence.legacy = legacy.unwrap_or_else(|| std::mem::take(&mut self.evidence.legacy));
        self.evidence.stopped_by_guard = self.evidence.stopped_by_guard.take().or(stopped);
        // More may be known about legacy's noise, or less, than when this evidence was last in force.
        self.evidence.judge_groups(&self.noise);
        let (pairs_before, mismatched_before) = (pairs, mismatched);
        Some(BasisChange { changed: text, parts, next, pairs_before, mismatched_before, evidence_before })
    }
}

/// What the rules `after` (as JSON) allow beyond the rules `before`; `None` if they are equal, or differ in anything
/// else.
fn allowances(before: &str, after: &str) -> Option<Allowances> {
    if before == after {
        return None;
    }
    Allowances::added(&RulesDraft::of_shown(before)?, &RulesDraft::of_shown(after)?)
}

/// The names of the parts whose hashes differ; at most [`CHANGED_PARTS_MAX`].
fn differing_parts<'a>(before: &'a BTreeMap<String, String>, after: &'a BTreeMap<String, String>) -> Vec<&'a String> {
    if before.is_empty() {
        return Vec::new();
    }
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).take(CHANGED_PARTS_MAX).collect()
}

/// The name of a part that differs, with a note if it was added or removed.
fn text_of(name: &str, before: &BasisParts, after: &BasisParts) -> String {
    match (before.hashes.contains_key(name), after.hashes.contains_key(name)) {
        (false, _) => format!("{name}{ADDED}"),
        (_, false) => format!("{name}{REMOVED}"),
        (true, true) => name.to_owned(),
    }
}

/// The text of a part of a basis whose rules are `rules`.
fn value_of(name: &str, parts: &BasisParts, rules: &str) -> Option<String> {
    let of_rules = (name == RULES && !rules.is_empty()).then(|| rules.to_owned());
    of_rules.or_else(|| parts.values.get(name).cloned())
}

#[cfg(test)]
mod tests;
