//! Adds up the counters of a route over several processes that share a store. The store has one row per route.
//!
//! It is a three-way merge. Each process keeps the row as it last read or wrote it (`base`) and counts on in its own
//! counters. To write, it replaces the row by `row + (counters - base)`, on the condition that the row still has the
//! version that was read; if another process has replaced the row meanwhile, it reads the row and tries once more. So
//! the row has the sum of all, and each process has that sum and what it has counted itself since.
//!
//! Example: the row has 100 pairs, and the processes A and B have read it. A counts 5 pairs, B counts 3. A writes 105.
//! The write of B fails, because the version is another one. B reads 105, which makes its counters 108 and its `base`
//! 105, and writes 108. A reads 108 with its next flush.
//!
//! An *edit* is a change that is not counting, such as another basis, other cohorts, or pairs that are judged again. It
//! mostly comes from the files. It is made to the counters and to `base` alike, so that their difference still has only
//! what was counted. Until a row with the edit is written, the edit is made again to each row that is read. On a row
//! that has it already, from another process, it has no effect.
//!
//! While files are replaced in one process after the other, the files of a process may give the route another *basis*
//! than the row has. Such a process adds what it counts in two places ([`Counters::added_to_row_of_other_basis`]): to
//! the evidence that the row keeps of the process's basis, and, where a change from the one basis to the other lets
//! evidence go on, to that of the row's basis. It shows what the row keeps of its own basis.
//!
//! Always true: what a process counted is added exactly once, also if the reply to a write was lost, and whichever
//! basis the row has. Each write has a number, and the row has the number of each process's last write: in its share
//! (`processes`) or, once the share has ended, in `ended_shares`. So a process that reads the row sees which of its
//! writes were done.

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
    /// Makes an edit to the counters and to what is known of the row; see the module.
    pub(super) fn edit<R>(&mut self, edit: impl Fn(&mut Self) -> R + Send + Sync + 'static) -> R {
        let result = edit(self);
        if let Some(shared) = &mut self.shared {
            shared.edit(move |counters| drop(edit(counters)));
            if shared.row_of_other_basis.is_some() {
                // Without a version the row is read again before it is written, and the edit is made to it.
                shared.version = None;
            }
        }
        result
    }

    /// Whether the row lacks something that these counters have, or may lack it.
    pub(super) fn has_unwritten(&self) -> bool {
        let shared = self.shared.as_ref();
        let is_known = self.basis.is_some() || shared.is_some_and(|shared| shared.version.is_some());
        let is_written = shared.is_none_or(|shared| shared.attempts.is_empty() && shared.edits.is_empty());
        is_known && (self.dirty || !is_written)
    }

    /// The row that is to be written, and the version of the row that it replaces; `None` if nothing is to be written.
    /// `is_leaving`: this process is about to end, and removes its share.
    pub(super) fn prepare_write(
        &mut self,
        own_id: WorkerId,
        (name, guard): (&str, GuardCounts),
        is_leaving: bool,
    ) -> Option<(StoredEvidence, Option<EvidenceVersion>)> {
        let has_share = self.processes.contains_key(&own_id);
        let shared = self.shared.get_or_insert_with(Box::default);
        if shared.is_moved_away {
            return None;
        }
        let edits = shared.edits_so_far();
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
                self.end_share(own_id, EndedShare { write, at, basis, guard });
            }
            false => {
                let (basis, in_flight, checks_in_flight) =
                    (self.basis.clone(), self.in_flight.clone(), self.checks_in_flight);
                let share =
                    ProcessShare { name: name.to_owned(), write, at, basis, in_flight, checks_in_flight, guard };
                self.processes.insert(own_id, share);
                self.ended_shares.remove(&own_id);
            }
        }
        let written = self.without_shared();
        let base = self.shared.as_ref().map(|shared| &*shared.base);
        let row = self.shared.as_ref().and_then(|shared| shared.row_of_other_basis.as_deref());
        let row_of_other_basis = row.map(|row| Box::new(written.added_to_row_of_other_basis(row, base)));
        let stored = row_of_other_basis.as_deref().unwrap_or(&written).to_stored();
        let shared = self.shared.as_mut()?;
        shared.add_attempt(Attempt { number: write, written: Box::new(written), row_of_other_basis, edits });
        Some((stored, shared.version.clone()))
    }

    /// A copy that is written to the store: without what only this process knows.
    fn without_shared(&self) -> Self {
        let mut copy = Self { shared: None, ..self.clone() };
        (copy.in_flight, copy.checks_in_flight) = Default::default();
        copy
    }

    /// Records that the last attempt to write was done: the row has this version now.
    pub(super) fn confirm_write(&mut self, version: EvidenceVersion) {
        let Some(shared) = &mut self.shared else { return };
        if let Some(attempt) = shared.attempts.pop() {
            shared.confirm_attempt(attempt);
            // If there are further edits, a row of another basis has to be read again, so that they are made to it.
            let needs_read = shared.row_of_other_basis.is_some() && !shared.edits.is_empty();
            shared.version = (!needs_read).then_some(version);
        }
    }

    /// Merges a row that was read into the counters: adds what other processes have counted. Returns whether another
    /// process has changed the basis of the row before this one could, and so has removed the samples of the route.
    pub(super) fn merge_row(&mut self, mut row: Self, version: EvidenceVersion, own_id: WorkerId) -> bool {
        let shared = self.shared.get_or_insert_with(Box::default);
        // The reply to a write may have been lost: if the row has the number of an attempt, that attempt was done.
        let ended = row.ended_shares.get(&own_id).map(|share| share.write);
        let last = row.processes.get(&own_id).map(|share| share.write).or(ended);
        let attempts = std::mem::take(&mut shared.attempts);
        self.dirty |= !attempts.is_empty();
        if let Some(written) = attempts.into_iter().find(|attempt| Some(attempt.number) == last) {
            shared.confirm_attempt(written);
        }
        if row.basis.is_none() {
            // The row is empty: a process of an earlier version has moved its content to another id, or it never had
            // any.
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
        shared.edits.iter().for_each(|edit| edit(&mut row));
        (shared.version, shared.is_moved_here, shared.is_moved_away) = (Some(version), false, false);
        // A basis whose parts are equal counts as the same: its hash also covers names of path parameters that nothing
        // reads, which are not among its parts.
        let has_same_parts = !row.parts.hashes.is_empty() && row.parts.hashes == self.parts.hashes;
        let has_other_basis = row.basis != self.basis && !has_same_parts;
        shared.row_of_other_basis = has_other_basis.then(|| Box::new(row.clone()));
        if has_other_basis {
            row.switch_to_basis_of(&shared.base);
        }
        let clears_samples = shared.clears_samples && had_basis;
        let base = std::mem::replace(&mut *shared.base, row.clone());
        row.add_counted_between(&base, self);
        self.set_sums(row);
        clears_samples
    }

    /// Returns a row that has another basis, with what was counted here since `before` added to it. Both `before` and
    /// these counters are first changed to the basis of the row, as if this process read the files of that basis now.
    fn added_to_row_of_other_basis(&self, row: &Self, before: Option<&Self>) -> Self {
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
                // Figures that no evidence reaches: whether earlier differences are outweighed was judged by a process
                // that has the files of this basis, and is not judged here.
                wanted: WantedPairs { pairs: u64::MAX, mismatch_below: 0.5 },
                ..EvidenceBasis::default()
            };
            let now = clock::now();
            [&mut before, &mut after].into_iter().for_each(|counters| drop(counters.set_basis(0, &basis, now)));
        }
        sum.add_counted_between(&before, &after);
        sum
    }

    /// Changes a row of another basis to the basis of `base`: the evidence that the row keeps of this basis becomes its
    /// present evidence.
    fn switch_to_basis_of(&mut self, base: &Self) {
        let kept = self.kept.iter().position(|kept| Some(&kept.basis) == base.basis.as_ref());
        // The row keeps none if nothing had been counted, or if it was dropped because of the bound (`KEPT_MAX`).
        self.evidence = kept.map_or_else(|| base.evidence.clone(), |at| self.kept.remove(at).evidence);
        (self.basis, self.parts, self.plan) = (base.basis.clone(), base.parts.clone(), base.plan.clone());
        (self.rules, self.rejudging) = (base.rules.clone(), base.rejudging.clone());
        if self.noise.basis != base.noise.basis {
            self.noise = base.noise.clone();
        }
    }

    /// Takes over the row as it is, as at a start: this process has counted nothing of the route.
    fn load_row(&mut self, row: Self, version: EvidenceVersion) {
        let SharedState { last_attempt, row_id, .. } =
            self.shared.take().map_or_else(SharedState::default, |shared| *shared);
        self.shared = Some(Box::new(SharedState { last_attempt, row_id, ..SharedState::of_row(row.clone(), version) }));
        self.basis.clone_from(&row.basis);
        self.parts.clone_from(&row.parts);
        self.rules.clone_from(&row.rules);
        self.set_sums(row);
    }

    /// Replaces the fields that are summed over the processes.
    fn set_sums(&mut self, sum: Self) {
        let Self { evidence, kept, noise, rejudging, earlier_matches, processes, ended_shares, checks_lost, .. } = sum;
        (self.evidence, self.kept, self.noise, self.rejudging) = (evidence, kept, noise, rejudging);
        (self.earlier_matches, self.processes, self.checks_lost) = (earlier_matches, processes, checks_lost);
        self.ended_shares = ended_shares;
    }

    /// Adds what was counted between `before` and `after`. Both have the basis of these counters.
    pub(super) fn add_counted_between(&mut self, before: &Self, after: &Self) {
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
                // Nobody else has counted under that basis, or what was counted was dropped because of `KEPT_MAX`.
                None => self.kept.push(kept.clone()),
            }
        }
        self.kept.drain(..self.kept.len().saturating_sub(KEPT_MAX));
        Rejudging::add_change(&mut self.rejudging, (before.rejudging.as_ref(), after.rejudging.as_ref()), clock::now());
        self.evidence.judge_groups(&self.noise);
    }

    /// The id of the row, if it is not that of the route.
    pub(super) fn row_id(&self) -> Option<&RouteId> {
        self.shared.as_ref()?.row_id.as_ref()
    }

    /// Leaves the row to another route, which has the row's id in the files now. What these counters have is written to
    /// the row of their own id. Returns the version of the row that was left.
    pub(super) fn leave_row(&mut self) -> Option<EvidenceVersion> {
        let shared = std::mem::take(self.shared.as_deref_mut()?);
        let SharedState { version, mut base, row_of_other_basis, edits, edits_before, last_attempt, .. } = shared;
        if let Some(row) = row_of_other_basis
            && let Some(basis) = row.basis
        {
            // The evidence of the row's own basis moves, too.
            let kept = KeptEvidence { basis, parts: row.parts.hashes, evidence: row.evidence };
            for all in [&mut self.kept, &mut base.kept] {
                all.retain(|other| other.basis != kept.basis);
                all.push(kept.clone());
            }
        }
        self.dirty = true;
        let is_moved_here = true;
        let own = SharedState { base, edits, edits_before, last_attempt, is_moved_here, ..SharedState::default() };
        self.shared = Some(Box::new(own));
        version
    }

    /// Makes the row of this version, which another route has left, the row that these counters replace.
    pub(super) fn replace_left_row(&mut self, version: Option<EvidenceVersion>) {
        self.shared = Some(Box::new(SharedState { version, ..SharedState::default() }));
    }

    /// Moves what was counted here, and is not in the store yet, to the counters of another id: a process of an earlier
    /// version has moved the row to that id. Does nothing if none has.
    pub(super) fn move_unwritten_to(&mut self, to: &mut Self) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_moved_away) else { return };
        if to.basis == self.basis {
            let counted = self.without_shared();
            to.add_counted_between(&shared.base, &counted);
            to.dirty = true;
        }
        let (totals, published) = (std::mem::take(&mut self.totals), std::mem::take(&mut self.published));
        *self = Self { totals, published, ..Self::default() };
    }
}
