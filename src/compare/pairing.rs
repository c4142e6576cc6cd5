//! Finds out which elements of two arrays belong together.
//!
//! Elements are paired by a hash that is equal for values that the rules call equal (`value_hash`), and where several
//! have one hash by their tolerated values (`correspond`). Each pair is compared afterwards.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::body_rules::{IdKind, Unordered};
use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::correspond::assign_within_tolerance;
use super::fast_hash::fast_hasher;
use super::node::{Kind, Members, Node};
use super::value_hash::{Precision, Side, hash_of};

/// The most elements without an equal one for which the most similar one is searched.
const SIMILAR_MAX: usize = 64;

/// Pairs of indexes into legacy's and the engine's array; `None` if an element has no partner.
pub(super) type Pairs = Vec<(Option<usize>, Option<usize>)>;

/// Pairs the elements of arrays of different length: first the common start and end, then the rest by index.
pub(super) fn pair_in_order(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Node<'_>],
    engine: &[Node<'_>],
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
/// not, or if the order is the same. `among`: the indexes, in order, of the elements that may have been moved; the
/// others stay where they are.
pub(super) fn pair_reordered(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Node<'_>],
    engine: &[Node<'_>],
    among: impl IntoIterator<Item = usize>,
) -> Result<Option<Vec<(usize, usize)>>, BoundExceeded> {
    let among: Vec<usize> = among.into_iter().collect();
    let (left, right): (Vec<_>, Vec<_>) = among.iter().map(|n| (legacy[*n], engine[*n])).unzip();
    let (a, b) = hashes_of_both(cx, &left, &right, Precision::Coarse)?;
    if a == b {
        return Ok(None);
    }
    let (mut partner, mut is_paired) = (vec![None; a.len()], vec![false; b.len()]);
    // Elements that differ only in tolerated parts have the same coarse hash: equal ones are paired first.
    let all_known = |hashes: Vec<u64>| hashes.into_iter().map(Some).collect::<Vec<_>>();
    let (exact_a, exact_b) = match cx.rules_by_node.is_precision_irrelevant() {
        true => (a.clone(), b.clone()),
        false => hashes_of_both(cx, &left, &right, Precision::Exact)?,
    };
    assign_partners(&all_known(exact_a), &all_known(exact_b), &mut partner, &mut is_paired);
    let (a, b) = (all_known(a), all_known(b));
    assign_within_tolerance(cx, (&left, &a), (&right, &b), &mut partner, &mut is_paired)?;
    assign_partners(&a, &b, &mut partner, &mut is_paired);
    assign_similar(cx, (&left, &right), legacy.len(), &mut partner, &mut is_paired)?;
    let is_moved = partner.iter().enumerate().any(|(n, partner)| *partner != Some(n));
    let Some(moved) = partner.into_iter().collect::<Option<Vec<usize>>>().filter(|_| is_moved) else {
        return Ok(None);
    };
    let mut pairs: Vec<(usize, usize)> = (0..legacy.len()).map(|n| (n, n)).collect();
    among.iter().zip(moved).for_each(|(n, partner)| pairs[*n].1 = among[partner]);
    Ok(Some(pairs))
}

/// Of arrays of this length that hold mostly the same elements, pairs the others by the members that they have in
/// common: elements that were moved and changed. Elements that have little in common are left without a partner.
fn assign_similar(
    cx: &mut WalkContext<'_, '_>,
    (legacy, engine): (&[Node<'_>], &[Node<'_>]),
    length: usize,
    partner: &mut [Option<usize>],
    is_paired: &mut [bool],
) -> Result<(), BoundExceeded> {
    let left: Vec<usize> = (0..legacy.len()).filter(|n| partner[*n].is_none()).collect();
    let right: Vec<usize> = (0..engine.len()).filter(|n| !is_paired[*n]).collect();
    if left.len() > SIMILAR_MAX || left.len() * 2 > length {
        return Ok(());
    }
    let mut members = |values: &[Node<'_>], of: &[usize], side| -> Result<Vec<HashSet<u64>>, BoundExceeded> {
        of.iter().map(|n| hashes_of_members(cx, values[*n], side)).collect()
    };
    let (of_left, of_right) = (members(legacy, &left, Side::Legacy)?, members(engine, &right, Side::Engine)?);
    let mut scored = Vec::new();
    for (i, a) in of_left.iter().enumerate() {
        for (j, b) in of_right.iter().enumerate() {
            let common = a.intersection(b).count();
            if common > 0 && common * 2 >= a.len().max(b.len()) {
                scored.push((common, left[i], right[j]));
            }
        }
    }
    // A stable sort: equally good pairs stay in the order of both sides.
    scored.sort_by_key(|(common, ..)| std::cmp::Reverse(*common));
    for (_, a, b) in scored {
        if partner[a].is_none() && !is_paired[b] {
            (partner[a], is_paired[b]) = (Some(b), true);
        }
    }
    Ok(())
}

/// The hashes of the members of an object, each with its key; none of another value.
fn hashes_of_members(cx: &mut WalkContext<'_, '_>, value: Node<'_>, side: Side) -> Result<HashSet<u64>, BoundExceeded> {
    let Kind::Object(members) = value.kind() else { return Ok(HashSet::new()) };
    let mut hashes = HashSet::with_capacity(members.len());
    for (key, value) in members.iter() {
        let mut hasher = fast_hasher();
        (key, hash_of(cx, value, side, Precision::Coarse)?).hash(&mut hasher);
        hashes.insert(hasher.finish());
    }
    Ok(hashes)
}

/// Pairs the elements of arrays whose order does not matter. The result follows legacy's order; the engine's unpaired
/// elements come last.
pub(super) fn pair_unordered(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Node<'_>],
    engine: &[Node<'_>],
    how: &Unordered,
) -> Result<Pairs, BoundExceeded> {
    let mut partner: Vec<Option<usize>> = vec![None; legacy.len()];
    let mut is_paired = vec![false; engine.len()];
    if let Unordered::Key(field) = how {
        let a: Vec<_> = legacy.iter().map(|v| key_of(cx, *v, field, Side::Legacy)).collect();
        let b: Vec<_> = engine.iter().map(|v| key_of(cx, *v, field, Side::Engine)).collect();
        // Of several elements with one key, those that are equal belong together.
        if has_repeated(&a) || has_repeated(&b) {
            assign_equal(cx, (legacy, &a), (engine, &b), &mut partner, &mut is_paired)?;
        }
        assign_partners(&a, &b, &mut partner, &mut is_paired);
    }
    let keys = (vec![Some(()); legacy.len()], vec![Some(()); engine.len()]);
    assign_equal(cx, (legacy, &keys.0), (engine, &keys.1), &mut partner, &mut is_paired)?;
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

/// Of two arrays whose order does not matter, the pairs of which it is clear that they belong together: no other
/// element has the same key, or could be equal, whatever the ids that are not bound turn out to be.
pub(super) fn pair_certain(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Node<'_>],
    engine: &[Node<'_>],
    how: &Unordered,
) -> Result<Pairs, BoundExceeded> {
    let keys = |cx: &mut WalkContext<'_, '_>, values: &[Node<'_>], side| -> Result<Vec<_>, BoundExceeded> {
        let mut keys = Vec::with_capacity(values.len());
        for value in values.iter().copied() {
            let key = match how {
                Unordered::Key(field) => key_of(cx, value, field, side).map(Cow::into_owned),
                Unordered::Set => None,
            };
            keys.push(match key {
                Some(key) => (Some(key), 0),
                None => (None, hash_of(cx, value, side, Precision::Coarse)?),
            });
        }
        Ok(keys)
    };
    let (a, b) = (keys(cx, legacy, Side::Legacy)?, keys(cx, engine, Side::Engine)?);
    Ok(certain(&a, &b).into_iter().map(|(a, b)| (Some(a), Some(b))).collect())
}

/// As [`pair_certain`], for the members of objects whose keys are ids.
pub(super) fn pair_certain_members<'v>(
    cx: &mut WalkContext<'_, '_>,
    kind: IdKind,
    legacy: Members<'v>,
    engine: Members<'v>,
) -> Result<MemberPairs<'v>, BoundExceeded> {
    let keys = |cx: &mut WalkContext<'_, '_>, members: Members<'v>, side| -> Result<Vec<_>, BoundExceeded> {
        let mut keys = Vec::with_capacity(members.len());
        for (key, value) in members.iter() {
            let bound = match side {
                Side::Legacy => cx.ids.has_legacy(kind, key).then(|| key.to_owned()),
                Side::Engine => cx.ids.legacy_of(kind, key).map(str::to_owned),
            };
            keys.push(match bound {
                Some(key) => (Some(key), 0),
                None => (None, hash_of(cx, value, side, Precision::Coarse)?),
            });
        }
        Ok(keys)
    };
    let (a, b) = (keys(cx, legacy, Side::Legacy)?, keys(cx, engine, Side::Engine)?);
    let (left, right): (Vec<Member<'v>>, Vec<Member<'v>>) = (legacy.iter().collect(), engine.iter().collect());
    let pairs = certain(&a, &b).into_iter();
    Ok(pairs.map(|(a, b)| (left.get(a).copied(), right.get(b).copied())).collect())
}

/// The pairs of elements with the same key, if each side has exactly one element with that key.
fn certain<K: Hash + Eq>(legacy: &[K], engine: &[K]) -> Vec<(usize, usize)> {
    let mut of_legacy: HashMap<&K, usize> = HashMap::with_capacity(legacy.len());
    // By key: the index of the first element, and how many elements have the key.
    let mut of_engine: HashMap<&K, (usize, usize)> = HashMap::with_capacity(engine.len());
    for (n, key) in engine.iter().enumerate() {
        of_engine.entry(key).or_insert((n, 0)).1 += 1;
    }
    legacy.iter().for_each(|key| *of_legacy.entry(key).or_default() += 1);
    let found = legacy.iter().enumerate().filter(|(_, key)| of_legacy.get(key) == Some(&1));
    found.filter_map(|(a, key)| of_engine.get(key).filter(|(_, times)| *times == 1).map(|(b, _)| (a, *b))).collect()
}

/// The value of an element's field by which it is paired, with legacy's ids; `None` if it has none.
fn key_of<'v>(cx: &WalkContext<'_, '_>, element: Node<'v>, field: &str, side: Side) -> Option<Cow<'v, str>> {
    // In XML, an element's children of one name are an array, however many there are.
    let value = element.get(field)?;
    let value = match value.kind() {
        Kind::Array(values) if values.len() == 1 => values.iter().next()?,
        _ => value,
    };
    let text = value.id_text()?;
    match (cx.rules_by_node.on(value).id, side) {
        // If the key is an id, the engine's element has a key only once this id is bound to an id of legacy.
        (Some(ids), Side::Engine) => cx.ids.legacy_of(ids.kind, text).map(|id| id.to_owned().into()),
        (_, Side::Engine) => Some(cx.ids.with_legacy_ids(text)),
        (_, Side::Legacy) => Some(text.into()),
    }
}

/// Pairs the members of two objects by their keys: all of legacy's in their order, then those that only the engine's
/// object has.
pub(super) fn pair_by_key<'v>(
    legacy: Members<'v>,
    engine: Members<'v>,
) -> impl Iterator<Item = (&'v str, Option<Node<'v>>, Option<Node<'v>>)> {
    let (mut of_engine, mut of_legacy) = (engine.iter(), legacy.iter());
    // Most often both have the same keys in the same order, which costs no search.
    let all = legacy.iter().map(move |(key, value)| {
        let next = of_engine.next().filter(|(other, _)| *other == key).map(|(_, value)| value);
        (key, Some(value), next.or_else(|| engine.get(key)))
    });
    let extra = engine
        .iter()
        .filter(move |(key, _)| of_legacy.next().is_none_or(|(other, _)| other != *key) && legacy.get(key).is_none());
    all.chain(extra.map(|(key, value)| (key, None, Some(value))))
}

