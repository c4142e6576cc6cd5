//! The order of steps: each behind all that it needs. Where there is none, the cycle is named step by step.

use std::collections::HashMap;

use super::built::{Built, Failing};
use super::context::Check;
use crate::workflow::{Step, StepIndex, Trouble};

/// Where each step came to stand.
pub(super) type Places = HashMap<String, StepIndex>;

impl Check<'_> {
    /// The order as places in the file; cycles are noted. Steps that are ready at the same time keep the file's order.
    pub(super) fn order(&mut self, built: &[Built]) -> Option<Vec<usize>> {
        let needs = edges(built, false);
        let order = sorted(&needs);
        // A step has not ended before its fallback has, so who waits for the one waits for the other.
        let needs = edges(built, true);
        if order.len() == built.len() && sorted(&needs).len() == built.len() {
            return Some(order);
        }
        let order = sorted(&needs);
        let mut left: Vec<bool> = vec![true; built.len()];
        order.iter().for_each(|place| left[*place] = false);
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
        let Some((_, site, _)) = cycle.first().and_then(|place| self.steps.get(*place)) else { return };
        let site = site.clone().at_key();
        let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|place| built[*place].id.as_str()).collect();
        let message = format!("steps wait for each other: {}", names.join(" → "));
        let fallbacks = cycle.iter().any(|place| built[*place].failing.fallback.is_some());
        self.problems.error(&site, message).hint(match fallbacks {
            true => "a → b: a reads the output of b, needs it, or has it as its fallback",
            false => "a → b: a reads the output of b, or needs it",
        });
    }
}

fn edges(built: &[Built], fallbacks: bool) -> Vec<Vec<usize>> {
    let places: HashMap<&str, usize> =
        built.iter().enumerate().map(|(place, step)| (step.id.as_str(), place)).collect();
    built
        .iter()
        .map(|step| {
            let fallback = step.failing.fallback.iter().filter(|name| fallbacks && *name != step.id.as_str());
            step.needs.iter().chain(fallback).filter_map(|name| places.get(name.as_str()).copied()).collect()
        })
        .collect()
}

fn sorted(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut waits: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut feeds = vec![Vec::new(); needs.len()];
    for (place, needed) in needs.iter().enumerate() {
        needed.iter().for_each(|need| feeds[*need].push(place));
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..needs.len()).filter(|place| waits[*place] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(place) = ready.pop_first() {
        order.push(place);
        for fed in &feeds[place] {
            waits[*fed] -= 1;
            if waits[*fed] == 0 {
                ready.insert(*fed);
            }
        }
    }
    order
}

/// Walks what is left from a step until it meets itself: a cycle, beginning where the file has it first; empty where
/// there is none. Steps that were walked are done with.
fn walk(start: usize, needs: &[Vec<usize>], left: &mut [bool]) -> Vec<usize> {
    // A depth-first search without recursion: the path, and for each step on it which need is next.
    let mut path = vec![(start, 0)];
    left[start] = false;
    let mut on_path = vec![false; needs.len()];
    on_path[start] = true;
    while let Some((place, next)) = path.last_mut() {
        let Some(need) = needs[*place].get(*next).copied() else {
            on_path[*place] = false;
            path.pop();
            continue;
        };
        *next += 1;
        if on_path[need] {
            let mut cycle: Vec<usize> =
                path.iter().map(|(place, _)| *place).skip_while(|place| *place != need).collect();
            let first = cycle.iter().enumerate().min_by_key(|(_, place)| **place).map_or(0, |(at, _)| at);
            cycle.rotate_left(first);
            // What only led here is looked at again: it may be in another cycle.
            path.iter().filter(|(place, _)| !cycle.contains(place)).for_each(|(place, _)| left[*place] = true);
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

/// The steps in order, and where each stands; `None` where one of them is not whole.
pub(super) fn arrange(built: Vec<Built>, order: &[usize]) -> Option<(Vec<Step>, Places)> {
    let places: Places =
        order.iter().enumerate().map(|(at, place)| (built[*place].id.as_str().to_owned(), StepIndex(at))).collect();
    // By fallback: whose place it takes.
    let replaced: Places = built
        .iter()
        .filter_map(|step| Some((step.failing.fallback.clone()?, places.get(step.id.as_str()).copied()?)))
        .collect();
    let mut built: Vec<Option<Built>> = built.into_iter().map(Some).collect();
    let mut steps = Vec::with_capacity(order.len());
    for place in order {
        let step = built.get_mut(*place)?.take()?;
        let Failing { fallback, fallback_only, on_conflict, on_failure, deadline, output, undo, probe } = step.failing;
        let replaces = fallback_only.then(|| replaced.get(step.id.as_str()).copied()).flatten();
        let trouble = Trouble {
            fallback: fallback.and_then(|name| places.get(name.as_str()).copied()),
            on_conflict,
            on_failure,
            deadline,
        };
        let mut needs: Vec<StepIndex> = step.needs.iter().filter_map(|name| places.get(name).copied()).collect();
        needs.sort();
        steps.push(Step {
            id: step.id,
            needs,
            needs_any: step.needs_any,
            condition: step.condition,
            for_each: step.for_each,
            kind: step.kind?,
            replaces,
            trouble,
            output,
            undo,
            probe,
            care: step.care?,
        });
    }
    Some((steps, places))
}

/// For each step, the steps that need it.
pub(super) fn dependents(steps: &[Step]) -> Vec<Vec<StepIndex>> {
    let mut dependents = vec![Vec::new(); steps.len()];
    for (place, step) in steps.iter().enumerate() {
        step.needs.iter().for_each(|need| dependents[need.0].push(StepIndex(place)));
    }
    dependents
}
