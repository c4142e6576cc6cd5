//! The counters of a route in a store that several processes share.
//!
//! Each process has the counters as the store last had them (`base`), and counts on. To write, it adds what it counted
//! since to what the store has now, and replaces the row, unless another process has replaced it meanwhile: then it
//! reads the row and adds once more. So the row has the sum of what all have counted, and each process has that sum,
//! too, with what it has counted itself since.
//!
//! What is no sum follows from the files: another basis, other cohorts, pairs that are judged again. Such a change is
//! made to the counters and to `base` alike, so that it is no part of what was counted, and again to each row that is
//! read before it is written. A change that another process has made before has no further effect on a row.
//!
//! Always true: what was counted by a process is added exactly once, also if it is not known whether a write was done;
//! and a process whose files give a route another basis than the row has keeps what it counts until its files agree.

use super::add_change::AddChange;
use super::basis_change::KEPT_MAX;
use super::counters::Counters;
use super::process_share::{GuardCounts, ProcessShare};
use super::rejudging::Rejudging;
use super::route::{KeptEvidence, RouteEvidence};
use super::shared_state::{Attempt, SharedState};
use super::stored::StoredEvidence;
use crate::clock;
use crate::names::WorkerId;
use crate::store::EvidenceVersion;

impl Counters {
    /// Makes a change that is no sum; see the module.
    pub(super) fn change<R>(&mut self, change: impl Fn(&mut Self) -> R + Send + Sync + 'static) -> R {
        let result = change(self);
        if let Some(shared) = &mut self.shared {
            shared.change(move |counters| drop(change(counters)));
        }
        result
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
        if shared.is_elsewhere {
            return None;
        }
        let changes = shared.changes.len();
        let is_known = self.basis.is_some() || shared.version.is_some();
        if !is_known || !(self.dirty || changes > 0 || (is_leaving && has_share)) {
            return None;
        }
        self.dirty = false;
        shared.last_attempt += 1;
        let (write, at) = (shared.last_attempt, clock::now());
        match is_leaving || self.basis.is_none() {
            true => drop(self.processes.remove(&own)),
            false => {
                let (in_flight, checks_in_flight) = (self.in_flight.clone(), self.checks_in_flight);
                let share = ProcessShare { name: name.to_owned(), write, at, in_flight, checks_in_flight, guard };
                self.processes.insert(own, share);
            }
        }
        let written = self.without_shared();
        let stored = written.to_stored();
        let shared = self.shared.as_mut()?;
        shared.tries(Attempt { number: write, written: Box::new(written), changes });
        Some((stored, shared.version.clone()))
    }

    fn without_shared(&self) -> Self {
        let mut copy = Self { shared: None, ..self.clone() };
        (copy.in_flight, copy.checks_in_flight) = Default::default();
        copy
    }

    /// The row was replaced, and is this version now.
    pub(super) fn was_written(&mut self, version: EvidenceVersion) {
        let Some(shared) = &mut self.shared else { return };
        if let Some(attempt) = shared.attempts.pop() {
            shared.has_written(attempt);
            shared.version = Some(version);
        }
    }

    /// The row has changed: adds what other processes have counted. Returns whether another process had changed the
    /// basis before this one, and removed the samples of the route.
    pub(super) fn read_row(&mut self, mut row: Self, version: EvidenceVersion, own: WorkerId) -> bool {
        let shared = self.shared.get_or_insert_with(Box::default);
        // The reply to a write may have been lost.
        let last = row.processes.get(&own).map(|share| share.write);
        let attempts = std::mem::take(&mut shared.attempts);
        self.dirty |= !attempts.is_empty();
        if let Some(written) = attempts.into_iter().find(|attempt| Some(attempt.number) == last) {
            shared.has_written(written);
        }
        if row.basis.is_none() {
            // Another process has moved its content to another id; or it never had any.
            shared.is_elsewhere = self.basis.is_some() && shared.base.basis.is_some() && !shared.is_moved_here;
            shared.version = Some(version);
            self.dirty |= self.basis.is_some();
            return false;
        }
        if self.basis.is_none() {
            self.take_row(row, version);
            return false;
        }
        let had_basis = row.basis == self.basis;
        shared.changes.iter().for_each(|change| change(&mut row));
        if row.basis != self.basis {
            shared.is_elsewhere = true;
            return false;
        }
        shared.is_elsewhere = false;
        (shared.version, shared.is_moved_here) = (Some(version), false);
        let clears_samples = shared.clears_samples;
        let base = std::mem::replace(&mut *shared.base, row.clone());
        row.add_change_of(&base, self);
        self.take_sums(row);
        had_basis && clears_samples
    }

    /// Takes the row as it is, as at a start: this process has counted nothing of the route.
    fn take_row(&mut self, row: Self, version: EvidenceVersion) {
        let last_attempt = self.shared.as_ref().map_or(0, |shared| shared.last_attempt);
        self.shared = Some(Box::new(SharedState { last_attempt, ..SharedState::of_row(row.clone(), version) }));
        self.basis.clone_from(&row.basis);
        self.parts.clone_from(&row.parts);
        self.rules.clone_from(&row.rules);
        self.take_sums(row);
    }

    fn take_sums(&mut self, sum: Self) {
        let Self { evidence, kept, noise, rejudging, earlier_matches, processes, checks_lost, .. } = sum;
        (self.evidence, self.kept, self.noise, self.rejudging) = (evidence, kept, noise, rejudging);
        (self.earlier_matches, self.processes, self.checks_lost) = (earlier_matches, processes, checks_lost);
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
                // Nothing but this was counted under the earlier files.
                None if known.is_none() => self.kept.insert(0, kept.clone()),
                None => {}
            }
        }
        self.kept.drain(..self.kept.len().saturating_sub(KEPT_MAX));
        Rejudging::add_change(&mut self.rejudging, (before.rejudging.as_ref(), after.rejudging.as_ref()), clock::now());
        self.evidence.judge_groups(&self.noise);
    }

    /// The counters move to another id, as what the store has of them does. Returns what they take along.
    pub(super) fn move_shared(&mut self) -> Option<SharedState<Self>> {
        let shared = self.shared.as_mut()?;
        let moved = SharedState {
            base: shared.base.clone(),
            changes: std::mem::take(&mut shared.changes),
            is_moved_here: true,
            ..SharedState::default()
        };
        // The row is emptied, unless another process writes it meanwhile.
        *shared.base = Self::default();
        shared.attempts.clear();
        Some(moved)
    }

    /// Takes what moved counters take along. What is known of the row of this id stays.
    pub(super) fn take_moved(&mut self, moved: SharedState<Self>) {
        let of_row = self.shared.take().unwrap_or_default();
        let SharedState { version, last_attempt, .. } = *of_row;
        self.shared = Some(Box::new(SharedState { version, last_attempt, ..moved }));
    }

    /// Gives what was counted here since the store had it to the id to which another process has moved the row.
    pub(super) fn give_counted_to(&mut self, to: &mut Self) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_elsewhere) else { return };
        if to.basis == self.basis {
            let counted = self.without_shared();
            to.add_change_of(&shared.base, &counted);
            to.dirty = true;
        }
        let (totals, published) = (std::mem::take(&mut self.totals), std::mem::take(&mut self.published));
        *self = Self { totals, published, ..Self::default() };
    }
}
