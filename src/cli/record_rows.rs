//! The entries of the record as text: a line for each with what happened, and below it, indented, who did it and why.
//! No line is wider than [`COLUMNS_MAX`] columns, unless one word is.

use jiff::Timestamp;
use serde_json::Value;

use super::flip::force_text;
use super::format::{COLUMNS_MAX, Formatter, Tone, ago, counted, duration_text, escape_control, wrapped};
use super::record_gates;
use crate::admin::types::{FlipRow, RecordEntry};
use crate::flag::{Percent, Shares, State};
use crate::record::LATE_ENTRY_AFTER;

/// How many digits of a hash are shown in a table.
pub(super) const HASH_SHOWN: usize = 12;
/// How many changes are named in a row.
const CHANGES_SHOWN: usize = 4;
/// How long a value may be that is shown in a row.
const VALUE_SHOWN: usize = 60;

/// By how much the lines below the first one of an entry are indented.
const INDENT: usize = 4;

/// The texts of an entry.
struct EntryTexts {
    /// Number, time, hash and route, in columns.
    columns: [String; 4],
    route_tone: Tone,
    what: String,
    by_and_why: String,
}

/// The list of these entries.
pub(super) fn list(entries: &[&RecordEntry], now: Timestamp, format: Formatter) -> String {
    const HEADER: [&str; 4] = ["#", "WHEN", "HASH", "ROUTE"];
    let entries: Vec<EntryTexts> = entries.iter().map(|entry| texts(entry, now)).collect();
    let mut widths = HEADER.map(str::len);
    for entry in &entries {
        for (width, text) in widths.iter_mut().zip(&entry.columns) {
            *width = text.chars().count().max(*width);
        }
    }
    let [number, when, hash, route] = widths;
    let what_at = widths.iter().map(|width| width + 2).sum::<usize>();
    let header = format!("{:>number$}  {:when$}  {:hash$}  {:route$}  WHAT", "#", HEADER[1], HEADER[2], HEADER[3]);
    let mut out = format.tone(header, Tone::Faint) + "\n";
    for EntryTexts { columns: [of_entry, at, short_hash, id], route_tone, what, by_and_why } in entries {
        let fits = what_at + what.chars().count() <= COLUMNS_MAX;
        let id = match fits {
            true => format!("{id:route$}"),
            false => id,
        };
        let short_hash = format.tone(format!("{short_hash:hash$}"), Tone::Faint);
        out.push_str(&format!("{of_entry:>number$}  {at:when$}  {short_hash}  {}", format.tone(id, route_tone)));
        match fits {
            true => out.push_str(&format!("  {what}\n")),
            false => out.push_str(&format!("\n{}", wrapped(&what, INDENT))),
        }
        out.push_str(&wrapped(&by_and_why, INDENT));
    }
    out
}

fn texts(entry: &RecordEntry, now: Timestamp) -> EntryTexts {
    let text = |name: &str| entry.body[name].as_str().map(escape_control).unwrap_or_default();
    let what = match entry.kind.as_str() {
        "basis" => {
            let of_candidate = if entry.body["of_candidate"] == true { "candidate: " } else { "" };
            format!("{of_candidate}{}: the evidence {}", text("changed"), text("evidence"))
        }
        "refused" => {
            let of_candidate = if entry.body["candidate"].is_string() { "candidate " } else { "" };
            format!("refused: {of_candidate}to {} {}", text("to"), text("percent")).trim_end().to_owned()
        }
        "adoption" => match entry.body["instances"].as_u64() {
            Some(instances) => format!("adoption of {}", counted(instances, "instance")),
            None => "adoption of all instances of legacy".to_owned(),
        },
        "instance" => format!("instance {}: decided for {}", text("instance"), text("owner")),
        "candidate" => candidate(&entry.body),
        "declared" => declared(&entry.body),
        "promote" => "promote: the gates require something else".to_owned(),
        "cohort" => {
            let rung =
                |name: &str| Some(text(name)).filter(|rung| !rung.is_empty()).unwrap_or_else(|| "none".to_owned());
            match (rung("from"), rung("to")) {
                (from, to) if from == to => format!("cohort {}: in {to}, with another rule", text("cohort")),
                (from, to) => format!("cohort {}: {from} to {to}", text("cohort")),
            }
        }
        kind => format!("{kind}: {} to {}{}", text("from"), text("to"), share(&entry.body)),
    };
    let flip = serde_json::from_value::<FlipRow>(entry.body.clone()).ok().map(|mut flip| {
        let rung = |name: &str| entry.body["overridden"][name].as_str().and_then(|rung| rung.parse().ok());
        (flip.forced_above, flip.forced_now_above) = (rung("from"), rung("by_this_move"));
        flip
    });
    let forced = match entry.kind.as_str() {
        "candidate" | "declared" if entry.body["forced"] == true => " (forced)".to_owned(),
        _ => flip.map(|flip| force_text(&flip)).unwrap_or_default(),
    };
    // Of a change of `promote:` all keys are shown: there are few, and each lets a flip pass.
    let changes_shown = if entry.kind == "promote" { usize::MAX } else { CHANGES_SHOWN };
    let changes = changes(&entry.body["changes"], changes_shown);
    let late = delay(entry).map(|late| format!(" (entered {} later)", duration_text(late))).unwrap_or_default();
    let reason = format!("{}{forced}{late}{}", text("reason"), refused_because(&entry.body["why"]));
    let parts = [reason.trim().to_owned(), changes, record_gates::text(&entry.body["gates"])];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let (by, why) = (text("by"), parts.join("; "));
    let (route, route_tone) = match &entry.route {
        Some(route) => (escape_control(route.as_str()), Tone::Strong),
        None => ("(kill switch)".to_owned(), Tone::Bad),
    };
    let hash = entry.hash.chars().take(HASH_SHOWN).collect();
    EntryTexts {
        columns: [entry.number.to_string(), ago(entry.at, now), hash, route],
        route_tone,
        what,
        by_and_why: match (by.as_str(), why.as_str()) {
            ("", why) => why.to_owned(),
            (by, "") => format!("by {by}"),
            (by, why) => format!("by {by}: {why}"),
        },
    }
}

