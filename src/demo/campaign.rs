//! The demo's campaign: a person reviews item by item, a conflict is resolved by hand, and a failed run undoes its
//! steps.
//!
//! Always true: everything goes through the API that every other client uses, and its answers are compared with the
//! ledger: an item that was struck out was never booked, an item whose conflict was resolved was booked once, and a
//! booking that was undone was taken back.

use serde_json::{Value, json};

use super::console::Console;
use super::control::Control;
use super::world::{Fault, OutsideWorld};
use crate::admin::types::{Orchestration, PendingCheckpoint};
use crate::workflow::RunStatus;

/// Launches two campaigns.
pub struct Launch<'a> {
    /// The product.
    pub control: &'a Control,
    /// The outside world, into which refusals are injected and whose ledger is read.
    pub world: &'a OutsideWorld,
    /// Prints the course of the launches.
    pub console: &'a Console,
    /// The promises that did not hold.
    pub broken: &'a mut Vec<String>,
}

impl Launch<'_> {
    /// Launches one campaign that completes with a person's help, and one whose run fails and is undone.
    ///
    /// # Errors
    /// The product does not answer.
    pub async fn launch_both(&mut self) -> anyhow::Result<()> {
        self.console.chapter(
            "people",
            "A campaign is launched through the API. Its bookings are of high risk: a person looks at each.",
        );
        self.launch_with_review_and_conflict().await?;
        self.launch_and_undo().await
    }

    async fn launch_with_review_and_conflict(&mut self) -> anyhow::Result<()> {
        let before = self.count("book");
        let run = self.control.launch(&campaign("spring coats")).await?;
        let Some(review) = self.review(&run) else { return Ok(()) };
        self.expect(self.count("book") == before, "nothing was booked before somebody looked at it");
        let approvals = review.items.len().saturating_sub(1);
        let approved: Vec<u32> = review.items.iter().map(|item| item.index).take(approvals).collect();
        let rest: Vec<u32> = review.items.iter().map(|item| item.index).skip(approvals).collect();
        self.console.say(&format!("approved: {approved:?}, struck out: {rest:?}"));
        // The first booking gets a 409, which a person has to resolve.
        self.world.fault("book", Fault::Refuse(409), 1);
        let answer = json!({ "approved": approved, "struck": rest, "as": "mara" });
        let run = self.control.answer(&review.answer, &answer).await?;
        let run = self.control.wait_for_status(run, &[RunStatus::Paused]).await?;
        let Some(conflict) = run.data.conflicts.first() else {
            self.report_broken(&format!("a 409 did not pause the run: it is {}", run.data.status.as_str()));
            return Ok(());
        };
        self.console.say(&format!("the run is {}: {}", run.data.status.as_str(), conflict.message));
        self.console.say(&format!("choices: {}", conflict.choices.join(", ")));
        let mut choice = json!({ "step": conflict.step_id, "choice": "retry", "as": "mara" });
        if let (Some(item), Some(fields)) = (conflict.item, choice.as_object_mut()) {
            fields.insert("item".to_owned(), item.into());
        }
        let run = self.control.answer(&conflict.resolve, &choice).await?;
        let run = self.control.wait_for_status(run, &[RunStatus::Completed]).await?;
        let booked = self.count("book") - before;
        self.expect(
            run.data.status == RunStatus::Completed && booked == approvals as u64,
            &format!("resolved by hand, it went on and {}; booked: {booked} of {approvals}", run.data.status.as_str()),
        );
        Ok(())
    }

    async fn launch_and_undo(&mut self) -> anyhow::Result<()> {
        let (booked, back) = (self.count("book"), self.count("book-back"));
        let (set_aside, returned) = (self.count("budget"), self.count("budget-back"));
        let run = self.control.launch(&campaign("winter boots")).await?;
        let Some(review) = self.review(&run) else { return Ok(()) };
        self.world.fault("announce", Fault::Refuse(403), 1);
        let all: Vec<u32> = review.items.iter().map(|item| item.index).collect();
        let run = self.control.answer(&review.answer, &json!({ "approved": all, "as": "mara" })).await?;
        let run = self.control.wait_for_status(run, &[RunStatus::Failed]).await?;
        self.console.say(&format!("announcing it was refused for good; the run {}:", run.data.status.as_str()));
        for row in &run.data.undone {
            let item = row.item.map(|item| format!("[{item}]")).unwrap_or_default();
            let state = serde_json::to_value(row.state)?;
            self.console.say(&format!("- {}{item}: {}", row.step_id, state.as_str().unwrap_or_default()));
        }
        let (booked, back) = (self.count("book") - booked, self.count("book-back") - back);
        let (set_aside, returned) = (self.count("budget") - set_aside, self.count("budget-back") - returned);
        let is_all_undone = booked > 0 && booked == back && set_aside == 1 && returned == 1;
        self.expect(
            run.data.status == RunStatus::Failed && is_all_undone,
            &format!("taken back: {back} of {booked} bookings, {returned} of {set_aside} budgets"),
        );
        Ok(())
    }

    /// Prints and returns the review that the run waits for; a run without one is a broken promise.
    fn review(&mut self, run: &Orchestration) -> Option<PendingCheckpoint> {
        let Some(review) = run.data.pending_checkpoint.clone().filter(|review| !review.items.is_empty()) else {
            self.report_broken(&format!(
                "a step of high risk was not reviewed: the run is {}",
                run.data.status.as_str()
            ));
            return None;
        };
        self.console.say(&format!("{} is {}: {}", run.data.run_id, run.data.status.as_str(), review.question));
        for item in &review.items {
            self.console.say(&format!("  [{}] {}  {}", item.index, item.what, item.value));
        }
        Some(review)
    }

    /// The number of effects of one kind on the outside world.
    fn count(&self, operation: &str) -> u64 {
        self.world.ledger().balance().total(operation)
    }

    fn expect(&mut self, holds: bool, what: &str) {
        match holds {
            true => self.console.promise_held(what),
            false => self.report_broken(what),
        }
    }

    fn report_broken(&mut self, what: &str) {
        self.console.promise_broken(what);
        self.broken.push(what.to_owned());
    }
}

fn campaign(product: &str) -> Value {
    let channels = [("radio", 400), ("posters", 250), ("newsletter", 90)];
    let channels: Vec<Value> =
        channels.iter().map(|(channel, amount)| json!({ "channel": channel, "amount": amount })).collect();
    json!({ "workflow": "launch-campaign", "input": { "product": product, "channels": channels }, "as": "demo" })
}
