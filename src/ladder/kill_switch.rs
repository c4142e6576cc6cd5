//! The kill switch: puts freezes in force, and tracks whether the store has them.
//!
//! Always true:
//!
//! - Changes are numbered in this process in the order in which they were requested, and an older change has no effect
//!   after a newer one.
//! - The newest freeze that is not in the store is in the `unrecorded` slot, until one of these is recorded: the freeze
//!   itself; the end of the freeze; a freeze by another process that is at least as strong. (If the freeze in the slot
//!   were recorded after that of the other process, all processes would follow it, although it may be weaker.)
//! - The freeze in force and the slot change under the same lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use metrics::Gauge;
use tokio::sync::watch;

use super::in_force::InForce;
use super::positions::{freeze_name, freeze_of};
use super::types::FreezeError;
use crate::clock;
use crate::flag::Freeze;
use crate::store::FlipRecord;

/// The kill switch of this process, and which of its changes the store has.
pub(super) struct FreezeRecords {
    state: Mutex<FreezeState>,
    /// The number of the newest change of this process that counts as recorded, with its record.
    recorded: watch::Sender<(u64, Option<FlipRecord>)>,
    unrecorded_gauge: Gauge,
}

#[derive(Default)]
struct FreezeState {
    /// The number of the newest change that was requested.
    version: u64,
    /// The number of the newest freeze that was set in this process.
    newest_freeze: u64,
    /// The store's number of the newest freeze of another process that was followed here.
    newest_followed_freeze: u64,
    /// The store's number of the newest change that is known to be recorded, and in force here.
    newest_recorded: u64,
    /// The store's number of the newest change of another process that was read, also if it is not in force yet.
    newest_read: u64,
    unrecorded: Option<UnrecordedFreeze>,
    /// Whether a task writes `unrecorded` to the store.
    is_recording: bool,
}

impl FreezeState {
    /// Whether a change that was recorded later than this one is in force here, or was read and is not in force yet.
    fn is_superseded(&self, flip: &FlipRecord) -> bool {
        flip.number <= self.newest_recorded || flip.number < self.newest_read
    }

    /// The change that this record of another process makes here, with its number; `None` if it makes none. `present`:
    /// the freeze in force.
    ///
    /// - A freeze of this process that the store does not have yet stays, unless the recorded one is at least as
    ///   strong: then the record counts for both.
    /// - A record of a freeze that is as strong as the one in force counts as a change. So a request to end the freeze
    ///   that was made before the record does not end it.
    fn change_by(&self, flip: &FlipRecord, present: Freeze) -> Option<(u64, Freeze)> {
        let freeze = freeze_of(flip);
        let stays = (freeze, present) == (Freeze::No, Freeze::No) || (self.unrecorded.is_some() && freeze < present);
        (!self.is_superseded(flip) && !stays).then_some((self.version + 1, freeze))
    }
}

/// A freeze that is in force and that the store does not have yet.
#[derive(Clone)]
pub(super) struct UnrecordedFreeze {
    pub version: u64,
    pub flip: FlipRecord,
    /// Since when a freeze has been in force that the store does not have: the time of the first one, if this one
    /// repeats it or is stronger.
    pub since: Timestamp,
}

/// The records for the end of a freeze, before they are in the store.
pub(super) struct FreezeEnd {
    pub flip: FlipRecord,
    /// The freeze that ends, if the store does not have it yet: both are recorded together.
    pub unrecorded: Option<FlipRecord>,
}

impl FreezeRecords {
    /// `last`: the last change that the store has.
    pub fn new(last: Option<&FlipRecord>) -> Self {
        let unrecorded_gauge = metrics::gauge!("pointsman_freeze_unrecorded");
        unrecorded_gauge.set(0.0);
        let newest_recorded = last.map_or(0, |last| last.number);
        let state = Mutex::new(FreezeState { newest_recorded, ..FreezeState::default() });
        Self { state, recorded: watch::Sender::new((0, None)), unrecorded_gauge }
    }

