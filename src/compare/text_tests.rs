//! Texts that are compared line by line.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{compared, found, reply, rules};
use super::{CompareContext, Comparison, DifferenceKind, Rules, RulesDraft, Verdict};
use crate::problem::{Problems, Severity, Site};

fn texts(legacy: &str, engine: &str, draft: Value) -> Comparison {
    let of = |body: &str| reply(200, &[("content-type", "text/plain")], body.to_owned());
    compared(&of(legacy), &of(engine), &rules(draft)).unwrap()
}

const LEGACY: &str = "Receipt\ngenerated on host-1\nOrder ord_17, due 2026-11-17T10:00:00Z\nTotal 5\nSee ord_17.\n";
const ENGINE: &str = "Receipt\nOrder run_9, due 2026-11-17T10:00:01Z\nTotal 5\ngenerated on host-2\nSee run_9.\n";

fn draft() -> Value {
    json!({"text": {"ignore": ["^generated .*"], "times": "2s", "ids": ["Order ([a-z0-9_]+)"]}})
}

#[test]
fn lines_that_do_not_count_times_and_ids_are_counted_by_rule() {
    let comparison = texts(LEGACY, ENGINE, draft());
    assert_eq!(comparison.verdict, Verdict::Ignored, "{comparison:?}");
    let hits = [("text.ignore ^generated .*", 1), ("text.times", 1), ("text.ids Order ([a-z0-9_]+)", 2)];
    assert_eq!(comparison.ignored_by, hits.map(|(rule, n)| (rule.to_owned(), n)));
    assert_eq!(texts(LEGACY, LEGACY, draft()).verdict, Verdict::Match);
    for rule in ["ignore", "times", "ids"] {
        let mut without = draft();
        without["text"].as_object_mut().unwrap().remove(rule);
        assert_eq!(texts(LEGACY, ENGINE, without).verdict, Verdict::Mismatch, "{rule}");
    }
}

#[test]
fn differences_show_the_lines_where_the_route_has_rules_for_texts() {
    let late = texts(LEGACY, &ENGINE.replace(":01Z", ":03Z"), draft());
    let shown = |c: &Comparison| (c.differences[0].legacy.clone().unwrap(), c.differences[0].engine.clone().unwrap());
    let (a, b) = ("line 3: Order ord_17, due 2026-11-17T10:00:00Z", "line 2: Order run_9, due 2026-11-17T10:00:03Z");
    assert_eq!((found(&late), shown(&late)), (vec![("text", DifferenceKind::Value)], (a.into(), b.into())));
    let wrong = texts(LEGACY, &ENGINE.replace("See run_9", "See run_8"), draft());
    assert_eq!(shown(&wrong), ("line 5: See ord_17.".into(), "line 5: See run_8.".into()));
    let stale = texts(LEGACY, &ENGINE.replace("See run_9", "See ord_17"), draft());
    assert_eq!(stale.verdict, Verdict::Mismatch, "the engine gave out no ord_17");
    let without = texts("total 5\n", "total 6\n", json!({}));
    assert!(!format!("{without:?}").contains("total"), "{without:?}");
    let secret = texts("token: abc\n", "token: abd\n", json!({"text": {}}));
    assert_eq!(shown(&secret), ("line 1: token: ***".into(), "line 1: token: ***".into()));
    let missing = texts("a\nb\nc\nd\ne\nf\n", "a\n", json!({"text": {}}));
    assert_eq!(found(&missing), [("text", DifferenceKind::Missing)]);
    let said = "line 2: b\nline 3: c\nline 4: d\nline 5: e\nand 1 more";
    assert_eq!(missing.differences[0].legacy.as_deref(), Some(said));
}

