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
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::alive_list::listed_ids;
use crate::affinity::{FamilyInstances, StoreAffinity, TrackedFamily};
use crate::clock;
use crate::config::Setup;
use crate::expression::Scope;
use crate::flag::{AliveCall, Family, Instance, InstanceKey, PinKey, Route};
use crate::ladder::{GateCondition, InstancesAtLegacy};
use crate::limits::Limits;
use crate::names::RouteId;
use crate::secret::Secret;
use crate::store::{InstanceChange, StoreError, StoreHandle};
use crate::transport::{AddressRegistry, NotedCaller, get_once, path_pattern};

/// How long the store is waited for.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long legacy is waited for, for all pages of its list together.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
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

    /// Takes the families and the secrets of new files. `routes` are the files' routes, with all ids under which the
    /// store has records of them.
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

    /// Asks legacy for its instances of a family, if the files say how, and records what it lists. Otherwise only reads
    /// the recorded instances from the store again.
    ///
    /// # Errors
    /// Legacy or the store did not answer, or the list is not whole.
    pub(super) async fn list_instances(&self, family: &Family, creator: &Route) -> Result<(), String> {
        let instances = self.affinity.instances();
        let refresh = async || {
            let read = timeout(STORE_TIMEOUT, instances.refresh(Some(family))).await;
            let why = match read {
                Ok(read) => read.err().map(|error| error.to_string()),
                Err(_) => Some(no_answer()),
            };
            why.map_or(Ok(()), |why| Err(format!("the store did not return the recorded instances ({why})")))
        };
        if let Some(call) = &creator.lifetime.alive {
            // Before legacy is asked: what requests show from now on may not be in its list.
            let asked_at = clock::now();
            refresh().await?;
            let listed = self
                .list(family, call)
                .await
                .map_err(|why| format!("legacy did not list its instances (`alive:`): {why}"))?;
            let applied = timeout(STORE_TIMEOUT, self.apply(family, &listed, asked_at)).await;
            let unrecorded = |why: String| format!("the store did not record the instances that legacy listed ({why})");
            return match applied {
                Ok(applied) => applied.map_err(|error| unrecorded(error.to_string())),
                Err(_) => Err(unrecorded(no_answer())),
            };
        }
        refresh().await
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
        let caller = NotedCaller { source: format!("gate {}", family.id()), client: String::new(), path };
        addresses.callers().note(caller, clock::now());
        let until = Instant::now() + ALIVE_TIMEOUT;
        let get = |path: String, bytes_max: usize| {
            let (addresses, headers) = (&addresses, headers.clone());
            async move {
                let within = until.saturating_duration_since(Instant::now());
                let late = || format!("not all pages came within {} ms", ALIVE_TIMEOUT.as_millis());
                let reply = timeout(within, get_once(addresses, &path, headers, bytes_max, ALIVE_TIMEOUT)).await;
                reply.unwrap_or_else(|_| Err(late()))
            }
        };
        listed_ids(call, get).await
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
        let all_known = family.ids().map(|id| InstanceChange::LegacyKnown(id.clone(), now));
        self.affinity.instances().apply(family, of_new.chain(all_known).collect()).await
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
        let inconclusive =
            inconclusive.or_else(|| (!is_counted).then(|| "the recorded instances are not counted yet".to_owned()));
        // Some of those that wait to be written may be in the store already: the sum may be too high, never too low.
        let (alive, has_unknown) = (legacy.alive.saturating_add(legacy_waiting), legacy.has_unknown);
        Some(InstancesAtLegacy { alive, has_unknown, oldest: legacy.oldest, inconclusive })
    }

    fn note_unknown_instances<'a>(&'a self, creator: &'a RouteId) -> BoxFuture<'a, Result<(), StoreError>> {
        let unknown = InstanceChange::LegacyUnknown(creator.clone(), clock::now());
        async move { self.affinity.instances().apply(&Family::from(creator.clone()), vec![unknown]).await }.boxed()
    }

    fn ask_about_instances<'a>(&'a self, family: &'a Family, creator: &'a Route) -> BoxFuture<'a, ()> {
        async move {
            let answer = self.list_instances(family, creator).await;
            if let Err(why) = &answer {
                tracing::warn!(
                    route = %family.id(), why,
                    "which instances legacy still has is not known: the gate to `only` stays shut until it is"
                );
            }
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.insert(family.id().clone(), (Instant::now(), answer));
        }
        .boxed()
    }
}

/// Why a call of the store that has not ended within [`STORE_TIMEOUT`] counts as failed.
fn no_answer() -> String {
    format!("it did not answer within {} s", STORE_TIMEOUT.as_secs())
}

fn revealed(secrets: &BTreeMap<String, Secret>) -> Value {
    let value = |secret: &Secret| Value::String(secret.reveal().to_owned());
    Value::Object(secrets.iter().map(|(name, secret)| (name.clone(), value(secret))).collect::<Map<_, _>>())
}
