//! Evidence in a store that several processes share: a row is replaced only if it is still the one that was read.

use futures_util::future::BoxFuture;

use super::{EvidenceRecord, StoreError};
use crate::names::RouteId;

/// Which content a row of evidence has: equal for equal content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceVersion(pub Vec<u8>);

/// A row that is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct EvidenceReplacement {
    /// The content.
    pub record: EvidenceRecord,
    /// Which row it replaces; `None`: there is none of the route.
    pub instead_of: Option<EvidenceVersion>,
}

/// The evidence in a store that several processes share.
pub trait SharedEvidence: Send + Sync {
    /// The rows that are not as they are known: those of other routes, and those with another content.
    fn changed_evidence(
        &self,
        known: Vec<(RouteId, EvidenceVersion)>,
    ) -> BoxFuture<'_, Result<Vec<(EvidenceRecord, EvidenceVersion)>, StoreError>>;

    /// Stores rows. One that another process has replaced or stored meanwhile stays. Returns those that were stored.
    /// After an error, some of them may have been stored, or will be.
    fn replace_evidence(
        &self,
        rows: Vec<EvidenceReplacement>,
    ) -> BoxFuture<'_, Result<Vec<(RouteId, EvidenceVersion)>, StoreError>>;
}
