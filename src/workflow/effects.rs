//! Which effects a run has performed, or may have performed.
//!
//! The question it answers: "was anything private or shared done, or may it have been?" What the earlier runs of its
//! job did counts too: a caller who is given the answer of a rerun sent one request for all of them. Always true: an
//! attempt counts from the moment at which it may be sent; it does not count any more once it is certain that it did
//! nothing (it was never sent, or the service or a probe said so). A run whose only effect was certainly not done can
//! still fall back to legacy, or tell its caller that nothing was done.

use super::calls::{CallState, Phase, StepState};
use super::performed_effects::PerformedEffects;
use super::{EffectClass, Mode, Run};
use crate::names::StepId;

impl CallState {
    /// Whether it may have taken effect, as far as is known now.
    pub(super) fn may_be_done(&self) -> bool {
        self.uncertain || self.unfit_result.is_some() || matches!(self.phase, Phase::InFlight | Phase::Probing)
    }
}

impl Run {
    /// Whether a private or shared step was done, or may have been, here or in a run below it.
    pub fn effects_begun(&self) -> bool {
        self.private_begun() || self.shared_begun()
    }
    /// Whether a private step was done, or may have been.
    pub(super) fn private_begun(&self) -> bool {
        self.performed_so_far().private
    }
    /// Whether a shared step was done, or may have been.
    pub fn shared_begun(&self) -> bool {
        self.performed_so_far().shared || (self.has_unreported_child && self.mode() == Mode::Real)
    }
    /// The strongest effect that was performed, or may have been, here or in a run below it; `None` where nothing but
    /// reads was done.
    pub fn strongest_effect(&self) -> Option<EffectClass> {
        match (self.shared_begun(), self.private_begun()) {
            (true, _) => Some(EffectClass::Shared),
            (false, true) => Some(EffectClass::Private),
            (false, false) => None,
        }
    }
    /// As [`Run::effects_begun`], but a child run that ended without a report counts as having done nothing. Only for
    /// the replay of `Abandoned` events: earlier versions decided by this whether a run may be abandoned.
    pub(super) fn reported_effects_begun(&self) -> bool {
        let PerformedEffects { private, shared } = self.performed_so_far();
        private || shared
    }
    fn performed_so_far(&self) -> PerformedEffects {
        let mut performed_effects = self.performed_effects;
        let step_calls = self.steps.values().flat_map(|state| match state {
            StepState::Open(open) => Some(open.calls.values()),
            _ => None,
        });
        let calls = step_calls.flatten().chain(self.side_calls.values());
        calls.filter(|call| call.may_be_done()).for_each(|call| performed_effects.note(call.effect));
        // Before a child run has ended its effects are not known here, and the child may perform one at any moment.
        if !self.interactions.children.is_empty() && self.mode() == Mode::Real {
            performed_effects.note(EffectClass::Shared);
        }
        performed_effects
    }
    /// Records the end of a call that may have taken effect.
    pub(super) fn note_effect(&mut self, effect: EffectClass) {
        self.performed_effects.note(effect);
    }
    /// Calls with unknown effect that no person decides about yet.
    pub(super) fn uncertain_calls(&self) -> impl Iterator<Item = (&StepId, Option<u32>, &CallState)> {
        self.steps.iter().flat_map(|(step, state)| {
            let open = match state {
                StepState::Open(open) => Some(open),
                _ => None,
            };
            open.into_iter().flat_map(move |open| {
                let calls = open.calls.iter();
                calls
                    .filter(|(_, call)| {
                        call.unknown_effect() && matches!(call.phase, Phase::Waiting(_) | Phase::ToProbe(_))
                    })
                    .map(move |(item_index, call)| (step, open.items.as_ref().map(|_| *item_index), call))
            })
        })
    }
    /// Calls with unknown effect that are not settled: another attempt, a probe or a person is still to come.
    pub(super) fn unsettled_calls(&self) -> impl Iterator<Item = (&StepId, &CallState)> {
        let open = self.steps.iter().filter_map(|(step, state)| match state {
            StepState::Open(open) => Some((step, open)),
            _ => None,
        });
        open.flat_map(|(step, open)| open.calls.values().map(move |call| (step, call)))
            .filter(|(_, call)| call.unknown_effect() && call.unfit_result.is_none())
    }
    /// Whether an attempt of a step (an item) that will not be repeated may have taken effect.
    pub(super) fn may_have_happened(&self, step: &StepId, item: Option<u32>) -> bool {
        self.unknown.iter().any(|call| call.step == *step && call.item == item)
    }
}
