//! Adds an entry to the record for each move of a cohort.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::ladder::{CohortListener, CohortMove};
use crate::record::RecordWriter;

/// Hands each move to the writer of the record.
pub(super) struct CohortEntries(pub Arc<RecordWriter>);

impl CohortListener for CohortEntries {
    fn moved(&self, moved: CohortMove) {
        let CohortMove {
            route,
            cohort,
            from,
            to,
            when_before,
            when,
            rule_before,
            rule,
            cause,
            forced,
            source,
            is_repeated: _,
            evidence,
        } = moved;
        let when_changed = (when_before.as_deref(), when.as_deref());
        let changes = change_of_rule(when_changed, (rule_before.as_deref(), rule.as_deref()));
        let body = json!({
            "cohort": cohort,
            "from": from.map(|state| state.as_str()),
            "to": to.map(|state| state.as_str()),
            "by": cause.as_str(),
            "forced": forced.is_some(),
            "reason": forced,
            "when_before": when_before,
            "when": when,
            "rule_before": rule_before,
            "rule": rule,
            "changes": changes.into_iter().collect::<Vec<_>>(),
            "evidence": evidence,
        });
        self.0.cohort_moved(&route, source, body);
    }
}

/// The condition before and after a move. Where both texts are equal, because literals are not shown or only the
/// conditions of earlier cohorts changed, the hashes of the rule stand in their place; `None` if these are equal too.
fn change_of_rule((when_before, when): Changed<'_>, (rule_before, rule): Changed<'_>) -> Option<Value> {
    if when_before != when {
        return Some(json!({ "part": "`when:`", "before": when_before, "after": when }));
    }
    let (Some(before), Some(after)) = (rule_before, rule) else { return None };
    let shown = |hash: &str| format!("rule {hash}");
    (before != after).then(|| json!({ "part": "`when:`", "before": shown(before), "after": shown(after) }))
}

/// The value before, and the value now.
type Changed<'a> = (Option<&'a str>, Option<&'a str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_literal_that_is_not_shown_is_reported_by_the_hash_of_the_rule() {
        let when = "a == \"***\"";
        let same = (Some(when), Some(when));
        assert_eq!(change_of_rule(same, (Some("aa"), Some("aa"))), None);
        assert_eq!(change_of_rule(same, (None, Some("aa"))), None, "what it was before is not known");
        let by_hash = json!({ "part": "`when:`", "before": "rule aa", "after": "rule bb" });
        assert_eq!(change_of_rule(same, (Some("aa"), Some("bb"))), Some(by_hash));
        let by_text = json!({ "part": "`when:`", "before": "b", "after": when });
        assert_eq!(change_of_rule((Some("b"), Some(when)), (Some("aa"), Some("bb"))), Some(by_text));
    }
}
