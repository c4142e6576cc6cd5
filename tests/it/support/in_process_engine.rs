//! An engine in the test's own process, with the sample outside world: hundreds of runs a second, each of which can be
//! interrupted at any call.
//!
//! All runs of a test share one outside world and one set of checked files; every run has a store and an engine of its
//! own, so that it leaves nothing (an open breaker, a paused run) to the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use pointsman::affinity::StoreAffinity;
use pointsman::compare::AwaitedIntents;
use pointsman::config::{self, Overrides, Setup};
use pointsman::demo::{Latency, LedgerEntry, OutsideWorld};
use pointsman::engine::{Engine, EngineParts, Start};
use pointsman::exchange::{ArmReply, ArmRequest, EarlierKeys, MayBegin, RequestCopy};
use pointsman::flag::{InstanceId, InstanceKey, UnknownInstance};
use pointsman::names::{RouteId, RunId, Seq, WorkflowName};
use pointsman::store::{MemoryStore, RunFilter, StoreHandle, StoredEvent};
use pointsman::workflow::{CheckpointAnswer, ControlCommand, Mode, Plan, Run, RunStatus, RunSummary, fold};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::checker::check_run;
use super::test_system::some_order;
use super::{FlagsDir, LOCAL, WAIT_MAX, until};

/// The operations of the sample world.
pub const OPERATIONS: [&str; 14] = [
    "quote",
    "reserve",
    "release",
    "charge",
    "look",
    "refund",
    "mail",
    "draft",
    "generate",
    "budget",
    "budget-back",
    "book",
    "book-back",
    "announce",
];

/// The outside world and the checked files.
pub struct InProcessEngine {
    /// The outside world.
    pub world: OutsideWorld,
    setup: Setup,
    _flags: FlagsDir,
}

impl InProcessEngine {
    /// The example set with changed files.
    pub async fn new(change: impl FnOnce(&FlagsDir)) -> Self {
        let world = OutsideWorld::start(LOCAL, Latency::instant()).await.expect("a port");
        let flags = FlagsDir::example("http://127.0.0.1:9", &world.url());
        flags.write("workflows/saga-order.yaml", &saga(&flags));
        change(&flags);
        let read = config::read(flags.path(), &Overrides::default());
        let setup = read.unwrap_or_else(|failed| panic!("{failed:?}")).setup;
        Self { world, setup, _flags: flags }
    }
    /// Every workflow of the files.
    pub fn workflows(&self) -> Vec<WorkflowName> {
        self.setup.workflows.keys().cloned().collect()
    }
    /// Prepares a run of a workflow with a store and an engine of its own.
    pub async fn prepare(&self, workflow: &WorkflowName) -> WorkflowRun<'_> {
        self.world.clear_faults();
        let store: StoreHandle = Arc::new(MemoryStore::new());
        let engine = Some(self.engine(&store).await);
        let mut run =
            WorkflowRun { rig: self, store, engine, workflow: workflow.clone(), instance: None, ledger_start: 0 };
        if self.plan(workflow).reads.iter().any(|path| path.root() == "instance") {
            run.instance = Some(run.create().await);
        }
        run.ledger_start = self.world.ledger().len();
        run
    }
    /// The checked workflow.
    pub fn plan(&self, workflow: &WorkflowName) -> Arc<Plan> {
        self.setup.workflows[workflow].clone()
    }
    async fn engine(&self, store: &StoreHandle) -> Engine {
        let engine = Engine::new(EngineParts {
            store: store.clone(),
            plans: self.setup.workflows.clone(),
            services: self.setup.services.clone(),
            secrets: self.setup.settings.secrets.clone(),
            store_key: None,
            key_secret: [7; 32],
            limits: self.setup.limits.clone(),
            addresses: pointsman::transport::AddressRegistry::new(),
            affinity: StoreAffinity::load(store.clone(), &self.setup.limits).await.expect("pins"),
            clock: pointsman::clock::process().clone(),
            late_failures: Arc::new(()),
        });
        engine.recover().await.expect("the store answers");
        engine
    }
    /// How often each operation was called so far.
    pub fn arrived(&self) -> BTreeMap<&'static str, u64> {
        OPERATIONS.iter().map(|operation| (*operation, self.world.arrived(operation))).collect()
    }
}

