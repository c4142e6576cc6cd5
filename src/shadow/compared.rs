//! What is kept of a compared request that is to be run, or to be sent to legacy, a second time.

use std::sync::Arc;

use http::StatusCode;

use super::engine_result::EngineResult;
use crate::compare::Observation;
use crate::evidence::{DifferingPlaces, EvidenceGeneration};
use crate::exchange::{Answered, RecordedReads};

/// How the engine's reply compares with legacy's first one.
pub(super) struct ComparedReplies {
    /// Where the engine's reply differs from legacy's.
    pub engine: DifferingPlaces,
    /// The engine's status.
    pub status: StatusCode,
    /// Whether differences of bodies were of kind `stale_read`.
    pub stale_reads: bool,
}

/// What the first of two runs of the engine did.
pub(super) struct FirstRun {
    /// Its reply and its intents.
    pub engine: Observation,
    /// Its reads.
    pub reads: Arc<RecordedReads>,
}

impl FirstRun {
    /// `None` if it did not run to its answer.
    pub(super) fn of(result: &EngineResult, reads: Arc<RecordedReads>) -> Option<Self> {
        match result {
            EngineResult::Comparable(engine, _) => Some(Self { engine: engine.clone(), reads }),
            EngineResult::Stopped(..) | EngineResult::NotComparable(..) => None,
        }
    }
}

/// A request that was compared.
pub(super) struct ComparedRequest {
    pub answered: Answered,
    pub generation: EvidenceGeneration,
    /// Set if it was chosen to be sent to legacy a second time.
    pub replies: Option<ComparedReplies>,
    /// Set if the engine is to run it a second time.
    pub first: Option<FirstRun>,
}
