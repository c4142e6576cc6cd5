//! What requests show of instances, until the store has it.
//!
//! An instance of legacy is recorded under the oldest id of its family's creator. If that id has changed, because files
//! list an older one or have joined several creators, an instance that was known before is recorded once more when a
//! request shows it: it counts twice until it ends, so that the count is too high and never too low.

use std::collections::HashSet;

use jiff::Timestamp;

use super::recorded::Report;
use super::{CHANGES_WAITING_MAX, ID_BYTES_MAX, Instances, LEGACY_INSTANCES_MAX};
use crate::clock;
use crate::exchange::NotedInstance;
use crate::flag::{Arm, Family, InstanceKey, PinKey};
use crate::names::RouteId;
use crate::store::{AdoptionState, InstanceChange, StoreError};

/// How many adoptions are read at a time.
const PAGE: usize = 500;

impl Instances {
    /// Records what a reply shows of an instance.
    pub(in crate::affinity) fn note(&self, noted: NotedInstance) {
        let NotedInstance { key, arm, run, is_created, has_ended } = noted;
        if arm == Arm::Legacy && is_created {
            self.note_created(key.stored_key());
        }
        match (arm, run, has_ended) {
            (Arm::Legacy, _, true) => {
                // The instance may be known under another id of the family, which was the oldest one before.
                let others = key.stored_keys().skip(1).filter(|key| self.may_be_alive(key));
                for key in std::iter::once(key.stored_key()).chain(others) {
                    self.state().recorded.forget(&Report::LegacyCreated(key.clone()));
                    self.record(Report::LegacyEnded(key.clone()), |at| InstanceChange::LegacyEnded(key, at));
                }
            }
            (Arm::Legacy, _, false) if is_created => {}
            (Arm::Legacy, _, false) => {
                let key = key.stored_key();
                self.record(Report::LegacySeen(key.clone()), |at| InstanceChange::LegacySeen(key, at));
            }
            (Arm::Engine, Some(run), true) => {
                let family = key.family.ids().cloned().collect();
                self.record(Report::EngineEnded(run), |at| InstanceChange::EngineEnded { family, run, at });
            }
            // The engine's instances are known by their pins.
            (Arm::Engine, _, _) => {}
        }
    }

    fn note_created(&self, key: PinKey) {
        let mut state = self.state();
        // If an instance with this id has ended, legacy has given out the id again.
        state.recorded.forget(&Report::LegacyEnded(key.clone()));
        state.recorded.insert(Report::LegacySeen(key.clone()), clock::now());
        drop(state);
        self.record(Report::LegacyCreated(key.clone()), |at| InstanceChange::LegacyCreated(key, at));
    }

    /// Records that the twin of an instance of legacy lacks something.
    pub fn note_incomplete_twin(&self, instance: &InstanceKey) {
        let key = instance.stored_key();
        self.record(Report::TwinIncomplete(key.clone()), |at| InstanceChange::TwinIncomplete(key, at));
    }

    fn record(&self, report: Report, change: impl FnOnce(Timestamp) -> InstanceChange) {
        let mut state = self.state();
        let of_legacy = match &report {
            Report::LegacySeen(key) | Report::LegacyCreated(key) | Report::TwinIncomplete(key) => Some(key),
            // If such a report is lost, an instance only counts as alive for longer.
            Report::LegacyEnded(_) | Report::EngineEnded(_) => None,
        };
        let has_bad_id = match &report {
            Report::LegacySeen(key)
            | Report::LegacyCreated(key)
            | Report::TwinIncomplete(key)
            | Report::LegacyEnded(key) => key.id.is_empty() || key.id.len() > ID_BYTES_MAX,
            Report::EngineEnded(_) => false,
        };
        if has_bad_id || state.waiting.len() >= CHANGES_WAITING_MAX || self.has_too_many(of_legacy) {
            if let Some(PinKey { family, .. }) = of_legacy
                && state.unknown.insert(family.clone(), clock::now()).is_none()
            {
                tracing::warn!(
                    %family, waiting = state.waiting.len(),
                    "an instance that legacy has is not recorded (its id is too long, too many reports wait for the \
                     store, or legacy has too many): the gate to `only` stays shut until `alive:` lists all"
                );
                self.changed.notify_one();
            }
            return;
        }
        let at = clock::now();
        if state.recorded.insert(report, at) {
            state.waiting.push(change(at));
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Whether an instance of legacy with this key may be recorded as one that has not ended.
    fn may_be_alive(&self, key: &PinKey) -> bool {
        let counts = self.counts.load();
        let shown = [Report::LegacySeen(key.clone()), Report::LegacyCreated(key.clone())];
        counts.get(&(key.family.clone(), Arm::Legacy)).is_none_or(|count| count.alive > 0)
            || shown.iter().any(|report| self.state().recorded.recorded_at(report).is_some())
    }

    fn has_too_many(&self, of_legacy: Option<&PinKey>) -> bool {
        let counts = self.counts.load();
        let of_family = of_legacy.and_then(|key| counts.get(&(key.family.clone(), Arm::Legacy)));
        of_family.is_some_and(|count| count.alive >= LEGACY_INSTANCES_MAX)
    }

    /// These changes, without the instances of legacy that the engine has adopted under another id of the family. The
    /// store itself leaves out those that were adopted under the same id.
    pub(super) async fn without_adopted(
        &self,
        family: &Family,
        mut changes: Vec<InstanceChange>,
    ) -> Result<Vec<InstanceChange>, StoreError> {
        let has_other_ids = family.ids().nth(1).is_some();
        let is_listed = |change: &InstanceChange| {
            matches!(change, InstanceChange::LegacyListed(..) | InstanceChange::LegacyCreated(..))
        };
        if !has_other_ids || !changes.iter().any(is_listed) {
            return Ok(changes);
        }
        let counts = self.store.adoption_counts().await?;
        let has_adopted = |id: &&RouteId| {
            counts.iter().any(|(of, state, count)| of == *id && *state == AdoptionState::Adopted && *count > 0)
        };
        let mut adopted = HashSet::new();
        for id in family.ids().filter(|id| *id != family.first_id()).filter(has_adopted) {
            let mut after = None;
            loop {
                let page = self.store.adoptions(Some(id.clone()), vec![AdoptionState::Adopted], after, PAGE).await?;
                after = page.last().map(|last| last.key.clone());
                let is_last = page.len() < PAGE;
                adopted.extend(page.into_iter().map(|adoption| adoption.key.id));
                if is_last {
                    break;
                }
            }
        }
        changes.retain(|change| match change {
            InstanceChange::LegacyListed(key, _) | InstanceChange::LegacyCreated(key, _) => !adopted.contains(&key.id),
            _ => true,
        });
        Ok(changes)
    }
}
