//! What the files say, as the engine uses it: swapped whole, and a run keeps the one that it started with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::client::usize_of;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::{PlanId, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::workflow::{Mode, Plan, World};

/// Plans, services and secrets in force together.
pub(super) struct Snapshot {
    pub plans: BTreeMap<WorkflowName, Arc<Prepared>>,
    pub services: HashMap<ServiceName, Arc<Base>>,
    /// What calls that name a literal host share.
    pub elsewhere: Arc<Base>,
    pub secrets: Arc<Value>,
    pub world: World,
}

/// A plan and its input's schema, compiled.
pub(super) struct Prepared {
    pub plan: Arc<Plan>,
    pub input: Option<jsonschema::Validator>,
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
        plans: &BTreeMap<WorkflowName, Arc<Plan>>,
        services: &BTreeMap<ServiceName, Arc<Service>>,
        secrets: &BTreeMap<String, Secret>,
        key_secret: [u8; 32],
        limits: &Limits,
        before: Option<&Snapshot>,
    ) -> Self {
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
        );
        let secrets: Map<_, _> =
            secrets.iter().map(|(name, secret)| (name.clone(), Value::String(secret.reveal().to_owned()))).collect();
        Self {
            plans: plans.iter().map(|(name, plan)| (name.clone(), Prepared::new(plan))).collect(),
            services,
            elsewhere: before.map_or_else(|| Arc::new(Base::new(&[], None, limits)), |before| before.elsewhere.clone()),
            secrets: Arc::new(Value::Object(secrets)),
            world,
        }
    }
    /// A plan in force, by its id.
    pub fn plan(&self, id: &PlanId) -> Option<Arc<Plan>> {
        self.plans.values().find(|prepared| prepared.plan.id == *id).map(|prepared| prepared.plan.clone())
    }
}

impl Prepared {
    fn new(plan: &Arc<Plan>) -> Arc<Self> {
        // The check has compiled the schema before: what does not compile here is not enforced, and is logged.
        let input = plan.input_schema.as_ref().and_then(|schema| match jsonschema::validator_for(schema) {
            Ok(validator) => Some(validator),
            Err(error) => {
                tracing::error!(workflow = %plan.workflow, %error, "the input's schema does not compile");
                None
            }
        });
        Arc::new(Self { plan: plan.clone(), input })
    }
}
