//! The approval that a step (an item) needs at least, whatever its `risk:` says, because people approved something
//! other than what it would send.
//!
//! Always true: if a step about which people were asked, in this run or in an earlier one of its job, gets another
//! input, they are asked about that input at no lower risk. The approval of a `run` step covers the input of the child,
//! and what the child's workflow computes from it: a private or shared call of the child, or a run below it, is asked
//! about at no lower risk and by the same people if a person gave it another input. So is each of them in a rerun of
//! the child, which nobody has approved. A time-out never approves a question of a child to which an approval above it
//! applies.

use std::collections::BTreeSet;

use super::interactions::RunQuestion;
use super::{ApprovalAbove, EffectClass, OnTimeout, OpenCheckpoint, Plan, Risk, Run, Step, StepKind};
use crate::names::StepId;

/// The approval that a step (an item) needs at least.
pub(super) struct LeastApproval<'a> {
    /// The least risk.
    pub risk: Risk,
    above: Option<&'a ApprovalAbove>,
}

impl<'a> LeastApproval<'a> {
    /// The least approval of what is about to begin: of `item` if it is asked about `alone`, else of all items of its
    /// step. `has_moved` says that people approved the call and its service has got another address since.
    pub fn of(run: &'a Run, plan: &Plan, step: &Step, item: Option<u32>, alone: bool, has_moved: bool) -> Self {
        let evaluated = item.filter(|_| alone);
        let is_changed = has_moved || has_given_input(run, &step.id, evaluated);
        let before = if is_changed { risk_before_change(run, &step.id, item) } else { Risk::Low };
        let applies = || run.started.rerun_of.is_some() || depends_on_given_input(run, plan, step, evaluated);
        let above = run.started.approval_above.as_ref().filter(|_| has_effect(step) && applies());
        Self { risk: above.map_or(before, |above| above.risk.max(before)), above }
    }

    /// Adapts a question about a step whose own risk is `own` to the approval above, where one counts: the people who
    /// have to approve are asked, and a time-out rejects.
    pub fn apply(&self, own: Risk, mut asked: OpenCheckpoint) -> OpenCheckpoint {
        if let Some(above) = self.above {
            let own = ApprovalAbove { risk: own, who: std::mem::take(&mut asked.who) };
            asked.who = above.with(&own).who;
            asked.on_timeout = OnTimeout::Reject;
        }
        asked
    }
}

/// The approvals above a child that this step (item) begins, including that of the step; `None` where nobody was asked.
pub fn approval_above_child(run: &Run, step: &StepId, item: Option<u32>) -> Option<ApprovalAbove> {
    let approved = |item| run.interactions.question(step, item).filter(|question| question.approved().is_some());
    let approval = |question: &RunQuestion| {
        let asked = &question.checkpoint;
        ApprovalAbove { risk: asked.risk, who: asked.who.clone() }
    };
    let own = approved(item).or_else(|| approved(None)).map(approval);
    match (&run.started.approval_above, own) {
        (Some(above), Some(own)) => Some(above.with(&own)),
        (above, own) => own.or_else(|| above.clone()),
    }
}

/// Whether a person gave the input of a step (an item); `None` stands for all items of a step that has items.
pub(super) fn has_given_input(run: &Run, step: &StepId, item: Option<u32>) -> bool {
    match item {
        Some(_) => run.inputs.contains_key(&(step.clone(), item)),
        None => run.inputs.range((step.clone(), None)..).next().is_some_and(|((of, _), _)| of == step),
    }
}

/// The risk at which people were asked about a step (or about one item, or all items of it) before it got another input
/// or its service got another address. From then on the step's risk is at least this one. The risk of a question about
/// all items counts for each item, even if another item or the number of items caused it.
pub(super) fn risk_before_change(run: &Run, step: &StepId, item: Option<u32>) -> Risk {
    let questions = run.interactions.questions.values().map(|question| &question.checkpoint);
    let about_it = questions.filter(|asked| asked.step == *step && (asked.item.is_none() || asked.item == item));
    let in_earlier_runs = run.interactions.least_risks.get(step).copied();
    about_it.map(|asked| asked.risk).chain(in_earlier_runs).max().unwrap_or(Risk::Low)
}

/// Whether a step may have an effect, itself or by a run that it begins.
fn has_effect(step: &Step) -> bool {
    match &step.kind {
        StepKind::Call(call) => call.effect != EffectClass::Read,
        StepKind::Run(_) => true,
        StepKind::Set(_) | StepKind::Checkpoint(_) | StepKind::Wait(_) | StepKind::Fail(_) => false,
    }
}

/// Whether a person gave the input of a step (an item), or of a step that it is computed from. The search ends at steps
/// with an effect: people are asked about those.
fn depends_on_given_input(run: &Run, plan: &Plan, step: &Step, item: Option<u32>) -> bool {
    if has_given_input(run, &step.id, item) {
        return true;
    }
    let (mut visited, mut to_visit) = (BTreeSet::new(), vec![step]);
    while let Some(next) = to_visit.pop() {
        let before = next.needs.iter().chain(&next.replaces).chain(&next.failure_handling.fallback);
        let new = before.filter(|index| visited.insert(**index)).filter_map(|index| plan.steps.get(index.0));
        let new: Vec<_> = new.filter(|before| before.id != step.id && !has_effect(before)).collect();
        if new.iter().any(|before| has_given_input(run, &before.id, None)) {
            return true;
        }
        to_visit.extend(new);
    }
    false
}
