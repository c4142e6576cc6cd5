//! Tells whether a change of rules only allows more, and what it adds.
//!
//! Always true: a pair that is equal under the rules before is equal under the rules after such a change, so that its
//! comparison need not be repeated; only the pairs that differ have to be judged again.

use std::collections::BTreeMap;

use serde_json::Value;

use super::draft::RulesDraft;
use super::effects::EffectRulesDraft;
use super::rule_drafts::{IdDraft, IgnoreDraft, ToleranceDraft};
use super::rule_path::RulePath;
use super::value_path::is_id_key;

/// What a change of rules adds that only allows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowances {
    /// Whether whole parts are left out of the comparison, and nothing else: where a part is still compared, it is
    /// compared as before.
    pub leave_out_only: bool,
    /// Whether the path and the kind of a difference tell whether it is allowed, without the values: no index, filter,
    /// condition or tolerance was added, and no name that paths do not show.
    pub decide_by_place: bool,
    /// Whether `ignore_calls` grew. Places show the paths of calls without values, so a place may not tell whether the
    /// rule covers the call.
    pub ignores_calls: bool,
}

impl Allowances {
    /// What `after` allows beyond `before`: more parts of replies and calls that may differ (`ignore:`,
    /// `ignore_calls:`), or values that may differ by a tolerance. `None` if the rules differ in anything else, or do
    /// not differ.
    pub fn added(before: &RulesDraft, after: &RulesDraft) -> Option<Self> {
        let mut added = Added::default();
        let (mut before, mut after) = (before.clone(), after.clone());
        added.ignores(&mut before.ignore, &mut after.ignore, &after.ids);
        added.tolerances(&mut before.tolerance, &mut after.tolerance);
        added.texts(&mut before.ignore_calls, &mut after.ignore_calls);
        added.of_steps(&mut before.effects, &mut after.effects);
        let Added { is_any, takes_away, loosens_comparison, reads_elements, ignores_calls } = added;
        let (leave_out_only, decide_by_place) = (!loosens_comparison, !loosens_comparison && !reads_elements);
        let added = Self { leave_out_only, decide_by_place, ignores_calls };
        (is_any && !takes_away && before == after).then_some(added)
    }
}

/// What was found so far. Each method empties the parts of the drafts that it has compared, so that what differs
/// afterwards is some other change.
#[derive(Default)]
struct Added {
    /// Whether the rules allow something more than before.
    is_any: bool,
    /// Whether a rule is gone, or an id is no longer bound: then a pair that was equal may differ.
    takes_away: bool,
    /// Whether a part is still compared, with more allowed than before, at least for some requests.
    loosens_comparison: bool,
    /// Whether a part is left out of some elements of a list, or below some ids: places do not tell them apart.
    reads_elements: bool,
    ignores_calls: bool,
}

impl Added {
    /// Compares the `ignore` rules. `ids` are the ids of the same document: if an id is ignored, it is no longer bound,
    /// and then other places that have it are no longer equal.
    fn ignores(&mut self, before: &mut Vec<IgnoreDraft>, after: &mut Vec<IgnoreDraft>, ids: &[IdDraft]) {
        self.takes_away |= before.iter().any(|rule| !after.contains(rule));
        let new = after.iter().filter(|rule| !before.contains(rule));
        for rule in new {
            self.is_any = true;
            self.takes_away |= ids.iter().any(|id| may_ignore(rule, id));
            // Only a path without a condition leaves a part out for all requests. A filter may read values of the
            // reply.
            self.loosens_comparison |= rule.0.as_str().is_none_or(|path| path.contains('?'));
            self.reads_elements |= rule.0.as_str().is_some_and(selects_elements);
        }
        before.clear();
        after.clear();
    }
    fn tolerances(
        &mut self,
        before: &mut BTreeMap<String, ToleranceDraft>,
        after: &mut BTreeMap<String, ToleranceDraft>,
    ) {
        self.takes_away |= before.iter().any(|(path, by)| after.get(path) != Some(by));
        let is_new = after.len() > before.len();
        self.is_any |= is_new;
        self.loosens_comparison |= is_new;
        before.clear();
        after.clear();
    }
    fn texts(&mut self, before: &mut Vec<String>, after: &mut Vec<String>) {
        self.takes_away |= before.iter().any(|text| !after.contains(text));
        let is_new = after.iter().any(|text| !before.contains(text));
        self.is_any |= is_new;
        self.ignores_calls |= is_new;
        before.clear();
        after.clear();
    }
    fn of_steps(
        &mut self,
        before: &mut BTreeMap<String, EffectRulesDraft>,
        after: &mut BTreeMap<String, EffectRulesDraft>,
    ) {
        for (step, after) in after.iter_mut() {
            let before = before.entry(step.clone()).or_default();
            self.ignores(&mut before.ignore, &mut after.ignore, &after.ids);
            self.tolerances(&mut before.tolerance, &mut after.tolerance);
            // Only a gate reads it; what is compared, and how, does not change.
            self.is_any |= before.made_by_both != after.made_by_both;
            (before.made_by_both, after.made_by_both) = (None, None);
        }
    }
}

