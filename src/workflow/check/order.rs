//! Orders steps topologically: each step comes after all steps that it needs. If this is impossible, each cycle is
//! reported with its steps.

use std::collections::HashMap;

use super::checked_step::{CheckedStep, FailureSettings};
use super::context::Check;
use crate::workflow::{FailureHandling, Step, StepIndex};

/// The index of each step in the plan, by name.
pub(super) type StepIndexes = HashMap<String, StepIndex>;

impl Check<'_> {
    /// Returns the topological order, as the steps' indexes in the file. Steps that are ready at the same time keep the
    /// file's order. Reports every cycle, and returns `None` if there is one.
    pub(super) fn order(&mut self, checked: &[CheckedStep]) -> Option<Vec<usize>> {
        let needs = edges(checked, false);
        let order = topological_order(&needs);
        // A replaced step ends only after its fallback has ended, so a step that needs it waits for the fallback, too.
        let needs = edges(checked, true);
        if order.len() == checked.len() && topological_order(&needs).len() == checked.len() {
            return Some(order);
        }
        let order = topological_order(&needs);
        let mut unvisited: Vec<bool> = vec![true; checked.len()];
        order.iter().for_each(|index| unvisited[*index] = false);
        // Each unvisited step waits for a cycle, directly or through other steps. Each cycle is reported once.
        for start in 0..checked.len() {
            while unvisited[start] {
                let cycle = find_cycle(start, &needs, &mut unvisited);
                self.report_cycle(&cycle, checked);
            }
        }
        None
    }

    fn report_cycle(&mut self, cycle: &[usize], checked: &[CheckedStep]) {
        let Some((_, site, _)) = cycle.first().and_then(|index| self.steps.get(*index)) else { return };
        let site = site.clone().at_key();
        let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|index| checked[*index].id.as_str()).collect();
        let message = format!("steps wait for each other: {}", names.join(" → "));
        let fallbacks = cycle.iter().any(|index| checked[*index].failure_settings.fallback.is_some());
        self.problems.error(&site, message).hint(match fallbacks {
            true => "a → b: a reads the output of b, needs it, or has it as its fallback",
            false => "a → b: a reads the output of b, or needs it",
        });
    }
}

/// For each step, the indexes of the steps that it needs; with `fallbacks`, also of its fallback.
fn edges(checked: &[CheckedStep], fallbacks: bool) -> Vec<Vec<usize>> {
    let indexes: HashMap<&str, usize> =
        checked.iter().enumerate().map(|(index, step)| (step.id.as_str(), index)).collect();
    checked
        .iter()
        .map(|step| {
            let fallback = step.failure_settings.fallback.iter().filter(|name| fallbacks && *name != step.id.as_str());
            step.needs.iter().chain(fallback).filter_map(|name| indexes.get(name.as_str()).copied()).collect()
        })
        .collect()
}

/// The steps in topological order, without those that are on a cycle or wait for one.
fn topological_order(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut open_needs: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut needed_by = vec![Vec::new(); needs.len()];
    for (index, needed) in needs.iter().enumerate() {
        needed.iter().for_each(|need| needed_by[*need].push(index));
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..needs.len()).filter(|index| open_needs[*index] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for next in &needed_by[index] {
            open_needs[*next] -= 1;
            if open_needs[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    order
}

/// Follows the needs of a step until a step is met that is already on the path. Returns this cycle, beginning with its
/// first step in the file; empty if there is no cycle. Visited steps are not visited again.
fn find_cycle(start: usize, needs: &[Vec<usize>], unvisited: &mut [bool]) -> Vec<usize> {
    // A depth-first search without recursion: each entry of the path is a step and the index of its next need.
    let mut path = vec![(start, 0)];
    unvisited[start] = false;
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
            // Steps that only led to this cycle count as unvisited again: they may be part of another cycle.
            path.iter().filter(|(index, _)| !cycle.contains(index)).for_each(|(index, _)| unvisited[*index] = true);
            return cycle;
        }
        if unvisited[need] {
            unvisited[need] = false;
            on_path[need] = true;
            path.push((need, 0));
        }
    }
    Vec::new()
}

/// Arranges the steps in this order, and returns them with their indexes; `None` if a part of a step is missing because
/// of an error.
pub(super) fn arrange(checked: Vec<CheckedStep>, order: &[usize]) -> Option<(Vec<Step>, StepIndexes)> {
    let indexes: StepIndexes =
        order.iter().enumerate().map(|(at, index)| (checked[*index].id.as_str().to_owned(), StepIndex(at))).collect();
    // Maps the name of each fallback to the step that it replaces.
    let replaced: StepIndexes = checked
        .iter()
        .filter_map(|step| Some((step.failure_settings.fallback.clone()?, indexes.get(step.id.as_str()).copied()?)))
        .collect();
    let mut checked: Vec<Option<CheckedStep>> = checked.into_iter().map(Some).collect();
    let mut steps = Vec::with_capacity(order.len());
    for index in order {
        let step = checked.get_mut(*index)?.take()?;
        let FailureSettings { fallback, fallback_only, on_conflict, on_failure, deadline, output, undo, probe } =
            step.failure_settings;
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
