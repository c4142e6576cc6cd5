//! Tests of the machine alone, without async, store or network: single cases, exhaustive searches and random faults.

mod cases;
mod copies;
mod crashes;
mod faults;
mod input_pairs;
mod rig;

use std::sync::Arc;

use serde_json::json;

use crate::workflow::Plan;

/// Workflows that together have reads, shared calls, an undo, items, locks, a wait, a checkpoint, a webhook and a
/// child.
pub(super) fn plans() -> Vec<(&'static str, Arc<Plan>)> {
    vec![
        (
            "saga",
            rig::plan(&json!({
                "workflow": "saga",
                "steps": {
                    "look": { "call": "GET ${services.stock}/look" },
                    "take": {
                        "needs": ["look"], "call": "POST ${services.stock}/take",
                        "undo": "DELETE ${services.stock}/take/${output.id}",
                    },
                    "pay": { "needs": ["take"], "call": "POST ${services.bank}/pay", "on_conflict": "pause" },
                },
                "respond": { "status": 201, "body": { "id": "${steps.take.output.id}" } },
            })),
        ),
        (
            "items",
            rig::plan(&json!({
                "workflow": "items",
                "steps": {
                    "each": {
                        "for_each": "${request.body.items}", "call": "POST ${services.bank}/each/${item}",
                        "lock": { "key": "item:${item}", "busy": "wait" },
                    },
                },
                "respond": { "status": 200, "body": {} },
            })),
        ),
        (
            "people",
            rig::plan(&json!({
                "workflow": "people",
                "notify": "${services.stock}/hooks",
                "steps": {
                    "nap": { "wait": "3s" },
                    "ask": { "needs": ["nap"], "checkpoint": { "question": "Go on?" } },
                    "pay": { "needs": ["ask"], "call": "POST ${services.bank}/pay" },
                },
                "respond": { "status": 200, "body": {} },
            })),
        ),
        (
            "parent",
            rig::plan(&json!({
                "workflow": "parent",
                "steps": {
                    "sub": { "run": "child", "input": {} },
                    "pay": { "needs": ["sub"], "call": "POST ${services.bank}/pay" },
                },
                "respond": { "status": 200, "body": {} },
            })),
        ),
    ]
}
