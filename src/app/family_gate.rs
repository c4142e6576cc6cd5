//! Which instances legacy still has, for the gate to `only`: those that requests have shown, or that legacy lists.
//!
//! Always true: the request that lists legacy's instances (`alive:`) ends within a bounded time; a list that cannot be
//! had, is not whole, or does not have the declared form is inconclusive, and so is one that is older than
//! [`ANSWER_AGE_MAX`]: the gate never opens by a failure.
//!
//! What legacy lists (`alive:`) replaces what requests have shown before it was asked: instances that it does not list
//! have ended, and those that it lists are alive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{CONTENT_RANGE, LINK};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use crate::affinity::{FamilyInstances, StoreAffinity, TrackedFamily};
use crate::clock;
use crate::compare::decoded_body;
use crate::config::Setup;
use crate::expression::id_text;
use crate::expression::{Scope, parse_json};
use crate::flag::{AliveCall, Family, Instance, InstanceKey, PinKey, Route};
use crate::ladder::{GateCondition, InstancesAtLegacy};
use crate::limits::Limits;
use crate::names::RouteId;
use crate::secret::Secret;
use crate::store::{InstanceChange, StoreError, StoreHandle};
use crate::transport::{AddressRegistry, Caller, WholeReply, get_once, path_pattern};

/// How long the store is waited for.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long legacy is waited for.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest list that legacy may send.
const ALIVE_BYTES_MAX: usize = 16 << 20;
/// How long an answer counts.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// How many stored instances are compared with the list at a time.
const PAGE: usize = 1_000;

/// When legacy was asked for the instances of a family, and why the answer is inconclusive.
type LastListing = (Instant, Result<(), String>);

/// Counts instances of legacy, and asks legacy for them.
pub(super) struct FamilyGate {
    affinity: Arc<StoreAffinity>,
    store: StoreHandle,
    addresses: Arc<AddressRegistry>,
    limits: Arc<Limits>,
    secrets: ArcSwap<Value>,
    /// By the present id of a family's creator: when it was last asked, and why the answer is inconclusive.
    asked: Mutex<HashMap<RouteId, LastListing>>,
}

impl FamilyGate {
    pub(super) fn new(
        affinity: Arc<StoreAffinity>,
        store: StoreHandle,
        addresses: Arc<AddressRegistry>,
        limits: Arc<Limits>,
    ) -> Arc<Self> {
        let (secrets, asked) = Default::default();
        Arc::new(Self { affinity, store, addresses, limits, secrets, asked })
    }