/// Whether a rule may ignore values that are declared as ids.
fn may_ignore(rule: &IgnoreDraft, id: &IdDraft) -> bool {
    let text = |value: &Value, names: &[&str]| {
        let of_name = names.iter().find_map(|name| value.get(name));
        of_name.unwrap_or(value).as_str().map(str::to_owned)
    };
    let (Some(ignored), Some(id)) = (text(&rule.0, &["path"]), text(&id.0, &["path", "keys"])) else { return false };
    // Ids in headers are bound whether the header is ignored or not.
    if !ignored.trim().starts_with('$') || !id.trim().starts_with('$') {
        return false;
    }
    let plain = |path: &str| RulePath::parse(path).ok().filter(|path| path.steps().is_some());
    let Some(id) = plain(id.trim()) else { return true };
    match plain(ignored.trim()) {
        Some(ignored) => ignored.may_hold_a_value_of(&id),
        // What a filter or an index selects is within what the path before it names.
        None => plain(before_selector(ignored.trim()))
            .is_none_or(|whole| whole.may_hold_a_value_of(&id) || id.may_hold_a_value_of(&whole)),
    }
}

/// A JSONPath up to its first part in brackets other than `[*]`, or up to its first name at any depth.
fn before_selector(path: &str) -> &str {
    let brackets = path.match_indices('[').map(|(at, _)| at).find(|at| !path[*at..].starts_with("[*]"));
    let end = brackets.into_iter().chain(path.find("..")).min();
    &path[..end.unwrap_or(path.len())]
}

