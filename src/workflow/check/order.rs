//! Orders steps topologically: each comes after all that it needs. Where that is impossible, each cycle is reported,
//! step by step.

use std::collections::HashMap;

use super::built::{Built, Failing};
use super::context::Check;
use crate::workflow::{FailureHandling, Step, StepIndex};

/// The index of each step in the plan, by name.
pub(super) type StepIndexes = HashMap<String, StepIndex>;

impl Check<'_> {
    /// The order, as indexes in the file; cycles are reported. Steps that are ready at the same time keep the file's
    /// order.
    pub(super) fn order(&mut self, built: &[Built]) -> Option<Vec<usize>> {
        let needs = edges(built, false);
        let order = sorted(&needs);
        // A step ends only after its fallback has, so whoever waits for the step waits for its fallback, too.
        let needs = edges(built, true);
        if order.len() == built.len() && sorted(&needs).len() == built.len() {
            return Some(order);
        }
        let order = sorted(&needs);
        let mut left: Vec<bool> = vec![true; built.len()];
        order.iter().for_each(|index| left[*index] = false);
        // Each step that is left waits, directly or not, for a cycle; each cycle is named once.
        for start in 0..built.len() {
            while left[start] {
                let cycle = walk(start, &needs, &mut left);
                self.cycle(&cycle, built);
            }
        }
        None
    }

    fn cycle(&mut self, cycle: &[usize], built: &[Built]) {
        let Some((_, site, _)) = cycle.first().and_then(|index| self.steps.get(*index)) else { return };
        let site = site.clone().at_key();
        let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|index| built[*index].id.as_str()).collect();
        let message = format!("steps wait for each other: {}", names.join(" → "));
        let fallbacks = cycle.iter().any(|index| built[*index].failing.fallback.is_some());
        self.problems.error(&site, message).hint(match fallbacks {
            true => "a → b: a reads the output of b, needs it, or has it as its fallback",
            false => "a → b: a reads the output of b, or needs it",
        });
    }
}

fn edges(built: &[Built], fallbacks: bool) -> Vec<Vec<usize>> {
    let indexes: HashMap<&str, usize> =
        built.iter().enumerate().map(|(index, step)| (step.id.as_str(), index)).collect();
    built
        .iter()
        .map(|step| {
            let fallback = step.failing.fallback.iter().filter(|name| fallbacks && *name != step.id.as_str());
            step.needs.iter().chain(fallback).filter_map(|name| indexes.get(name.as_str()).copied()).collect()
        })
        .collect()
}

fn sorted(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut waits: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut feeds = vec![Vec::new(); needs.len()];
    for (index, needed) in needs.iter().enumerate() {
        needed.iter().for_each(|need| feeds[*need].push(index));
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..needs.len()).filter(|index| waits[*index] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for fed in &feeds[index] {
            waits[*fed] -= 1;
            if waits[*fed] == 0 {
                ready.insert(*fed);
            }
        }
    }
    order
}

/// Follows the needs of a step until one of them is on the path already: returns that cycle, beginning with the step
/// that is first in the file; empty where there is none. Visited steps are not visited again.
fn walk(start: usize, needs: &[Vec<usize>], left: &mut [bool]) -> Vec<usize> {
    // A depth-first search without recursion: the path, and for each step on it which need is next.
    let mut path = vec![(start, 0)];
    left[start] = false;
    let mut on_path = vec![false; needs.len()];
    on_path[start] = true;
    while let Some((index, next)) = path.last_mut() {
        let Some(need) = needs[*index].get(*next).copied() else {
            on_path[*index] = false;
            path.pop();
            continue;
        };
        *next += 1;
        if on_path[need] {
            let mut cycle: Vec<usize> =
                path.iter().map(|(index, _)| *index).skip_while(|index| *index != need).collect();
            let first = cycle.iter().enumerate().min_by_key(|(_, index)| **index).map_or(0, |(at, _)| at);
            cycle.rotate_left(first);
            // Steps that only led to the cycle are visited again: they may be in another one.
            path.iter().filter(|(index, _)| !cycle.contains(index)).for_each(|(index, _)| left[*index] = true);
            return cycle;
        }
        if left[need] {
            left[need] = false;
            on_path[need] = true;
            path.push((need, 0));
        }
    }
    Vec::new()
}

/// The steps in order, and their indexes; `None` where one of them is incomplete.
pub(super) fn arrange(built: Vec<Built>, order: &[usize]) -> Option<(Vec<Step>, StepIndexes)> {
    let indexes: StepIndexes =
        order.iter().enumerate().map(|(at, index)| (built[*index].id.as_str().to_owned(), StepIndex(at))).collect();
    // For each fallback, by its name: the step that it replaces.
    let replaced: StepIndexes = built
        .iter()
        .filter_map(|step| Some((step.failing.fallback.clone()?, indexes.get(step.id.as_str()).copied()?)))
        .collect();
    let mut built: Vec<Option<Built>> = built.into_iter().map(Some).collect();
    let mut steps = Vec::with_capacity(order.len());
    for index in order {
        let step = built.get_mut(*index)?.take()?;
        let Failing { fallback, fallback_only, on_conflict, on_failure, deadline, output, undo, probe } = step.failing;
        let replaces = fallback_only.then(|| replaced.get(step.id.as_str()).copied()).flatten();
        let failure_handling = FailureHandling {
            fallback: fallback.and_then(|name| indexes.get(name.as_str()).copied()),
            on_conflict,
            on_failure,
            deadline,
        };
        let mut needs: Vec<StepIndex> = step.needs.iter().filter_map(|name| indexes.get(name).copied()).collect();
        needs.sort();
        steps.push(Step {
            id: step.id,
            needs,
            needs_any: step.needs_any,
            condition: step.condition,
            for_each: step.for_each,
            kind: step.kind?,
            replaces,
            failure_handling,
            output,
            undo,
            probe,
            safeguards: step.safeguards?,
        });
    }
    Some((steps, indexes))
}

/// For each step, the steps that need it.
pub(super) fn dependents(steps: &[Step]) -> Vec<Vec<StepIndex>> {
    let mut dependents = vec![Vec::new(); steps.len()];
    for (index, step) in steps.iter().enumerate() {
        step.needs.iter().for_each(|need| dependents[need.0].push(StepIndex(index)));
    }
    dependents
}
