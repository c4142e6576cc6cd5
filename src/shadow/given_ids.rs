//! Remembers which ids the engine gave to twins, to find two defects of a workflow: it gives one id to two instances,
//! or it refers to the twin of another instance than legacy does.
//!
//! With either defect each pair matches by itself, because ids correspond within a pair. Only a memory across pairs
//! shows the defect.
//!
//! Always true: the number of ids that are remembered is bounded, and the oldest are forgotten; an id that was given to
//! a second instance stays with the first. What is remembered is lost with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use serde_json::Value;

use crate::compare::{Body, BoundExceeded, BoundIds, Comparison, EarlierIds, InstanceIds, Observation, decoded_body};
use crate::evidence::EngineGeneration;
use crate::exchange::Answered;
use crate::flag::Instance;
use crate::names::RouteId;
use crate::workflow::{Mode, may_create_instance};

/// The most ids that are remembered, of all families together.
const GIVEN_IDS_MAX: usize = 65_536;
/// A number with fewer digits counts as the id of an instance only if the rules declare its kind.
const SHORT_BYTES: usize = 9;
/// The longest id that is remembered.
const GIVEN_ID_BYTES_MAX: usize = 256;

/// A family, the generation of the engine's behaviour, and an id that the engine gave to a twin of the family. A new
/// generation begins with another workflow or another address of a service, because the engine may then give out the
/// same ids again; it does not begin with other rules.
type GivenId = (RouteId, EngineGeneration, Box<str>);

/// The ids that the engine gave to the twins of the last instances that legacy created.
#[derive(Default)]
pub(super) struct GivenIds(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    /// Legacy's id of the instance, by the id of its twin, for each generation of the engine.
    legacy: HashMap<GivenId, Box<str>>,
    /// The id of the newest twin, by the family and legacy's id of the instance.
    twins: HashMap<(RouteId, Box<str>), Box<str>>,
    /// Legacy's id of the instance, by the family and the id of its twin.
    instances: HashMap<(RouteId, Box<str>), Box<str>>,
    /// The kind of ids that the rules declare for the instances of a family.
    kinds: HashMap<RouteId, String>,
    /// The keys of `legacy`, the oldest first.
    order: VecDeque<GivenId>,
}

impl GivenIds {
    /// Notes the ids of an instance that both arms created. If the engine gave the same id to the twin of another
    /// instance before, its ids are returned.
    pub(super) fn note(
        &self,
        family: &RouteId,
        generation: EngineGeneration,
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
        let (legacy, engine): (Box<str>, Box<str>) = (legacy.into(), engine.into());
        recent.instances.insert((family.clone(), engine.clone()), legacy.clone());
        recent.twins.insert((family.clone(), legacy.clone()), engine);
        recent.legacy.insert(key, legacy);
        if recent.order.len() > GIVEN_IDS_MAX
            && let Some(oldest) = recent.order.pop_front()
            && let Some(legacy) = recent.legacy.remove(&oldest)
        {
            recent.forget(oldest, legacy);
        }
        None
    }

    /// Notes the kind that the rules declare for the ids of a family's instances. The pair of a create tells it if it
    /// bound the created ids under a kind; otherwise nothing is noted.
    pub(super) fn note_kind(&self, family: &RouteId, created: &InstanceIds, bound: &BoundIds<'_>) {
        let Some(kind) = bound.kind_of(created) else { return };
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.kinds.get(family).map(String::as_str) != Some(kind) {
            recent.kinds.insert(family.clone(), kind.to_owned());
        }
    }

    /// Compares a pair of an instance. If it binds ids of two different instances of the family, compares it again,
    /// with the ids that they contradict added to `earlier`.
    ///
    /// # Errors
    /// As `compare`.
    pub(super) fn compared<'p>(
        &self,
        family: &RouteId,
        earlier: &mut Vec<EarlierIds>,
        compare: impl Fn(&[EarlierIds]) -> Result<(Comparison, BoundIds<'p>), BoundExceeded>,
    ) -> Result<(Comparison, BoundIds<'p>), BoundExceeded> {
        let (comparison, bound) = compare(earlier)?;
        let of_others = {
            let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            bound.contradicting(|kind, legacy, engine| recent.contradicted(family, kind, legacy, engine))
        };
        if of_others.is_empty() {
            return Ok((comparison, bound));
        }
        earlier.extend(of_others);
        compare(earlier)
    }
}

/// Whether an id may well be the number of something else.
fn is_short_number(id: &str) -> bool {
    id.len() < SHORT_BYTES && id.bytes().all(|byte| byte.is_ascii_digit())
}

