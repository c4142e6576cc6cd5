//! The workflows of a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::simulation::input;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::{ServiceName, WorkflowName};
use crate::workflow::{DeclaredNames, Plan};

/// Each service, and whether it honours keys.
const SERVICES: [(&str, bool); 2] = [("stock", true), ("bank", false)];

fn definitions() -> Vec<Value> {
    vec![
        // A saga: locks, undo calls, a probe, fallbacks.
        json!({
            "workflow": "buy",
            "steps": {
                "price": {
                    "call": "GET ${services.stock}/price", "timeout": "1s",
                    "retry": { "attempts": 4, "base": "50ms", "max": "2s" },
                },
                "reserve": {
                    "needs": ["price"],
                    "for_each": "${request.body.items}", "concurrency": 2, "timeout": "1s",
                    "call": "POST ${services.stock}/reserve/${item}", "body": { "n": "${item}" },
                    "lock": { "key": "sku:${item}", "busy": "wait" },
                    "undo": "DELETE ${services.stock}/reserve/${output.id}",
                    "fallback": "borrow",
                },
                // The fallback of single items, whose own fallback only computes a value.
                "borrow": {
                    "fallback_only": true, "call": "POST ${services.bank}/borrow/${item}", "timeout": "1s",
                    "retry": { "attempts": 2, "base": "50ms", "max": "100ms" },
                    "lock": { "key": "sku:${item}", "busy": "wait" },
                    "undo": { "call": "POST ${services.stock}/return", "body": { "of": "${output.id}" } },
                    "fallback": "owe",
                },
                "owe": { "fallback_only": true, "set": { "id": "${index}" } },
                "charge": {
                    "needs": ["reserve"], "timeout": "1s",
                    "call": "POST ${services.bank}/charge", "body": { "of": "${run.id}" },
                    "probe": {
                        "call": "GET ${services.bank}/charges/${key}",
                        "done": "${output.found}", "output": "${output.charge}",
                    },
                    "fallback": "invoice",
                    "undo": { "call": "POST ${services.stock}/refund", "body": { "of": "${output.id}" } },
                },
                "invoice": { "fallback_only": true, "call": "POST ${services.bank}/invoice", "timeout": "1s" },
                "last": { "needs": ["charge"], "call": "POST ${services.stock}/last", "timeout": "1s" },
            },
            "respond": { "status": 200, "body": { "run": "${run.id}" } },
        }),
        json!({
            "workflow": "wide",
            "steps": {
                "a": { "call": "POST ${services.stock}/a", "timeout": "1s" },
                "b": { "call": "POST ${services.bank}/b", "timeout": "1s" },
                "c": { "call": "PUT ${services.bank}/c", "timeout": "1s" },
                "d": { "needs": ["a", "b", "c"], "call": "POST ${services.stock}/d", "timeout": "1s" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        // Checkpoints, risk, waits and signals.
        json!({
            "workflow": "calm",
            "steps": {
                "pause": { "wait": "7s" },
                "pick": { "checkpoint": { "question": "Go on?", "timeout": "40s", "on_timeout": "approve" } },
                "paid": { "needs": ["pause"], "wait": { "signal": "go", "timeout": "30s", "on_timeout": "continue" } },
                "book": {
                    "needs": ["pick"], "for_each": "${request.body.items}", "risk": "high",
                    "ask": { "question": "These?", "timeout": "60s", "on_timeout": "approve" },
                    "call": "POST ${services.stock}/book", "body": { "n": "${item}" }, "timeout": "1s",
                    "undo": "DELETE ${services.stock}/book/${output.id}",
                },
                "nap": { "needs": ["book", "paid"], "wait": "2s" },
                "end": { "needs": ["nap"], "call": "POST ${services.bank}/end", "timeout": "1s" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        // A child, started by a step that holds a lock.
        json!({
            "workflow": "nest",
            "steps": {
                "child": {
                    "run": "buy", "input": { "items": "${request.body.items}" },
                    "lock": { "key": "nest", "busy": "wait" },
                },
                "end": { "needs": ["child"], "call": "POST ${services.stock}/end", "timeout": "1s" },
            },
            "respond": { "status": 200, "body": {} },
        }),
    ]
}

/// The checked plans.
pub(super) fn all() -> BTreeMap<WorkflowName, Arc<Plan>> {
    let services = SERVICES.iter().map(|(name, keyed)| (ServiceName::from(*name), *keyed)).collect();
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: false,
        limits: &Limits::default(),
    };
    let plans = definitions().into_iter().map(|definition| {
        let plan = Plan::from_source(&definition, &known).unwrap_or_else(|problems| panic!("{problems:#?}"));
        (plan.workflow.clone(), Arc::new(plan))
    });
    plans.collect()
}

/// The services for the engine.
pub(super) fn services() -> BTreeMap<ServiceName, Arc<Service>> {
    let service = |(name, keyed): &(&str, bool)| {
        let name = ServiceName::from(*name);
        let url = format!("http://{name}").parse().unwrap();
        let service = Service { keyed: *keyed, ..Service::at(name.clone(), [url]) };
        (name, Arc::new(service))
    };
    SERVICES.iter().map(service).collect()
}

/// The workflow and input that are started under a key: always the same.
pub(super) fn start_of(key: u8) -> (WorkflowName, Value) {
    let workflow = ["buy", "wide", "calm", "nest", "buy"][usize::from(key) % 5];
    (workflow.into(), input(key % 4))
}
