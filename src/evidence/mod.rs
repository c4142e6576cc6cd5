//! What comparisons add up to for a route, and whether it may move.
//!
//! The question it answers: "how sure are we that the engine does what legacy does?"
//!
//! Always true: for every route `offered = matched + ignored + mismatched + Σ skipped + Σ failed`, at every moment
//! that anybody can look, because both sides are counted under one lock and scraped from one look. Evidence rests on a
//! workflow and on rules; where those change it starts anew, and what was under way meanwhile does not count.
//!
//! Who compares is `shadow`'s business, who moves a route is `ladder`'s.
//!
//! The store is written behind: a slow one delays nobody, one that is gone costs what has not been written since
//! (counts go on in memory), and what was written twice is the same row.

mod book;
mod bound;
mod export;
mod gate;
mod samples;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

pub use self::gate::gate;
/// A kept comparison, for whoever makes one.
pub use crate::store::SampleRecord as Sample;
pub use book::Epoch;

use book::{Book, Kept, Page};
use samples::Waiting;

use crate::clock;
use crate::compare::Comparison;
use crate::exchange::{Outcome, Served, Settle, Watch};
use crate::flag::State;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::{EvidenceRecord, SharedStore, StoreError};

/// The evidence of all routes: in memory, written behind to the store.
pub struct Evidence {
    store: SharedStore,
    limits: Limits,
    books: RwLock<BTreeMap<RouteId, Arc<Book>>>,
    /// The id of now for each that a route had before.
    renames: RwLock<BTreeMap<RouteId, RouteId>>,
    waiting: Mutex<Waiting>,
    /// One flush at a time, so that an older page never overwrites a newer one.
    flushing: tokio::sync::Mutex<()>,
    scraping: Mutex<()>,
}

/// What there is to say of one route since its workflow or rules last changed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct RouteEvidence {
    /// Pairs made in shadow.
    pub shadow_pairs: u64,
    /// Pairs made in dark.
    pub dark_pairs: u64,
    /// Of all pairs, those that matched, by rule or without.
    pub matched: u64,
    /// Of all pairs, those equal only by a rule.
    pub ignored: u64,
    /// Of all pairs, those that differ: open until the workflow or the rules change.
    pub mismatched: u64,
    /// Not compared, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Dark requests that have a twin: a durable run was made.
    pub dark_with_twin: u64,
    /// Dark requests that have no twin.
    pub dark_without_twin: u64,
    /// Answers of the engine in live in a row: since the last change, and since the last error.
    pub engine_answers: u64,
    /// Errors, unknown outcomes and fallbacks of the engine in live since the last change.
    pub engine_errors: u64,
    /// Each rule's hits: how often it made something equal.
    pub rule_hits: BTreeMap<String, u64>,
    /// Pairs that differ, by the fingerprint of where: every one is counted, few are kept as samples.
    pub seen: BTreeMap<String, Seen>,
}

/// How often pairs differed in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Seen {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

impl RouteEvidence {
    /// All pairs.
    pub fn pairs(&self) -> u64 {
        self.shadow_pairs + self.dark_pairs
    }
    /// The 95 % upper bound of the mismatch rate, valid however often it is looked at; 1 where there is nothing yet.
    pub fn mismatch_upper_bound(&self) -> f64 {
        bound::upper(self.pairs(), self.mismatched)
    }
    /// How many more pairs without a mismatch bring the bound below a rate; `None` where a mismatch is open.
    pub fn pairs_needed_for(&self, rate: f64) -> Option<u64> {
        (self.mismatched == 0).then(|| bound::clean_pairs_for(rate).saturating_sub(self.pairs()))
    }
    /// The share of offered requests that was compared, 0 to 1; 1 where nothing was offered.
    pub fn coverage(&self) -> f64 {
        let not = self.skipped.values().sum::<u64>() + self.failed.values().sum::<u64>();
        let all = self.pairs() + not;
        if all == 0 { 1.0 } else { self.pairs() as f64 / all as f64 }
    }
}

