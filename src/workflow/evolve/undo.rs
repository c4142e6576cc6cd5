//! Applies events of undoing.
//!
//! Always true: the undo of a call ends once. Either the call was undone, or only the intent of the undo was recorded,
//! or the call is left as it is, with the reason and whether it is unknown if the undo took effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::names::StepId;
use crate::workflow::calls::{CallState, Phase, StepItem};
use crate::workflow::run::UNDO_UNKNOWN;
use crate::workflow::undo_state::{UndoCall, UndoProgress, UndoStatus, Undoing};
use crate::workflow::{ConflictKind, Outcome, Run, StepFinished, StepPart};

impl Run {
    pub(super) fn compensation_began(&mut self, undo: &[Vec<StepItem>]) -> Result<(), String> {
        // A child that has no answer undoes what it did. In an earlier version every run without an answer did.
        self.failing = self.failing.take().or_else(|| self.unanswered.clone());
        if self.undoing.is_some() || self.failing.is_none() || self.in_flight > 0 {
            return Err("there is nothing to undo now".into());
        }
        let indexes: BTreeMap<StepItem, usize> =
            self.done.iter().enumerate().map(|(index, done)| ((done.step.clone(), done.item), index)).collect();
        let mut calls = BTreeMap::new();
        let mut progress: BTreeMap<StepId, UndoProgress> = BTreeMap::new();
        for (group, call) in
            undo.iter().enumerate().flat_map(|(index, group)| group.iter().map(move |call| (index, call)))
        {
            let Some(done) = indexes.get(call).copied() else { return Err(format!("`{}` was not done", call.0)) };
            if calls
                .insert(call.clone(), UndoCall { done, group, undone: UndoStatus::NotYet, is_unknown: false })
                .is_some()
            {
                return Err(format!("`{}` is to be undone twice", call.0));
            }
            progress.entry(call.0.clone()).or_default().to_come += 1;
        }
        for (index, done) in self.done.iter().enumerate() {
            let call = (done.step.clone(), done.item);
            if !done.rehearsed && !done.harmless && !calls.contains_key(&call) {
                progress.entry(call.0).or_default().left.insert(done.item, index);
            }
        }
        let to_come = undo.first().map_or(0, Vec::len);
        self.undoing = Some(Undoing { groups: undo.to_vec(), at: 0, next: 0, to_come, calls, progress });
        Ok(())
    }

    /// Checks that this step (item) is to be undone now.
    pub(in crate::workflow) fn check_undo_is_due(&self, step: &StepId, item: Option<u32>) -> Result<(), String> {
        let undoing = self.undoing.as_ref().filter(|undoing| {
            let call = undoing.calls.get(&(step.clone(), item));
            call.is_some_and(|call| call.group == undoing.at && call.undone == UndoStatus::NotYet)
        });
        undoing.map(|_| ()).ok_or_else(|| format!("`{step}` is not to be undone now"))
    }

    /// Moves on to the next undo of the group that has not begun, after one has begun or ended.
    pub(super) fn advance_undo(&mut self) {
        let Some(undoing) = &mut self.undoing else { return };
        let group = undoing.groups.get(undoing.at).map_or(&[][..], Vec::as_slice);
        while let Some((step, item)) = group.get(undoing.next)
            && (self.side_calls.contains_key(&(step.clone(), *item, StepPart::Undo))
                || undoing.calls.get(&(step.clone(), *item)).is_none_or(|call| call.undone != UndoStatus::NotYet))
        {
            undoing.next += 1;
        }
    }

    pub(super) fn undo_finished(&mut self, finished: &StepFinished) -> Result<(), String> {
        let StepFinished { step, item, part: _, attempt, outcome } = finished;
        self.check_undo_is_due(step, *item)?;
        let name = (step.clone(), *item, StepPart::Undo);
        match self.side_calls.get(&name) {
            Some(call) if call.attempt == *attempt && call.phase == Phase::InFlight => {
                self.side_calls.remove(&name);
                self.in_flight -= 1;
            }
            None if *attempt == 0 || matches!(outcome, Outcome::Rehearsed { .. }) => {}
            _ => return Err(format!("attempt {attempt} to undo `{step}` is not under way")),
        }
        match outcome {
            Outcome::Done { .. } => self.undo_ended(step, *item, UndoStatus::Undone),
            Outcome::Rehearsed { intent, .. } => {
                self.intents.insert((step.clone(), *item, StepPart::Undo), Arc::clone(intent));
                self.undo_ended(step, *item, UndoStatus::Rehearsed);
            }
            Outcome::Unknown { .. } => self.leave_undo(step, *item, true, UNDO_UNKNOWN.into()),
            Outcome::NotDone { failure } | Outcome::Failed { failure } | Outcome::Unfit { failure, .. } => {
                self.leave_undo(step, *item, false, failure.message.clone());
            }
        }
        Ok(())
    }

    /// Whether an undo over which a conflict of this kind is open may have taken effect.
    pub(super) fn is_undo_unknown(&self, step: &StepId, item: Option<u32>, kind: ConflictKind) -> bool {
        kind == ConflictKind::UndoUnknown
            || self.call_state(step, item, StepPart::Undo).is_some_and(CallState::unknown_effect)
    }

    /// Records that a person undid what a call did.
    pub(super) fn undone_by_hand(&mut self, step: &StepId, item: Option<u32>) {
        self.side_calls.remove(&(step.clone(), item, StepPart::Undo));
        self.undo_ended(step, item, UndoStatus::Undone);
    }

    /// Records that what a call did is left as it is, and why.
    pub(super) fn leave_undo(&mut self, step: &StepId, item: Option<u32>, is_unknown: bool, why: String) {
        self.side_calls.remove(&(step.clone(), item, StepPart::Undo));
        if let Some(call) = self.undoing.as_mut().and_then(|undoing| undoing.calls.get_mut(&(step.clone(), item))) {
            call.is_unknown = is_unknown;
        }
        self.undo_ended(step, item, UndoStatus::Left(why));
    }

    /// Leaves undos with unknown effect that wait for another attempt, because none will come.
    pub(super) fn give_up_unknown_undos(&mut self) {
        let waits = |call: &CallState| call.unknown_effect() && matches!(call.phase, Phase::Waiting(_));
        let undos = self.side_calls.iter().filter(|((.., part), call)| *part == StepPart::Undo && waits(call));
        let undos: Vec<StepItem> = undos.map(|((step, item, _), _)| (step.clone(), *item)).collect();
        for (step, item) in undos {
            self.leave_undo(&step, item, true, UNDO_UNKNOWN.into());
        }
    }

    fn undo_ended(&mut self, step: &StepId, item: Option<u32>, undone: UndoStatus) {
        let Some(undoing) = &mut self.undoing else { return };
        if let Some(call) = undoing.calls.get_mut(&(step.clone(), item)) {
            let progress = undoing.progress.entry(step.clone()).or_default();
            progress.to_come = progress.to_come.saturating_sub(1);
            match &undone {
                UndoStatus::Undone | UndoStatus::Rehearsed => progress.undone += 1,
                UndoStatus::Left(_) => drop(progress.left.insert(item, call.done)),
                UndoStatus::NotYet => progress.to_come += 1,
            }
            call.undone = undone;
        }
        undoing.to_come = undoing.to_come.saturating_sub(1);
        while undoing.to_come == 0 && undoing.at < undoing.groups.len() {
            (undoing.at, undoing.next) = (undoing.at + 1, 0);
            undoing.to_come = undoing.groups.get(undoing.at).map_or(0, Vec::len);
        }
        self.advance_undo();
    }
}