/// One run of one workflow, from its request to its end, on one engine after the other.
pub struct WorkflowRun<'a> {
    rig: &'a InProcessEngine,
    /// The store that keeps the run.
    pub store: StoreHandle,
    engine: Option<Engine>,
    workflow: WorkflowName,
    instance: Option<InstanceId>,
    /// The length of the ledger before the run.
    ledger_start: usize,
}

impl WorkflowRun<'_> {
    /// The current engine.
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine")
    }
    /// Creates an order, for workflows that follow one up.
    async fn create(&self) -> InstanceId {
        let ArmReply::Answer(answer) = self.request_answered(&"create-order".into(), None).await else {
            panic!("the instance was not created")
        };
        let body: Value = serde_json::from_slice(answer.body.whole().expect("a whole body")).expect("JSON");
        let id = body["id"].as_str().expect("an id").into();
        InstanceId { key: InstanceKey { family: RouteId::from("orders.create").into(), id }, run: answer.report.run }
    }
    /// Sends the request and awaits the answer. For a workflow without a route: starts a run, and waits until it has
    /// ended or is paused.
    pub async fn send_and_wait(&self) {
        let routes = &self.rig.setup.routes;
        if routes.iter().any(|route| route.workflow.as_ref() == Some(&self.workflow)) {
            self.request_answered(&self.workflow, self.instance.clone()).await;
            return;
        }
        let input = request_body(self.workflow.as_str());
        let start = Start { workflow: self.workflow.clone(), input, by: "ann".into(), key: None };
        self.engine().start(start).await.expect("it starts");
        self.wait_until_ended_or_paused().await;
    }
    async fn request_answered(&self, workflow: &WorkflowName, instance: Option<InstanceId>) -> ArmReply {
        let route = self.rig.setup.routes.iter().find(|route| route.workflow.as_ref() == Some(workflow));
        let route = route.expect("a route").id.clone();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a value"));
        let body = request_body(workflow.as_str());
        let params = instance.iter().map(|instance| ("id".into(), instance.key.id.to_string())).collect();
        let request = RequestCopy {
            method: Method::POST,
            path: "/request".into(),
            query: None,
            params,
            headers,
            traceparent: None,
            body: Bytes::from(body.to_string()),
            peer: [127, 0, 0, 1].into(),
        };
        let arm_request = ArmRequest {
            route,
            files_version: 0,
            workflow: Some(workflow.clone()),
            plans: None,
            mode: Mode::Real,
            request: Arc::new(request),
            legacy: None,
            instance,
            unknown_instance: UnknownInstance::NotDeclared,
            creates: None,
            retry_keys: None,
            may_begin: MayBegin::Always,
            earlier: EarlierKeys::none(),
            legacy_keys: None,
            keep: true,
            may_fall_back: false,
            deadline: Duration::from_secs(20),
            awaited_intents: AwaitedIntents::None,
            set_in_use: None,
            legacy_calls: None,
            reads: None,
            instance_ids: None,
        };
        let Ok(reply) = self.engine().arm().oneshot(arm_request).await;
        reply
    }
    /// Drops the engine as a crash would, and starts another one on the same store.
    pub async fn crash(&mut self) {
        self.engine = None;
        let tasks_have_ended = async {
            while Arc::strong_count(&self.store) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, tasks_have_ended).await.expect("the engine's tasks end");
        self.engine = Some(self.rig.engine(&self.store).await);
    }
    /// The summary of the run, if one was stored.
    pub async fn run(&self) -> Option<RunSummary> {
        let filter = RunFilter { workflow: Some(self.workflow.as_str().to_owned()), limit: 10, ..RunFilter::default() };
        let runs = self.store.runs(filter).await.expect("runs");
        assert!(runs.len() <= 1, "one request made {} runs", runs.len());
        runs.into_iter().next()
    }
    /// Waits until the run has ended or waits for a person to resolve a conflict. Approves every checkpoint.
    pub async fn wait_until_ended_or_paused(&self) -> Option<RunSummary> {
        let ended_or_paused = until("the run to end or to be paused", || async {
            let run = self.run().await;
            if let Some(waiting) = run.as_ref().filter(|run| run.checkpoint.is_some()) {
                let run = waiting.run_id;
                let open = self.state_of(run).await.open_checkpoints().next().cloned()?;
                // All items of a review.
                let approved = open.items.iter().map(|item| item.index).collect();
                let answer = CheckpointAnswer { approve: true, values: None, approved, struck: Vec::new(), note: None };
                let checkpoint = open.checkpoint;
                let _earlier_answer =
                    self.engine().give_command(run, ControlCommand::Answer { checkpoint, answer }, "ann".into()).await;
            }
            let is_over = run.as_ref().is_none_or(|run| run.status.is_final() || run.status == RunStatus::Paused);
            (is_over && self.engine().runs_in_flight() == 0).then_some(run)
        });
        match tokio::time::timeout(Duration::from_secs(30), ended_or_paused).await {
            Ok(run) => run,
            Err(_) => {
                let run = self.run().await.expect("a run");
                let kinds = self.events(run.run_id).await.iter().map(|stored| stored.event.kind()).collect::<Vec<_>>();
                panic!("{}: {run:?}: {kinds:?}: {:?}", self.workflow, self.engine().explain(run.run_id).await)
            }
        }
    }
    /// The events of a run.
    pub async fn events(&self, run: RunId) -> Vec<StoredEvent> {
        self.store.events(run, Seq::FIRST).await.expect("events")
    }
    /// The run folded from its events.
    pub async fn state_of(&self, run: RunId) -> Run {
        fold(self.events(run).await.iter().map(|stored| &stored.event)).expect("it folds")
    }
    /// The ledger's entries of this run.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.rig.world.ledger().entries().split_off(self.ledger_start)
    }
    /// Accepted effects by operation.
    pub fn effects(&self) -> BTreeMap<String, u64> {
        let mut effects = BTreeMap::new();
        self.ledger().iter().filter(|entry| !entry.repeated).for_each(|entry| {
            *effects.entry(entry.operation.clone()).or_default() += 1;
        });
        effects
    }
    /// Violations of I1, I2 and I4 by the run, and of I3 by its calls: one accepted effect per key, and at most
    /// `extra_max` repeated deliveries.
    pub async fn violations(&self, extra_max: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(run) = self.run().await {
            check_run(&run, &self.events(run.run_id).await, &mut wrong);
        }
        let mut keys: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for entry in self.ledger() {
            let Some(key) = entry.key else {
                wrong.push(format!("I3: {} left without a key", entry.operation));
                continue;
            };
            let (accepted, extra) = keys.entry((entry.service, key)).or_default();
            *(if entry.repeated { extra } else { accepted }) += 1;
        }
        for ((service, key), (accepted, extra)) in keys {
            if accepted != 1 || extra > extra_max {
                wrong.push(format!("I3: {service} {key}: {accepted} accepted, {extra} extra"));
            }
        }
        wrong
    }
}

