//! The counters of a route in a store that several processes share.
//!
//! Each process has the counters as the store last had them (`base`), and counts on. To write, it adds what it counted
//! since to what the store has now, and replaces the row, unless another process has replaced it meanwhile: then it
//! reads the row and adds once more. So the row has the sum of what all have counted, and each process has that sum,
//! too, with what it has counted itself since.
//!
//! A change that is not a sum of counts comes from the files: another basis, other cohorts, pairs that are judged
//! again. It is made to the counters and to `base` alike, so that the difference between the two has only what was
//! counted. Until a row with the change is written, it is also made to each row that is read. On a row to which another
//! process has already made it, it has no further effect.
//!
//! A process whose files give a route another basis than the row has adds what it counts as if its files became those
//! of the row at that moment: to the evidence that the row keeps of the process's basis, and to that of the row's basis
//! where evidence goes on ([`Counters::added_to_other_basis`]). It sees what the row keeps of its own basis.
//!
//! Always true: what was counted by a process is added exactly once, also if it is not known whether a write was done,
//! and whichever basis the row has. A process finds in the row which of its writes was the last one: in its share, or,
//! after it was removed, in what is kept of shares that have ended.

use super::add_change::AddChange;
use super::basis::{EvidenceBasis, WantedPairs};
use super::basis_change::KEPT_MAX;
use super::counters::Counters;
use super::process_share::{EndedShare, GuardCounts, ProcessShare};
use super::rejudging::Rejudging;
use super::route::{KeptEvidence, RouteEvidence};
use super::shared_state::{Attempt, SharedState};
use super::stored::StoredEvidence;
use crate::clock;
use crate::names::{RouteId, WorkerId};
use crate::store::EvidenceVersion;

impl Counters {
    /// Makes a change that is not a sum of counts to the counters and to what is known of the row; see the module.
    pub(super) fn change<R>(&mut self, change: impl Fn(&mut Self) -> R + Send + Sync + 'static) -> R {
        let result = change(self);
        if let Some(shared) = &mut self.shared {
            shared.change(move |counters| drop(change(counters)));
            if shared.other.is_some() {
                // It is read again, with the change, before it is written.
                shared.version = None;
            }
        }
        result
    }

    /// Whether the row lacks something, or may lack it.
    pub(super) fn has_unwritten(&self) -> bool {
        let shared = self.shared.as_ref();
        let is_known = self.basis.is_some() || shared.is_some_and(|shared| shared.version.is_some());
        let is_written = shared.is_none_or(|shared| shared.attempts.is_empty() && shared.changes.is_empty());
        is_known && (self.dirty || !is_written)
    }

    /// What the store is to have instead of the row that was last read; `None` if the row has it, or is to stay.
    pub(super) fn prepare_write(
        &mut self,
        own: WorkerId,
        (name, guard): (&str, GuardCounts),
        is_leaving: bool,
    ) -> Option<(StoredEvidence, Option<EvidenceVersion>)> {
        let has_share = self.processes.contains_key(&own);
        let shared = self.shared.get_or_insert_with(Box::default);
        if shared.is_moved_away {
            return None;
        }
        let changes = shared.changes_so_far();
        if !(self.has_unwritten() || is_leaving && has_share) {
            return None;
        }
        self.dirty = false;
        let shared = self.shared.as_mut()?;
        shared.last_attempt += 1;
        let (write, at) = (shared.last_attempt, clock::now());
        match is_leaving || self.basis.is_none() {
            true => {
                let basis = self.basis.clone();
                self.end_share(own, EndedShare { write, at, basis, guard });
            }
            false => {
                let (basis, in_flight, checks_in_flight) =
                    (self.basis.clone(), self.in_flight.clone(), self.checks_in_flight);
                let share =
                    ProcessShare { name: name.to_owned(), write, at, basis, in_flight, checks_in_flight, guard };
                self.processes.insert(own, share);
                self.ended_shares.remove(&own);
            }
        }
        let written = self.without_shared();
        let other = self.shared.as_ref().and_then(|shared| shared.other.as_deref());
        let other =
            other.map(|row| Box::new(written.added_to_other_basis(row, self.shared.as_ref().map(|s| &*s.base))));
        let stored = other.as_deref().unwrap_or(&written).to_stored();
        let shared = self.shared.as_mut()?;
        shared.add_attempt(Attempt { number: write, written: Box::new(written), other, changes });
        Some((stored, shared.version.clone()))
    }

