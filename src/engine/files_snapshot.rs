//! The plans, services and secrets of one version of the files. A reload replaces the snapshot as a whole. While a
//! caller waits for its run, a task keeps the snapshot with which it started. After that it uses the services and
//! secrets of the newest snapshot; the run's definition stays the same, and its plan is built again with the services
//! of that snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::engine::bounds::usize_of;
use crate::engine::legacy_reply_paths::LegacyReplyPaths;
use crate::engine::ports::service::ServiceLimits;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::{PlanId, PlanSet, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::transport::AddressRegistry;
use crate::workflow::{DecisionInputs, Plan, PlanVersion};

/// Plans, services and secrets in force together.
pub(super) struct FilesSnapshot {
    /// The number of the version.
    pub files_version: u64,
    pub plans: BTreeMap<WorkflowName, Arc<Plan>>,
    legacy_reply_paths: BTreeMap<WorkflowName, LegacyReplyPaths>,
    /// The plans that are in force for routes whose files have others.
    in_force: Vec<VersionInForce>,
    pub services: HashMap<ServiceName, Arc<ServiceLimits>>,
    pub secrets: Arc<Value>,
    /// The services, and whether each honours `Idempotency-Key`.
    keyed: BTreeMap<ServiceName, bool>,
    pub decision_inputs: Arc<DecisionInputs>,
}

/// A version of a workflow that is in force although the files have another one.
struct VersionInForce {
    version: PlanVersion,
    legacy_reply_paths: BTreeMap<WorkflowName, LegacyReplyPaths>,
}

/// Values that stay the same while the process lives.
#[derive(Clone, Copy)]
pub(super) struct ProcessConstants<'a> {
    pub key_secret: [u8; 32],
    pub limits: &'a Limits,
    /// The addresses of services, which the proxy shares.
    pub addresses: &'a AddressRegistry,
    /// When the process started.
    pub started: Timestamp,
}

impl FilesSnapshot {
    /// The snapshot of these files. The limits of services that have not changed are taken over from `before`,
    /// together with the calls that wait for a permit there.
    pub fn new(
        files_version: u64,
        plans: &BTreeMap<WorkflowName, Arc<Plan>>,
        in_force: &[PlanVersion],
        services: &BTreeMap<ServiceName, Arc<Service>>,
        secrets: &BTreeMap<String, Secret>,
        process: ProcessConstants<'_>,
        before: Option<&FilesSnapshot>,
    ) -> Self {
        let limits = process.limits;
        let keyed = services.iter().map(|(name, service)| (name.clone(), service.keyed)).collect();
        let services: HashMap<_, _> = services
            .iter()
            .map(|(name, service)| {
                let known = before.and_then(|before| before.services.get(name));
                (name.clone(), ServiceLimits::of(service, limits, process.addresses).or_existing(known))
            })
            .collect();
        let removed =
            before.into_iter().flat_map(|before| &before.services).filter(|(name, _)| !services.contains_key(*name));
        removed.for_each(|(_, service_limits)| service_limits.retire());
        let bases = services.iter().map(|(name, service_limits)| (name, service_limits.first_url().to_owned()));
        let decision_inputs = DecisionInputs::new(
            bases,
            secrets.keys().map(String::as_str),
            process.key_secret,
            usize_of(limits.items_max),
            usize_of(limits.run_calls_max),
        )
        .with_secrets(secrets.iter().map(|(name, secret)| (name.as_str(), secret.reveal())))
        .with_depth(usize_of(limits.output_depth_max))
        .with_timeout(Limits::ms(limits.step_timeout_ms))
        .with_signals(usize_of(limits.signals_max))
        .with_start(process.started)
        .with_workflows(plans.keys().chain(in_force.iter().flat_map(|version| version.plans.keys())).cloned());
        let secrets: Map<_, _> =
            secrets.iter().map(|(name, secret)| (name.clone(), Value::String(secret.reveal().to_owned()))).collect();
        Self {
            files_version,
            plans: plans.clone(),
            legacy_reply_paths: LegacyReplyPaths::of_all(plans),
            in_force: in_force
                .iter()
                .map(|version| VersionInForce {
                    version: version.clone(),
                    legacy_reply_paths: LegacyReplyPaths::of_all(&version.plans),
                })
                .collect(),
            keyed,
            services,
            secrets: Arc::new(Value::Object(secrets)),
            decision_inputs: Arc::new(decision_inputs),
        }
    }
    /// What the workflow of a child run, and the workflows that it runs, read of legacy's reply; `None` where they read
    /// nothing.
    pub fn legacy_reply_paths(&self, plan: &Plan) -> Option<&LegacyReplyPaths> {
        let is_of_files = self.plans.get(&plan.workflow).is_some_and(|of_files| of_files.id == plan.id);
        let has =
            |other: &&VersionInForce| other.version.plans.get(&plan.workflow).is_some_and(|own| own.id == plan.id);
        match self.in_force.iter().find(has).filter(|_| !is_of_files) {
            Some(other) => other.legacy_reply_paths.get(&plan.workflow),
            None => self.legacy_reply_paths.get(&plan.workflow),
        }
    }
    /// What a request's workflow, and the workflows that it runs, read of legacy's reply; `None` where they read
    /// nothing.
    pub fn legacy_reply_paths_of(&self, plan: &Plan, version: Option<&PlanSet>) -> Option<&LegacyReplyPaths> {
        match version.and_then(|version| self.in_force(version)) {
            Some(in_force) => in_force.legacy_reply_paths.get(&plan.workflow),
            None => self.legacy_reply_paths.get(&plan.workflow),
        }
    }
    /// The plan for a request: that of this version of its route's workflow, or that of the files.
    pub fn plan_of(&self, workflow: Option<&WorkflowName>, version: Option<&PlanSet>) -> Option<Arc<Plan>> {
        let Some(version) = version else { return self.plans.get(workflow?).cloned() };
        if let Some(in_force) = self.in_force(version) {
            return in_force.version.plan().cloned();
        }
        let is_of_files =
            |(name, id): (&WorkflowName, &PlanId)| self.plans.get(name).is_some_and(|plan| plan.id == *id);
        version.plans.iter().all(is_of_files).then(|| self.plans.get(&version.workflow).cloned()).flatten()
    }
    fn in_force(&self, version: &PlanSet) -> Option<&VersionInForce> {
        self.in_force.iter().find(|in_force| *in_force.version.set == *version)
    }
    /// A plan in force, by its id.
    pub fn plan(&self, id: &PlanId) -> Option<Arc<Plan>> {
        let in_force = self.in_force.iter().flat_map(|in_force| in_force.version.plans.values());
        self.plans.values().chain(in_force).find(|plan| plan.id == *id).cloned()
    }
    /// The plan that a run with this plan's definition gets if it is loaded now: the one in force, or else one that is
    /// built again with the services of these files.
    pub fn plan_as_loaded(&self, plan: &Plan, limits: &Limits) -> Option<Arc<Plan>> {
        let rebuild = || self.rebuild(&plan.source, limits).filter(|rebuilt| rebuilt.id == plan.id).map(Arc::new);
        self.plan(&plan.id).or_else(rebuild)
    }
    /// Builds a plan again from its stored definition.
    pub fn rebuild(&self, source: &Value, limits: &Limits) -> Option<Plan> {
        match Plan::from_stored(source, &self.keyed, limits) {
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
