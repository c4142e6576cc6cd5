//! Enters into the record what the files put in force without a flip (states, and what gates require), and the moves
//! that they ask for and the gate refuses.

use serde_json::{Value, json};

use crate::ladder::{ChangedPromote, ForcedFileState, Ladder, RouteStatus};
use crate::record::{BY_FILE, RecordWriter, RefusedMove};

/// Adds an entry for each forced state, each change of what gates require and each refused move that has no entry yet.
/// Called at a start and after each change of the files.
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
        recorder.changed_by_file("declared", &route, forced.source, body);
    }
    for ChangedPromote { route, change, requires } in ladder.changed_promotes() {
        let keys = change.keys.into_iter();
        let keys: Vec<Value> =
            keys.map(|(key, (before, after))| json!({ "key": key, "before": before, "after": after })).collect();
        let body = json!({
            "by": BY_FILE,
            "changes": [{ "part": "`promote:`", "keys": keys }],
            "requires": requires,
            "evidence": ladder.evidence_now(&route, false),
        });
        recorder.changed_by_file("promote", &route, change.source, body);
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
