//! Whether runs of a workflow have to be kept in the store, so that no route can say `keep: none` for them.
//!
//! A run that only reads can be lost: a client that repeats the request gets the current data. Whatever else a run
//! does, or waits for, needs its events.

use super::{Busy, EffectClass, PauseOrFail, Plan, Risk, Step, StepKind};
use crate::names::StepId;
use crate::workflow::rules::RiskSource;

impl Plan {
    /// The first reason why runs of this plan have to be kept, as part of a sentence; `None` where they only read and
    /// compute.
    pub fn reason_to_keep(&self) -> Option<String> {
        let of_steps = self.steps.iter().find_map(|step| self.step_reason_to_keep(step));
        of_steps.or_else(|| self.pending.as_ref().map(|_| "`respond.pending`, for runs that go on".to_owned()))
    }

    /// The first step whose reply goes to the caller while the service sends it. Of such a run nothing can be kept.
    pub fn streaming_step(&self) -> Option<&StepId> {
        let streams = |step: &&Step| matches!(&step.kind, StepKind::Call(call) if call.stream);
        self.steps.iter().find(streams).map(|step| &step.id)
    }

    fn step_reason_to_keep(&self, step: &Step) -> Option<String> {
        let id = &step.id;
        match &step.kind {
            StepKind::Call(call) if call.effect != EffectClass::Read => {
                return Some(format!("the {} step `{id}`", call.effect.as_str()));
            }
            StepKind::Checkpoint(_) => return Some(format!("the checkpoint `{id}`")),
            StepKind::Wait(_) => return Some(format!("the wait `{id}`")),
            StepKind::Run(_) => return Some(format!("`{id}`, which runs another workflow")),
            StepKind::Call(_) | StepKind::Set(_) | StepKind::Fail(_) => {}
        }
        let pauses =
            [step.failure_handling.on_conflict, step.failure_handling.on_failure].contains(&Some(PauseOrFail::Pause));
        if pauses || step.safeguards.lock.as_ref().is_some_and(|lock| lock.busy == Busy::Ask) {
            return Some(format!("`{id}`, over which a person may have to decide"));
        }
        if step.safeguards.lock.as_ref().is_some_and(|lock| lock.key.is_some()) {
            return Some(format!("the lock of `{id}`"));
        }
        self.may_ask_people(step).then(|| format!("`{id}`, about which people may be asked (`risk`)"))
    }

    fn may_ask_people(&self, step: &Step) -> bool {
        let StepKind::Call(call) = &step.kind else { return false };
        match &step.safeguards.risk {
            Some(RiskSource::Fixed(risk)) => *risk != Risk::Low,
            Some(RiskSource::Computed(_)) => true,
            None => self.risks.iter().any(|policy| {
                policy.risk != Risk::Low
                    && policy.effect.is_none_or(|effect| effect == call.effect)
                    && policy.method.as_ref().is_none_or(|method| *method == call.method)
            }),
        }
    }
}
