//! What people do in a walk: they decide about paused runs, resume or cancel them, and rerun failed ones. They look
//! into the services' ledger first, and never have anything done twice.

use http::Method;
use serde_json::{Value, json};

use super::Walk;
use crate::support::test_system::id;

const RUN: &str = "/api/v2/orchestrate/run";

/// A run in a list.
struct ListedRun {
    id: String,
    /// The number of its order.
    order: usize,
    status: String,
}

impl Walk {
    /// The newest real runs of orders.
    async fn listed(&self, query: &str) -> Vec<ListedRun> {
        let list = format!("{RUN}s?mode=real&workflow=create-order&limit=40&{query}");
        let mut runs = Vec::new();
        for run in self.system.pointsman.get(&list).await["runs"].as_array().into_iter().flatten() {
            let id = run["run_id"].as_str().expect("an id").to_owned();
            let status = run["status"].as_str().expect("a status").to_owned();
            // The request that began it names the order.
            let events = self.system.pointsman.get(&format!("{RUN}/{id}/events")).await.to_string();
            let number = events.split_once("somebody-").and_then(|(_, rest)| rest.split_once('@')?.0.parse().ok());
            runs.extend(number.map(|order| ListedRun { id, order, status }));
        }
        runs
    }

    /// Sends a command to a run; returns whether it was accepted.
    async fn command_run(&self, run: &str, what: &str, body: Value) -> bool {
        let reply = self.system.pointsman.api(Method::POST, &format!("{RUN}/{run}/{what}"), body.clone()).await;
        eprintln!("{what} {run} {body}: {}", reply.status);
        reply.status.is_success()
    }

    /// How many effects of an operation an order has, of legacy and of the engine.
    fn effects(&self, order: usize, operation: &str) -> [usize; 2] {
        let trace = self.orders[order].trace();
        let entries = self.system.world.ledger().entries();
        let of = |by_engine: bool| {
            let entries = entries.iter().filter(|entry| !entry.repeated && entry.by_engine() == by_engine);
            let entries = entries.filter(|entry| entry.operation == operation);
            entries.filter(|entry| entry.trace.as_ref().is_some_and(|seen| seen.contains(&trace))).count()
        };
        [of(false), of(true)]
    }

    /// How many effects an order has of one arm.
    pub fn effects_of(&self, order: usize, by_engine: bool) -> usize {
        let of = |operation: &str| self.effects(order, operation)[usize::from(by_engine)];
        ["reserve", "charge", "mail"].map(of).iter().sum()
    }

    fn is_done_by_legacy(&self, order: usize) -> bool {
        self.effects_of(order, false) > 0
    }

    /// A person decides about each paused run.
    pub async fn decide_paused(&mut self) {
        for run in self.listed("status=paused").await {
            let shown = self.system.pointsman.get(&format!("{RUN}/{}", run.id)).await["data"].clone();
            let conflicts = shown["conflicts"].as_array().cloned().unwrap_or_default();
            if conflicts.is_empty() {
                // The run was paused after a restore. Its lost steps may have been done, or legacy may have answered.
                let may_resume = !self.orders[run.order].is_lost && !self.is_done_by_legacy(run.order);
                if may_resume && self.random.bool() {
                    self.command_run(&run.id, "resume", json!({ "reason": "a test" })).await;
                } else {
                    self.orders[run.order].is_decided = true;
                    self.command_run(&run.id, "cancel", json!({ "compensate": false, "reason": "a test" })).await;
                }
            }
            for conflict in &conflicts {
                self.decide(&run, conflict).await;
            }
        }
    }

