//! The replies that legacy got to its own calls, for the steps of one run, and of the runs below it, that are rehearsed
//! from them.
//!
//! Always true: a reply is decoded as one to a call of the engine would be, within the same bounds. Where the calls are
//! those of a candidate's control (the plan in force), they come from its events; a reply is not taken if these lack a
//! part that the step would record, because the run would go on with less than the service answered. A call is given to
//! one step of one run of the tree at most, and the step that has it gets it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::compare::EffectReply;
use crate::engine::machine::run_report;
use crate::engine::ports::decode::DecodeBounds;
use crate::engine::ports::reply;
use crate::exchange::{LegacyCalls, Reads};
use crate::names::{RunId, StepId, step_below};
use crate::workflow::{
    CallRecord, LegacyReplies, LegacyReply, LegacyResult, Plan, RehearsedCall, RunStarted, StepPart,
};

/// How often a call is looked for again because another run took the one that was found.
const TRIES_MAX: usize = 8;

/// From where a run, and the runs below it, take what legacy did for the request.
#[derive(Clone, Default)]
pub(super) struct LegacySources {
    /// Records or answers the reads.
    pub reads: Option<Arc<dyn Reads>>,
    /// The replies that legacy got to its calls.
    pub replies: Option<Arc<RepliesOfRun>>,
}

/// The replies that legacy got to its calls for the request of a run, as the steps of this run or of one below it take
/// them.
pub(super) struct RepliesOfRun {
    tree: Arc<CallsOfTree>,
    run: RunId,
    /// The step that began the run, named from the top on; `None` at the top.
    run_by: Option<StepId>,
    /// Whether a step above begins a run for each of its items: then each step of this run may make several calls.
    is_one_of_several: bool,
    plan: Arc<Plan>,
    bounds: DecodeBounds,
}

/// The calls that legacy made for one request, and who has them.
struct CallsOfTree {
    calls: Arc<dyn LegacyCalls>,
    taken: Mutex<BTreeMap<u64, Taker>>,
}

/// A call of a run: the run, the step and its item.
type Taker = (RunId, StepId, Option<u32>);

impl RepliesOfRun {
    /// For the run at the top.
    pub fn at_top(calls: Arc<dyn LegacyCalls>, started: &RunStarted, plan: Arc<Plan>, bounds: DecodeBounds) -> Self {
        let tree = Arc::new(CallsOfTree { calls, taken: Mutex::default() });
        Self { tree, run: started.run, run_by: None, is_one_of_several: false, plan, bounds }
    }

    /// For a run that a step of this one began.
    pub fn below(&self, step: &StepId, item: Option<u32>, child: RunId, plan: Arc<Plan>) -> Self {
        Self {
            tree: Arc::clone(&self.tree),
            run: child,
            run_by: Some(self.run_by.as_ref().map_or_else(|| step.clone(), |above| step_below(above, step.as_str()))),
            is_one_of_several: self.is_one_of_several || item.is_some(),
            plan,
            bounds: self.bounds,
        }
    }
}

