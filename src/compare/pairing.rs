//! Finds out which elements of two arrays belong together.
//!
//! Elements are paired by a hash that is equal for values that the rules call equal: ignored values are left out, and
//! the engine's ids are replaced by legacy's. With `Precision::Coarse` all tolerated values, and all ids that are not
//! bound, have the same hash. The hash only proposes pairs. Each pair is compared afterwards, so a collision can cause
//! a difference, never a match.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};

use super::body_rules::Unordered;
use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::id_map::id_text;
use super::number::Decimal;

/// Pairs of indexes into legacy's and the engine's array; `None` if an element has no partner.
pub(super) type Pairs = Vec<(Option<usize>, Option<usize>)>;

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

/// Pairs the elements of arrays of different length: first the common start and end, then the rest by index.
pub(super) fn pair_in_order(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Value],
    engine: &[Value],
) -> Result<Pairs, BoundExceeded> {
    let (a, b) = hashes_of_both(cx, legacy, engine, Precision::Coarse)?;
    let front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (a.len() - front - back, b.len() - front - back);
    let mut pairs: Pairs = (0..front).map(|n| (Some(n), Some(n))).collect();
    for n in 0..middle_a.max(middle_b) {
        pairs.push(((n < middle_a).then_some(front + n), (n < middle_b).then_some(front + n)));
    }
    pairs.extend((0..back).map(|n| (Some(a.len() - back + n), Some(b.len() - back + n))));
    Ok(pairs)
}

/// Pairs the elements of two arrays of the same length that hold the same elements in another order; `None` if they do
/// not, or if the order is the same.
pub(super) fn pair_reordered(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Value],
    engine: &[Value],
) -> Result<Option<Vec<(usize, usize)>>, BoundExceeded> {
    let (a, b) = hashes_of_both(cx, legacy, engine, Precision::Coarse)?;
    if a == b {
        return Ok(None);
    }
    let (mut partner, mut is_paired) = (vec![None; a.len()], vec![false; b.len()]);
    // Elements that differ only in tolerated parts have the same coarse hash: equal ones are paired first.
    let (exact_a, exact_b) = hashes_of_both(cx, legacy, engine, Precision::Exact)?;
    assign_partners(&all_known(exact_a), &all_known(exact_b), &mut partner, &mut is_paired);
    assign_partners(&all_known(a), &all_known(b), &mut partner, &mut is_paired);
    Ok(partner.into_iter().enumerate().map(|(n, partner)| partner.map(|partner| (n, partner))).collect())
}

/// Pairs the elements of arrays whose order does not matter. The result follows legacy's order; the engine's unpaired
/// elements come last.
pub(super) fn pair_unordered(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Value],
    engine: &[Value],
    how: &Unordered,
) -> Result<Pairs, BoundExceeded> {
    let mut partner: Vec<Option<usize>> = vec![None; legacy.len()];
    let mut is_paired = vec![false; engine.len()];
    if let Unordered::Key(field) = how {
        let key = |cx: &WalkContext<'_, '_>, element: &Value, side| {
            // In XML, an element's children of one name are an array, however many there are.
            let value = match element.get(field)? {
                Value::Array(values) if values.len() == 1 => &values[0],
                value => value,
            };
            let text = id_text(value)?;
            match (cx.rules_by_node.on(value).id, side) {
                // If the key is an id, the engine's element has a key only once this id is bound to an id of legacy.
                (Some(_), Side::Engine) => cx.ids.legacy_of(text).map(str::to_owned),
                (_, Side::Engine) => Some(cx.ids.with_legacy_ids(text)),
                (_, Side::Legacy) => Some(text.to_owned()),
            }
        };
        let a: Vec<_> = legacy.iter().map(|v| key(cx, v, Side::Legacy)).collect();
        let b: Vec<_> = engine.iter().map(|v| key(cx, v, Side::Engine)).collect();
        assign_partners(&a, &b, &mut partner, &mut is_paired);
    }
    for precision in [Precision::Exact, Precision::Coarse] {
        if partner.iter().all(Option::is_some) || is_paired.iter().all(|t| *t) {
            break;
        }
        let (a, b) = hashes_of_both(cx, legacy, engine, precision)?;
        assign_partners(&all_known(a), &all_known(b), &mut partner, &mut is_paired);
    }
    let unpaired: Vec<usize> = (0..engine.len()).filter(|n| !is_paired[*n]).collect();
    let without_partner = partner.iter().filter(|p| p.is_none()).count();
    let mut unpaired = unpaired.into_iter().peekable();
    // If one element is left on each side, the two are paired: the differences between them tell more than reporting
    // one element as missing and the other as extra.
    let one_each = without_partner == 1 && unpaired.len() == 1 && matches!(how, Unordered::Set);
    let mut pairs: Pairs = Vec::with_capacity(legacy.len() + without_partner);
    for (n, partner) in partner.into_iter().enumerate() {
        let partner = if partner.is_none() && one_each { unpaired.next() } else { partner };
        pairs.push((Some(n), partner));
    }
    pairs.extend(unpaired.map(|n| (None, Some(n))));
    Ok(pairs)
}