/// The order's workflow with undo calls.
fn saga(flags: &FlagsDir) -> String {
    let text = std::fs::read_to_string(flags.file("workflows/create-order.yaml")).expect("a readable file");
    let release = "    undo: DELETE ${services.stock}/reservations/${output.id}\n";
    let refund = "    undo: { call: \"POST ${services.bank}/refunds\", body: { payment_id: \"${output.id}\" } }\n";
    let text = text.replace("workflow: create-order", "workflow: saga-order");
    let text = text.replace("  charge:\n", &format!("{release}  charge:\n"));
    let text = text.replace("  confirm:\n", &format!("{refund}  confirm:\n"));
    assert_eq!(text.matches("undo:").count(), 2, "{text}");
    text
}

/// The request body of a workflow. A new workflow needs a line here.
fn request_body(workflow: &str) -> Value {
    match workflow {
        "create-order" | "saga-order" => some_order(3),
        "create-campaign" => json!({ "product": "tea", "audience": "everybody" }),
        "launch-campaign" => json!({
            "product": "tea",
            "channels": [{ "channel": "radio", "amount": 70 }, { "channel": "paper", "amount": 30 }],
        }),
        "get-order" | "cancel-order" => Value::Null,
        other => panic!("no request body for `{other}`"),
    }
}