/// The share of the rung to which a flip moved the route; empty if that rung is all callers'.
fn share(body: &Value) -> String {
    let to = body["to"].as_str().and_then(|to| to.parse::<State>().ok());
    let shares = serde_json::from_value::<Shares>(body["shares"].clone()).ok();
    let share = to.zip(shares).map(|(to, shares)| shares.of(to)).filter(|share| *share < Percent::ALL);
    share.map(|share| format!(" at {share}")).unwrap_or_default()
}

/// A state that the `force` in a file put in force without a flip.
fn declared(body: &Value) -> String {
    let text = |name: &str| body[name].as_str().map(escape_control).unwrap_or_default();
    match (body["forced"] == true, text("state"), text("in_force")) {
        (false, state, _) => format!("file: {state}, its `force` without a flip has ended"),
        (true, state, in_force) if state == in_force => format!("file: {state} without a flip"),
        (true, state, in_force) => format!("file: {state} without a flip, held at {in_force}"),
    }
}

/// What became of a candidate, whose rung alone does not say it: a newer one begins where the earlier one did.
fn candidate(body: &Value) -> String {
    let text = |value: &Value| value.as_str().map(escape_control).unwrap_or_default();
    let (from, to) = (text(&body["from"]), text(&body["to"]));
    match body["candidate"]["action"].as_str() {
        Some("appeared") if text(&body["reason"]).starts_with("renamed: ") => {
            "candidate: goes on under the route's present id".to_owned()
        }
        Some("appeared") if from == to => "candidate: a newer one took the place of the earlier one".to_owned(),
        Some("appeared") => format!("candidate: a new one, in {to}"),
        Some("dropped") => "candidate: dropped".to_owned(),
        Some("promoted") => "candidate: in force".to_owned(),
        Some(_) | None => format!("candidate: {from} to {to}"),
    }
}

/// What changed of the basis of evidence: the keys of the rules with what was added to them and removed, and of other
/// parts what they said before and say now, as far as that is short; `--json` has all of it.
fn changes(parts: &Value, shown: usize) -> String {
    let (mut all, mut unnamed) = (Vec::new(), 0);
    for part in parts.as_array().into_iter().flatten() {
        match part["keys"].as_array() {
            Some(keys) => {
                all.extend(keys.iter().map(changed_key));
                unnamed += part["more_keys"].as_u64().unwrap_or(0);
            }
            None => all.extend(changed_value(&part["before"], &part["after"])),
        }
    }
    let more = all.len().saturating_sub(shown) as u64 + unnamed;
    all.truncate(shown);
    if more > 0 {
        all.push(format!("and {}", counted(more, "more change")));
    }
    escape_control(&all.join("; "))
}