    fn state(&self) -> MutexGuard<'_, FreezeState> {
        // A poisoned lock is usable: the slot is set in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a freeze in force at once, and puts it into the slot, from which a task records it.
    ///
    /// # Errors
    /// A stronger freeze is in force.
    pub fn freeze(
        &self,
        in_force: &InForce,
        freeze: Freeze,
        reason: Option<String>,
        by: String,
    ) -> Result<UnrecordedFreeze, FreezeError> {
        let mut state = self.state();
        let from = in_force.inputs().freeze();
        if freeze < from {
            return Err(FreezeError::Weaker);
        }
        state.version += 1;
        let mut flip = record(from, freeze, reason, by);
        let mut since = flip.at;
        if let Some(before) = &state.unrecorded {
            // The freeze that was in the slot is never recorded: this one replaces it.
            flip.from.clone_from(&before.flip.from);
            since = before.since;
        }
        let unrecorded = UnrecordedFreeze { version: state.version, flip, since };
        in_force.set_freeze(unrecorded.version, freeze);
        (state.newest_freeze, state.unrecorded) = (unrecorded.version, Some(unrecorded.clone()));
        self.unrecorded_gauge.set(1.0);
        Ok(unrecorded)
    }

    /// Numbers a request to end the freeze. A freeze that is set later has a higher number and is not ended by it.
    pub fn request_end(&self) -> u64 {
        let mut state = self.state();
        state.version += 1;
        state.version
    }

    /// Puts a freeze that another process has recorded in force at once, if it is at least as strong as the present
    /// one. A weaker one, or the end of a freeze, is left to [`Self::follow`]: flips that were recorded before it may
    /// have to come into force first.
    pub fn follow_stronger(&self, in_force: &InForce, flip: &FlipRecord) {
        let mut state = self.state();
        state.newest_read = state.newest_read.max(flip.number);
        if freeze_of(flip) >= in_force.inputs().freeze() {
            self.follow_alone_with(&mut state, in_force, flip);
        }
    }

    /// Puts a change of the kill switch in force that another process has recorded, without any moves of routes.
    pub fn follow_alone(&self, in_force: &InForce, flip: &FlipRecord) {
        self.follow_alone_with(&mut self.state(), in_force, flip);
    }

    fn follow_alone_with(&self, state: &mut FreezeState, in_force: &InForce, flip: &FlipRecord) {
        let change = state.change_by(flip, in_force.inputs().freeze());
        if let Some((version, freeze)) = change {
            in_force.set_freeze(version, freeze);
        }
        self.note_followed(state, flip, change);
    }

    /// Calls `apply`, which puts moves in force, under the lock: no freeze comes into force meanwhile. `flip`: the
    /// change of the kill switch, if any, that another process has recorded together with these moves. `apply` gets the
    /// change that this makes here ([`FreezeState::change_by`]), and the time since when an unrecorded freeze has been
    /// in force. If `apply` returns `None`, it has put nothing in force, and nothing is noted here.
    pub fn follow<T>(
        &self,
        in_force: &InForce,
        flip: Option<&FlipRecord>,
        apply: impl FnOnce(Option<(u64, Freeze)>, Option<Timestamp>) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        let change = flip.and_then(|flip| state.change_by(flip, in_force.inputs().freeze()));
        let applied = apply(change, state.unrecorded.as_ref().map(|unrecorded| unrecorded.since))?;
        if let Some(flip) = flip {
            self.note_followed(&mut state, flip, change);
        }
        Some(applied)
    }

    /// The freeze that is in force once this record of another process is followed.
    pub fn freeze_after(&self, in_force: &InForce, flip: &FlipRecord) -> Freeze {
        let present = in_force.inputs().freeze();
        self.state().change_by(flip, present).map_or(present, |(_, freeze)| freeze)
    }

    /// Notes that this record of another process is in force here. `change`: what it changed here, if anything.
    fn note_followed(&self, state: &mut FreezeState, flip: &FlipRecord, change: Option<(u64, Freeze)>) {
        if state.is_superseded(flip) {
            return;
        }
        state.newest_recorded = flip.number;
        let own = state.unrecorded.as_ref().filter(|own| freeze_of(&own.flip) <= freeze_of(flip));
        if let Some(UnrecordedFreeze { version, flip: own, .. }) = own.cloned() {
            tracing::info!(
                freeze = %own.to, by = %own.by, number = flip.number, recorded = %flip.to, recorded_by = %flip.by,
                "another process has recorded a freeze that is as strong, which counts as the record of this one"
            );
            self.mark_recorded(state, version, flip);
        }
        if freeze_of(flip) != Freeze::No {
            state.newest_followed_freeze = flip.number;
        }
        if let Some((version, _)) = change {
            state.version = version;
        }
    }

