//! Pairs values that are equal by the rules, where the hash does not tell which of several belong together.

use std::collections::HashMap;
use std::hash::Hash;

use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::equal::within;
use super::node::{Kind, Node};
use super::value_hash::{Precision, Side, hash_of};

/// The most pairs of values that are compared to pair the elements of two arrays; beyond that, the order decides.
const COMPARED_MAX: usize = 4_096;

/// Pairs the elements that have the same key (a coarse hash is part of it) and whose tolerated values are near enough
/// to each other, as many as possible. Elements with a partner, and those without a key, are left out.
pub(super) fn assign_within_tolerance<K: Hash + Eq>(
    cx: &mut WalkContext<'_, '_>,
    (legacy, of_legacy): (&[Node<'_>], &[Option<K>]),
    (engine, of_engine): (&[Node<'_>], &[Option<K>]),
    partner: &mut [Option<usize>],
    is_paired: &mut [bool],
) -> Result<(), BoundExceeded> {
    if cx.rules.tolerance.is_empty() {
        return Ok(());
    }
    let mut groups: HashMap<&K, (Vec<usize>, Vec<usize>)> = HashMap::new();
    for (n, key) in of_legacy.iter().enumerate().filter(|(n, _)| partner[*n].is_none()) {
        key.iter().for_each(|key| groups.entry(key).or_default().0.push(n));
    }
    for (n, key) in of_engine.iter().enumerate().filter(|(n, _)| !is_paired[*n]) {
        key.iter().for_each(|key| groups.entry(key).or_default().1.push(n));
    }
    let mut groups: Vec<(Vec<usize>, Vec<usize>)> = groups.into_values().collect();
    // The order of a map is arbitrary, and the bound must hold for the same groups in each comparison.
    groups.sort_unstable();
    let mut compared = 0_usize;
    // A group with one element on each side is left to the caller, which pairs the two however far apart they are.
    for (a, b) in groups.into_iter().filter(|(a, b)| a.len() > 1 || b.len() > 1) {
        compared = compared.saturating_add(a.len().saturating_mul(b.len()));
        if compared > COMPARED_MAX {
            break;
        }
        let mut near = Vec::with_capacity(a.len());
        for n in &a {
            let mut row = Vec::new();
            for (at, m) in b.iter().enumerate() {
                if correspond(cx, legacy[*n], engine[*m])? {
                    row.push(at);
                }
            }
            near.push(row);
        }
        for (at, n) in largest_pairing(&near, b.len()).into_iter().enumerate() {
            if let Some(n) = n {
                partner[a[n]] = Some(b[at]);
                is_paired[b[at]] = true;
            }
        }
    }
    Ok(())
}

/// A maximum matching of rows with columns in a bipartite graph, found by augmenting paths. `near` lists the columns
/// with which each row may be matched. Returns the row of each column.
fn largest_pairing(near: &[Vec<usize>], columns: usize) -> Vec<Option<usize>> {
    let mut row_of = vec![None; columns];
    for row in 0..near.len() {
        augment(near, row, &mut vec![false; columns], &mut row_of);
    }
    row_of
}

/// Searches for an augmenting path: a column for this row, and another column for the row that has had it.
fn augment(near: &[Vec<usize>], row: usize, is_tried: &mut [bool], row_of: &mut [Option<usize>]) -> bool {
    for column in &near[row] {
        if is_tried[*column] {
            continue;
        }
        is_tried[*column] = true;
        if row_of[*column].is_none_or(|other| augment(near, other, is_tried, row_of)) {
            row_of[*column] = Some(row);
            return true;
        }
    }
    false
}

/// Whether two values are equal by the rules. Two ids of which neither is bound yet count as equal.
fn correspond(cx: &mut WalkContext<'_, '_>, legacy: Node<'_>, engine: Node<'_>) -> Result<bool, BoundExceeded> {
    cx.findings.count_work()?;
    let covered = cx.rules_by_node.on_either(legacy, engine);
    if covered.ignore.is_some() {
        return Ok(true);
    }
    if let (Some(ids), Some(a), Some(b)) = (covered.id, legacy.as_id(), engine.as_id()) {
        let is_free = || !cx.ids.has_legacy(ids.kind, a) && cx.ids.legacy_of(ids.kind, b).is_none();
        return Ok(cx.ids.legacy_of(ids.kind, b) == Some(a) || is_free());
    }
    let tolerance = covered.tolerance.and_then(|n| cx.rules.tolerance.get(n));
    if let Some((.., by)) = tolerance
        && within(legacy, engine, by, cx.findings)?
    {
        return Ok(true);
    }
    match (legacy.kind(), engine.kind()) {
        (Kind::Array(a), Kind::Array(b)) if covered.unordered.is_none() => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !correspond(cx, a, b)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Kind::Object(a), Kind::Object(b)) if covered.keys.is_none() => {
            for (key, of_a) in a.iter() {
                let is_same = match b.get(key) {
                    Some(of_b) => correspond(cx, of_a, of_b)?,
                    None => cx.rules_by_node.on(of_a).ignore.is_some(),
                };
                if !is_same {
                    return Ok(false);
                }
            }
            let mut extra = b.iter().filter(|(key, _)| a.get(key).is_none());
            Ok(extra.all(|(_, value)| cx.rules_by_node.on(value).ignore.is_some()))
        }
        (Kind::Number(a), Kind::Number(b)) => Ok(cx.rules.number_form.same(a, b)),
        // Sets, objects whose keys are ids, and texts, in which the ids are translated.
        _ => {
            let a = hash_of(cx, legacy, Side::Legacy, Precision::Coarse)?;
            Ok(a == hash_of(cx, engine, Side::Engine, Precision::Coarse)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_possible_are_paired() {
        assert_eq!(largest_pairing(&[vec![0, 1], vec![0]], 2), [Some(1), Some(0)]);
        assert_eq!(largest_pairing(&[vec![0], vec![0]], 2), [Some(0), None]);
        assert_eq!(largest_pairing(&[vec![0, 1], vec![0, 2], vec![0]], 3), [Some(2), Some(0), Some(1)]);
    }
}
