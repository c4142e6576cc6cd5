//! What a run has done to the world, or may have.
//!
//! The question it answers: "was anything private or shared done, or may it have been?" Always true: an attempt counts
//! from the moment at which it may leave; once it is certain that it did nothing (it never left, the service said so, a
//! probe did), it does not count any more. So a run whose only effect was certainly not done can be given back to
//! legacy, and its caller is told that nothing was done.

use super::calls::{CallState, Phase, StepState};
use super::touched::Touched;
use super::{EffectClass, Mode, Run};
use crate::names::StepId;

impl CallState {
    /// It may have had its effect, as far as is known now.
    pub(super) fn may_be_done(&self) -> bool {
        self.uncertain || self.gave.is_some() || matches!(self.phase, Phase::InFlight | Phase::Probing)
    }
}

impl Run {
    /// Whether a private or shared step was done, or may have been.
    pub fn effects_begun(&self) -> bool {
        let Touched { private, shared } = self.may_have_touched();
        private || shared
    }
    /// Whether a shared step was done, or may have been.
    pub fn shared_begun(&self) -> bool {
        self.may_have_touched().shared
    }
    fn may_have_touched(&self) -> Touched {
        let mut touched = self.touched;
        let own = self.steps.values().flat_map(|state| match state {
            StepState::Open(open) => Some(open.calls.values()),
            _ => None,
        });
        let calls = own.flatten().chain(self.asides.values());
        calls.filter(|call| call.may_be_done()).for_each(|call| touched.note(call.effect));
        // What a run does that it began is not known here before it has ended.
        if !self.interactions.children.is_empty() && self.mode() == Mode::Real {
            touched.note(EffectClass::Shared);
        }
        touched
    }
    /// A call is over that may have had its effect.
    pub(super) fn touch(&mut self, effect: EffectClass) {
        self.touched.note(effect);
    }
    /// Whether it did something, or may have, that a person may want to take back.
    pub fn did_something(&self) -> bool {
        self.done.iter().any(|done| !done.rehearsed && !done.harmless) || !self.unknown.is_empty()
    }
    /// Calls of which it is unknown whether they took place, and that no person looks at yet.
    pub(super) fn uncertain(&self) -> impl Iterator<Item = (&StepId, Option<u32>, &CallState)> {
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
                    .map(move |(slot, call)| (step, open.items.as_ref().map(|_| *slot), call))
            })
        })
    }
    /// Calls of which it is unknown whether they took place and that something still comes back to: another attempt, a
    /// probe, or a person.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = (&StepId, &CallState)> {
        let open = self.steps.iter().filter_map(|(step, state)| match state {
            StepState::Open(open) => Some((step, open)),
            _ => None,
        });
        open.flat_map(|(step, open)| open.calls.values().map(move |call| (step, call)))
            .filter(|(_, call)| call.unknown_effect() && call.gave.is_none())
    }
    /// Whether an attempt of a step (an item) that nobody goes back to may have taken place.
    pub(super) fn may_have_happened(&self, step: &StepId, item: Option<u32>) -> bool {
        self.unknown.iter().any(|call| call.step == *step && call.item == item)
    }
}