/// A member of an object.
type Member<'v> = (&'v String, &'v Value);
/// Pairs of members; `None` if a member has no partner.
pub(super) type MemberPairs<'v> = Vec<(Option<Member<'v>>, Option<Member<'v>>)>;

/// Pairs the members of objects whose keys are ids: by the keys that are bound, then by their values. The result
/// follows legacy's order; the engine's unpaired members come last.
pub(super) fn pair_members<'v>(
    cx: &mut WalkContext<'_, '_>,
    legacy: &'v Map<String, Value>,
    engine: &'v Map<String, Value>,
) -> Result<MemberPairs<'v>, BoundExceeded> {
    let (a, b): (Vec<Member<'v>>, Vec<Member<'v>>) = (legacy.iter().collect(), engine.iter().collect());
    let (mut partner, mut is_paired) = (vec![None; a.len()], vec![false; b.len()]);
    let of_legacy: Vec<_> = a.iter().map(|(key, _)| cx.ids.has_legacy(key).then_some(key.as_str())).collect();
    let of_engine: Vec<_> = b.iter().map(|(key, _)| cx.ids.legacy_of(key)).collect();
    assign_partners(&of_legacy, &of_engine, &mut partner, &mut is_paired);
    // A key that is bound to one that the other object does not have has no partner.
    let mut hashes = |members: &[Member<'v>], side, precision| -> Result<Vec<Option<u64>>, BoundExceeded> {
        let hash = |(key, value): &Member<'v>, cx: &mut WalkContext<'_, '_>| -> Result<Option<u64>, BoundExceeded> {
            let is_bound = match side {
                Side::Legacy => cx.ids.has_legacy(key),
                Side::Engine => cx.ids.legacy_of(key).is_some(),
            };
            if is_bound { Ok(None) } else { hash_of(cx, value, side, precision).map(Some) }
        };
        members.iter().map(|member| hash(member, cx)).collect()
    };
    for precision in [Precision::Exact, Precision::Coarse] {
        let (a, b) = (hashes(&a, Side::Legacy, precision)?, hashes(&b, Side::Engine, precision)?);
        assign_partners(&a, &b, &mut partner, &mut is_paired);
    }
    let without_partner = partner.iter().filter(|p| p.is_none()).count();
    let mut unpaired = (0..b.len()).filter(|n| !is_paired[*n]).collect::<Vec<_>>().into_iter().peekable();
    // If one member is left on each side, the differences between them tell more than a missing and an extra one.
    let one_each = without_partner == 1 && unpaired.len() == 1;
    let mut pairs = Vec::with_capacity(a.len() + unpaired.len());
    for (member, partner) in a.iter().zip(partner) {
        let partner = if partner.is_none() && one_each { unpaired.next() } else { partner };
        pairs.push((Some(*member), partner.and_then(|n| b.get(n).copied())));
    }
    pairs.extend(unpaired.map(|n| (None, b.get(n).copied())));
    Ok(pairs)
}

fn all_known(hashes: Vec<u64>) -> Vec<Option<u64>> {
    hashes.into_iter().map(Some).collect()
}

