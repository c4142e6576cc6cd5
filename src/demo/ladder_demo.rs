//! Moves the demo's routes up the ladder, from `off` to `only`, with a guard that acts and a step back on the way.
//!
//! Always true: every flip goes through the API and its gates, without `force`. Every wait has a bound; a gate that is
//! still shut then is a broken promise, reported with the gate's reasons. The clients send requests all the time.

use std::path::Path;
use std::time::{Duration, Instant};

use super::console::Console;
use super::control::Control;
use super::http::Outage;
use super::traffic::Traffic;
use super::world::{Fault, OutsideWorld};
use super::{Legacy, files};
use crate::admin::types::{Diffs, RouteDetail};
use crate::flag::State;

/// A family moves together: followers first on the way up, last on the way down. Of them the one that ends instances
/// goes up first: in `off` nobody would see the end of an order that was just read.
const FOLLOWERS: [&str; 2] = ["orders.cancel", "orders.get"];
pub(super) const CREATOR: &str = "orders.create";
const CAMPAIGNS: &str = "campaigns.create";
/// The longest wait for a gate or a difference.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);
/// How many pairs the demo waits for before and after the workflow is corrected.
const PAIRS_WANTED: u64 = 50;
/// How many calls to the service that fails are refused at most; the guard acts long before.
const REFUSALS_MAX: usize = 1000;
/// How many groups of differences are shown in full.
const GROUPS_SHOWN: usize = 2;
/// How long a state is shown at least.
const STATE_SHOWN_MIN: Duration = Duration::from_secs(3);

/// Demonstrates the ladder.
pub struct LadderDemo<'a> {
    /// The product.
    pub control: Control,
    /// The clients.
    pub traffic: &'a Traffic,
    /// The legacy, for its outages.
    pub legacy: &'a Legacy,
    /// The services, for the outage of one.
    pub world: &'a OutsideWorld,
    /// The flag files that are in force.
    pub flags: &'a Path,
    /// Prints the course of the demonstration.
    pub console: &'a mut Console,
    /// How `diffs` shows differences, coloured or not.
    pub render: fn(&Diffs, bool) -> String,
    /// The promises that did not hold.
    pub broken: Vec<String>,
}

