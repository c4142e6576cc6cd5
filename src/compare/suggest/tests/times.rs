//! Times within texts get the narrowest rule for times; what is no clock reading stays a difference.

use super::*;

/// The suggestions for 6 pairs of JSON bodies, at requests that differ.
fn suggest_for(draft: Value, of: impl Fn(usize, u64) -> Value) -> (Suggestions, Route) {
    let mut route = Route::new(draft);
    for n in 0..6 {
        let (legacy, engine) = (json_reply(&of(n, 0)), json_reply(&of(n, 300)));
        route.compare(n, &json!({"path": "/x", "body": n}), legacy, engine);
    }
    (route.suggest(), route)
}

fn explained(draft: Value, of: impl Fn(usize, u64) -> Value) -> Vec<Value> {
    let (suggestions, route) = suggest_for(draft, of);
    assert!(suggestions.unexplained.is_empty(), "{:?}", suggestions.unexplained);
    assert!(route.equal_under(&suggestions.rules).iter().all(|equal| *equal));
    for added in &suggestions.added {
        assert!(added.warning.is_none() && added.samples > 0 && !added.hides.is_empty(), "{added:?}");
    }
    added(&suggestions)
}

fn seconds(n: usize, ms: u64) -> i64 {
    START_S + n as i64 + i64::from(ms > 0)
}

