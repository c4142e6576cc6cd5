//! Applies events of fallbacks: of steps and items that are replaced, and of the steps that replace them.
//!
//! Always true: a fallback replaces a whole step, or items of one step. In the second case the fallback has the same
//! items as the step, begins only the items that it replaces, and ends with the step. The result of an item of the
//! fallback is also the result of the replaced item; in a chain of fallbacks, of that item in every step of the chain.

use std::collections::BTreeSet;

use crate::names::StepId;
use crate::workflow::calls::{CallResult, Phase, Replaced, RunningStep, StepState};
use crate::workflow::{Failure, Run};

use super::result_fields::result_fields;

impl Run {
    /// Applies that a fallback replaces a whole step.
    pub(super) fn fallback_taken(&mut self, step: &StepId, by: &StepId, failure: &Failure) -> Result<(), String> {
        self.check_not_begun(by)?;
        let under_way = match self.steps.get(step) {
            None => false,
            Some(StepState::Open(open)) if open.items.is_none() => {
                open.calls.get(&0).is_some_and(|call| call.phase == Phase::InFlight)
            }
            Some(_) => return Err(format!("`{step}` has ended, or is a fan-out")),
        };
        self.in_flight -= usize::from(under_way);
        let failure = Box::new(failure.clone());
        self.steps.insert(step.clone(), StepState::Replaced { by: by.clone(), failure });
        self.replaced.insert(by.clone(), step.clone());
        Ok(())
    }

    /// Applies that a fallback replaces one item.
    pub(super) fn item_replaced(
        &mut self,
        step: &StepId,
        item: u32,
        by: &StepId,
        failure: &Failure,
    ) -> Result<(), String> {
        let open = self.open_step_mut(step, Some(item))?;
        if open.has_ended(item) || open.children.contains(&item) || open.replaced.contains_key(&item) {
            return Err(format!("item {item} of `{step}` has ended, or another step runs in its place"));
        }
        let under_way = open.calls.remove(&item).is_some_and(|call| call.phase == Phase::InFlight);
        open.queued.remove(&item);
        open.replaced.insert(item, Replaced { by: by.clone(), failure: failure.clone() });
        open.advance_next();
        let (items, collect) = (open.items.clone(), open.collect);
        self.in_flight -= usize::from(under_way);
        match self.steps.get_mut(by) {
            None => {
                let replaced_items = Some(BTreeSet::from([item]));
                let open = RunningStep { items, collect, replaced_items, ..RunningStep::default() };
                self.steps.insert(by.clone(), StepState::Open(open));
                self.replaced.insert(by.clone(), step.clone());
            }
            Some(StepState::Open(open)) if self.replaced.get(by) == Some(step) => {
                let is_new = open.replaced_items.as_mut().is_some_and(|items| items.insert(item));
                if !is_new {
                    return Err(format!("`{by}` has taken the place of item {item} before"));
                }
            }
            Some(_) => return Err(format!("`{by}` has begun already")),
        }
        Ok(())
    }

    /// The step whose items this fallback replaces.
    fn step_it_replaces(&self, step: &StepId) -> Option<StepId> {
        self.open_step(step)?.replaced_items.as_ref()?;
        self.replaced.get(step).cloned()
    }

    /// The fallback that runs for some of a step's items.
    fn item_fallback(&self, step: &StepId) -> Option<StepId> {
        let by = self.replaced.iter().find(|(_, original)| *original == step).map(|(by, _)| by)?;
        self.open_step(by)?.replaced_items.as_ref().map(|_| by.clone())
    }

    /// Records the result of a call (of a step or of one item). If the call replaces an item, the result is recorded
    /// for that item too. A skipped call has an empty result.
    pub(super) fn call_ended(&mut self, step: &StepId, item_index: u32, result: CallResult) {
        let mut current = step.clone();
        loop {
            if let Some(StepState::Open(open)) = self.steps.get_mut(&current) {
                if open.replaced.remove(&item_index).is_some()
                    && let (Some(by), Some(_)) = (&mut open.fallbacks_by_item, &result.output)
                {
                    by.insert(item_index, step.clone());
                }
                open.results.insert(item_index, result.clone());
                open.advance_next();
            }
            match self.step_it_replaces(&current) {
                Some(original) => current = original,
                None => break,
            }
        }
        self.end_step_if_complete(&current);
    }

    /// Records that a call (of a step or of one item) ended without a result. The run fails, unless the step collects
    /// failed items.
    pub(super) fn call_failed(&mut self, step: &StepId, item: Option<u32>, failure: &Failure) -> Result<(), String> {
        let mut collects = false;
        let mut current = step.clone();
        loop {
            if let (Some(StepState::Open(open)), Some(item_index)) = (self.steps.get_mut(&current), item) {
                if open.has_ended(item_index) {
                    return Err(format!("the call of `{step}` has ended"));
                }
                open.replaced.remove(&item_index);
                if open.collect {
                    collects = true;
                    open.failures.insert(item_index, failure.clone());
                    open.advance_next();
                }
            }
            match self.step_it_replaces(&current) {
                Some(original) => current = original,
                None => break,
            }
        }
        if collects {
            self.end_step_if_complete(&current);
            return Ok(());
        }
        // Other items may be under way: the step stays open until they have ended.
        if !self.items_under_way(&current) {
            self.end_item_fallbacks(&current, true);
            self.end_step(&current, StepState::Failed, None, Vec::new());
        }
        self.fail(failure.clone());
        Ok(())
    }

    /// Whether calls of the step, or of the fallback of its items, have begun and not ended.
    pub(super) fn items_under_way(&self, step: &StepId) -> bool {
        let has_calls = self.open_step(step).is_some_and(RunningStep::has_calls);
        has_calls || self.item_fallback(step).is_some_and(|by| self.items_under_way(&by))
    }

    /// Ends the fallback that runs for items of this step, if all items that it replaces have ended. Called for a step
    /// that is replaced, skipped or failed as a whole while such items were under way.
    pub(super) fn end_complete_item_fallback(&mut self, step: &StepId) {
        let open = self.item_fallback(step).and_then(|by| self.open_step(&by));
        if open.is_some_and(|open| open.replaced_items.iter().flatten().all(|item_index| open.has_ended(*item_index))) {
            self.end_item_fallbacks(step, false);
        }
    }

    /// Ends the fallback of a step's items together with the step.
    pub(super) fn end_item_fallbacks(&mut self, step: &StepId, failed: bool) {
        let Some(by) = self.item_fallback(step) else { return };
        self.end_item_fallbacks(&by, failed);
        let Some(open) = self.open_step(&by).filter(|_| !failed) else {
            return self.end_step(&by, StepState::Failed, None, Vec::new());
        };
        let (why_no_output, output, fields) = result_fields(open);
        self.end_as_done(&by, why_no_output, output, fields);
    }
}