impl CallsOfTree {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Taker>> {
        // A poisoned lock is usable: no change can panic halfway.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call that `find` finds among those that no other step has; it is given to this one.
    fn take(
        &self,
        taker: &Taker,
        find: impl Fn(&BTreeSet<u64>) -> Result<(u64, Option<EffectReply>), String>,
    ) -> Result<(u64, Option<EffectReply>), String> {
        for _ in 0..TRIES_MAX {
            let of_others = self.taken().iter().filter(|(_, of)| *of != taker).map(|(number, _)| *number).collect();
            // Not under the lock: a search may take `compare_ms`.
            let found = find(&of_others)?;
            let mut taken = self.taken();
            if taken.get(&found.0).is_none_or(|of| of == taker) {
                taken.insert(found.0, taker.clone());
                return Ok(found);
            }
        }
        Err("other runs of the request took the calls that fit".to_owned())
    }
}

impl LegacyReplies for RepliesOfRun {
    fn reply_to(&self, call: &RehearsedCall<'_>, assigned: &BTreeSet<u64>) -> Result<LegacyReply, String> {
        let RehearsedCall { step, item, intent, siblings } = call;
        let Some((index, _)) = self.plan.step(step) else { return Err(format!("the plan has no step `{step}`")) };
        let intent_of = |item: Option<u32>, call: &CallRecord| {
            let mut intent = run_report::intent(Some(&self.plan), step, item, StepPart::Do, call);
            if let Some(run_by) = &self.run_by {
                intent.step = step_below(run_by, intent.step.as_str());
            }
            // The index among all items is not known yet. Any index says that the step has several items.
            intent.item = intent.item.or(self.is_one_of_several.then_some(0));
            intent
        };
        let siblings = || siblings().iter().map(|(item, call)| intent_of(Some(*item), call)).collect::<Vec<_>>();
        let intent = intent_of(*item, intent);
        let taker = (self.run, (*step).clone(), *item);
        let find = |of_others: &BTreeSet<u64>| {
            let not_free: BTreeSet<u64> = of_others.union(assigned).copied().collect();
            self.tree.calls.corresponding(&intent, &siblings, &not_free)
        };
        let (call, reply) = self.tree.take(&taker, find)?;
        let headers = self.plan.recorded_headers(index, StepPart::Do);
        if let Some(lacking) = reply.as_ref().and_then(|reply| reply.lacks(headers.names())) {
            return Err(format!("the events of the plan in force do not have all of its reply: {lacking} is missing"));
        }
        let result = match reply {
            Some(reply) => reply::of_legacy(&reply, headers, self.bounds),
            None => LegacyResult::None { why: "it got no reply".to_owned() },
        };
        Ok(LegacyReply { call, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taker(run: u8, item: Option<u32>) -> Taker {
        (RunId(uuid::Uuid::from_u128(run.into())), "charge".into(), item)
    }

    /// Calls 1 and 2 fit; the first that is free corresponds.
    struct TwoCalls;

    impl LegacyCalls for TwoCalls {
        fn corresponding(
            &self,
            _: &crate::compare::Intent,
            _: &dyn Fn() -> Vec<crate::compare::Intent>,
            _: &BTreeSet<u64>,
        ) -> Result<(u64, Option<EffectReply>), String> {
            unreachable!("the test hands over what is found")
        }
    }

    #[test]
    fn a_call_is_given_to_one_step_of_the_tree_which_gets_it_again_when_it_asks_again() {
        let tree = CallsOfTree { calls: Arc::new(TwoCalls), taken: Mutex::default() };
        let first_free = |not_free: &BTreeSet<u64>| {
            let found = (1..=2).find(|number| !not_free.contains(number));
            found.map(|number| (number, None)).ok_or_else(|| "none is left".to_owned())
        };
        let take = |taker: &Taker| tree.take(taker, first_free).map(|(number, _)| number);
        let (top, child) = (taker(1, None), taker(2, Some(0)));
        assert_eq!((take(&top), take(&child)), (Ok(1), Ok(2)));
        assert_eq!((take(&child), take(&top)), (Ok(2), Ok(1)), "asked again");
        assert_eq!(take(&taker(3, None)), Err("none is left".to_owned()));
    }

    #[test]
    fn a_call_that_another_run_takes_meanwhile_is_looked_for_again() {
        let tree = CallsOfTree { calls: Arc::new(TwoCalls), taken: Mutex::default() };
        let (top, child) = (taker(1, None), taker(2, None));
        let found = tree.take(&child, |not_free| {
            // The run at the top is quicker.
            tree.taken().entry(1).or_insert_with(|| top.clone());
            Ok((if not_free.contains(&1) { 2 } else { 1 }, None))
        });
        assert_eq!(found.map(|(number, _)| number), Ok(2));
    }
}