    /// Takes what new files say. `routes` have the ids that the store knows of them.
    pub(super) fn set_files(&self, setup: &Setup, routes: &[Arc<Route>]) {
        self.secrets.store(Arc::new(revealed(&setup.settings.secrets)));
        let creators = routes
            .iter()
            .filter(|route| route.workflow.is_some() && matches!(route.instance, Some(Instance::Creates { .. })));
        let tracked = |creator: &Arc<Route>| TrackedFamily {
            family: Family::of(creator),
            ends_after: creator.lifetime.ends_after,
        };
        self.affinity.instances().set_families(creators.map(tracked).collect());
        let is_present = |id: &RouteId| routes.iter().any(|route| route.id == *id);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_present(id));
    }

    /// Asks legacy for its instances of a family, if the files say how, and records what it lists.
    ///
    /// # Errors
    /// Legacy or the store did not answer, or the list is not whole.
    pub(super) async fn list_instances(&self, family: &Family, creator: &Route) -> Result<(), String> {
        self.ask(family, creator).await
    }

    async fn ask(&self, family: &Family, creator: &Route) -> Result<(), String> {
        let instances = self.affinity.instances();
        let no_answer = |error: StoreError| format!("the store did not say ({error})");
        let late = || "the store did not say in time".to_owned();
        if let Some(call) = &creator.lifetime.alive {
            // Before legacy is asked: what requests show from now on may not be in its list.
            let asked_at = clock::now();
            timeout(STORE_TIMEOUT, instances.refresh(Some(family))).await.map_err(|_| late())?.map_err(no_answer)?;
            let listed =
                self.list(family, call).await.map_err(|why| format!("legacy did not list them (`alive:`): {why}"))?;
            let applied = timeout(STORE_TIMEOUT, self.apply(family, &listed, asked_at)).await;
            return applied.map_err(|_| late())?.map_err(no_answer);
        }
        timeout(STORE_TIMEOUT, instances.refresh(Some(family))).await.map_err(|_| late())?.map_err(no_answer)
    }

    /// Asks legacy for the ids of its instances.
    async fn list(&self, family: &Family, call: &AliveCall) -> Result<HashSet<String>, String> {
        let mut scope = Scope::new();
        scope.set("secrets", self.secrets.load_full());
        let mut headers = HeaderMap::new();
        for (name, template) in &call.headers {
            // The error is dropped, since it may show the secret.
            let value = template.evaluate_text(&scope).ok().and_then(|text| HeaderValue::try_from(text).ok());
            headers.insert(name, value.ok_or_else(|| format!("the header `{name}` has no value"))?);
        }
        let addresses = self.addresses.of(&call.service, &self.limits);
        let path = path_pattern(&Method::GET, call.path.split('?').next().unwrap_or_default());
        let caller = Caller { source: format!("gate {}", family.id()), client: String::new(), path };
        addresses.callers().note(caller, clock::now());
        let reply = get_once(&addresses, &call.path, headers, ALIVE_BYTES_MAX, ALIVE_TIMEOUT).await?;
        listed_ids(call, &reply)
    }

    /// Records what legacy has listed.
    async fn apply(&self, family: &Family, listed: &HashSet<String>, asked_at: Timestamp) -> Result<(), StoreError> {
        let now = clock::now();
        let key = |id: &String| InstanceKey { family: family.clone(), id: id.as_str().into() }.stored_key();
        let listed: HashSet<PinKey> = listed.iter().map(key).collect();
        let is_listed = |id: &Arc<str>| listed.contains(&PinKey { family: family.first_id().clone(), id: id.clone() });
        let mut known = HashSet::new();
        for stored_under in family.ids() {
            let mut after = None;
            loop {
                let page = self.store.legacy_instances(stored_under.clone(), after, PAGE).await?;
                let gone = page.iter().filter(|instance| instance.seen < asked_at && !is_listed(&instance.id));
                let gone = gone.map(|instance| PinKey { family: stored_under.clone(), id: instance.id.clone() });
                let ended: Vec<_> = gone.map(|key| InstanceChange::LegacyEnded(key, now)).collect();
                known.extend(page.iter().map(|instance| instance.id.clone()).filter(|id| is_listed(id)));
                let is_last = page.len() < PAGE;
                after = page.last().map(|last| last.id.clone());
                self.store.change_instances(ended).await?;
                if is_last {
                    break;
                }
            }
        }
        let new = listed.into_iter().filter(|key| !known.contains(&key.id));
        let of_new = new.map(|key| InstanceChange::LegacyListed(key, now));
        let of_unknown = family.ids().map(|id| InstanceChange::LegacyKnown(id.clone(), now));
        self.affinity.instances().apply(family, of_new.chain(of_unknown).collect()).await
    }
}

impl GateCondition for FamilyGate {
    fn instances_at_legacy(&self, family: &Family, creator: &Route) -> Option<InstancesAtLegacy> {
        let FamilyInstances { legacy, is_counted, legacy_waiting, engine: _ } = self.affinity.instances().of(family);
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let inconclusive = match asked.get(family.id()).filter(|(at, _)| at.elapsed() < ANSWER_AGE_MAX) {
            Some((_, Err(why))) => Some(why.clone()),
            Some((_, Ok(()))) => None,
            None if creator.lifetime.alive.is_some() => {
                Some("legacy is asked (`alive:`) when the route is flipped to `only`".to_owned())
            }
            None => None,
        };
        let inconclusive = inconclusive.or_else(|| (!is_counted).then(|| "they are not counted yet".to_owned()));
        // Some of those that wait for the store may be known to it.
        let (alive, has_unknown) = (legacy.alive.saturating_add(legacy_waiting), legacy.has_unknown);
        Some(InstancesAtLegacy { alive, has_unknown, oldest: legacy.oldest, inconclusive })
    }

    fn ask_about_instances<'a>(&'a self, family: &'a Family, creator: &'a Route) -> BoxFuture<'a, ()> {
        async move {
            let answer = self.ask(family, creator).await;
            if let Err(why) = &answer {
                tracing::warn!(
                    route = %family.id(), why,
                    "legacy's instances could not be listed (`alive:`): the gate to `only` stays shut until a listing \
                     succeeds"
                );
            }
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.insert(family.id().clone(), (Instant::now(), answer));
        }
        .boxed()
    }
}