    async fn decide(&mut self, run: &ListedRun, conflict: &Value) {
        let key = conflict["idempotency_key"].as_str();
        let entries = self.system.world.ledger().entries();
        let has_key = key.is_some() && entries.iter().any(|entry| entry.key.as_deref() == key && !entry.repeated);
        // A rerun that the restored store does not have may have done the step under another key.
        let was_rerun = match conflict["step_id"].as_str() {
            Some("reserve") => self.effects(run.order, "reserve")[1] >= 2,
            Some("charge") => self.effects(run.order, "charge")[1] >= 1,
            Some("confirm") => self.effects(run.order, "mail")[1] >= 1,
            _ => false,
        };
        let was_done = has_key || was_rerun;
        let choices = conflict["choices"].as_array().expect("a list").iter().filter_map(Value::as_str);
        let cancels = |choice: &str| choice.starts_with("cancel");
        let safe =
            |choice: &&str| if was_done { *choice == "take" || cancels(choice) } else { *choice != "retry_with" };
        let is_lost = self.orders[run.order].is_lost || self.is_done_by_legacy(run.order);
        let choices: Vec<&str> = choices.filter(safe).filter(|choice| !is_lost || cancels(choice)).collect();
        let Some(choice) = self.random.choice(choices) else { return };
        let mut body = json!({ "step": conflict["step_id"], "item": conflict["item"], "choice": choice });
        if choice == "take" {
            body["output"] = json!({ "id": "looked up" });
        }
        // A person may have skipped effects that the checker would require of an order.
        self.orders[run.order].is_decided = true;
        self.command_run(&run.id, "resolve", body).await;
    }

    /// A person reruns an order whose run did not succeed, from the first step without an effect.
    pub async fn rerun(&mut self) {
        let mut runs = self.listed("").await;
        runs.retain(|run| matches!(run.status.as_str(), "failed" | "cancelled") && !self.orders[run.order].is_lost);
        runs.retain(|run| self.orders[run.order].answer.is_none() && !self.is_done_by_legacy(run.order));
        let Some(run) = self.random.choice(runs) else { return };
        let counts = ["reserve", "charge", "mail"].map(|operation| self.effects(run.order, operation)[1]);
        let from = match counts {
            [0, 0, 0] => "reserve",
            [2, 0, 0] => "charge",
            [2, 1, 0] => "confirm",
            _ => return,
        };
        self.orders[run.order].is_decided = true;
        self.command_run(&run.id, "rerun", json!({ "from": from })).await;
    }

    /// Checks that each order which is not lost has its effects from one arm, those of the engine once, and that an
    /// answered order was charged and can be read, unless a person decided about its run.
    pub async fn check_orders(&mut self) {
        let mut wrong = Vec::new();
        for (n, order) in self.orders.iter().enumerate().filter(|(_, order)| !order.is_lost) {
            let [reserve, charge, mail] = ["reserve", "charge", "mail"].map(|operation| self.effects(n, operation));
            if self.effects_of(n, false) > 0 && self.effects_of(n, true) > 0 {
                wrong.push(format!("order {n}: by legacy and by the engine: {reserve:?} {charge:?} {mail:?}"));
            }
            if reserve[1] > 2 || charge[1] > 1 || mail[1] > 1 {
                wrong.push(format!("order {n}: the engine repeated it: {reserve:?} {charge:?} {mail:?}"));
            }
            let Some(answer) = &order.answer else { continue };
            let charges = charge[usize::from(order.is_from_engine())];
            if charges == 0 && !order.is_decided {
                wrong.push(format!("order {n} was answered as {}, and nothing was charged", id(answer)));
            }
            if !order.is_decided {
                wrong.extend(order.read(&self.system).await);
            }
        }
        self.wrong.append(&mut wrong);
    }

    /// Checks that each run that has not ended says what it waits for.
    pub async fn check_open_runs(&mut self) {
        let open = self.system.pointsman.get(&format!("{RUN}s?status=open&limit=200")).await;
        for run in open["runs"].as_array().into_iter().flatten() {
            let id = run["run_id"].as_str().expect("an id");
            let explained = self.system.pointsman.get(&format!("{RUN}/{id}/explain")).await;
            let waits = explained["waits"].as_array().is_some_and(|waits| !waits.is_empty());
            if !waits || explained["sentence"].as_str().is_none_or(str::is_empty) || explained["stuck"] == true {
                self.wrong.push(format!("{id} is open, and this is all that it says: {explained}"));
            }
        }
    }
}
