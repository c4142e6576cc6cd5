//! Enters into the record what the files request and the gate refuses.

use crate::ladder::{Ladder, RouteStatus};
use crate::record::{BY_FILE, RecordWriter, RefusedMove};

/// Enters what is refused now. Called at a start and after each change of the files.
pub(super) fn record(ladder: &Ladder, recorder: &RecordWriter) {
    for RouteStatus { route, requested, refused, .. } in ladder.status() {
        if !refused.is_empty() {
            let asked = RefusedMove { to: requested, percent: None, by: BY_FILE.to_owned(), reason: None };
            recorder.move_refused(&route, asked, &refused);
        } else {
            recorder.file_has_no_refused_move(&route);
        }
    }
}