    fn without_shared(&self) -> Self {
        let mut copy = Self { shared: None, ..self.clone() };
        (copy.in_flight, copy.checks_in_flight) = Default::default();
        copy
    }

    /// Notes that the row was replaced, and is this version now.
    pub(super) fn confirm_write(&mut self, version: EvidenceVersion) {
        let Some(shared) = &mut self.shared else { return };
        if let Some(attempt) = shared.attempts.pop() {
            shared.confirm_attempt(attempt);
            // Otherwise there were further changes, with which the row is to be read.
            shared.version = (shared.other.is_none() || shared.changes.is_empty()).then_some(version);
        }
    }

    /// Reads a row that has changed: adds what other processes have counted. Returns whether another process had
    /// changed the basis before this one, and removed the samples of the route.
    pub(super) fn read_row(&mut self, mut row: Self, version: EvidenceVersion, own: WorkerId) -> bool {
        let shared = self.shared.get_or_insert_with(Box::default);
        // The reply to a write may have been lost.
        let ended = row.ended_shares.get(&own).map(|share| share.write);
        let last = row.processes.get(&own).map(|share| share.write).or(ended);
        let attempts = std::mem::take(&mut shared.attempts);
        self.dirty |= !attempts.is_empty();
        if let Some(written) = attempts.into_iter().find(|attempt| Some(attempt.number) == last) {
            shared.confirm_attempt(written);
        }
        if row.basis.is_none() {
            // A process of an earlier version has moved its content to another id; or it never had any.
            shared.is_moved_away = self.basis.is_some() && shared.base.basis.is_some() && !shared.is_moved_here;
            shared.version = Some(version);
            self.dirty |= self.basis.is_some();
            return false;
        }
        if self.basis.is_none() {
            self.load_row(row, version);
            return false;
        }
        let had_basis = row.basis == self.basis;
        shared.changes.iter().for_each(|change| change(&mut row));
        (shared.version, shared.is_moved_here, shared.is_moved_away) = (Some(version), false, false);
        // The hash of a basis also covers the names of path parameters, which are not among its parts.
        let has_same_parts = !row.parts.hashes.is_empty() && row.parts.hashes == self.parts.hashes;
        shared.other = (row.basis != self.basis && !has_same_parts).then(|| Box::new(row.clone()));
        if shared.other.is_some() {
            row.show_basis_of(&shared.base);
        }
        let clears_samples = shared.clears_samples && had_basis;
        let base = std::mem::replace(&mut *shared.base, row.clone());
        row.add_change_of(&base, self);
        self.take_sums(row);
        clears_samples
    }

    /// Returns a row that has another basis, with what was counted here since `before` added to it, as if the files
    /// became those of the row now.
    fn added_to_other_basis(&self, row: &Self, before: Option<&Self>) -> Self {
        let mut sum = Self { processes: self.processes.clone(), ..row.clone() };
        sum.ended_shares.clone_from(&self.ended_shares);
        let (mut before, mut after) = (before.cloned().unwrap_or_default(), self.clone());
        if let Some(hash) = row.basis.clone() {
            let basis = EvidenceBasis {
                hash,
                parts: row.parts.clone(),
                noise: row.noise.basis.clone(),
                noise_apart_from_rules: row.noise.apart_from_rules.clone(),
                rules: row.rules.clone(),
                // What is outweighed was judged by a process with these files.
                wanted: WantedPairs { pairs: u64::MAX, mismatch_below: 0.5 },
                ..EvidenceBasis::default()
            };
            let now = clock::now();
            [&mut before, &mut after].into_iter().for_each(|counters| drop(counters.set_basis(0, &basis, now)));
        }
        sum.add_change_of(&before, &after);
        sum
    }

    /// Changes a row that has another basis so that it shows what it keeps of the basis of `base`.
    fn show_basis_of(&mut self, base: &Self) {
        let kept = self.kept.iter().position(|kept| Some(&kept.basis) == base.basis.as_ref());
        // If it is not kept, nothing had been counted, or too much was kept.
        self.evidence = kept.map_or_else(|| base.evidence.clone(), |at| self.kept.remove(at).evidence);
        (self.basis, self.parts, self.plan) = (base.basis.clone(), base.parts.clone(), base.plan.clone());
        (self.rules, self.rejudging) = (base.rules.clone(), base.rejudging.clone());
        if self.noise.basis != base.noise.basis {
            self.noise = base.noise.clone();
        }
    }

