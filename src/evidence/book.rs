//! The account of one route.
//!
//! Always true: everything in a [`Book`] changes under its one lock, so whoever looks at it sees sums that hold.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RouteEvidence, Seen};
use crate::clock;
use crate::compare::{Comparison, Kind, Verdict};
use crate::exchange::{Outcome, Served};
use crate::flag::{SkipReason, State};

/// Labels of failures kept apart; they are literals of the program, and this bounds a mistake.
const FAILURES_MAX: usize = 32;
/// Rules whose hits are kept apart.
const RULES_MAX: usize = 256;
/// Ways to differ that are counted apart; beyond, the one that was not seen for longest goes.
const WAYS_MAX: usize = 256;

/// Which evidence something belongs to: it changes when the evidence starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub(super) u64);

/// The account of one route.
#[derive(Default)]
pub(super) struct Book(Mutex<Page>);

/// What is in it.
#[derive(Clone, Default)]
pub(super) struct Page {
    /// What the evidence rests on.
    pub(super) basis: Option<String>,
    pub(super) epoch: u64,
    /// Since the basis last changed.
    pub(super) evidence: RouteEvidence,
    /// Since the process started.
    pub(super) totals: Totals,
    /// Changed since it was last written.
    pub(super) dirty: bool,
}

/// Counts since the process started: what is scraped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) offered: u64,
    pub(super) matched: u64,
    pub(super) ignored: u64,
    pub(super) mismatched: u64,
    pub(super) skipped: BTreeMap<SkipReason, u64>,
    pub(super) failed: BTreeMap<&'static str, u64>,
    pub(super) differences: BTreeMap<Kind, u64>,
}

/// As the store keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) basis: Option<String>,
    pub(super) evidence: RouteEvidence,
}

impl Totals {
    /// The outcomes together.
    #[cfg(test)]
    pub(super) fn outcomes(&self) -> u64 {
        let named = self.matched + self.ignored + self.mismatched;
        named + self.skipped.values().sum::<u64>() + self.failed.values().sum::<u64>()
    }
}

impl Book {
    pub(super) fn kept(kept: Kept) -> Self {
        Self(Mutex::new(Page { basis: kept.basis, evidence: kept.evidence, ..Page::default() }))
    }

    pub(super) fn page(&self) -> MutexGuard<'_, Page> {
        // Counters are left whole by whoever panicked while holding them: each change is a few additions.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    /// Starts anew where the basis is another; whether it did.
    pub(super) fn rest_on(&mut self, basis: &str) -> bool {
        if self.basis.as_deref() == Some(basis) {
            return false;
        }
        let anew = self.basis.is_some();
        self.basis = Some(basis.to_owned());
        self.dirty = true;
        if anew {
            self.epoch += 1;
            self.evidence = RouteEvidence::default();
        }
        anew
    }

    /// Goes on with the evidence of another page, which is left without any. What was counted since the process started
    /// stays where it is.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        self.basis = other.basis.take();
        self.epoch = other.epoch;
        self.evidence = std::mem::take(&mut other.evidence);
        (self.dirty, other.dirty) = (true, true);
    }

    pub(super) fn compared(&mut self, rung: State, comparison: &Comparison) {
        let evidence = &mut self.evidence;
        match rung {
            State::Dark => evidence.dark_pairs += 1,
            State::Off | State::Shadow | State::Live | State::Only => evidence.shadow_pairs += 1,
        }
        match comparison.verdict {
            Verdict::Match => evidence.matched += 1,
            Verdict::Ignored => {
                evidence.matched += 1;
                evidence.ignored += 1;
            }
            Verdict::Mismatch => {
                evidence.mismatched += 1;
                saw(&mut evidence.seen, &comparison.fingerprint, clock::now());
            }
        }
        for (rule, hits) in &comparison.ignored_by {
            if evidence.rule_hits.len() < RULES_MAX || evidence.rule_hits.contains_key(rule) {
                *evidence.rule_hits.entry(rule.clone()).or_default() += u64::from(*hits);
            }
        }
        self.dirty = true;
    }

    pub(super) fn differed(&mut self, comparison: &Comparison) {
        for difference in &comparison.differences {
            *self.totals.differences.entry(difference.kind).or_default() += 1;
        }
    }

    /// Counts what was offered and how it ended in one go.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        let totals = &mut self.totals;
        totals.offered += 1;
        match outcome {
            Outcome::Matched => totals.matched += 1,
            Outcome::Ignored => totals.ignored += 1,
            Outcome::Mismatched => totals.mismatched += 1,
            Outcome::Skipped(reason) => {
                *totals.skipped.entry(reason).or_default() += 1;
                *self.evidence.skipped.entry(reason.as_str().to_owned()).or_default() += 1;
            }
            Outcome::Failed(how) => {
                let known = totals.failed.len() < FAILURES_MAX || totals.failed.contains_key(how);
                let how = if known { how } else { "other" };
                *totals.failed.entry(how).or_default() += 1;
                *self.evidence.failed.entry(how.to_owned()).or_default() += 1;
            }
        }
        self.dirty = true;
    }

    pub(super) fn served(&mut self, served: Served) {
        match served {
            Served::Answered => self.evidence.engine_answers += 1,
            Served::FellBack | Served::Error | Served::Unknown => {
                self.evidence.engine_answers = 0;
                self.evidence.engine_errors += 1;
            }
        }
        self.dirty = true;
    }
}

fn saw(seen: &mut BTreeMap<String, Seen>, fingerprint: &str, now: Timestamp) {
    if let Some(seen) = seen.get_mut(fingerprint) {
        seen.count += 1;
        seen.last = now;
        return;
    }
    if seen.len() >= WAYS_MAX
        && let Some(stale) = seen.iter().min_by_key(|(_, seen)| seen.last).map(|(stale, _)| stale.clone())
    {
        seen.remove(&stale);
    }
    seen.insert(fingerprint.to_owned(), Seen { count: 1, first: now, last: now });
}
