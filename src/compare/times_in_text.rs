//! Times within a text of a body, such as `paid at 2026-11-28T10:00:01Z`: each may differ by a tolerance, and what is
//! around them may not differ.

use regex::Regex;
use serde_json::Value;

use super::bounds::BoundExceeded;
use super::text_rules::{PATTERN_LINE_BYTES_MAX, PATTERNS_MAX, TimePatterns, parts_of, time_patterns};
use super::times::texts_are_within;
use crate::problem::{Problems, Site};

/// The patterns that find times in a text, each with a tolerance.
#[derive(Clone, Debug)]
pub(super) struct TimesInText(Vec<(Regex, TimeFound)>);

/// What a pattern finds.
#[derive(Clone, Copy, Debug)]
struct TimeFound {
    /// By how many nanoseconds it may differ.
    by: i128,
    /// The position of the pattern among all: a time that one pattern finds does not correspond to one that another
    /// pattern finds.
    pattern: usize,
}

impl TimesInText {
    /// Checks a draft: a duration for all times, or patterns with durations, as under `text.times`.
    pub(super) fn check(draft: &Value, site: &Site, problems: &mut Problems) -> Option<Self> {
        let count = draft.as_object().map_or(1, serde_json::Map::len);
        if count == 0 || count > PATTERNS_MAX {
            let (message, hint) = match count {
                0 => {
                    ("no pattern is named, so no time is found".to_owned(), "a duration such as `2s` is for all times")
                }
                _ => (
                    format!("{count} patterns are more than {PATTERNS_MAX}"),
                    "join patterns with `|`: each is tried on each text",
                ),
            };
            problems.error(site, message).hint(hint);
            return None;
        }
        let groups = time_patterns(draft, site, problems);
        let all =
            groups.into_iter().flat_map(|TimePatterns { patterns, by, .. }| patterns.into_iter().map(move |p| (p, by)));
        let all: Vec<_> = all.enumerate().map(|(pattern, (regex, by))| (regex, TimeFound { by, pattern })).collect();
        (!all.is_empty()).then_some(Self(all))
    }