#[test]
fn texts_that_differ_in_different_lines_have_different_fingerprints() {
    let lines = json!({"text": {"ignore": ["^generated .*"]}});
    let of = |engine: &str| texts("Order 17\nTotal: 12.00\n", engine, lines.clone()).fingerprint;
    let total = of("Order 17\nTotal: 13.00\n");
    assert_eq!(total, of("Order 17\nTotal: 99.00\n"), "one cause, however large");
    let causes = [total, of("Order 18\nTotal: 12.00\n"), of("FRAUD\nOrder 17\nTotal: 12.00\n")];
    assert_eq!(std::collections::BTreeSet::from(causes).len(), 3);
}

#[test]
fn an_id_in_a_line_that_contradicts_another_is_a_difference_that_says_so() {
    let ids = json!({"text": {"ids": ["order ([0-9]+)", "ref ([0-9]+)"]}});
    let legacy = "order 17\norder 18\nref 17\n";
    assert_eq!(texts(legacy, "order 27\norder 28\nref 27\n", ids.clone()).verdict, Verdict::Ignored);
    let wrong = texts(legacy, "order 27\norder 28\nref 28\n", ids);
    let contradicts: Vec<_> = wrong.differences[0].contradicts.iter().map(|c| (&*c.legacy, &*c.engine)).collect();
    assert_eq!(contradicts, [("\"17\"", "\"27\""), ("\"18\"", "\"28\"")]);
}

#[test]
fn ids_of_the_header_stand_for_each_other_in_lines() {
    let of = |id: &str| {
        let headers = [("content-type", "text/plain"), ("location", id)];
        reply(201, &headers, format!("order {id}\n"))
    };
    let rules = rules(json!({"text": {"ids": ["order (.+)"]}}));
    assert_eq!(compared(&of("ord_17"), &of("run_9"), &rules).unwrap().verdict, Verdict::Ignored);
}

#[test]
fn times_of_declared_patterns_are_compared_within_their_duration() {
    let draft = json!({"text": {"times": {"at ([0-9]+)": "5s", "^Date: (.*)$": "1s"}}});
    let verdict = |a: &str, b: &str| texts(a, b, draft.clone()).verdict;
    assert_eq!(verdict("at 1767323045", "at 1767323050"), Verdict::Ignored);
    assert_eq!(verdict("at 1767323045", "at 1767323051"), Verdict::Mismatch);
    let date = "Date: Fri, 02 Jan 2026 03:04:05 GMT";
    assert_eq!(verdict(date, &date.replace(":05", ":06")), Verdict::Ignored);
    assert_eq!(verdict(date, &date.replace(":05", ":07")), Verdict::Mismatch);
    assert_eq!(verdict("Date: soon", "Date: later"), Verdict::Mismatch, "no time");
}

#[test]
fn bad_patterns_are_reported_with_their_positions() {
    let draft: RulesDraft = serde_json::from_value(json!({"text": {
        "ignore": ["(", ".*", "a{1000}{1000}"],
        "times": {"at (.*": "2s", "at (.)": "soon"},
        "ids": ["([a-z])([0-9])"],
    }}))
    .unwrap();
    let mut problems = Problems::default();
    let site = Site::file("r.yaml").key("compare");
    assert!(Rules::check(&draft, &site, &CompareContext::default(), &mut problems).is_none());
    let all: Vec<_> = problems.iter().map(|p| (p.severity, format!("{} {} {:?}", p.site, p.message, p.hint))).collect();
    assert_eq!(all.len(), 6, "{all:#?}");
    for (n, part) in
        ["text.ignore[0] `(` is no pattern", "matches every line", "too large", "no pattern", "no duration", "2 groups"]
            .iter()
            .enumerate()
    {
        assert!(all[n].1.contains(part), "{part}: {:?}", all[n]);
    }
    assert_eq!(all.iter().filter(|(severity, _)| *severity == Severity::Warning).count(), 1);
    let many = json!({"text": {"ignore": (0..65).map(|n| format!("x{n}")).collect::<Vec<_>>()}});
    let mut problems = Problems::default();
    let many: RulesDraft = serde_json::from_value(many).unwrap();
    assert!(Rules::check(&many, &site, &CompareContext::default(), &mut problems).is_none());
}

