//! The intents of the runs that a run starts, directly or through others, and the branches that these runs took, under
//! names that begin with the steps that started them (`ship/label`).

use std::collections::HashMap;
use std::sync::Arc;

use super::{Branch, BranchBelow};
use crate::compare::Intent;
use crate::names::{OF_UNDO, StepId, step_below};
use crate::workflow::Redaction;

/// The intents of the child runs of one run and of all their descendants, and the branches that these runs took.
#[derive(Clone, Debug, Default)]
pub struct IntentsBelow {
    runs: Vec<RunBelow>,
    /// What replaces the sensitive values of these runs, for each run that has some.
    redactions: Vec<Arc<Redaction>>,
    /// The branches of these runs, in `below`; the other fields stay empty.
    branch: Branch,
}

/// The intents of one run that a step began, with those of the runs below it.
#[derive(Clone, Debug)]
struct RunBelow {
    step: StepId,
    item: Option<u32>,
    intents: Vec<Intent>,
}

impl IntentsBelow {
    /// Adds the intents of a run that a step began. `item`: the item of a `for_each` for which it was begun. `intents`:
    /// in the order of the run's plan, and under the step names of that plan. `redactions`: what replaces the sensitive
    /// values in the intents.
    pub fn add(&mut self, step: &StepId, item: Option<u32>, intents: Vec<Intent>, redactions: Vec<Arc<Redaction>>) {
        self.redactions.extend(redactions);
        if !intents.is_empty() {
            self.runs.push(RunBelow { step: step.clone(), item, intents });
        }
    }

    /// Adds the branch of a run that a step began, with those of the runs below it.
    pub fn add_branch(&mut self, step: &StepId, branch: Branch) {
        self.branch.add_below(step, branch);
    }

    /// Takes the branches of the runs out of this value.
    pub fn take_branches_below(&mut self) -> Vec<BranchBelow> {
        std::mem::take(&mut self.branch.below)
    }

    /// Merges the intents into those of the run above (`merged`), in the order of that run's plan. Under one name
    /// (`ship/label`) there may be intents of several items: these are numbered anew from 0. `position`: where a step
    /// of the run stands in its plan. Returns what replaces the sensitive values in the intents.
    pub fn merge_into(self, merged: &mut Vec<Intent>, position: impl Fn(&StepId) -> usize) -> Vec<Arc<Redaction>> {
        let Self { mut runs, redactions, branch: _ } = self;
        if runs.is_empty() {
            return redactions;
        }
        runs.sort_by_key(|run| run.item);
        let key = |intent: &Intent| match intent.step.as_str().strip_suffix(OF_UNDO) {
            None => (false, position(&intent.step)),
            Some(step) => (true, position(&step.into())),
        };
        let mut placed: Vec<((bool, usize), Intent)> = merged.drain(..).map(|intent| (key(&intent), intent)).collect();
        let mut items: HashMap<StepId, u32> = HashMap::new();
        for RunBelow { step, item, intents } in runs {
            let at = (false, position(&step));
            placed.extend(intents.into_iter().map(|intent| {
                let step = step_below(&step, intent.step.as_str());
                let item = item.or(intent.item).map(|_| {
                    let next = items.entry(step.clone()).or_default();
                    std::mem::replace(next, *next + 1)
                });
                (at, Intent { step, item, ..intent })
            }));
        }
        placed.sort_by_key(|(key, _)| *key);
        merged.extend(placed.into_iter().map(|(_, intent)| intent));
        redactions
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn intent(step: &str, item: Option<u32>, url: &str) -> Intent {
        Intent {
            step: step.into(),
            item,
            method: http::Method::POST,
            url: url.to_owned(),
            headers: Vec::new(),
            body: Value::Null,
            service: None,
            bytes: None,
            taken_from: None,
        }
    }

    #[test]
    fn intents_stand_where_their_steps_do_whichever_run_ended_first() {
        let mut below = IntentsBelow::default();
        below.add(
            &"ship".into(),
            Some(1),
            vec![intent("label", Some(0), "b0"), intent("label", Some(1), "b1")],
            vec![],
        );
        below.add(&"pack".into(), None, vec![intent("box", None, "p"), intent("box.undo", None, "u")], vec![]);
        below.add(&"ship".into(), Some(0), vec![intent("label", Some(0), "a0")], vec![]);
        let mut intents =
            vec![intent("charge", None, "c"), intent("mail", None, "m"), intent("charge.undo", None, "r")];
        let plan = ["charge", "pack", "ship", "mail"];
        below.merge_into(&mut intents, |step| plan.iter().position(|name| *name == step.as_str()).unwrap());
        let found: Vec<_> = intents.iter().map(|i| (i.step.as_str(), i.item, i.url.as_str())).collect();
        assert_eq!(
            found,
            [
                ("charge", None, "c"),
                ("pack/box", None, "p"),
                ("pack/box.undo", None, "u"),
                ("ship/label", Some(0), "a0"),
                ("ship/label", Some(1), "b0"),
                ("ship/label", Some(2), "b1"),
                ("mail", None, "m"),
                ("charge.undo", None, "r"),
            ]
        );
    }
}
