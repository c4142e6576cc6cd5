//! How much two calls have in common, for pairing those that are not equal.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::call::Call;
use super::step_calls::StepCalls;
use crate::compare::body_rules::IdKind;
use crate::compare::bounds::BoundExceeded;
use crate::compare::context::WalkContext;
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::node::{Kind, Node};
use crate::compare::value_hash::{Precision, Side, hash_of};

/// The most segments of a call's path that count. Path and body together count up to twice as many.
const SCORED_VALUES_MAX: usize = 64;

impl StepCalls<'_> {
    /// Returns the hashes of the first values of a call, each hashed together with its place, sorted.
    pub(super) fn values(
        &self,
        call: &Call<'_>,
        side: Side,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<Vec<u64>, BoundExceeded> {
        let segments = call.path.split('/').enumerate().map(|(at, segment)| {
            let id = if side == Side::Engine { ids.legacy_of(IdKind::ANY, segment) } else { None };
            hash_at(at as u64, id.unwrap_or(segment))
        });
        let mut found: Vec<u64> = segments.take(SCORED_VALUES_MAX).collect();
        if let Some(body) = call.json() {
            self.values_within(&mut self.context(ids, findings), body, 0, side, &mut found)?;
        }
        for line in call.text().into_iter().flat_map(str::lines).take(SCORED_VALUES_MAX) {
            findings.count_work()?;
            let line = if side == Side::Engine { ids.with_legacy_ids(line) } else { line.into() };
            found.push(hash_at(0, line));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn values_within(
        &self,
        context: &mut WalkContext<'_, '_>,
        value: Node<'_>,
        place: u64,
        side: Side,
        found: &mut Vec<u64>,
    ) -> Result<(), BoundExceeded> {
        if found.len() >= 2 * SCORED_VALUES_MAX || context.rules_by_node.on(value).ignore.is_some() {
            return Ok(());
        }
        match value.kind() {
            Kind::Object(members) => members
                .iter()
                .try_for_each(|(key, value)| self.values_within(context, value, hash_at(place, key), side, found)),
            Kind::Array(items) => {
                items.iter().try_for_each(|item| self.values_within(context, item, hash_at(place, "[*]"), side, found))
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_) => {
                found.push(hash_at(place, hash_of(context, value, side, Precision::Coarse)?));
                Ok(())
            }
        }
    }
}

fn hash_at(place: u64, value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (place, value).hash(&mut hasher);
    hasher.finish()
}

/// Counts the values that two sorted lists have in common.
pub(super) fn in_common(a: &[u64], b: &[u64]) -> usize {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, count) = (i + 1, j + 1, count + 1),
        }
    }
    count
}
