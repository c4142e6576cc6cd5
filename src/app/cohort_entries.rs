//! Adds an entry to the record for each move of a cohort.

use std::sync::Arc;

use serde_json::json;

use crate::ladder::{CohortListener, CohortMove};
use crate::record::RecordWriter;

/// Hands each move to the writer of the record.
pub(super) struct CohortEntries(pub Arc<RecordWriter>);

impl CohortListener for CohortEntries {
    fn moved(&self, moved: CohortMove) {
        let CohortMove { route, cohort, from, to, when_before, when, cause, forced, source, is_repeated: _, evidence } =
            moved;
        // Who is in it may also have changed by the rules of the cohorts before it.
        let is_changed = when_before != when;
        let changes = is_changed.then(|| json!({ "part": "`when:`", "before": &when_before, "after": &when }));
        let body = json!({
            "cohort": cohort,
            "from": from.map(|state| state.as_str()),
            "to": to.map(|state| state.as_str()),
            "by": cause.as_str(),
            "forced": forced.is_some(),
            "reason": forced,
            "when_before": when_before,
            "when": when,
            "changes": changes.into_iter().collect::<Vec<_>>(),
            "evidence": evidence,
        });
        self.0.cohort_moved(&route, source, body);
    }
}
