//! Remembers, for each instance, which of legacy's ids its compared pairs have *bound* to which of the engine's: both
//! name the same object, such as a payment. So a follow-up in which one arm names another object is found.
//!
//! Always true: the memory is bounded, and the instances that were noted first are forgotten first; of two pairs that
//! bind an id differently the first one counts. What is remembered is lost with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::compare::{EarlierIds, InstanceIds};
use crate::names::RouteId;

/// The most bytes of ids that are remembered, of all instances together.
const BYTES_MAX: usize = 16 << 20;
/// The most ids that are remembered of one instance.
const IDS_OF_INSTANCE_MAX: usize = 64;
/// About how many bytes an entry needs in addition to its texts.
const ENTRY_BYTES: usize = 160;

/// A family, and the ids of one of its instances.
type Key = (RouteId, Box<str>, Box<str>);

/// The ids that were bound by the pairs of the instances that were compared last.
#[derive(Default)]
pub(super) struct IdsOfInstances(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_instance: HashMap<Key, Vec<EarlierIds>>,
    /// The same keys, the oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl IdsOfInstances {
    /// What the pairs of an instance bound before.
    pub(super) fn of(&self, family: &RouteId, instance: &InstanceIds) -> Vec<EarlierIds> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.by_instance.get(&key(family, instance)).cloned().unwrap_or_default()
    }

    /// Notes what a pair of an instance, whose replies do not differ, has bound.
    pub(super) fn note(&self, family: &RouteId, instance: &InstanceIds, bound: Vec<EarlierIds>) {
        if bound.is_empty() {
            return;
        }
        let key = key(family, instance);
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { by_instance, order, bytes } = &mut *guard;
        let known = by_instance.entry(key.clone()).or_insert_with(|| {
            *bytes += key_bytes(&key);
            order.push_back(key);
            Vec::new()
        });
        for ids in bound {
            let is_known =
                |known: &EarlierIds| known.of == ids.of && (known.legacy == ids.legacy || known.engine == ids.engine);
            if known.len() < IDS_OF_INSTANCE_MAX && !known.iter().any(is_known) {
                *bytes += ids_bytes(&ids);
                known.push(ids);
            }
        }
        while *bytes > BYTES_MAX {
            let Some(oldest) = order.pop_front() else { break };
            let forgotten = by_instance.remove(&oldest).unwrap_or_default();
            *bytes = bytes.saturating_sub(key_bytes(&oldest) + forgotten.iter().map(ids_bytes).sum::<usize>());
        }
    }
}

fn key(family: &RouteId, InstanceIds { legacy, engine }: &InstanceIds) -> Key {
    (family.clone(), legacy.as_str().into(), engine.as_str().into())
}

fn key_bytes((_, legacy, engine): &Key) -> usize {
    2 * (legacy.len() + engine.len()) + ENTRY_BYTES
}

fn ids_bytes(ids: &EarlierIds) -> usize {
    ids.path.len() + ids.legacy.len() + ids.engine.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::IdSubject;

    fn bound(of: &str, legacy: &str, engine: &str) -> EarlierIds {
        let (of, path) = (IdSubject::Name(of.to_owned()), format!("$.{of}"));
        EarlierIds { of, path, legacy: legacy.to_owned(), engine: engine.to_owned(), is_secret: false }
    }

    fn instance(n: usize) -> InstanceIds {
        InstanceIds { legacy: n.to_string(), engine: format!("e{n}") }
    }

    #[test]
    fn the_first_binding_of_an_instance_stays_and_each_instance_has_its_own() {
        let (ids, orders) = (IdsOfInstances::default(), RouteId::new("orders.create"));
        ids.note(&orders, &instance(1), vec![bound("payment", "p", "q")]);
        ids.note(&orders, &instance(1), vec![bound("payment", "p", "r"), bound("mail", "p", "r")]);
        assert_eq!(ids.of(&orders, &instance(1)), [bound("payment", "p", "q"), bound("mail", "p", "r")]);
        assert_eq!(ids.of(&orders, &instance(2)), []);
        assert_eq!(ids.of(&RouteId::new("carts.create"), &instance(1)), []);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (ids, orders) = (IdsOfInstances::default(), RouteId::new("orders.create"));
        let many =
            |n: usize| (0..2 * IDS_OF_INSTANCE_MAX).map(move |i| bound("a", &format!("{n}-{i}"), &"x".repeat(200 + i)));
        for n in 0..1_500 {
            ids.note(&orders, &instance(n), many(n).collect());
        }
        let remembered = ids.0.lock().unwrap();
        assert!(remembered.bytes <= BYTES_MAX && remembered.bytes > BYTES_MAX / 2, "{}", remembered.bytes);
        let counted: usize = remembered
            .by_instance
            .iter()
            .map(|(key, ids)| key_bytes(key) + ids.iter().map(ids_bytes).sum::<usize>())
            .sum();
        assert_eq!((counted, remembered.order.len()), (remembered.bytes, remembered.by_instance.len()));
        assert!(remembered.by_instance.values().all(|ids| ids.len() == IDS_OF_INSTANCE_MAX));
        drop(remembered);
        assert_eq!((ids.of(&orders, &instance(0)).len(), ids.of(&orders, &instance(1_499)).len()), (0, 64));
    }
}