fn revealed(secrets: &BTreeMap<String, Secret>) -> Value {
    let value = |secret: &Secret| Value::String(secret.reveal().to_owned());
    Value::Object(secrets.iter().map(|(name, secret)| (name.clone(), value(secret))).collect::<Map<_, _>>())
}

/// The ids in a reply; an error says why it does not list all instances.
fn listed_ids(call: &AliveCall, reply: &WholeReply) -> Result<HashSet<String>, String> {
    let WholeReply { status, headers, body } = reply;
    let path = &call.path;
    if *status != StatusCode::OK {
        return Err(format!("`GET {path}` was answered with {}", status.as_u16()));
    }
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let has_next = links.flat_map(|link| link.split([';', ','])).any(|part| {
        // RFC 8288, section 3.3: `rel` has one or more relation types, with spaces between them.
        let (name, types) = part.split_once('=').unwrap_or_default();
        let is_rel = name.trim().eq_ignore_ascii_case("rel");
        is_rel && types.split([' ', '\t', '"']).any(|kind| kind.eq_ignore_ascii_case("next"))
    });
    if has_next || headers.contains_key(CONTENT_RANGE) {
        return Err(format!(
            "the reply to `GET {path}` is one page of several, and `alive:` needs all instances in one"
        ));
    }
    let body = decoded_body(headers, body, ALIVE_BYTES_MAX);
    let json = body.and_then(|body| parse_json(&body).ok());
    let json = json.ok_or_else(|| format!("the reply to `GET {path}` is not JSON"))?;
    let Some(Value::Array(list)) = call.list.query(&json).first() else {
        return Err(format!("the reply to `GET {path}` has no list at `{}`", call.list));
    };
    let found = call.ids.query(&json);
    let ids: HashSet<String> = found.iter().filter_map(|id| id_text(id)).collect();
    let count = found.iter().filter(|id| id_text(id).is_some()).count();
    if count != list.len() {
        let (all, without) = (list.len(), list.len().saturating_sub(count));
        return Err(format!("of {all} elements that `GET {path}` lists, {without} have no id at `{}`", call.ids));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::expression::parse_json_path;
    use crate::flag::Service;

    fn ids(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Result<Vec<String>, String> {
        let path = |text: &str| parse_json_path(text).unwrap();
        let call = AliveCall {
            service: Arc::new(Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")])),
            path: "/orders".into(),
            headers: Vec::new(),
            list: path("$.items"),
            ids: path("$.items[*].id"),
        };
        let fields = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let reply = WholeReply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields.collect(),
            body: Bytes::from(body.to_string()),
        };
        let mut found: Vec<_> = listed_ids(&call, &reply)?.into_iter().collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn only_a_whole_list_of_the_declared_form_says_which_instances_legacy_has() {
        let items = json!({ "items": [{ "id": 17.0 }, { "id": "a b" }] });
        assert_eq!(ids(200, &[], &items), Ok(vec!["17".to_owned(), "a b".to_owned()]));
        assert_eq!(ids(200, &[], &json!({ "items": [] })), Ok(Vec::new()));
        for (status, headers, body, why) in [
            (503, &[][..], &items, "answered with 503"),
            (204, &[], &items, "answered with 204"),
            (206, &[("content-range", "items 0-1/9")], &items, "answered with 206"),
            (200, &[("content-range", "items 0-1/9")], &items, "one page of several"),
            (200, &[("link", "</orders?page=2>; rel=\"next\"")], &items, "one page of several"),
            (200, &[("link", "</orders?page=9>; rel=\"last next\"")], &items, "one page of several"),
            (200, &[("link", "</a>; REL = prev, </b>;rel=Next;title=b")], &items, "one page of several"),
            (200, &[], &json!({ "error": "no" }), "has no list at"),
            (200, &[], &json!({ "items": { "id": 1 } }), "has no list at"),
            (200, &[], &json!({ "items": [{ "id": 1 }, { "name": 2 }] }), "1 have no id"),
            (200, &[], &json!({ "items": [{ "id": null }, { "id": "" }] }), "2 have no id"),
        ] {
            let found = ids(status, headers, body);
            assert!(found.as_ref().is_err_and(|found| found.contains(why)), "{why}: {found:?}");
        }
    }
}
