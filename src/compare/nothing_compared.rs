//! Whether any part of the replies of a pair was compared. If none was, a pair without a difference says nothing.
//!
//! This file covers status, headers and `assert:`; the comparison of the bodies notes whether a value of them was
//! compared.

use super::pair::Pair;
use super::rules::{Rules, Status, holds_arms_together};
use super::{assert, rule_conditions};

impl Rules {
    /// Whether more than the class of the status and the bodies is compared of a pair: the exact status, a header that
    /// one of the replies has, or an `assert` on both arms.
    pub(super) fn compare_beside_the_bodies_of(&self, pair: &Pair<'_>) -> bool {
        matches!(self.status, Status::Exact)
            || self.compare_a_header_of(pair)
            || self.asserts.iter().any(|one| holds_arms_together(&one.expression) && assert::applies(one, pair))
    }

    /// Whether a rule ignores parts of bodies, or lines of texts, at least of some.
    pub(super) fn may_ignore_parts_of_bodies(&self) -> bool {
        let draft = self.draft();
        !draft.ignore.is_empty() || draft.text.as_ref().is_some_and(|text| !text.ignore.is_empty())
    }

    fn compare_a_header_of(&self, pair: &Pair<'_>) -> bool {
        let mut headers = self.headers.iter();
        headers.any(|name| {
            let is_there = pair.legacy.headers().contains_key(name) || pair.engine.headers().contains_key(name);
            let mut ignored = self.ignored_headers.iter().filter(|(ignored, _)| ignored == name);
            let mut is_ignored = || {
                ignored.any(|(_, rule)| match self.texts.condition(*rule) {
                    None => true,
                    Some(condition) => rule_conditions::holds(condition, pair) == Ok(true),
                })
            };
            is_there && !is_ignored()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::compare::tests::{compared, json_reply, reply, rules};
    use crate::compare::{Observation, Verdict};

    fn compares_nothing(draft: Value, [legacy, engine]: [&Observation; 2]) -> bool {
        let comparison = compared(legacy, engine, &rules(draft)).unwrap();
        assert!(comparison.compares_replies || comparison.verdict != Verdict::Mismatch, "{comparison:?}");
        !comparison.compares_replies
    }

    #[test]
    fn a_pair_under_a_condition_that_ignores_all_of_it_is_compared_by_nothing() {
        let (a, b) = (json_reply(&json!({"total": 1})), json_reply(&json!({"total": 2})));
        let when = |when: &str| json!({"ignore": [{"path": "$", "when": when}], "headers": [], "status": "class"});
        assert!(compares_nothing(when("${legacy.status < 500}"), [&a, &b]));
        assert!(!compares_nothing(when("${legacy.status >= 500}"), [&a, &b]));
        assert!(!compares_nothing(json!({"headers": [], "status": "class"}), [&a, &b]));
    }

    #[test]
    fn a_header_that_no_reply_has_and_a_body_that_no_reply_has_compare_nothing() {
        let (a, b) = (json_reply(&json!({"total": 1})), json_reply(&json!({"total": 2})));
        let with = |more: Value| {
            let mut draft = json!({"ignore": ["$"], "headers": ["x-none"], "status": "class"});
            draft.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            draft
        };
        assert!(compares_nothing(with(json!({})), [&a, &b]));
        assert!(!compares_nothing(with(json!({"headers": ["content-type"]})), [&a, &b]));
        assert!(!compares_nothing(with(json!({"status": "exact"})), [&a, &b]));
        let ignored = json!({"headers": ["content-type"], "ignore": ["$", {"path": "header.content-type", "when": "${legacy.status == 200}"}]});
        assert!(compares_nothing(with(ignored), [&a, &b]));
        assert!(!compares_nothing(with(json!({"assert": ["${legacy.body.total == engine.body.total}"]})), [&a, &b]));
        let empty = reply(204, &[], "");
        assert!(compares_nothing(json!({"headers": [], "status": "class"}), [&empty, &empty]));
        assert!(!compares_nothing(json!({"headers": [], "status": "class"}), [&empty, &a]));
    }

    /// However the rules are spelled that leave nothing of a body.
    #[test]
    fn bodies_of_which_no_value_is_compared_compare_nothing() {
        let (a, b) = (json_reply(&json!({"id": 1, "lines": [{"n": 1}]})), json_reply(&json!({"id": 2, "lines": []})));
        let ignoring = |paths: &[&str]| json!({"ignore": paths, "headers": [], "status": "class"});
        for paths in [
            &["$"][..],
            &["$.*"],
            &["$..*"],
            &["$..[*]"],
            &["$[*]"],
            &["$['id']", "$.lines"],
            &["$.id", "$.lines[*]"],
            &["$[?@ != null]"],
        ] {
            assert!(compares_nothing(ignoring(paths), [&a, &b]), "{paths:?}");
            // Equal byte for byte.
            let other = if paths.contains(&"$.lines[*]") { &a } else { &b };
            assert!(compares_nothing(ignoring(paths), [other, other]), "{paths:?}");
        }
        assert!(!compares_nothing(ignoring(&["$.id"]), [&a, &a]));
        assert!(!compares_nothing(ignoring(&["$.id"]), [&b, &b]), "the list is empty in both");
        assert!(!compares_nothing(ignoring(&[]), [&a, &a]));
        let ids = json!({"ignore": ["$.lines"], "ids": ["$.id"], "headers": [], "status": "class"});
        assert!(!compares_nothing(ids, [&a, &b]));
        let tolerance = json!({"ignore": ["$.lines"], "tolerance": {"$.id": 1}, "headers": [], "status": "class"});
        assert!(!compares_nothing(tolerance, [&a, &b]));
    }

    #[test]
    fn texts_of_which_no_line_is_compared_compare_nothing() {
        let [a, b] =
            ["made at 1\nmade at 2\n", "made at 3\n"].map(|body| reply(200, &[("content-type", "text/plain")], body));
        let ignoring = |pattern: &str| json!({"text": {"ignore": [pattern]}, "headers": [], "status": "class"});
        assert!(compares_nothing(ignoring("^made"), [&a, &b]) && compares_nothing(ignoring("^made"), [&a, &a]));
        assert!(!compares_nothing(ignoring("1$"), [&a, &a]));
        // The whole body is ignored as a document, and a text has none.
        let whole = json!({"ignore": ["$"], "headers": [], "status": "class"});
        assert!(!compares_nothing(whole, [&a, &a]));
    }
}
