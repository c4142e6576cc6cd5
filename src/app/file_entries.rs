//! Enters into the record what the files put in force without a flip, and what they request and the gate refuses.

use serde_json::json;

use crate::ladder::{ForcedFileState, Ladder, RouteStatus};
use crate::record::{BY_FILE, RecordWriter, RefusedMove};

/// Adds an entry for each forced state and each refused request that has none. Called at a start and after each change
/// of the files.
pub(super) fn record(ladder: &Ladder, recorder: &RecordWriter) {
    for ForcedFileState { route, forced, rung, shares, evidence } in ladder.forced_files() {
        let body = json!({
            "state": forced.state,
            "in_force": rung,
            "shares": shares,
            "by": BY_FILE,
            "forced": forced.reason.is_some(),
            "reason": forced.reason,
            "since": forced.since,
            "evidence": evidence,
        });
        recorder.state_forced_by_file(&route, forced.source, body);
    }
    for RouteStatus { route, requested, refused, .. } in ladder.status() {
        if !refused.is_empty() {
            let (to, by) = (requested.as_str().to_owned(), BY_FILE.to_owned());
            let asked = RefusedMove { candidate: None, to, percent: None, by, reason: None };
            recorder.move_refused(&route, asked, &refused, ladder.evidence_now(&route, false));
        } else {
            recorder.file_has_no_refused_move(&route);
        }
    }
}