fn http_date(n: usize, ms: u64) -> String {
    let at = jiff::Timestamp::from_second(seconds(n, ms)).unwrap();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[test]
fn times_within_a_text_get_a_tolerance_for_times() {
    let of = |n, ms| json!({"message": format!("order {n} paid at {}", time(n, ms))});
    assert_eq!(explained(json!({}), of), [json!({"tolerance": {"$.message": {"times": "2s"}}})]);
    let of = |n, ms| json!({"notes": [{"text": format!("Paid on {} by card", http_date(n, ms))}]});
    assert_eq!(explained(json!({}), of), [json!({"tolerance": {"$.notes[*].text": {"times": "5s"}}})]);
    // What else differs in the text gets no rule for times.
    let of = |n, ms| json!({"message": format!("{} paid at {}", ["cash", "card"][usize::from(ms > 0)], time(n, ms))});
    assert_eq!(added(&suggest_for(json!({}), of).0), [] as [Value; 0]);
}

#[test]
fn a_pattern_names_the_times_that_differ_where_others_do_not() {
    let of = |n, ms| json!({"m": format!("paid at {}, due {}", time(n, ms), time(n + 86_400, 0))});
    let known = crate::compare::text_rules::TIMES[0];
    let pattern = format!("^paid at ({known})");
    assert_eq!(explained(json!({}), of), [json!({"tolerance": {"$.m": {"times": {pattern: "2s"}}}})]);
}

#[test]
fn numbers_within_a_text_are_times_only_by_the_words_before_them_and_near_the_clock() {
    let of = |n, ms| json!({"m": format!("open since {} ", seconds(n, ms))});
    let pattern = r"^open since (\b[0-9]{10}(?:[0-9]{3})?\b)";
    assert_eq!(explained(json!({}), of), [json!({"tolerance": {"$.m": {"times": {pattern: "5s"}}}})]);
    // In 2119.
    let far = |n, ms| json!({"m": format!("article {}", 4_711_000_000 + n * 17 + usize::from(ms > 0))});
    assert_eq!(added(&suggest_for(json!({}), far).0), [] as [Value; 0]);
}

#[test]
fn a_pattern_in_force_is_widened() {
    let draft = json!({"tolerance": {"$.m": {"times": {"at <([^>]+)>": "10ms"}}}});
    let of = |n, ms| json!({"m": format!("at <{}>", time(n, ms))});
    let times = json!({"at <([^>]+)>": "2s"});
    assert_eq!(explained(draft, of), [json!({"tolerance": {"$.m": {"times": times}}})]);
    let draft = json!({"tolerance": {"$.m": {"times": "10ms"}}});
    assert_eq!(explained(draft, of), [json!({"tolerance": {"$.m": {"times": "2s"}}})]);
}

#[test]
fn times_of_expiry_that_follow_the_clock_get_a_tolerance() {
    let of = |n, ms| json!({"expires_at": time(n + 7 * 86_400, ms)});
    assert_eq!(explained(json!({}), of), [json!({"tolerance": {"$.expires_at": "2s"}})]);
    let fixed = |_, ms| json!({"closes_at": time(7 * 86_400, ms)});
    assert_eq!(added(&suggest_for(json!({}), fixed).0), [] as [Value; 0]);
}

/// The suggestions for texts, at equal requests: legacy differs from itself, which `ignore` alone would do for.
fn lines(draft: Value, of: impl Fn(usize, u64, &mut Random) -> String) -> Vec<Value> {
    let mut route = Route::new(json!({ "text": draft }));
    let mut random = Random(3);
    for n in 0..6 {
        let mut reply = |ms| {
            let body = of(n, ms, &mut random);
            Reply { status: 200, headers: vec![("content-type", "text/plain".to_owned())], body }
        };
        let (legacy, engine) = (reply(0), reply(300));
        route.compare(n, &json!({"path": "/report", "body": 1}), legacy, engine);
    }
    let suggestions = route.suggest();
    assert!(suggestions.unexplained.is_empty(), "{:?}", suggestions.unexplained);
    assert!(suggestions.added.iter().all(|added| !added.hides.is_empty()));
    assert!(route.equal_under(&suggestions.rules).iter().all(|equal| *equal));
    added(&suggestions).iter().map(|rule| rule["text"].clone()).collect()
}

#[test]
fn times_within_lines_get_a_pattern_and_no_line_is_ignored() {
    let known = crate::compare::text_rules::TIMES;
    let times = |pattern: String, by: &str| json!({"ignore": [], "times": {pattern: by}, "ids": []});
    let of = |n, ms, _: &mut Random| format!("Report\ngenerated {} by robot\n", time(n, ms));
    assert_eq!(lines(json!({}), of), [times(format!("^generated ({})", known[0]), "2s")]);
    let of = |n, ms, _: &mut Random| format!("{} INFO start\n", time(n, ms));
    assert_eq!(lines(json!({}), of), [times(format!("^({})", known[0]), "2s")]);
    // The day of the week is a part of the time, and not of the words before it.
    let of = |n, ms, _: &mut Random| format!("Date: {}\nok\n", http_date(n, ms));
    assert_eq!(lines(json!({}), of), [times("^Date: (.*)$".into(), "5s")]);
    let of = |n, ms, _: &mut Random| format!("uptime since {}\n", seconds(n, ms));
    assert_eq!(lines(json!({}), of), [times(r"^uptime since (\b[0-9]{10}(?:[0-9]{3})?\b)$".into(), "5s")]);
    let of = |n, ms, random: &mut Random| format!("Order {} made {}\n", random.id("A"), time(n, ms));
    let ids = json!({"ignore": [], "ids": ["^Order ([A-Za-z0-9._:/-]*[A-Za-z0-9])"]});
    assert_eq!(lines(json!({}), of), [ids, times(format!("made ({})", known[0]), "2s")]);
}

#[test]
fn times_in_force_for_lines_are_widened() {
    let of = |n, ms, _: &mut Random| format!("Report\ngenerated {} by robot\n", time(n, ms));
    assert_eq!(lines(json!({"times": "10ms"}), of), [json!({"ignore": [], "times": "2s", "ids": []})]);
    let declared = json!({"times": {"^generated ([^ ]+)": "10ms"}});
    let widened = json!({"ignore": [], "times": {"^generated ([^ ]+)": "2s"}, "ids": []});
    assert_eq!(lines(declared, of), [widened]);
}