#[test]
fn a_long_line_is_compared_as_it_is_and_the_time_is_kept_within_a_line() {
    let draft = json!({"text": {"ids": ["id=(\\w+)(?:.*;)?"], "ignore": ["^x+$"]}});
    let long = |end: &str| format!("{}{end}\n", "id=a ".repeat(4_000));
    assert_eq!(texts(&long("1"), &long("1"), draft.clone()).verdict, Verdict::Match);
    let differs = texts(&long("1"), &long("2"), draft.clone());
    assert_eq!(found(&differs), [("text", DifferenceKind::Value)]);
    assert!(differs.differences[0].legacy.as_ref().unwrap().starts_with("line 1 (too long for patterns): id=a"));
    assert_eq!(differs.ignored_by, [("text (unapplied: a line longer than 16384 bytes)".to_owned(), 1)]);
    let ignored = format!("{}\n", "x".repeat(20_000));
    assert_eq!(texts(&ignored, "", draft.clone()).verdict, Verdict::Mismatch);

    let checks = std::cell::Cell::new(0);
    let expired = || {
        checks.set(checks.get() + 1);
        checks.get() > 3
    };
    let of = |text: &str| reply(200, &[("content-type", "text/plain")], text.to_owned());
    let (legacy, engine) = (of(&long("1")[10_000..]), of(&long("2")[10_000..]));
    let request = Value::Null;
    let pair = super::Pair {
        legacy: &legacy,
        engine: &engine,
        request: &request,
        effects: None,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    let ended = super::compare(&pair, &rules(draft), &super::tests::BOUNDS, &expired);
    assert_eq!(ended, Err(super::BoundExceeded::Time), "one line takes many checks");
}

#[test]
fn a_secret_is_shown_neither_in_its_line_nor_beside_another_id() {
    let draft = json!({"text": {"ids": ["Token: (\\w+)"]}});
    let of = |a: &str, b: &str| format!("Token: {a}\nToken: {b}\n");
    let wrong = texts(&of("hunter1", "hunter2"), &of("hunter3", "hunter3"), draft);
    assert!(!wrong.differences[0].contradicts.is_empty() && !format!("{wrong:?}").contains("hunter"), "{wrong:?}");
    let next = texts("password:\n\nhunter1\nx\n", "password:\n\nhunter2\nx\n", json!({"text": {}}));
    assert_eq!(next.differences[0].legacy.as_deref(), Some("line 3: ***"));
}

#[test]
fn a_line_of_a_private_key_or_of_a_list_of_secrets_is_not_shown() {
    let text = |secret: &str| {
        format!(
            "-----BEGIN PRIVATE KEY-----\nMHcC\n{secret}\n-----END PRIVATE KEY-----\ntokens:\n  - a\n  - {secret}\n"
        )
    };
    let shown = format!("{:?}", texts(&text("hunter2"), &text("hunter3"), draft()).differences);
    assert!(!shown.contains("hunter") && shown.contains("***"), "{shown}");
}

#[test]
fn a_time_in_another_form_is_no_time_within_its_duration() {
    for (by, legacy, engine) in [
        (json!("2s"), "at 2026-01-02T03:04:05Z", "at 2026-01-02T03:04:05"),
        (json!({"at (.+)": "2s"}), "at 1767323045", "at 1767323045000"),
        (json!({"at (.+)": "2s"}), "at 2026-01-02T03:04:05Z", "at Fri, 02 Jan 2026 03:04:05 GMT"),
    ] {
        assert_eq!(texts(legacy, engine, json!({"text": {"times": by}})).verdict, Verdict::Mismatch, "{engine}");
    }
}

proptest! {
    #[test]
    fn a_text_matches_itself_and_not_with_another_line(
        lines in prop::collection::vec("[a-z0-9 :/\u{0}.-]{0,12}", 0..12), at in any::<prop::sample::Index>(),
    ) {
        let draft = json!({"text": {"ignore": ["^x"], "times": "1s", "ids": ["[0-9]+"]}});
        let text = lines.join("\n");
        prop_assert_eq!(texts(&text, &text, draft.clone()).verdict, Verdict::Match);
        let mut changed = lines.clone();
        changed.insert(at.index(lines.len() + 1), "one more line".to_owned());
        prop_assert_eq!(texts(&text, &changed.join("\n"), draft).verdict, Verdict::Mismatch);
    }

    #[test]
    fn no_text_makes_a_comparison_panic(a in ".{0,60}\n?.{0,40}", b in ".{0,60}\n?.{0,40}") {
        let draft = json!({"ids": ["$.a"], "text": {"ignore": ["a"], "times": {".(.)": "1s"}, "ids": ["\\w+", "^$"]}});
        let _ = texts(&a, &b, draft);
    }
}

fn of_type(content_type: &str, body: impl Into<bytes::Bytes>) -> super::Observation {
    reply(200, &[("content-type", content_type)], body)
}

#[test]
fn a_body_that_is_not_what_its_type_says_is_compared_as_text_and_counted() {
    let of = |legacy: &str, engine: &str, draft: Value| {
        compared(
            &of_type("application/json", legacy.to_owned()),
            &of_type("application/json", engine.to_owned()),
            &rules(draft),
        )
        .unwrap()
    };
    let arms = |comparison: &Comparison| comparison.unparsable.iter().map(|of| (of.arm, of.format)).collect::<Vec<_>>();
    let cut = of("{\"a\": 1,\n", "{\"a\": 1,\n\"b\": 2}\n", json!({"text": {}}));
    assert_eq!(found(&cut), [("text", DifferenceKind::Extra), ("body", DifferenceKind::Type)]);
    assert_eq!(arms(&cut), [("legacy", "JSON")]);
    let [line, body] = &cut.differences[..] else { panic!("{cut:?}") };
    assert_eq!(line.engine.as_deref(), Some("line 2: \"b\": 2}"));
    let why = "text that is not valid JSON: EOF while parsing";
    assert!(body.legacy.as_deref().is_some_and(|shown| shown.starts_with(why)), "{body:?}");
    assert_eq!(body.engine.as_deref(), Some("JSON"));
    // Rules for texts hold for such a body too.
    let ignored = of("{\"at\": 17,\n\"n\": 1", "{\"at\": 18,\n\"n\": 1", json!({"text": {"ignore": ["\"at\""]}}));
    assert_eq!((ignored.verdict, arms(&ignored).len()), (Verdict::Ignored, 2));
    let shown = format!("{:?}", of("{\"pin\": {\n\"a\": \"hunter2\"\n", "{}", json!({"text": {}})));
    assert!(shown.contains("line 1") && !shown.contains("hunter2"), "{shown}");
    let hidden = of("{\"a\": \"hunter2\"", "{}", json!({}));
    assert!(!format!("{hidden:?}").contains("hunter2"), "without rules for texts no line is shown: {hidden:?}");
    let bytes =
        compared(&of_type("application/json", &b"\xff"[..]), &of_type("application/json", "1"), &rules(json!({})));
    let bytes = bytes.unwrap();
    let said = bytes.differences[0].legacy.as_deref();
    assert_eq!(
        (found(&bytes), said),
        (vec![("body", DifferenceKind::Type)], Some("bytes that are not valid JSON: it is not UTF-8"))
    );
    // A table whose rows differ in length is counted; what is only without a structure is not.
    let table = |body: &str| {
        compared(&of_type("text/csv", body.to_owned()), &of_type("text/csv", "a,b\n1,2\n"), &rules(json!({}))).unwrap()
    };
    assert_eq!(arms(&table("a,b\n1\n")), [("legacy", "CSV")]);
    assert_eq!(found(&table("a,b\n1\n")), [("text", DifferenceKind::Value), ("body", DifferenceKind::Type)]);
    assert_eq!(arms(&table("a,a\n1,2\n")), []);
}
