//! A hash of values that is equal for values that the rules call equal: ignored values are left out, and the engine's
//! ids are replaced by legacy's. With `Precision::Coarse` all tolerated values, and all ids that are not bound, have
//! the same hash. The hash only proposes what belongs together: it is compared afterwards, so a collision can cause a
//! difference, never a match.

use std::hash::{Hash, Hasher};

use super::body_rules::IdKind;
use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::fast_hash::{FastHasher, fast_hasher};
use super::node::{Kind, Node};
use super::number::hash_number;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Legacy,
    Engine,
}

/// How much two values with the same hash may differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// The values may differ only in ignored parts.
    Exact,
    /// The values may also differ in tolerated parts and unbound ids.
    Coarse,
}

/// Returns the hash of a value, which is equal for values that the rules call equal.
pub(super) fn hash_of(
    cx: &mut WalkContext<'_, '_>,
    value: Node<'_>,
    side: Side,
    precision: Precision,
) -> Result<u64, BoundExceeded> {
    cx.findings.count_work()?;
    let covered = cx.rules_by_node.on(value);
    let mut hasher = fast_hasher();
    if covered.ignore.is_some() {
        return Ok(0);
    }
    if let (Some(ids), Some(id)) = (covered.id, value.as_id()) {
        hash_id(cx, ids.kind, id, side, precision, &mut hasher);
        return Ok(hasher.finish());
    }
    if covered.is_tolerated() && precision == Precision::Coarse {
        "tolerated".hash(&mut hasher);
        return Ok(hasher.finish());
    }
    match value.kind() {
        Kind::Null => 0u8.hash(&mut hasher),
        Kind::Bool(value) => (1u8, value).hash(&mut hasher),
        Kind::Number(number) => hash_number(number, &mut hasher),
        Kind::String(text) => match side {
            Side::Engine => (3u8, &*cx.ids.with_legacy_ids(text)).hash(&mut hasher),
            Side::Legacy => (3u8, text).hash(&mut hasher),
        },
        Kind::Array(items) => {
            4u8.hash(&mut hasher);
            let mut sum = 0u64;
            for item in items.iter() {
                let item = hash_of(cx, item, side, precision)?;
                if covered.is_unordered() {
                    sum = sum.wrapping_add(item);
                } else {
                    item.hash(&mut hasher);
                }
            }
            (sum, items.len()).hash(&mut hasher);
        }
        Kind::Object(members) => {
            5u8.hash(&mut hasher);
            let mut sum = 0u64;
            for (key, value) in members.iter() {
                if cx.rules_by_node.on(value).ignore.is_some() {
                    continue;
                }
                let mut entry = fast_hasher();
                if let Some(ids) = covered.keys {
                    hash_id(cx, ids.kind, key, side, precision, &mut entry);
                } else {
                    key.hash(&mut entry);
                }
                hash_of(cx, value, side, precision)?.hash(&mut entry);
                sum = sum.wrapping_add(entry.finish());
            }
            sum.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}

fn hash_id(
    cx: &WalkContext<'_, '_>,
    kind: IdKind,
    id: &str,
    side: Side,
    precision: Precision,
    hasher: &mut FastHasher,
) {
    let bound = match side {
        Side::Legacy => Some(id).filter(|id| cx.ids.has_legacy(kind, id)),
        Side::Engine => cx.ids.legacy_of(kind, id),
    };
    match (bound, precision) {
        (Some(id), _) => ("id", id).hash(hasher),
        (None, Precision::Coarse) => "any id".hash(hasher),
        (None, Precision::Exact) => ("free id", id).hash(hasher),
    }
}