fn changed_key(key: &Value) -> String {
    let name = key["key"].as_str().unwrap_or_default();
    let (before, after) = (&key["before"], &key["after"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_list = |value: &Value| value.is_array() || value.is_null();
    if !(is_list(before) && is_list(after)) {
        return match changed_value(before, after) {
            Some(values) => format!("{name}: {values}"),
            None => name.to_owned(),
        };
    }
    let (old, new) = (list(before), list(after));
    let without = |list: &[Value], other: &[Value]| {
        let only = list.iter().filter(|element| !other.contains(element)).map(short);
        only.map(|text| text.unwrap_or_else(|| "…".to_owned())).collect::<Vec<_>>().join(", ")
    };
    let said = [("added", without(&new, &old)), ("removed", without(&old, &new))];
    let said = said.into_iter().filter(|(_, elements)| !elements.is_empty());
    let said: Vec<String> = said
        .map(|(verb, elements)| match elements.len() <= VALUE_SHOWN {
            true => format!("{verb} {elements}"),
            false => verb.to_owned(),
        })
        .collect();
    if said.is_empty() { format!("{name}: order changed") } else { format!("{name}: {}", said.join(", ")) }
}

/// From what to what a value changed; `None` where that is too long for a row.
fn changed_value(before: &Value, after: &Value) -> Option<String> {
    Some(format!("{} to {}", short(before)?, short(after)?))
}

/// A value in a row; `None` if it is too long.
fn short(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (text.len() <= VALUE_SHOWN).then_some(text)
}

/// The first reason for which a move was refused, and how many more there are; empty for other entries.
fn refused_because(why: &Value) -> String {
    let reasons: Vec<&str> = why.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match reasons.as_slice() {
        [] => String::new(),
        [only] => format!(" ({})", escape_control(only)),
        [first, more @ ..] => {
            format!(" ({}; and {})", escape_control(first), counted(more.len() as u64, "more reason"))
        }
    }
}

/// By how many seconds an entry is later than its flip, if that is long.
pub(super) fn delay(entry: &RecordEntry) -> Option<f64> {
    entry.source.strip_prefix("flip ")?;
    let at: Timestamp = entry.body["at"].as_str()?.parse().ok()?;
    is_late(at, entry.at).then(|| entry.at.duration_since(at).as_secs_f64())
}

/// Whether this time is long after the flip that was made at `at`.
pub(super) fn is_late(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at).as_secs_f64() > LATE_ENTRY_AFTER.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_entries_with_long_texts_is_at_most_120_columns_wide() {
        let entry = |number: u64, kind: &str, body: Value| RecordEntry {
            number,
            at: Timestamp::UNIX_EPOCH,
            kind: kind.into(),
            route: (number != 3).then(|| "orders.create".into()),
            source: format!("{kind} {number}"),
            flips: 0,
            body,
            previous: String::new(),
            is_noted: false,
            hash: "0123456789abcdef".into(),
        };
        let reasons = ["96 of 20 requests were compared".repeat(9), "more".into()];
        let all = [
            entry(1, "flip", json!({ "from": "off", "to": "shadow", "by": "ada (unverified)", "reason": "a test" })),
            entry(9, "refused", json!({ "to": "live", "percent": "5%", "by": "bob", "why": reasons })),
            entry(3, "freeze", json!({ "from": "no", "to": "effects" })),
            entry(
                10,
                "basis",
                json!({ "changed": "the workflow `create`, ".repeat(9), "evidence": "starts from zero" }),
            ),
        ];
        let at = Timestamp::from_second(7).unwrap();
        let shown = list(&all.each_ref(), at, Formatter(false));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{shown}");
        let columns = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(columns(lines[0]), "# WHEN HASH ROUTE WHAT");
        assert_eq!(lines[1], " 1  7 s ago  0123456789ab  orders.create  flip: off to shadow");
        assert_eq!(lines[2], "    by ada (unverified): a test");
        assert_eq!(lines[3], " 9  7 s ago  0123456789ab  orders.create  refused: to live 5%");
        let one_line = columns(&shown);
        assert!(one_line.contains(&format!("by bob: ({}; and 1 more reason)", reasons[0])), "{shown}");
        assert!(lines.contains(&" 3  7 s ago  0123456789ab  (kill switch)  freeze: no to effects"), "{shown}");
        assert!(one_line.ends_with("`create`, : the evidence starts from zero") && lines.len() > 10, "{shown}");
    }

    /// The rows without their columns, each on one line.
    fn shown(kind: &str, body: Value) -> String {
        let entry = RecordEntry {
            number: 1,
            at: Timestamp::UNIX_EPOCH,
            kind: kind.into(),
            route: Some("orders".into()),
            source: format!("{kind} 1"),
            flips: 0,
            body,
            previous: String::new(),
            is_noted: true,
            hash: "0123456789abcdef".into(),
        };
        let text = list(&[&entry], Timestamp::from_second(7).unwrap(), Formatter(false));
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_reason_is_separated_from_what_changed() {
        let change = json!({ "part": "`when:`", "before": null, "after": "a == \"***\"" });
        let text = shown("cohort", json!({ "cohort": "staff", "by": "file", "reason": "own", "changes": [change] }));
        assert!(text.ends_with("by file: own; none to a == \"***\""), "{text}");
        let text = shown("cohort", json!({ "cohort": "staff", "by": "file", "changes": [change] }));
        assert!(text.ends_with("by file: none to a == \"***\""), "{text}");
    }

    #[test]
    fn a_row_of_a_flip_says_the_share_of_its_rung() {
        let flip = |to: &str, live: f64| {
            let shares = json!({ "shadow": 100.0, "dark": 100.0, "live": live });
            shown("flip", json!({ "from": "dark", "to": to, "by": "ada", "shares": shares }))
        };
        assert!(flip("live", 0.5).contains("flip: dark to live at 0.5"), "{}", flip("live", 0.5));
        assert!(flip("live", 100.0).contains("flip: dark to live by ada"), "{}", flip("live", 100.0));
        assert!(flip("only", 10.0).contains("flip: dark to only by ada"), "{}", flip("only", 10.0));
    }

    #[test]
    fn a_row_says_by_which_conditions_a_flip_passed_and_how_they_were_changed() {
        let condition = |n: u32| json!({ "name": "pairs", "verdict": "pass", "wanted": "1", "found": "1 of 1 ".repeat(n as usize) });
        let gate = json!({ "from": "shadow", "to": "dark", "conditions": [condition(1), condition(50)] });
        let text =
            shown("flip", json!({ "from": "shadow", "to": "dark", "by": "ada", "reason": "go", "gates": [gate] }));
        assert!(text.contains("by ada: go; gate shadow to dark: pairs 1 (1 of 1 ); pairs 1 (1 of 1 1 of 1"), "{text}");
        let key = |n: u32| json!({ "key": format!("key{n}"), "before": "4512", "after": "1" });
        let keys: Vec<Value> = (0..13).map(key).collect();
        let text = shown("promote", json!({ "by": "file", "changes": [{ "part": "`promote:`", "keys": keys }] }));
        assert!(text.contains("promote: the gates require something else by file: key0: 4512 to 1; key1"), "{text}");
        assert!(text.ends_with("key12: 4512 to 1"), "{text}");
    }

    #[test]
    fn a_row_says_what_became_of_a_candidate() {
        let body = |action: &str, from: &str, to: &str, reason: &str| json!({ "from": from, "to": to, "reason": reason, "candidate": { "action": action } });
        for (body, shown) in [
            (body("appeared", "none", "shadow", ""), "candidate: a new one, in shadow"),
            (body("appeared", "shadow", "shadow", ""), "candidate: a newer one took the place of the earlier one"),
            (body("appeared", "live 10%", "shadow", ""), "candidate: a new one, in shadow"),
            (
                body("appeared", "shadow", "shadow", "renamed: it was `a`"),
                "candidate: goes on under the route's present id",
            ),
            (body("moved", "shadow", "live 10%", ""), "candidate: shadow to live 10%"),
            (body("dropped", "shadow", "none", ""), "candidate: dropped"),
            (body("promoted", "shadow", "in_force", ""), "candidate: in force"),
        ] {
            assert_eq!(candidate(&body), shown);
        }
    }

    #[test]
    fn a_row_names_the_keys_of_the_rules_that_changed() {
        let of_key = |key: &str, before: Value, after: Value| {
            let keys = [json!({ "key": key, "before": before, "after": after })];
            changes(&json!([{ "part": "`compare:`", "keys": keys }]), CHANGES_SHOWN)
        };
        let list = |texts: &[&str]| json!(texts);
        for (shown, expected) in [
            (of_key("ignore", list(&["$.at"]), list(&["$.at", "$.total"])), "ignore: added $.total"),
            (of_key("ignore", list(&["$.at"]), Value::Null), "ignore: removed $.at"),
            (of_key("ignore", list(&["$.a", "$.b"]), list(&["$.b", "$.a"])), "ignore: order changed"),
            (of_key("ids", Value::Null, list(&[&"$.a".repeat(40)])), "ids: added …"),
            (of_key("tolerance.$.total", json!(1), json!("5s")), "tolerance.$.total: 1 to 5s"),
            (of_key("text", json!({ "ignore": "x".repeat(80) }), Value::Null), "text"),
            (
                changes(&json!([{ "part": "the workflow `w`", "before": "plan_1", "after": "plan_2" }]), CHANGES_SHOWN),
                "plan_1 to plan_2",
            ),
            (changes(&Value::Null, CHANGES_SHOWN), ""),
        ] {
            assert_eq!(shown, expected);
        }
        let many: Vec<Value> = (0..6).map(|n| json!({ "key": format!("k{n}"), "before": 1, "after": 2 })).collect();
        let shown = changes(&json!([{ "part": "`compare:`", "keys": many, "more_keys": 3 }]), CHANGES_SHOWN);
        assert_eq!(shown, "k0: 1 to 2; k1: 1 to 2; k2: 1 to 2; k3: 1 to 2; and 5 more changes");
    }
}
