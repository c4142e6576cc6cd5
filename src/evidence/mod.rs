//! What comparisons add up to for a route, and whether it may move.
//!
//! Always true: for every route `offered = matched + ignored + mismatched + Σ skipped + Σ failed`, at every moment
//! that anybody can look, because both sides are counted under one lock.

use std::sync::Arc;
use std::time::Duration;

use crate::compare::{Comparison, Observation};
use crate::exchange::{Outcome, Settle};
use crate::flag::State;
use crate::names::RouteId;
use crate::store::{SampleRecord, SharedStore, StoreError};

/// The evidence of all routes: in memory, written behind to the store.
pub struct Evidence {}

/// What there is to say of one route since its workflow or rules last changed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
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
    pub skipped: std::collections::BTreeMap<String, u64>,
    /// Failed, by reason.
    pub failed: std::collections::BTreeMap<String, u64>,
    /// Dark requests that have no twin.
    pub dark_without_twin: u64,
    /// Answers of the engine in live since the last change, without error.
    pub engine_answers: u64,
    /// Errors, unknown outcomes and fallbacks of the engine in live since the last change.
    pub engine_errors: u64,
    /// Each rule's hits: how often it made something equal.
    pub rule_hits: std::collections::BTreeMap<String, u64>,
}

impl Evidence {
    /// Loads what the store has.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(_store: SharedStore) -> Result<Arc<Self>, StoreError> {
        todo!()
    }
    /// Says which routes exist and what their evidence rests on (a hash of plan id and rules): where that changed,
    /// the evidence starts anew.
    pub fn rest_on(&self, _bases: &[(RouteId, String)]) {
        todo!()
    }
    /// Notes a pair, before its ticket is settled.
    pub fn compared(
        &self,
        _route: &RouteId,
        _rung: State,
        _comparison: &Comparison,
        _legacy: Duration,
        _engine: Duration,
    ) {
        todo!()
    }
    /// Keeps a sample, written behind. Redacted before it comes here.
    pub fn keep(&self, _sample: SampleRecord) {
        todo!()
    }
    /// What there is to say of a route.
    pub fn of(&self, _route: &RouteId) -> RouteEvidence {
        todo!()
    }
    /// Whether a route may go up from one rung to the next; otherwise every condition that does not hold, as
    /// sentences.
    ///
    /// # Errors
    /// The conditions that do not hold.
    pub fn gate(
        &self,
        _route: &RouteId,
        _from: State,
        _to: State,
        _live_share_is_all: bool,
    ) -> Result<(), Vec<String>> {
        todo!()
    }
    /// Writes what has not been written.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn flush(&self) -> Result<(), StoreError> {
        todo!()
    }
}

impl Settle for Evidence {
    fn settle(&self, _route: &RouteId, _outcome: Outcome) {
        todo!()
    }
}

#[allow(dead_code)]
fn _uses(_: &Observation) {}