/// Pairs elements with equal keys that have no partner yet, in the order of each side.
fn assign_partners<K: Hash + Eq>(
    a: &[Option<K>],
    b: &[Option<K>],
    partner: &mut [Option<usize>],
    is_paired: &mut [bool],
) {
    let mut free: HashMap<&K, VecDeque<usize>> = HashMap::new();
    for (n, key) in b.iter().enumerate() {
        if let Some(key) = key.as_ref().filter(|_| !is_paired[n]) {
            free.entry(key).or_default().push_back(n);
        }
    }
    for (n, key) in a.iter().enumerate() {
        if partner[n].is_some() {
            continue;
        }
        let Some(found) = key.as_ref().and_then(|key| free.get_mut(key)).and_then(VecDeque::pop_front) else {
            continue;
        };
        partner[n] = Some(found);
        is_paired[found] = true;
    }
}

/// Returns the hashes of all elements of both arrays.
fn hashes_of_both(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Value],
    engine: &[Value],
    precision: Precision,
) -> Result<(Vec<u64>, Vec<u64>), BoundExceeded> {
    let mut hashes = |values: &[Value], side| -> Result<Vec<u64>, BoundExceeded> {
        values.iter().map(|value| hash_of(cx, value, side, precision)).collect()
    };
    Ok((hashes(legacy, Side::Legacy)?, hashes(engine, Side::Engine)?))
}

/// Returns the hash of a value, which is equal for values that the rules call equal.
pub(super) fn hash_of(
    cx: &mut WalkContext<'_, '_>,
    value: &Value,
    side: Side,
    precision: Precision,
) -> Result<u64, BoundExceeded> {
    cx.findings.step()?;
    let covered = cx.rules_by_node.on(value);
    let mut hasher = DefaultHasher::new();
    if covered.ignore.is_some() {
        return Ok(0);
    }
    if let Some(id) = id_text(value).filter(|_| covered.id.is_some()) {
        hash_id(cx, id, side, precision, &mut hasher);
        return Ok(hasher.finish());
    }
    if covered.is_tolerated() && precision == Precision::Coarse {
        "tolerated".hash(&mut hasher);
        return Ok(hasher.finish());
    }
    match value {
        Value::Null => 0u8.hash(&mut hasher),
        Value::Bool(value) => (1u8, value).hash(&mut hasher),
        Value::Number(number) => match Decimal::parse(number.as_str()) {
            Some(decimal) => (2u8, decimal).hash(&mut hasher),
            None => (2u8, number.as_str()).hash(&mut hasher),
        },
        Value::String(text) => match side {
            Side::Engine if !cx.ids.is_empty() => (3u8, cx.ids.with_legacy_ids(text)).hash(&mut hasher),
            Side::Engine | Side::Legacy => (3u8, text).hash(&mut hasher),
        },
        Value::Array(items) => {
            4u8.hash(&mut hasher);
            let mut sum = 0u64;
            for item in items {
                let item = hash_of(cx, item, side, precision)?;
                if covered.is_unordered() {
                    sum = sum.wrapping_add(item);
                } else {
                    item.hash(&mut hasher);
                }
            }
            (sum, items.len()).hash(&mut hasher);
        }
        Value::Object(map) => {
            5u8.hash(&mut hasher);
            let mut sum = 0u64;
            for (key, value) in map {
                if cx.rules_by_node.on(value).ignore.is_some() {
                    continue;
                }
                let mut entry = DefaultHasher::new();
                if covered.keys.is_some() {
                    hash_id(cx, key, side, precision, &mut entry);
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

fn hash_id(cx: &WalkContext<'_, '_>, id: &str, side: Side, precision: Precision, hasher: &mut DefaultHasher) {
    let bound = match side {
        Side::Legacy => Some(id).filter(|id| cx.ids.has_legacy(id)),
        Side::Engine => cx.ids.legacy_of(id),
    };
    match (bound, precision) {
        (Some(id), _) => ("id", id).hash(hasher),
        (None, Precision::Coarse) => "any id".hash(hasher),
        (None, Precision::Exact) => ("free id", id).hash(hasher),
    }
}
