//! A request that was compared, as far as legacy is to be asked a second time.

use http::StatusCode;

use crate::evidence::{DifferingPlaces, EvidenceGeneration};
use crate::exchange::Answered;

/// How the engine's reply compares with legacy's first one.
pub(super) struct ComparedReplies {
    /// Where the engine's reply differs from legacy's.
    pub engine: DifferingPlaces,
    /// The engine's status.
    pub status: StatusCode,
    /// Whether differences of bodies were of kind `stale_read`.
    pub stale_reads: bool,
}

/// A request that was compared and was chosen to be sent to legacy a second time.
pub(super) struct ComparedRequest {
    pub answered: Answered,
    pub generation: EvidenceGeneration,
    pub replies: ComparedReplies,
}
