//! Which ids the engine gave to twins, so that an id that it gives to a second instance is found.
//!
//! If the engine gives one id to two instances, each pair matches by itself, because ids correspond within a pair. Only
//! a memory across pairs shows it.
//!
//! Always true: the number of ids that are remembered is bounded, and the oldest are forgotten; an id that was given to
//! a second instance stays with the first. What is remembered is lost with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use serde_json::Value;

use crate::compare::{Body, InstanceIds, Observation, decoded_body};
use crate::evidence::EvidenceGeneration;
use crate::exchange::Answered;
use crate::flag::Instance;
use crate::names::RouteId;
use crate::workflow::{Mode, may_create_instance};

/// The most ids that are remembered, of all families together.
const GIVEN_IDS_MAX: usize = 65_536;
/// The longest id that is remembered.
const GIVEN_ID_BYTES_MAX: usize = 256;

/// A family, the generation of its evidence (another workflow may begin with ids anew), and an id that the engine gave
/// to one of its twins.
type GivenId = (RouteId, EvidenceGeneration, Box<str>);

/// The ids that the engine gave to the twins of the last instances that legacy created.
#[derive(Default)]
pub(super) struct GivenIds(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    /// Legacy's id of the instance, by the id of its twin.
    legacy: HashMap<GivenId, Box<str>>,
    /// The same keys, the oldest first.
    order: VecDeque<GivenId>,
}

impl GivenIds {
    /// Notes the ids of an instance that both arms created. If the engine gave the same id to the twin of another
    /// instance before, its ids are returned.
    pub(super) fn note(
        &self,
        family: &RouteId,
        generation: EvidenceGeneration,
        InstanceIds { legacy, engine }: InstanceIds,
    ) -> Option<InstanceIds> {
        if legacy.len().max(engine.len()) > GIVEN_ID_BYTES_MAX {
            return None;
        }
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key: GivenId = (family.clone(), generation, engine.as_str().into());
        if let Some(first) = recent.legacy.get(&key) {
            return (**first != *legacy).then(|| InstanceIds { legacy: first.to_string(), engine });
        }
        recent.order.push_back(key.clone());
        recent.legacy.insert(key, legacy.into());
        if recent.order.len() > GIVEN_IDS_MAX
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.legacy.remove(&oldest);
        }
        None
    }
}

/// The ids of the instance that both arms created, of a create in `dark`: only there does the engine keep what it
/// answers with.
pub(super) fn created_ids(answered: &Answered, engine: &Observation, bytes_max: usize) -> Option<InstanceIds> {
    let instance = answered.flag.route.instance.as_ref().filter(|_| answered.mode == Mode::Dark)?;
    let id = |seen: &Observation| {
        let is_created = may_create_instance(seen.status().as_u16());
        is_created.then(|| created_id(instance, seen.headers(), seen.body(), bytes_max))?
    };
    Some(InstanceIds { legacy: id(&answered.legacy)?, engine: id(engine)? })
}

fn created_id(instance: &Instance, headers: &HeaderMap, body: &Body, bytes_max: usize) -> Option<String> {
    instance.created_id_in(headers, || {
        let Body::Whole(bytes) = body else { return None };
        serde_json::from_slice::<Value>(&decoded_body(headers, bytes, bytes_max)?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: EvidenceGeneration = EvidenceGeneration::testing(1);

    fn ids(legacy: &str, engine: &str) -> InstanceIds {
        InstanceIds { legacy: legacy.to_owned(), engine: engine.to_owned() }
    }

    #[test]
    fn an_id_that_the_engine_gives_to_a_second_instance_is_found() {
        let given = GivenIds::default();
        let orders = RouteId::new("orders.create");
        assert_eq!(given.note(&orders, GENERATION, ids("1", "a")), None);
        assert_eq!(given.note(&orders, GENERATION, ids("2", "b")), None);
        assert_eq!(
            given.note(&orders, GENERATION, ids("1", "a")),
            None,
            "the same instance, for example by a repeated request"
        );
        assert_eq!(
            given.note(&RouteId::new("carts.create"), GENERATION, ids("7", "a")),
            None,
            "each family has its own ids"
        );
        assert_eq!(given.note(&orders, GENERATION, ids("3", "a")), Some(ids("1", "a")));
        assert_eq!(given.note(&orders, GENERATION, ids("4", "a")), Some(ids("1", "a")), "it stays with the first");
        let next = EvidenceGeneration::testing(2);
        assert_eq!(given.note(&orders, next, ids("5", "a")), None, "another workflow begins anew");
    }

    #[test]
    fn the_oldest_ids_are_forgotten_and_very_long_ones_are_not_noted() {
        let given = GivenIds::default();
        let orders = RouteId::new("orders.create");
        for n in 0..=GIVEN_IDS_MAX {
            assert_eq!(given.note(&orders, GENERATION, ids(&n.to_string(), &n.to_string())), None);
        }
        assert_eq!(given.0.lock().unwrap().legacy.len(), GIVEN_IDS_MAX);
        assert_eq!(given.note(&orders, GENERATION, ids("x", "0")), None, "forgotten");
        assert_eq!(given.note(&orders, GENERATION, ids("x", "2")), Some(ids("2", "2")));
        let long = "x".repeat(GIVEN_ID_BYTES_MAX + 1);
        assert_eq!(
            (given.note(&orders, GENERATION, ids("1", &long)), given.note(&orders, GENERATION, ids("2", &long))),
            (None, None)
        );
    }
}