impl Recent {
    /// If two ids that a pair of the family bound belong to two different instances: the ids of one of these instances
    /// and its twin. `kind`: the declared kind of the two ids.
    ///
    /// An id may be the number of something else. So only ids of the kind that is declared for the instances count, and
    /// ids that are no short numbers. If both arms name legacy's id of an instance, that contradicts nothing: the
    /// engine may have read it from the request or from a service.
    fn contradicted(
        &self,
        family: &RouteId,
        kind: Option<&str>,
        of_legacy: &str,
        of_engine: &str,
    ) -> Option<InstanceIds> {
        let is_declared = kind.is_some() && kind == self.kinds.get(family).map(String::as_str);
        let known = |by: &HashMap<(RouteId, Box<str>), Box<str>>, id: &str| {
            let found = by.get(&(family.clone(), id.into()))?;
            (is_declared || !is_short_number(id)).then(|| found.to_string())
        };
        let twin = known(&self.twins, of_legacy).filter(|twin| twin != of_engine && of_legacy != of_engine);
        if let Some(engine) = twin {
            return Some(InstanceIds { legacy: of_legacy.to_owned(), engine });
        }
        let legacy = known(&self.instances, of_engine).filter(|instance| instance != of_legacy)?;
        Some(InstanceIds { legacy, engine: of_engine.to_owned() })
    }

    fn forget(&mut self, (family, _, engine): GivenId, legacy: Box<str>) {
        let (of_legacy, of_engine) = ((family.clone(), legacy), (family, engine));
        if self.twins.get(&of_legacy) == Some(&of_engine.1) {
            self.twins.remove(&of_legacy);
        }
        if self.instances.get(&of_engine) == Some(&of_legacy.1) {
            self.instances.remove(&of_engine);
        }
    }
}

/// The ids of the instance that both arms created. Only for a create in `dark`: a rehearsal keeps nothing of what it
/// creates.
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

    const GENERATION: EngineGeneration = EngineGeneration::testing(1);

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
        let next = EngineGeneration::testing(2);
        assert_eq!(given.note(&orders, next, ids("5", "a")), None, "another workflow begins anew");
    }

    #[test]
    fn a_reference_to_the_twin_of_another_instance_is_found() {
        let (given, orders) = (GivenIds::default(), RouteId::new("orders.create"));
        let (a, b) = ("0198c0de-aaaa", "0198c0de-bbbb");
        given.note(&orders, GENERATION, ids("17", a));
        given.note(&orders, GENERATION, ids("18", b));
        let contradicted = |family: &RouteId, kind: Option<&str>, legacy: &str, engine: &str| {
            given.0.lock().unwrap().contradicted(family, kind, legacy, engine)
        };
        let order = Some("order");
        assert_eq!(contradicted(&orders, None, "17", a), None);
        assert_eq!(contradicted(&orders, None, "17", b), Some(ids("18", b)));
        assert_eq!(contradicted(&orders, None, "17", "new"), None, "17 may be the number of a payment");
        assert_eq!(contradicted(&orders, order, "17", "new"), None, "nothing says that instances are of this kind");
        given.0.lock().unwrap().kinds.insert(orders.clone(), "order".to_owned());
        assert_eq!(contradicted(&orders, order, "17", "new"), Some(ids("17", a)));
        assert_eq!(contradicted(&orders, order, "17", "17"), None, "both name legacy's id");
        assert_eq!(contradicted(&orders, order, b, b), Some(ids("18", b)), "the id of the twin of another one");
        assert_eq!(contradicted(&orders, Some("customer"), "17", "new"), None);
        assert_eq!(contradicted(&orders, order, "17", a), None);
        assert_eq!(contradicted(&RouteId::new("carts.create"), None, "17", b), None);
    }

    #[test]
    fn the_oldest_ids_are_forgotten_and_very_long_ones_are_not_noted() {
        let given = GivenIds::default();
        let orders = RouteId::new("orders.create");
        for n in 0..=GIVEN_IDS_MAX {
            assert_eq!(given.note(&orders, GENERATION, ids(&n.to_string(), &n.to_string())), None);
        }
        let sizes = |recent: &Recent| (recent.legacy.len(), recent.twins.len(), recent.instances.len());
        assert_eq!(sizes(&given.0.lock().unwrap()), (GIVEN_IDS_MAX, GIVEN_IDS_MAX, GIVEN_IDS_MAX));
        assert_eq!(given.note(&orders, GENERATION, ids("x", "0")), None, "forgotten");
        assert_eq!(given.note(&orders, GENERATION, ids("x", "2")), Some(ids("2", "2")));
        let long = "x".repeat(GIVEN_ID_BYTES_MAX + 1);
        assert_eq!(
            (given.note(&orders, GENERATION, ids("1", &long)), given.note(&orders, GENERATION, ids("2", &long))),
            (None, None)
        );
    }
}