/// A member of an object.
type Member<'v> = (&'v str, Node<'v>);
/// Pairs of members; `None` if a member has no partner.
pub(super) type MemberPairs<'v> = Vec<(Option<Member<'v>>, Option<Member<'v>>)>;

/// Pairs the members of objects whose keys are ids: by the keys that are bound, then by their values. The result
/// follows legacy's order; the engine's unpaired members come last.
pub(super) fn pair_members<'v>(
    cx: &mut WalkContext<'_, '_>,
    kind: IdKind,
    legacy: Members<'v>,
    engine: Members<'v>,
) -> Result<MemberPairs<'v>, BoundExceeded> {
    let (a, b): (Vec<Member<'v>>, Vec<Member<'v>>) = (legacy.iter().collect(), engine.iter().collect());
    let (mut partner, mut is_paired) = (vec![None; a.len()], vec![false; b.len()]);
    let of_legacy: Vec<_> = a.iter().map(|(key, _)| cx.ids.has_legacy(kind, key).then_some(*key)).collect();
    let of_engine: Vec<_> = b.iter().map(|(key, _)| cx.ids.legacy_of(kind, key).map(str::to_owned)).collect();
    let of_engine: Vec<_> = of_engine.iter().map(Option::as_deref).collect();
    assign_partners(&of_legacy, &of_engine, &mut partner, &mut is_paired);
    // A key that is bound to one that the other object does not have has no partner.
    let free = |keys: &[Option<&str>]| keys.iter().map(|key| key.is_none().then_some(())).collect::<Vec<_>>();
    let values = |members: &[Member<'v>]| members.iter().map(|(_, value)| *value).collect::<Vec<_>>();
    let (left, right) = ((values(&a), free(&of_legacy)), (values(&b), free(&of_engine)));
    assign_equal(cx, (&left.0, &left.1), (&right.0, &right.1), &mut partner, &mut is_paired)?;
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

fn has_repeated(keys: &[Option<Cow<'_, str>>]) -> bool {
    let mut seen = HashSet::new();
    keys.iter().flatten().any(|key| !seen.insert(key))
}

/// Pairs the elements with equal keys that are equal by the rules: first those that differ only in ignored parts, then
/// those whose tolerated values are near enough, then those that differ in tolerated values and ids that are not bound.
/// Elements without a key are left out.
fn assign_equal<K: Hash + Eq + Clone>(
    cx: &mut WalkContext<'_, '_>,
    (legacy, of_legacy): (&[Node<'_>], &[Option<K>]),
    (engine, of_engine): (&[Node<'_>], &[Option<K>]),
    partner: &mut [Option<usize>],
    is_paired: &mut [bool],
) -> Result<(), BoundExceeded> {
    for precision in [Precision::Exact, Precision::Coarse] {
        if partner.iter().all(Option::is_some) || is_paired.iter().all(|paired| *paired) {
            break;
        }
        let a = keys_with_hashes(cx, legacy, of_legacy, Side::Legacy, precision)?;
        let b = keys_with_hashes(cx, engine, of_engine, Side::Engine, precision)?;
        if precision == Precision::Coarse {
            assign_within_tolerance(cx, (legacy, &a), (engine, &b), partner, is_paired)?;
        }
        assign_partners(&a, &b, partner, is_paired);
    }
    Ok(())
}

/// The key of each element together with the element's hash.
fn keys_with_hashes<K: Clone>(
    cx: &mut WalkContext<'_, '_>,
    values: &[Node<'_>],
    keys: &[Option<K>],
    side: Side,
    precision: Precision,
) -> Result<Vec<Option<(K, u64)>>, BoundExceeded> {
    let mut hashed = Vec::with_capacity(values.len());
    for (value, key) in values.iter().zip(keys) {
        hashed.push(match key {
            Some(key) => Some((key.clone(), hash_of(cx, *value, side, precision)?)),
            None => None,
        });
    }
    Ok(hashed)
}

/// Pairs elements with equal keys that have no partner yet, in the order of each side.
fn assign_partners<K: Hash + Eq>(
    a: &[Option<K>],
    b: &[Option<K>],
    partner: &mut [Option<usize>],
    is_paired: &mut [bool],
) {
    // A linked list for each key, in order: `free` has its first element, `next` the one after each element.
    let mut free: HashMap<&K, Option<usize>> = HashMap::with_capacity(b.len());
    let mut next = vec![None; b.len()];
    for (n, key) in b.iter().enumerate().rev() {
        if let Some(key) = key.as_ref().filter(|_| !is_paired[n]) {
            next[n] = free.insert(key, Some(n)).flatten();
        }
    }
    for (n, key) in a.iter().enumerate() {
        if partner[n].is_some() {
            continue;
        }
        let Some(first) = key.as_ref().and_then(|key| free.get_mut(key)) else { continue };
        let Some(found) = *first else { continue };
        *first = next[found];
        partner[n] = Some(found);
        is_paired[found] = true;
    }
}

/// Returns the hashes of all elements of both arrays.
fn hashes_of_both(
    cx: &mut WalkContext<'_, '_>,
    legacy: &[Node<'_>],
    engine: &[Node<'_>],
    precision: Precision,
) -> Result<(Vec<u64>, Vec<u64>), BoundExceeded> {
    let mut hashes = |values: &[Node<'_>], side| -> Result<Vec<u64>, BoundExceeded> {
        values.iter().map(|value| hash_of(cx, *value, side, precision)).collect()
    };
    Ok((hashes(legacy, Side::Legacy)?, hashes(engine, Side::Engine)?))
}
