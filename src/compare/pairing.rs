//! Which elements of two arrays belong together.
//!
//! Elements are told apart by a *shape*: a hash that is equal for values that the rules call equal (ignored places
//! left out, the engine's ids in legacy's words, tolerated places levelled). Shapes only propose pairs; each pair is
//! compared afterwards, so a shape that lies makes a difference, never a match.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::number::Decimal;
use super::rules::Unordered;
use super::verdict::TooMuch;
use super::walk::{Walk, id_text};

/// Places in legacy's and the engine's array; `None` where one has no partner.
pub(super) type Pairs = Vec<(Option<usize>, Option<usize>)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Legacy,
    Engine,
}

/// What a shape leaves open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    /// Nothing but ignored places.
    Fine,
    /// Tolerated places and unbound ids too.
    Coarse,
}

/// Arrays of different length, in order: the common start and end are paired, and the rest by place.
pub(super) fn aligned(walk: &mut Walk<'_, '_>, legacy: &[Value], engine: &[Value]) -> Result<Pairs, TooMuch> {
    let (a, b) = both(walk, legacy, engine, Grain::Coarse)?;
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

/// Whether two arrays of one length hold the same elements in another order.
pub(super) fn only_moved(walk: &mut Walk<'_, '_>, legacy: &[Value], engine: &[Value]) -> Result<bool, TooMuch> {
    let (mut a, mut b) = both(walk, legacy, engine, Grain::Coarse)?;
    if a == b {
        return Ok(false);
    }
    a.sort_unstable();
    b.sort_unstable();
    Ok(a == b)
}

/// Arrays whose order does not matter, in legacy's order.
pub(super) fn matched(
    walk: &mut Walk<'_, '_>,
    legacy: &[Value],
    engine: &[Value],
    how: &Unordered,
) -> Result<Pairs, TooMuch> {
    let mut partner: Vec<Option<usize>> = vec![None; legacy.len()];
    let mut taken = vec![false; engine.len()];
    if let Unordered::Key(field) = how {
        let key = |walk: &Walk<'_, '_>, element: &Value, side| {
            let value = element.get(field)?;
            let text = id_text(value)?;
            match (walk.marks.on(value).id, side) {
                // A key that is itself an id is found only once it is bound.
                (Some(_), Side::Engine) => walk.ids.legacy_of(text).map(str::to_owned),
                (_, Side::Engine) => Some(walk.ids.in_legacy_words(text)),
                (_, Side::Legacy) => Some(text.to_owned()),
            }
        };
        let a: Vec<_> = legacy.iter().map(|v| key(walk, v, Side::Legacy)).collect();
        let b: Vec<_> = engine.iter().map(|v| key(walk, v, Side::Engine)).collect();
        assign(&a, &b, &mut partner, &mut taken);
    }
    for grain in [Grain::Fine, Grain::Coarse] {
        if partner.iter().all(Option::is_some) || taken.iter().all(|t| *t) {
            break;
        }
        let (a, b) = both(walk, legacy, engine, grain)?;
        assign(&keep(a), &keep(b), &mut partner, &mut taken);
    }
    let rest: Vec<usize> = (0..engine.len()).filter(|n| !taken[*n]).collect();
    let alone = partner.iter().filter(|p| p.is_none()).count();
    let mut rest = rest.into_iter().peekable();
    // One against one: what differs within says more than that one is missing and one is too many.
    let one_each = alone == 1 && rest.len() == 1 && matches!(how, Unordered::Set);
    let mut pairs: Pairs = Vec::with_capacity(legacy.len() + alone);
    for (n, partner) in partner.into_iter().enumerate() {
        let partner = if partner.is_none() && one_each { rest.next() } else { partner };
        pairs.push((Some(n), partner));
    }
    pairs.extend(rest.map(|n| (None, Some(n))));
    Ok(pairs)
}

fn keep(shapes: Vec<u64>) -> Vec<Option<u64>> {
    shapes.into_iter().map(Some).collect()
}

/// Pairs equal keys that have no partner yet, each side in its order.
fn assign<K: Hash + Eq>(a: &[Option<K>], b: &[Option<K>], partner: &mut [Option<usize>], taken: &mut [bool]) {
    let mut free: HashMap<&K, VecDeque<usize>> = HashMap::new();
    for (n, key) in b.iter().enumerate() {
        if let Some(key) = key.as_ref().filter(|_| !taken[n]) {
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
        taken[found] = true;
    }
}

fn both(
    walk: &mut Walk<'_, '_>,
    legacy: &[Value],
    engine: &[Value],
    grain: Grain,
) -> Result<(Vec<u64>, Vec<u64>), TooMuch> {
    let mut shapes = |values: &[Value], side| -> Result<Vec<u64>, TooMuch> {
        values.iter().map(|value| shape(walk, value, side, grain)).collect()
    };
    Ok((shapes(legacy, Side::Legacy)?, shapes(engine, Side::Engine)?))
}

fn shape(walk: &mut Walk<'_, '_>, value: &Value, side: Side, grain: Grain) -> Result<u64, TooMuch> {
    walk.found.step()?;
    let said = walk.marks.on(value);
    let mut hasher = DefaultHasher::new();
    if said.ignore.is_some() {
        return Ok(0);
    }
    if let Some(id) = id_text(value).filter(|_| said.id.is_some()) {
        let bound = match side {
            Side::Legacy => Some(id).filter(|id| walk.ids.knows_legacy(id)),
            Side::Engine => walk.ids.legacy_of(id),
        };
        match (bound, grain) {
            (Some(id), _) => ("id", id).hash(&mut hasher),
            (None, Grain::Coarse) => "any id".hash(&mut hasher),
            (None, Grain::Fine) => ("free id", id).hash(&mut hasher),
        }
        return Ok(hasher.finish());
    }
    if said.is_tolerated() && grain == Grain::Coarse {
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
            Side::Engine if !walk.ids.is_empty() => (3u8, walk.ids.in_legacy_words(text)).hash(&mut hasher),
            Side::Engine | Side::Legacy => (3u8, text).hash(&mut hasher),
        },
        Value::Array(items) => {
            4u8.hash(&mut hasher);
            let mut sum = 0u64;
            for item in items {
                let item = shape(walk, item, side, grain)?;
                if said.is_unordered() {
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
                if walk.marks.on(value).ignore.is_some() {
                    continue;
                }
                let mut entry = DefaultHasher::new();
                (key, shape(walk, value, side, grain)?).hash(&mut entry);
                sum = sum.wrapping_add(entry.finish());
            }
            sum.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}
