//! Makes the record that is kept of a pair whose replies differ.

use super::redaction::PairRedaction;
use crate::compare::{CompareBounds, EarlierIds, KeepContext, Pair, PairRecord, Rules, keep};
use crate::exchange::{Answered, request_value};
use crate::limits::Limits;

/// What is kept of a pair, so that it can be judged again under other rules. `earlier_ids` are those that earlier pairs
/// of its instance bound.
pub(super) fn kept_pair(
    answered: &Answered,
    (pair, earlier_ids): (&Pair<'_>, &[EarlierIds]),
    rules: &Rules,
    redaction: &PairRedaction<'_>,
    limits: &Limits,
) -> PairRecord {
    let context = KeepContext {
        request: &request_value(&answered.request),
        earlier_ids,
        rules,
        bounds: &CompareBounds::of(limits),
        sensitive: Some(redaction),
        bytes_max: usize::try_from(limits.sample_bytes_max).unwrap_or(usize::MAX),
        expired: &|| redaction.is_over(),
    };
    keep(pair, &context)
}