    /// Prepares the records for the end of the freeze. Changes nothing. `requested`: what [`Self::request_end`]
    /// returned for it; `followed`: the number of the newest flip that was in force here at that moment.
    ///
    /// # Errors
    /// After the end was requested, a freeze was set here, or one that another process has recorded came into force.
    pub fn prepare_end(
        &self,
        in_force: &InForce,
        (requested, followed): (u64, u64),
        reason: Option<String>,
        by: String,
    ) -> Result<FreezeEnd, FreezeError> {
        let state = self.state();
        if state.newest_freeze > requested || state.newest_followed_freeze > followed {
            return Err(FreezeError::Superseded);
        }
        let flip = record(in_force.inputs().freeze(), Freeze::No, reason, by);
        Ok(FreezeEnd { flip, unrecorded: state.unrecorded.as_ref().map(|unrecorded| unrecorded.flip.clone()) })
    }

    /// Puts the recorded end of the freeze in force, and returns the number of that change; `None` if a newer freeze is
    /// in force, of this process or of another one.
    pub fn apply_recorded_end(&self, in_force: &InForce, requested: u64, flip: &FlipRecord) -> Option<u64> {
        let mut state = self.state();
        self.mark_recorded(&mut state, requested, flip);
        if state.newest_freeze > requested || state.newest_followed_freeze > flip.number {
            return None;
        }
        state.version += 1;
        in_force.set_freeze(state.version, Freeze::No);
        Some(state.version)
    }

    /// The freeze in the slot, for the caller to record: the caller is then the only task that records. `None` if the
    /// slot is empty, or if another task records already.
    pub fn begin_recording(&self) -> Option<UnrecordedFreeze> {
        let mut state = self.state();
        if state.is_recording {
            return None;
        }
        state.is_recording = state.unrecorded.is_some();
        state.unrecorded.clone()
    }

    /// For the task that records: the freeze that is in the slot now. If the slot is empty, the task has to stop, and
    /// another one may begin.
    pub fn next_unrecorded(&self) -> Option<UnrecordedFreeze> {
        let mut state = self.state();
        state.is_recording = state.unrecorded.is_some();
        state.unrecorded.clone()
    }

    /// Notes that the store has this freeze.
    pub fn mark_freeze_recorded(&self, version: u64, flip: &FlipRecord) {
        self.mark_recorded(&mut self.state(), version, flip);
    }

    /// Notes that the store has this change: empties the slot unless it has a newer freeze, and wakes the tasks that
    /// wait for the record.
    fn mark_recorded(&self, state: &mut FreezeState, version: u64, flip: &FlipRecord) {
        state.newest_recorded = state.newest_recorded.max(flip.number);
        state.unrecorded.take_if(|unrecorded| unrecorded.version <= version);
        self.unrecorded_gauge.set(f64::from(u8::from(state.unrecorded.is_some())));
        self.recorded.send_modify(|newest| {
            if version > newest.0 {
                *newest = (version, Some(flip.clone()));
            }
        });
    }

    /// Whether the slot has the freeze with this number.
    pub fn has_unrecorded(&self, version: u64) -> bool {
        self.state().unrecorded.as_ref().is_some_and(|unrecorded| unrecorded.version == version)
    }

    /// Whether the freeze in force is not in the store, so that a restart would lose it.
    pub fn is_unrecorded(&self) -> bool {
        self.unrecorded().is_some()
    }

    /// The freeze in force, if the store does not have it.
    pub fn unrecorded(&self) -> Option<UnrecordedFreeze> {
        self.state().unrecorded.clone()
    }

    /// Waits until the freeze in force is in the store.
    pub async fn wait_all_recorded(&self) {
        while let Some(UnrecordedFreeze { version, .. }) = self.unrecorded() {
            self.wait_recorded(version).await;
        }
    }

    /// Waits until the store has this change or a newer one, and returns its record.
    pub async fn wait_recorded(&self, version: u64) -> Option<FlipRecord> {
        let mut recorded = self.recorded.subscribe();
        let found = recorded.wait_for(|(newest, _)| *newest >= version).await.ok()?;
        found.1.clone()
    }
}

/// Whether a record is about the kill switch.
pub(super) fn is_of_kill_switch(flip: &FlipRecord) -> bool {
    flip.route.is_none() && flip.candidate.is_none()
}

/// The record of a change of the kill switch; the store assigns its number.
fn record(from: Freeze, to: Freeze, reason: Option<String>, by: String) -> FlipRecord {
    FlipRecord {
        number: 0,
        route: None,
        from: freeze_name(from).to_owned(),
        to: freeze_name(to).to_owned(),
        shares: None,
        by,
        at: clock::now(),
        reason,
        forced: false,
        overridden: None,
        evidence: serde_json::Value::Null,
        gates: Vec::new(),
        guard: None,
        candidate: None,
    }
}