    /// The engine's text with legacy's times in place of its own. `None` if a time differs by more than its tolerance,
    /// if the texts have no times or not times of the same patterns, or if a text is longer than patterns are applied
    /// to. `count_work` is called with the bytes that a search may have read, and may end it.
    pub(super) fn with_times_of_legacy(
        &self,
        legacy: &str,
        engine: &str,
        count_work: &mut dyn FnMut(usize) -> Result<(), BoundExceeded>,
    ) -> Result<Option<String>, BoundExceeded> {
        if legacy.len().max(engine.len()) > PATTERN_LINE_BYTES_MAX {
            return Ok(None);
        }
        let of_legacy = parts_of(&self.0, legacy, count_work)?;
        if of_legacy.is_empty() {
            return Ok(None);
        }
        let of_engine = parts_of(&self.0, engine, count_work)?;
        if of_legacy.len() != of_engine.len() {
            return Ok(None);
        }
        let (mut text, mut written) = (String::with_capacity(legacy.len()), 0);
        for ((a, found), (b, other)) in of_legacy.into_iter().zip(of_engine) {
            let time = &legacy[a];
            let is_within = || time == &engine[b.clone()] || texts_are_within(time, &engine[b.clone()], found.by);
            if found.pattern != other.pattern || !is_within() {
                return Ok(None);
            }
            text.push_str(&engine[written..b.start]);
            text.push_str(time);
            written = b.end;
        }
        text.push_str(&engine[written..]);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compare::tests::{bodies, found, rules};
    use crate::compare::{DifferenceKind, Verdict};

    fn verdict(times: Value, legacy: &str, engine: &str) -> Verdict {
        let draft = json!({"tolerance": {"$.message": {"times": times}}});
        bodies(json!({"message": legacy}), json!({"message": engine}), draft).verdict
    }

    #[test]
    fn times_in_a_text_may_differ_and_the_rest_of_it_may_not() {
        let legacy = "paid at 2026-11-28T10:00:01Z, due Sat, 28 Nov 2026 12:00:00 GMT";
        for (engine, expected) in [
            ("paid at 2026-11-28T10:00:03Z, due Sat, 28 Nov 2026 12:00:02 GMT", Verdict::Ignored),
            ("paid at 2026-11-28T10:00:04Z, due Sat, 28 Nov 2026 12:00:00 GMT", Verdict::Mismatch),
            ("sent at 2026-11-28T10:00:01Z, due Sat, 28 Nov 2026 12:00:00 GMT", Verdict::Mismatch),
            ("paid at 2026-11-28T10:00:01, due Sat, 28 Nov 2026 12:00:00 GMT", Verdict::Mismatch),
            ("paid at 2026-11-28T10:00:01Z, due 2026-11-28T12:00:00Z", Verdict::Mismatch),
            ("paid at 2026-11-28T10:00:01Z", Verdict::Mismatch),
            (legacy, Verdict::Match),
        ] {
            assert_eq!(verdict(json!("2s"), legacy, engine), expected, "{engine}");
        }
        // The whole text may be a time; one without any is compared as it is.
        assert_eq!(verdict(json!("2s"), "2026-11-28T10:00:01Z", "2026-11-28T10:00:02Z"), Verdict::Ignored);
        assert_eq!(verdict(json!("2s"), "in a minute", "in two minutes"), Verdict::Mismatch);
    }

    #[test]
    fn patterns_name_times_in_other_forms_each_with_its_tolerance() {
        let times = json!({"since ([0-9]{10})": "5s", "until ([0-9]{10})": "1m"});
        let of = |since: u32, until: u32| format!("open since {since} until {until}");
        let check = |since, until| verdict(times.clone(), &of(1_767_323_045, 1_767_323_945), &of(since, until));
        assert_eq!(check(1_767_323_050, 1_767_324_005), Verdict::Ignored);
        assert_eq!(check(1_767_323_051, 1_767_323_945), Verdict::Mismatch);
        assert_eq!(check(1_767_323_045, 1_767_324_006), Verdict::Mismatch);
    }

    #[test]
    fn ids_in_the_rest_of_the_text_still_have_to_correspond() {
        let draft = json!({"ids": ["$.id"], "tolerance": {"$.message": {"times": "2s"}}});
        let of = |id: &str, named: &str, second: u32| json!({"id": id, "message": format!("order {named} paid at 2026-11-28T10:00:0{second}Z")});
        let right = bodies(of("A-4711", "A-4711", 1), of("B-0815", "B-0815", 2), draft.clone());
        assert_eq!(right.verdict, Verdict::Ignored);
        assert!(right.ignored_by.iter().any(|(rule, _)| rule == "tolerance $.message"), "{:?}", right.ignored_by);
        let wrong = bodies(of("A-4711", "A-4711", 1), of("B-0815", "B-4000", 2), draft);
        assert_eq!(found(&wrong), [("$.message", DifferenceKind::Value)]);
    }

    #[test]
    fn elements_of_a_set_are_paired_by_the_rest_of_their_texts() {
        let draft = json!({"unordered": {"$.notes": "set"}, "tolerance": {"$.notes[*]": {"times": "2s"}}});
        let note = |what: &str, second: u32| format!("{what} at 2026-11-28T10:00:0{second}Z");
        let legacy = json!({"notes": [note("paid", 1), note("sent", 5)]});
        let engine = json!({"notes": [note("sent", 6), note("paid", 2)]});
        assert_eq!(bodies(legacy.clone(), engine, draft.clone()).verdict, Verdict::Ignored);
        let engine = json!({"notes": [note("sent", 6), note("lost", 2)]});
        assert_eq!(bodies(legacy, engine, draft).verdict, Verdict::Mismatch);
    }

    #[test]
    fn a_text_longer_than_patterns_are_applied_to_is_compared_as_it_is() {
        let of = |second: u32| format!("{} at 2026-11-28T10:00:0{second}Z", "x".repeat(PATTERN_LINE_BYTES_MAX));
        assert_eq!(verdict(json!("2s"), &of(1), &of(2)), Verdict::Mismatch);
        assert_eq!(verdict(json!("2s"), &of(1), &of(1)), Verdict::Match);
    }

    #[test]
    fn the_rule_holds_only_where_its_condition_does() {
        let draft = json!({"tolerance": {"$.message": {"times": "2s", "when": "${legacy.status == 404}"}}});
        let of = |second: u32| json!({"message": format!("at 2026-11-28T10:00:0{second}Z")});
        assert_eq!(bodies(of(1), of(2), draft).verdict, Verdict::Mismatch);
    }

    #[test]
    fn wrong_forms_are_refused() {
        use crate::compare::{CompareContext, Rules, RulesDraft};
        let problems_of = |by: Value| {
            let draft: RulesDraft = serde_json::from_value(json!({"tolerance": {"$.m": by}})).unwrap();
            let mut problems = Problems::default();
            let site = Site::file("r.yaml").key("compare");
            let rules = Rules::check(&draft, &site, &CompareContext::default(), &mut problems);
            assert!(rules.is_none());
            problems
                .iter()
                .map(|problem| format!("{} {}", problem.site, problem.message))
                .collect::<Vec<_>>()
                .join("; ")
        };
        let at = "r.yaml.compare.tolerance";
        for (by, said) in [
            (json!({"times": "soon"}), "\"soon\" is no duration"),
            (json!({"times": 5}), "5 is no duration"),
            (json!({"times": {}}), "no pattern is named"),
            (json!({"times": {"(": "2s"}}), "`(` is no pattern"),
            (json!({"times": {"(a)(b)": "2s"}}), "has 2 groups"),
            (json!({"times": "2s", "by": 5}), "a tolerance has either `by` or `times`"),
            (json!({}), "a tolerance has either `by` or `times`"),
        ] {
            let found = problems_of(by.clone());
            assert!(found.contains(said) && found.contains(at), "{by}: {found}");
        }
        rules(json!({"tolerance": {"$.m": {"times": {"at (.*)$": "2s"}}}}));
    }
}