impl LadderDemo<'_> {
    /// Walks the routes from `off` to `only`, with a defect, an outage and a step back on the way.
    ///
    /// # Errors
    /// The product does not answer, a gate stayed shut, or the corrected workflow could not be written or was not
    /// loaded.
    pub async fn all(&mut self) -> anyhow::Result<()> {
        self.off().await?;
        self.shadow().await?;
        self.correct().await?;
        self.dark().await?;
        self.rehearse_off_line().await?;
        self.live().await?;
        self.guard().await?;
        self.outage_in_live().await?;
        self.back_and_up_again().await?;
        self.only().await?;
        self.refuse_candidate().await
    }

    async fn off(&mut self) -> anyhow::Result<()> {
        self.console.chapter("off", "Legacy answers everything. Nothing is captured, nothing is buffered.");
        self.show(STATE_SHOWN_MIN, |_| true).await.map(drop)
    }

    async fn shadow(&mut self) -> anyhow::Result<()> {
        self.console.chapter(
            "shadow",
            "Legacy answers. After each reply the engine rehearses a copy: it reads, and sends nothing else.",
        );
        self.raise_family(State::Shadow).await?;
        self.raise(CAMPAIGNS, State::Shadow).await?;
        let found = self
            .show(STATE_SHOWN_MIN, |route| route.evidence.mismatched > 0 && route.row.pairs >= PAIRS_WANTED)
            .await?;
        if found.evidence.mismatched == 0 {
            self.report_broken("shadow did not find the defect of the workflow as it was first written");
        }
        self.console
            .say("The replies are equal. The difference is in a call: legacy's own go through the egress listener,");
        self.console.say("and each is compared with the one that the engine would make.");
        let mut diffs = self.control.diffs(CREATOR).await?;
        self.console.say(&format!("$ pointsman diffs {CREATOR}"));
        // Only the groups with the fewest differences are shown; the command shows all.
        diffs.groups.sort_by_key(|group| group.differences.len());
        let more = diffs.groups.len().saturating_sub(GROUPS_SHOWN);
        diffs.groups.truncate(GROUPS_SHOWN);
        let in_calls = diffs.groups.iter().flat_map(|group| &group.differences);
        if !in_calls.clone().any(|found| found.path == "effects.charge.body.amount") {
            self.report_broken("the wrong charge was not found");
        }
        if let Some(other) = in_calls.clone().find(|found| !found.path.starts_with("effects.charge")) {
            self.report_broken(&format!("something else than the charge differs: {}", other.path));
        }
        let text = (self.render)(&diffs, self.console.colour());
        self.console.say(text.trim_end());
        if more > 0 {
            self.console.say(&format!("… and {more} more groups"));
        }
        let missing = self.control.route(CREATOR).await?.next.map(|next| next.missing).unwrap_or_default();
        self.console.say("what the gate to dark still requires:");
        for sentence in &missing {
            self.console.say(&format!("- {sentence}"));
        }
        if !missing.iter().any(|sentence| sentence.contains("mismatch")) {
            self.report_broken("the gate to dark is open although the arms differ");
        }
        Ok(())
    }

    async fn correct(&mut self) -> anyhow::Result<()> {
        self.console
            .chapter("corrected", "Every reply was right, and the charge was not: the discount was left out of it.");
        for line in files::diff_of_versions() {
            self.console.say(&line);
        }
        let before = self.control.status().await?.flags.generation;
        files::correct(self.flags)?;
        let begun = Instant::now();
        while self.control.status().await?.flags.generation == before {
            if begun.elapsed() > WAIT_MAX {
                self.report_broken("the corrected file was not loaded");
                anyhow::bail!("the corrected file was not loaded within {WAIT_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.console
            .promise_held(&format!("loaded without a restart, {} ms after it was saved", begun.elapsed().as_millis()));
        let clean = |route: &RouteDetail| route.row.pairs >= PAIRS_WANTED && route.row.mismatched == 0;
        let clean = self.show(Duration::ZERO, clean).await?;
        let counted = format!("{} pairs, {} differ", clean.row.pairs, clean.row.mismatched);
        match clean.row.mismatched == 0 && clean.row.pairs >= PAIRS_WANTED {
            true => self.console.promise_held(&format!("evidence is clean: {counted}")),
            false => self.report_broken(&format!("the corrected workflow does not get clean evidence: {counted}")),
        }
        Ok(())
    }

    async fn dark(&mut self) -> anyhow::Result<()> {
        self.console.chapter(
            "dark",
            "Legacy answers. Every request also becomes a durable run; its shared effects stay rehearsed.",
        );
        self.raise_family(State::Dark).await?;
        self.raise(CAMPAIGNS, State::Dark).await?;
        self.show(STATE_SHOWN_MIN, |_| true).await.map(drop)
    }

    async fn live(&mut self) -> anyhow::Result<()> {
        self.console.chapter("live", "The engine answers, its effects are real. Legacy is the fallback.");
        self.raise_family(State::Live).await?;
        self.raise(CAMPAIGNS, State::Live).await?;
        self.show(STATE_SHOWN_MIN, |route| route.evidence.engine_answers >= 50).await?;
        let (orders, campaigns) = {
            let tally = self.traffic.tally();
            (side_by_side(&tally.order_latencies), side_by_side(&tally.campaign_latencies))
        };
        self.console.promise_held(&format!("an order: {orders}"));
        self.console.promise_held(&format!("a campaign, whose parts now run at the same time: {campaigns}"));
        Ok(())
    }

    /// A service that only the engine calls refuses it: the route's guard lowers it, and a person releases it.
    async fn guard(&mut self) -> anyhow::Result<()> {
        self.console.chapter(
            "guard",
            "The store of drafts, which only the engine uses, takes nothing any more. Callers get legacy's answers, and the guard acts.",
        );
        let before = self.failed();
        self.world.fault("draft", Fault::Refuse(429), REFUSALS_MAX);
        let lowered = self.show_until(CAMPAIGNS, Duration::ZERO, |route| route.row.guard.is_some()).await?;
        match &lowered.row.guard {
            Some(acted) if lowered.row.effective.state == State::Dark => {
                self.console.say(&acted.reason);
                self.console.promise_held(&format!(
                    "{CAMPAIGNS} is lowered to dark by itself, {} requested",
                    lowered.row.requested
                ));
            }
            _ => self.report_broken(&format!("the guard of {CAMPAIGNS} did not lower it")),
        }
        self.world.clear_faults();
        self.console.say(&format!("$ pointsman guard release {CAMPAIGNS} --reason 'drafts are accepted again'"));
        if lowered.row.guard.is_some() {
            let released = self.control.release_guard(CAMPAIGNS, "drafts are accepted again").await?;
            if released.effective.state != State::Live {
                self.report_broken(&format!("{CAMPAIGNS} is {} after its release", released.effective.state));
            }
        }
        self.promise_none_failed(before, "while the engine failed, and it is live again");
        Ok(())
    }

    async fn outage_in_live(&mut self) -> anyhow::Result<()> {
        self.console.chapter("outage", "Legacy goes down, every connection is cut. The routes in live go on.");
        self.traffic.set_list_requests(false);
        // Only legacy can answer for orders that it created, so the outage begins after all rounds with such orders.
        self.traffic.wait_for_full_round().await;
        let before = self.failed();
        self.legacy.outage(Outage::Gone);
        self.show(STATE_SHOWN_MIN, |_| true).await?;
        self.legacy.outage(Outage::None);
        self.promise_none_failed(before, "while legacy was down");
        Ok(())
    }

    async fn back_and_up_again(&mut self) -> anyhow::Result<()> {
        self.console.chapter("step back", "A route can always go down, at once and under load: here from live to off.");
        let before = self.failed();
        let engine_order = self.traffic.tally().engine_order.clone();
        for route in [CREATOR].into_iter().chain(FOLLOWERS.into_iter().rev()) {
            match self.control.flip(route, State::Off, "a step back under load").await? {
                Ok(done) if route == CREATOR => {
                    for line in &done.horizon {
                        self.console.say(line);
                    }
                }
                Ok(_) => {}
                Err(refusal) => self.report_broken(&format!("{route} could not go down: {}", refusal.detail)),
            }
        }
        self.show(STATE_SHOWN_MIN / 2, |_| true).await?;
        if let Some(id) = engine_order {
            let read = self.traffic.read(&id).await;
            match read {
                Ok(_) => {
                    self.console.promise_held(&format!("order {id}, made in live, is still read through the engine"))
                }
                Err(why) => self.report_broken(&format!("an order made in live was lost by the step back: {why}")),
            }
        }
        for rung in [State::Shadow, State::Dark, State::Live] {
            self.raise_family(rung).await?;
        }
        self.traffic.wait_for_full_round().await;
        self.promise_none_failed(before, "on the way back and up again");
        Ok(())
    }

    async fn only(&mut self) -> anyhow::Result<()> {
        self.console
            .chapter("only", "The engine answers, legacy is never called. Then legacy goes down and stays down.");
        self.traffic.wait_for_full_round().await;
        let before = self.failed();
        let adopted = self.end_or_adopt_orders_of_legacy().await?;
        self.raise_family(State::Only).await?;
        self.traffic.wait_for_full_round().await;
        let served = self.legacy.served();
        self.legacy.outage(Outage::Gone);
        self.show(STATE_SHOWN_MIN, |_| true).await?;
        if self.legacy.served() == served {
            self.console.promise_held("legacy was called 0 times after it went down");
        } else {
            self.report_broken("legacy was called by a route in only");
        }
        if let Some(id) = adopted {
            let is_read = self.traffic.read(&id).await;
            let is_cancelled = self.traffic.cancel_orders_of_legacy(1).await == 1;
            match (is_read, is_cancelled) {
                (Ok(_), true) => {
                    self.console
                        .promise_held(&format!("order {id}, which legacy made, is read and cancelled without it"));
                }
                (read, _) => {
                    self.report_broken(&format!("an adopted order is lost: {read:?}, cancelled: {is_cancelled}"))
                }
            }
        }
        self.promise_none_failed(before, "in only, with legacy down");
        Ok(())
    }

    /// Legacy still has orders, for which nobody would answer in `only`: the gate refuses, until the engine has them.
    /// Returns one that was adopted.
    async fn end_or_adopt_orders_of_legacy(&mut self) -> anyhow::Result<Option<String>> {
        let [_, follower] = FOLLOWERS;
        match self.control.flip(follower, State::Only, "the demo moves it").await? {
            Err(refusal) if refusal.reasons.iter().any(|why| why.contains("legacy still has")) => {
                refusal.reasons.iter().for_each(|why| self.console.say(&format!("- {why}")));
                self.console.promise_held("the gate to only is shut while legacy has orders that have not ended");
            }
            _ => self.report_broken("the gate to only is open although legacy has orders"),
        }
        let open = self.traffic.tally().open_at_legacy.len();
        let cancelled = self.traffic.cancel_orders_of_legacy(open / 2).await;
        self.console
            .say(&format!("Clients cancel {cancelled} of these orders: with this write each becomes the engine's."));
        self.console.say(&format!("$ pointsman adopt {CREATOR} --all"));
        let view = self.control.adopt_all(CREATOR).await?;
        let left = view.unknown + view.moving + view.given_back;
        match view.adopted >= open as u64 && left == 0 {
            true => self
                .console
                .promise_held(&format!("the engine has adopted {} orders of legacy, one by one", view.adopted)),
            false => self.report_broken(&format!("{} of {open} orders were adopted: {view:?}", view.adopted)),
        }
        Ok(self.traffic.tally().open_at_legacy.first().cloned())
    }

    /// Raises the orders family to a state: followers first, since the creator may never be on a higher rung.
    async fn raise_family(&mut self, to: State) -> anyhow::Result<()> {
        for route in FOLLOWERS {
            self.raise(route, to).await?;
        }
        self.raise(CREATOR, to).await
    }

    /// Flips a route up as soon as its gate opens.
    async fn raise(&mut self, route: &str, to: State) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let Err(refusal) = self.control.flip(route, to, "the demo moves it").await? else { return Ok(()) };
            let why = if refusal.reasons.is_empty() { refusal.detail } else { refusal.reasons.join("; ") };
            if begun.elapsed() > WAIT_MAX {
                self.report_broken(&format!("the gate of {route} to {to} stayed shut: {why}"));
                anyhow::bail!("the gate of {route} to {to} stayed shut");
            }
            self.console.progress(&format!("{route} to {to} waits: {why}"));
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// Shows the creator's state for at least `at_least`, then until `seen` holds, but no longer than [`WAIT_MAX`].
    async fn show(&mut self, at_least: Duration, seen: impl Fn(&RouteDetail) -> bool) -> anyhow::Result<RouteDetail> {
        self.show_until(CREATOR, at_least, seen).await
    }

    /// Like `show`, for any route.
    pub(super) async fn show_until(
        &mut self,
        route: &str,
        at_least: Duration,
        seen: impl Fn(&RouteDetail) -> bool,
    ) -> anyhow::Result<RouteDetail> {
        let begun = Instant::now();
        loop {
            let detail = self.control.route(route).await?;
            self.show_progress(&detail);
            if begun.elapsed() >= WAIT_MAX || (begun.elapsed() >= at_least && seen(&detail)) {
                return Ok(detail);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn show_progress(&mut self, route: &RouteDetail) {
        let line = {
            let tally = self.traffic.tally();
            format!(
                "{} is {} · {} orders, {} by the engine · {} · {} pairs, {} differ · {} failed",
                route.row.id,
                route.row.effective.state,
                tally.orders,
                tally.engine_orders,
                side_by_side(&tally.order_latencies),
                route.row.pairs,
                route.row.mismatched,
                tally.failed,
            )
        };
        self.console.progress(&line);
    }

    fn failed(&self) -> u64 {
        self.traffic.tally().failed
    }

    fn promise_none_failed(&mut self, before: u64, when: &str) {
        match self.failed() - before {
            0 => self.console.promise_held(&format!("no request failed {when}")),
            failed => self.report_broken(&format!("{failed} requests failed {when}")),
        }
    }

    pub(super) fn report_broken(&mut self, what: &str) {
        self.console.promise_broken(what);
        self.broken.push(what.to_owned());
    }
}

fn side_by_side(latencies: &super::traffic::Latencies) -> String {
    let ms = |latency: Option<Duration>| latency.map_or("-".to_owned(), |l| format!("{:.0} ms", l.as_secs_f64() * 1e3));
    format!("legacy {}, engine {}", ms(latencies.legacy_p50()), ms(latencies.engine_p50()))
}