impl Evidence {
    /// Loads what the store has; the bounds on samples are the defaults.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(store: SharedStore) -> Result<Arc<Self>, StoreError> {
        Self::load_with(store, &Limits::default()).await
    }

    /// Loads what the store has.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load_with(store: SharedStore, limits: &Limits) -> Result<Arc<Self>, StoreError> {
        let mut books = BTreeMap::new();
        for EvidenceRecord { route, at: _, value } in store.evidence().await? {
            match serde_json::from_value::<Kept>(value) {
                // What was under it is under another id by now.
                Ok(kept) if kept.basis.is_none() && kept.evidence == RouteEvidence::default() => {}
                Ok(kept) => {
                    books.insert(route, Arc::new(Book::kept(kept)));
                }
                // Evidence is a means, not a truth: what another binary wrote otherwise is gathered again.
                Err(error) => tracing::warn!(%route, %error, "stored evidence cannot be read and starts anew"),
            }
        }
        Ok(Arc::new(Self {
            store,
            limits: limits.clone(),
            books: RwLock::new(books),
            renames: RwLock::default(),
            waiting: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            scraping: Mutex::default(),
        }))
    }

    /// Says which ids routes had before. What stands under one of them is the route's from now on, and so is what is
    /// still under way under it; a route that has evidence of its own keeps that. Call it before [`Evidence::rest_on`].
    pub fn renamed<'a>(&self, routes: impl Iterator<Item = (&'a RouteId, &'a [RouteId])>) {
        let mut books = self.books.write().unwrap_or_else(PoisonError::into_inner);
        let mut renames = self.renames.write().unwrap_or_else(PoisonError::into_inner);
        renames.clear();
        for (route, was) in routes {
            renames.extend(was.iter().map(|old| (old.clone(), route.clone())));
            let has_any = |id: &&RouteId| books.get(*id).is_some_and(|book| book.page().basis.is_some());
            if has_any(&route) {
                continue;
            }
            let Some(old) = was.iter().find(has_any) else { continue };
            let Some(from) = books.get(old).cloned() else { continue };
            let to = books.entry(route.clone()).or_default();
            to.page().take_over(&mut from.page());
            self.waiting().move_to(old, route);
            tracing::info!(%route, was = %old, "the evidence of a renamed route goes on");
        }
    }

    /// Says which routes exist and what their evidence rests on (a hash of plan id and rules): where that changed,
    /// the evidence starts anew. Call it once the new plans and rules are in force: what was offered before and is
    /// still under way then does not count.
    pub fn rest_on(&self, bases: &[(RouteId, String)]) {
        for (route, basis) in bases {
            if self.book(route).page().rest_on(basis) {
                tracing::info!(%route, "the workflow or the rules changed: the evidence starts anew");
                self.waiting().clear(route);
            }
        }
    }

    /// Which evidence a request belongs to that is offered now.
    pub fn epoch(&self, route: &RouteId) -> Epoch {
        Epoch(self.book(route).page().epoch)
    }

    /// Notes a pair, before its ticket is settled. One of an epoch that is over counts in the totals only.
    pub fn compared(
        &self,
        route: &RouteId,
        epoch: Epoch,
        rung: State,
        comparison: &Comparison,
        legacy: Duration,
        engine: Duration,
    ) {
        {
            let book = self.book(route);
            let mut page = book.page();
            page.differed(comparison);
            if page.epoch == epoch.0 {
                page.compared(rung, comparison);
            }
        }
        let slower = if engine > legacy { "engine" } else { "legacy" };
        metrics::histogram!("pointsman_paired_latency_seconds", "route" => route.as_str().to_owned(), "slower" => slower)
            .record(engine.abs_diff(legacy).as_secs_f64());
    }

    /// Notes that a dark request has a twin.
    pub fn with_twin(&self, route: &RouteId) {
        let book = self.book(route);
        let mut page = book.page();
        page.evidence.dark_with_twin += 1;
        page.dirty = true;
    }

    /// Whether another sample of this kind is wanted: a cheap look before one is made.
    pub fn wants(&self, route: &RouteId, epoch: Epoch, fingerprint: &str) -> bool {
        self.epoch(route) == epoch && self.waiting().wants(&self.id_now(route), fingerprint, &self.limits)
    }

    /// Keeps a sample, written behind. Redacted before it comes here.
    pub fn keep(&self, epoch: Epoch, sample: Sample) {
        let sample = Sample { route: self.id_now(&sample.route), ..sample };
        let book = self.book(&sample.route);
        // Under the page's lock, so that a sample of the old epoch cannot slip in behind the clearing.
        let page = book.page();
        let mut waiting = self.waiting();
        if page.epoch == epoch.0 && waiting.wants(&sample.route, &sample.fingerprint, &self.limits) {
            waiting.push(sample);
        }
    }

    /// What there is to say of a route.
    pub fn of(&self, route: &RouteId) -> RouteEvidence {
        self.book(route).page().evidence.clone()
    }

    /// What there is to say of a route that has or had one of these ids, as far as it rests on this: evidence of another
    /// basis is none.
    pub fn on_basis<'a>(&self, ids: impl Iterator<Item = &'a RouteId>, basis: &str) -> RouteEvidence {
        let books = self.books.read().unwrap_or_else(PoisonError::into_inner);
        let pages = ids.filter_map(|id| books.get(id)).map(|book| book.page());
        let mut fitting = pages.filter(|page| page.basis.as_deref() == Some(basis));
        fitting.next().map(|page| page.evidence.clone()).unwrap_or_default()
    }

    /// One scrape at a time: sets the metrics to one look at every route, then renders.
    pub fn scrape<T>(&self, render: impl FnOnce() -> T) -> T {
        let _one_at_a_time = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish();
        render()
    }

    /// Sets the metrics to one look at every route. Whoever renders meanwhile sees two looks mixed: see [`Evidence::scrape`].
    pub fn publish(&self) {
        let seen: Vec<(RouteId, Page)> =
            self.all().into_iter().map(|(route, book)| (route, book.page().clone())).collect();
        for (route, page) in &seen {
            export::publish(route, page);
        }
    }

    /// Writes what has not been written.
    ///
    /// # Errors
    /// The store does not answer: nothing is lost, the next flush tries again.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.flushing.lock().await;
        let waiting = self.waiting().take();
        if let Err(error) = waiting.write(&*self.store, &self.limits).await {
            self.waiting().put_back(waiting);
            return Err(error);
        }
        let mut rows = Vec::new();
        let mut written = Vec::new();
        for (route, book) in self.all() {
            let mut page = book.page();
            if !std::mem::take(&mut page.dirty) {
                continue;
            }
            let kept = Kept { basis: page.basis.clone(), evidence: page.evidence.clone() };
            drop(page);
            let value = serde_json::to_value(kept).map_err(|e| StoreError(e.to_string()))?;
            rows.push(EvidenceRecord { route, at: clock::now(), value });
            written.push(book);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let outcome = self.store.put_evidence(rows).await;
        if outcome.is_err() {
            written.iter().for_each(|book| book.page().dirty = true);
        }
        outcome
    }

    /// Flushes from time to time, for ever. Whoever ends it flushes once more.
    pub async fn write_behind(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "evidence is not written yet");
            }
        }
    }

    /// The id that a route has now, where it had this one before.
    fn id_now(&self, route: &RouteId) -> RouteId {
        let renames = self.renames.read().unwrap_or_else(PoisonError::into_inner);
        renames.get(route).unwrap_or(route).clone()
    }

    /// The account of a route; routes come from the files, so there are few.
    fn book(&self, route: &RouteId) -> Arc<Book> {
        let route = &self.id_now(route);
        if let Some(book) = self.books.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            return Arc::clone(book);
        }
        let mut books = self.books.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(books.entry(route.clone()).or_default())
    }

    fn all(&self) -> Vec<(RouteId, Arc<Book>)> {
        let books = self.books.read().unwrap_or_else(PoisonError::into_inner);
        books.iter().map(|(route, book)| (route.clone(), Arc::clone(book))).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settle for Evidence {
    fn settle(&self, route: &RouteId, outcome: Outcome) {
        self.book(route).page().settle(outcome);
    }
    fn without_twin(&self, route: &RouteId) {
        let book = self.book(route);
        let mut page = book.page();
        page.evidence.dark_without_twin += 1;
        page.dirty = true;
    }
}

impl Watch for Evidence {
    fn served(&self, route: &RouteId, served: Served) {
        self.book(route).page().served(served);
    }
}
