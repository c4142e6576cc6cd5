//! Whether a pair was compared by anything of its replies. If not, their being equal says nothing.

use super::observation::{Body, Observation};
use super::pair::Pair;
use super::rules::{Rules, Status, holds_arms_together};
use super::{assert, rule_conditions};

impl Rules {
    /// Whether nothing of the replies of a pair is compared: only the class of the status, no header that one of them
    /// has, no `assert`, and a body that is ignored or that neither of them has.
    pub(super) fn compare_no_reply_of(&self, pair: &Pair<'_>) -> bool {
        matches!(self.status, Status::Class { .. })
            && !self.compare_a_header_of(pair)
            && (self.ignore_the_body_of(pair) || [pair.legacy, pair.engine].into_iter().all(has_no_body))
            && !self.asserts.iter().any(|one| holds_arms_together(&one.expression) && assert::applies(one, pair))
    }

    fn ignore_the_body_of(&self, pair: &Pair<'_>) -> bool {
        let ignored = &self.whole_body_ignored;
        ignored.always || ignored.when.iter().any(|when| rule_conditions::holds(when, pair) == Ok(true))
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

fn has_no_body(reply: &Observation) -> bool {
    matches!(reply.body(), Body::Whole(bytes) if bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compare::tests::{json_reply, reply, rules};

    fn compares_nothing(draft: Value, [legacy, engine]: [&Observation; 2]) -> bool {
        let request = json!({"headers": {}});
        let pair = Pair {
            legacy,
            engine,
            request: &request,
            effects: None,
            stale_reads: false,
            instance: None,
            sensitive: None,
        };
        rules(draft).compare_no_reply_of(&pair)
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
}