    /// Takes the row as it is, as at a start: this process has counted nothing of the route.
    fn load_row(&mut self, row: Self, version: EvidenceVersion) {
        let SharedState { last_attempt, row: id, .. } = self.shared.take().map_or_else(SharedState::default, |of| *of);
        self.shared =
            Some(Box::new(SharedState { last_attempt, row: id, ..SharedState::of_row(row.clone(), version) }));
        self.basis.clone_from(&row.basis);
        self.parts.clone_from(&row.parts);
        self.rules.clone_from(&row.rules);
        self.take_sums(row);
    }

    fn take_sums(&mut self, sum: Self) {
        let Self { evidence, kept, noise, rejudging, earlier_matches, processes, ended_shares, checks_lost, .. } = sum;
        (self.evidence, self.kept, self.noise, self.rejudging) = (evidence, kept, noise, rejudging);
        (self.earlier_matches, self.processes, self.checks_lost) = (earlier_matches, processes, checks_lost);
        self.ended_shares = ended_shares;
    }

    /// Adds what was counted between `before` and `after`, which have the same basis as these.
    pub(super) fn add_change_of(&mut self, before: &Self, after: &Self) {
        let sum = |own: &mut RouteEvidence, before: &RouteEvidence, after: &RouteEvidence| {
            let mut all = std::mem::take(own).without_noise();
            all.add_change(&before.clone().without_noise(), &after.clone().without_noise());
            *own = all;
        };
        sum(&mut self.evidence, &before.evidence, &after.evidence);
        if self.noise.basis == after.noise.basis && before.noise.basis == after.noise.basis {
            self.noise.add_change(&before.noise, &after.noise);
        }
        let none = RouteEvidence::default();
        for kept @ KeptEvidence { basis, evidence, .. } in &after.kept {
            let of_basis = |kept: &&KeptEvidence| kept.basis == *basis;
            let known = before.kept.iter().find(of_basis).map(|kept| &kept.evidence);
            if known == Some(evidence) {
                continue;
            }
            match self.kept.iter_mut().find(|kept| kept.basis == *basis) {
                Some(own) => sum(&mut own.evidence, known.unwrap_or(&none), evidence),
                // Nothing but this was counted under the earlier files, or too much was kept.
                None => self.kept.push(kept.clone()),
            }
        }
        self.kept.drain(..self.kept.len().saturating_sub(KEPT_MAX));
        Rejudging::add_change(&mut self.rejudging, (before.rejudging.as_ref(), after.rejudging.as_ref()), clock::now());
        self.evidence.judge_groups(&self.noise);
    }

    /// The id of the row, if it is not that of the route.
    pub(super) fn row_id(&self) -> Option<&RouteId> {
        self.shared.as_ref()?.row.as_ref()
    }

    /// Another route has the row from now on; what these counters have is written to the row of their own id. Returns
    /// the version of the row.
    pub(super) fn leave_row(&mut self) -> Option<EvidenceVersion> {
        let shared = std::mem::take(self.shared.as_deref_mut()?);
        let SharedState { version, mut base, other, changes, changes_before, last_attempt, .. } = shared;
        if let Some(row) = other
            && let Some(basis) = row.basis
        {
            // What the row says of another basis moves, too.
            let kept = KeptEvidence { basis, parts: row.parts.hashes, evidence: row.evidence };
            for all in [&mut self.kept, &mut base.kept] {
                all.retain(|other| other.basis != kept.basis);
                all.push(kept.clone());
            }
        }
        self.dirty = true;
        let is_moved_here = true;
        let own = SharedState { base, changes, changes_before, last_attempt, is_moved_here, ..SharedState::default() };
        self.shared = Some(Box::new(own));
        version
    }

    /// This route replaces the row of another one, which has left it.
    pub(super) fn replace_row_of_other(&mut self, version: Option<EvidenceVersion>) {
        self.shared = Some(Box::new(SharedState { version, ..SharedState::default() }));
    }

    /// Adds what was counted here, and is not in the store yet, to the counters of the id to which a process of an
    /// earlier version has moved the row.
    pub(super) fn give_counted_to(&mut self, to: &mut Self) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_moved_away) else { return };
        if to.basis == self.basis {
            let counted = self.without_shared();
            to.add_change_of(&shared.base, &counted);
            to.dirty = true;
        }
        let (totals, published) = (std::mem::take(&mut self.totals), std::mem::take(&mut self.published));
        *self = Self { totals, published, ..Self::default() };
    }
}