/// Whether a rule may select only some elements of a list, or of a map by ids, which paths show as `[*]`: it has more
/// than names and wildcards (an index, a slice, a union, a filter), or one of its names is an id.
fn selects_elements(path: &str) -> bool {
    let path = path.trim();
    let names_id = |path: RulePath| {
        path.steps().is_none_or(|steps| steps.iter().filter_map(|step| step.name.as_deref()).any(is_id_key))
    };
    path.starts_with('$') && RulePath::parse(path).map_or(true, names_id)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn added(before: &Value, after: &Value) -> Option<bool> {
        let draft = |rules: &Value| serde_json::from_value(rules.clone()).unwrap();
        Allowances::added(&draft(before), &draft(after)).map(|added| added.leave_out_only)
    }

    #[test]
    fn more_that_may_differ_only_allows_more() {
        let one = json!({"ignore": ["$.a"], "ids": ["$.id"]});
        for (after, leave_out_only) in [
            (json!({"ignore": ["$.a", "$.b"], "ids": ["$.id"]}), true),
            (json!({"ignore": ["$.b", "$.a", "header.etag"], "ids": ["$.id"]}), true),
            (json!({"ignore": ["$.a"], "ids": ["$.id"], "effects": {"charge": {"ignore": ["$.at"]}}}), true),
            (json!({"ignore": ["$.a"], "ids": ["$.id"], "ignore_calls": ["audit"]}), true),
            (json!({"ignore": ["$.a", {"path": "$.b", "when": "${legacy.status < 400}"}], "ids": ["$.id"]}), false),
            (json!({"ignore": ["$.a", "$.items[?@.kind == 'x'].b"], "ids": ["$.id"]}), false),
            (json!({"ignore": ["$.a"], "ids": ["$.id"], "tolerance": {"$.at": "5s"}}), false),
            (json!({"ignore": ["$.a"], "ids": ["$.id"], "effects": {"charge": {"tolerance": {"$.at": "5s"}}}}), false),
        ] {
            assert_eq!(added(&one, &after), Some(leave_out_only), "{after}");
            assert_eq!(added(&after, &one), None, "taken away: {after}");
        }
    }

    #[test]
    fn an_id_that_is_ignored_does_not_only_allow_more() {
        let with = |path: &str| json!({"ids": ["$.lines[*].id", {"keys": "$.by"}], "ignore": [path]});
        let none = json!({"ids": ["$.lines[*].id", {"keys": "$.by"}]});
        for path in ["$.lines[*].id", "$.lines", "$.lines[0].id", "$..id", "$", "$.by", "$[?@.a == 1]"] {
            assert_eq!(added(&none, &with(path)), None, "{path}");
        }
        for path in ["$.lines[*].at", "$.at", "header.etag", "$.items[0]"] {
            assert_eq!(added(&none, &with(path)), Some(true), "{path}");
        }
        assert_eq!(added(&none, &with("$.items[?@.a == 1].id")), Some(false));
        // The ids of a step are those of its calls.
        let of_step =
            |ignore: Value| json!({"ids": ["$.id"], "effects": {"charge": {"ids": ["$.order"], "ignore": ignore}}});
        assert_eq!(added(&of_step(json!([])), &of_step(json!(["$.order"]))), None);
        assert_eq!(added(&of_step(json!([])), &of_step(json!(["$.id"]))), Some(true));
    }

    #[test]
    fn a_rule_is_decided_by_place_only_if_it_needs_no_values() {
        let decide = |after: &Value| {
            let draft = |rules: &Value| serde_json::from_value(rules.clone()).unwrap();
            Allowances::added(&draft(&json!({})), &draft(after)).unwrap().decide_by_place
        };
        for path in
            ["$.a", "$.items[*].a", "$..a", "$['a:1']", "$.a1001.b", "header.etag", "header.1001", "$", "$['x-1']"]
        {
            assert!(decide(&json!({ "ignore": [path] })), "{path}");
        }
        for path in ["$.items[0].a", "$.items[-1]", "$.items[1:3].a", "$.items[:3].a", "$['a', 0]", "$[?@.a > 1].b"] {
            assert!(!decide(&json!({ "ignore": [path] })), "{path}");
        }
        for path in ["$.items[\t0].a", r"$['a\\'][0]", r"$['a\'][0]']"] {
            assert!(!decide(&json!({ "ignore": [path] })), "{path}");
        }
        // Places show these names as `[*]`.
        for path in ["$['0'].a", "$.of['1001'].a", "$..['4b3f9a0c11d2e3f4']", "$['jo@example.org']", "$['a', 'b']"] {
            assert!(!decide(&json!({ "ignore": [path] })), "{path}");
        }
        assert!(!decide(&json!({ "ignore": [{"path": "$.b", "when": "${legacy.status < 400}"}] })));
        assert!(!decide(&json!({ "tolerance": { "$.a": 1 } })));
        assert!(decide(&json!({ "ignore_calls": ["audit"] })));
    }

    #[test]
    fn what_only_a_gate_reads_changes_no_comparison() {
        let with = |step: Value| json!({"effects": {"note": step}});
        let (without, because) = (with(json!({})), with(json!({"made_by_both": "each has its own"})));
        assert_eq!((added(&without, &because), added(&because, &without)), (Some(true), Some(true)));
        assert_eq!(added(&because, &with(json!({"made_by_both": "another reason", "any_order": true}))), None);
    }

    #[test]
    fn any_other_change_of_rules_is_not_an_allowance() {
        let one = json!({"ignore": ["$.a"], "tolerance": {"$.at": "5s"}, "effects": {"charge": {"headers": ["x-a"]}}});
        for (part, value) in [
            ("ignore", json!(["$.b"])),
            ("tolerance", json!({"$.at": "6s", "$.b": 1})),
            ("status", json!("class")),
            ("ids", json!(["$.id"])),
            ("headers", json!([])),
            ("unordered", json!({"$.items": "set"})),
            ("assert", json!(["${engine.status == legacy.status}"])),
            ("effects", json!({})),
            ("effects", json!({"charge": {"headers": [], "ignore": ["$.a"]}})),
            ("effects", json!({"charge": {"headers": ["x-a"]}, "mail": {"unseen": "it is a note"}})),
        ] {
            let mut after = one.clone();
            after[part] = value;
            // What is added beside it does not help.
            let mut with_more = after.clone();
            if part != "ignore" {
                with_more["ignore"] = json!(["$.a", "$.c"]);
            }
            assert_eq!((added(&one, &after), added(&one, &with_more)), (None, None), "{part}: {after}");
        }
        assert_eq!(added(&one, &one), None, "nothing changed");
    }
}
