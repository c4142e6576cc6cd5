//! Which kill switch is in force, and whether a restart would find it.
//!
//! Always true: changes are numbered in this process in the order in which they were asked for, and an older one changes
//! nothing; the newest freeze that the store does not have waits in one slot until it does, or until its end is recorded.
//! What is in force changes under the same lock as the slot.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::sync::watch;

use super::in_force::InForce;
use super::positions::freeze_word;
use super::types::FreezeError;
use crate::clock;
use crate::flag::Freeze;
use crate::store::FlipRecord;

/// See the module.
pub(super) struct KillSwitch {
    state: Mutex<State>,
    /// The newest change that the store has.
    recorded: watch::Sender<(u64, Option<FlipRecord>)>,
    unrecorded: Gauge,
}

#[derive(Default)]
struct State {
    /// The number of the newest change that was asked for.
    version: u64,
    /// The number of the newest freeze.
    newest_freeze: u64,
    pending: Option<Pending>,
    /// Somebody writes it to the store.
    is_recording: bool,
}

/// A freeze that is in force, and that the store does not have yet.
#[derive(Clone)]
pub(super) struct Pending {
    pub version: u64,
    pub flip: FlipRecord,
}

/// The end of a freeze, before it is recorded.
pub(super) struct Lift {
    pub flip: FlipRecord,
    /// The freeze that it ends, where the store does not have it yet.
    pub pending: Option<FlipRecord>,
}

impl KillSwitch {
    pub fn new() -> Self {
        let unrecorded = metrics::gauge!("pointsman_freeze_unrecorded");
        unrecorded.set(0.0);
        Self { state: Mutex::default(), recorded: watch::Sender::new((0, None)), unrecorded }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking holder left is whole: the slot is set in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a freeze in force, to be recorded behind.
    ///
    /// # Errors
    /// A stronger one is in force.
    pub fn freeze(
        &self,
        in_force: &InForce,
        freeze: Freeze,
        reason: Option<String>,
        by: String,
    ) -> Result<Pending, FreezeError> {
        let mut state = self.state();
        let from = in_force.inputs().freeze();
        if freeze < from {
            return Err(FreezeError::Weaker);
        }
        state.version += 1;
        let mut flip = record(from, freeze, reason, by);
        if let Some(before) = &state.pending {
            flip.from.clone_from(&before.flip.from); // which is never recorded
        }
        let pending = Pending { version: state.version, flip };
        in_force.set_freeze(pending.version, freeze);
        (state.newest_freeze, state.pending) = (pending.version, Some(pending.clone()));
        self.unrecorded.set(1.0);
        Ok(pending)
    }

    /// The number of an end of the freeze in force that is asked for now.
    pub fn ask_for_end(&self) -> u64 {
        let mut state = self.state();
        state.version += 1;
        state.version
    }

    /// What is to be recorded for that end. Nothing changes by this.
    ///
    /// # Errors
    /// A freeze came after it was asked for.
    pub fn lift(
        &self,
        in_force: &InForce,
        version: u64,
        reason: Option<String>,
        by: String,
    ) -> Result<Lift, FreezeError> {
        let state = self.state();
        if state.newest_freeze > version {
            return Err(FreezeError::Overtaken);
        }
        let flip = record(in_force.inputs().freeze(), Freeze::No, reason, by);
        Ok(Lift { flip, pending: state.pending.as_ref().map(|pending| pending.flip.clone()) })
    }

    /// The end of a freeze is recorded: it is in force, unless a newer freeze is.
    pub fn lifted(&self, in_force: &InForce, version: u64, flip: &FlipRecord) {
        let mut state = self.state();
        in_force.set_freeze(version, Freeze::No);
        self.settle(&mut state, version, flip);
    }

    /// The freeze that waits, for who is the only one to write it; `None` where nothing waits, or somebody writes it.
    pub fn begin_recording(&self) -> Option<Pending> {
        let mut state = self.state();
        if state.is_recording {
            return None;
        }
        state.is_recording = state.pending.is_some();
        state.pending.clone()
    }

    /// What waits now, for who writes it; where nothing does, somebody else may begin.
    pub fn next_pending(&self) -> Option<Pending> {
        let mut state = self.state();
        state.is_recording = state.pending.is_some();
        state.pending.clone()
    }

    /// The store has this freeze.
    pub fn recorded(&self, version: u64, flip: &FlipRecord) {
        self.settle(&mut self.state(), version, flip);
    }

    fn settle(&self, state: &mut State, version: u64, flip: &FlipRecord) {
        state.pending.take_if(|pending| pending.version <= version);
        self.unrecorded.set(f64::from(u8::from(state.pending.is_some())));
        self.recorded.send_modify(|newest| {
            if version > newest.0 {
                *newest = (version, Some(flip.clone()));
            }
        });
    }

    /// Whether a restart would not find the freeze in force.
    pub fn is_unrecorded(&self) -> bool {
        self.state().pending.is_some()
    }

    /// Waits until the store has this change, or a newer one: its record.
    pub async fn wait_recorded(&self, version: u64) -> Option<FlipRecord> {
        let mut recorded = self.recorded.subscribe();
        let found = recorded.wait_for(|(newest, _)| *newest >= version).await.ok()?;
        found.1.clone()
    }
}

/// A change of the kill switch, before it has a number.
fn record(from: Freeze, to: Freeze, reason: Option<String>, by: String) -> FlipRecord {
    FlipRecord {
        number: 0,
        route: None,
        from: freeze_word(from).to_owned(),
        to: freeze_word(to).to_owned(),
        shares: None,
        by,
        at: clock::now(),
        reason,
        forced: false,
        evidence: serde_json::Value::Null,
    }
}
