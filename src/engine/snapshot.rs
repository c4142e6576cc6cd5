//! What the files say, as the engine uses it: swapped whole, and a run keeps the one that it started with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::client::usize_of;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::{PlanId, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::workflow::{Known, Mode, Plan, World};

/// Plans, services and secrets in force together.
pub(super) struct Snapshot {
    /// Which files these are.
    pub edition: u64,
    pub plans: BTreeMap<WorkflowName, Arc<Plan>>,
    pub services: HashMap<ServiceName, Arc<Base>>,
    /// What calls that name a literal host share.
    pub elsewhere: Arc<Base>,
    pub secrets: Arc<Value>,
    /// The services, and whether each honours `Idempotency-Key`: what a kept plan may refer to.
    keyed: BTreeMap<ServiceName, bool>,
    /// The names of the secrets.
    names: BTreeSet<String>,
    pub world: World,
}

/// Where a service is, and whose turn it is there.
pub(super) struct Base {
    urls: Vec<String>,
    next: AtomicUsize,
    calls_max: usize,
    beside_max: usize,
    real: Arc<Semaphore>,
    /// Rehearsed and dark runs.
    beside: Arc<Semaphore>,
}

impl Base {
    fn new(urls: &[http::Uri], calls_max: Option<u64>, limits: &Limits) -> Self {
        let calls_max = usize_of(calls_max.unwrap_or(limits.service_calls_max)).clamp(1, Semaphore::MAX_PERMITS);
        let share = usize_of(limits.shadow_service_share_percent.min(100));
        let beside_max = (calls_max.saturating_mul(share) / 100).max(1);
        Self {
            urls: urls.iter().map(|uri| uri.to_string().trim_end_matches('/').to_owned()).collect(),
            next: AtomicUsize::new(0),
            calls_max,
            beside_max,
            real: Arc::new(Semaphore::new(calls_max)),
            beside: Arc::new(Semaphore::new(beside_max)),
        }
    }
    /// The base that records show.
    pub fn first(&self) -> &str {
        self.urls.first().map_or("", |url| url)
    }
    /// The base that takes the next call.
    pub fn next(&self) -> &str {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.urls.get(place % self.urls.len().max(1)).map_or("", |url| url)
    }
    /// Whose turn it is: real runs have the service's calls, the others a share of their own.
    pub fn gate(&self, mode: Mode) -> Arc<Semaphore> {
        match mode {
            Mode::Real => self.real.clone(),
            Mode::Rehearse | Mode::Dark => self.beside.clone(),
        }
    }
}

impl Snapshot {
    /// What these files say. Turns at services that have not changed are kept from `before`.
    pub fn new(
        edition: u64,
        plans: &BTreeMap<WorkflowName, Arc<Plan>>,
        services: &BTreeMap<ServiceName, Arc<Service>>,
        secrets: &BTreeMap<String, Secret>,
        key_secret: [u8; 32],
        limits: &Limits,
        before: Option<&Snapshot>,
    ) -> Self {
        let keyed = services.iter().map(|(name, service)| (name.clone(), service.keyed)).collect();
        let names = secrets.keys().cloned().collect();
        let services: HashMap<_, _> = services
            .iter()
            .map(|(name, service)| {
                let base = Base::new(&service.urls, service.calls_max, limits);
                let known = before.and_then(|before| before.services.get(name));
                let same = known.filter(|known| {
                    known.urls == base.urls && known.calls_max == base.calls_max && known.beside_max == base.beside_max
                });
                (name.clone(), same.cloned().unwrap_or_else(|| Arc::new(base)))
            })
            .collect();
        let bases = services.iter().map(|(name, base)| (name, base.first().to_owned()));
        let world = World::new(
            bases,
            secrets.keys().map(String::as_str),
            key_secret,
            usize_of(limits.items_max),
            usize_of(limits.run_calls_max),
        )
        .with_depth(usize_of(limits.output_depth_max));
        let secrets: Map<_, _> =
            secrets.iter().map(|(name, secret)| (name.clone(), Value::String(secret.reveal().to_owned()))).collect();
        Self {
            edition,
            plans: plans.clone(),
            keyed,
            names,
            services,
            elsewhere: before.map_or_else(|| Arc::new(Base::new(&[], None, limits)), |before| before.elsewhere.clone()),
            secrets: Arc::new(Value::Object(secrets)),
            world,
        }
    }
    /// A plan in force, by its id.
    pub fn plan(&self, id: &PlanId) -> Option<Arc<Plan>> {
        self.plans.values().find(|plan| plan.id == *id).cloned()
    }
    /// A plan made again from the definition that the store kept.
    pub fn rebuild(&self, source: &Value, has_store_key: bool, limits: &Limits) -> Option<Plan> {
        let known = Known { services: &self.keyed, secrets: &self.names, has_store_key, limits };
        match Plan::from_source(source, &known) {
            Ok(plan) => Some(plan),
            Err(problems) => {
                for problem in problems.iter() {
                    tracing::error!(site = %problem.site, "{}", problem.message);
                }
                None
            }
        }
    }
}
