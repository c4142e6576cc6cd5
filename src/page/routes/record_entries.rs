//! The entries of the record as rows, each with the evidence at that moment.

use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::{FlipRow, RecordEntry, Shares, State};
use crate::page::client::segment;
use crate::page::html::{count, time};
use crate::page::routes::moves;
use crate::page::routes::rungs::{freeze_words, share};

/// How many changes are named in a row; the rest is counted.
const CHANGES_SHOWN: usize = 6;

/// The table, the newest entry first.
pub(in crate::page) fn table(entries: &[RecordEntry]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="The record" {
            table #record {
                thead {
                    tr {
                        th scope="col" { "#" } th scope="col" { "When" }
                        th scope="col" { "Route" } th scope="col" { "What" }
                        th scope="col" { "Who" } th scope="col" { "Why" } th scope="col" { "Evidence at that moment" }
                    }
                }
                tbody {
                    @for entry in entries.iter().rev() { (row(entry)) }
                }
            }
        }
    }
}

fn row(entry: &RecordEntry) -> Markup {
    let text = |name: &str| entry.body[name].as_str().unwrap_or_default();
    html! {
        tr {
            td.number { (entry.number) }
            td.when { (time(entry.at)) }
            td {
                @match &entry.route {
                    Some(route) => a href=(format!("/routes/{}", segment(route.as_str()))) { (route) },
                    None => a href="/freeze" { "kill switch" },
                }
            }
            td.move { (what(entry)) }
            td { bdi { (text("by")) } }
            td { (why(entry)) }
            td { (evidence(entry)) }
        }
    }
}

/// What happened.
fn what(entry: &RecordEntry) -> Markup {
    let text = |name: &str| entry.body[name].as_str().unwrap_or_default();
    let of_candidate = entry.body["candidate"].is_string() || entry.body["of_candidate"] == true;
    html! {
        @if of_candidate { "candidate: " }
        @match entry.kind.as_str() {
            "flip" => { (from_to(text("from"), text("to"))) (at_share(&entry.body)) }
            "freeze" => { (from_to(freeze_words(text("from")), freeze_words(text("to")))) }
            "guard" => {
                "guard " (entry.body["guard"]["action"].as_str().unwrap_or_default()) ": " (from_to(text("from"),
                text("to")))
            }
            "candidate" => {
                "candidate " (entry.body["candidate"]["action"].as_str().unwrap_or_default()) ": "
                (from_to(text("from"), text("to")))
            }
            "refused" => { span.bad { span aria-hidden="true" { "✗ " } "refused" } " to " strong { (text("to")) } }
            "declared" => { "its file forces " strong { (text("state")) } " without a flip" }
            "basis" => { (text("changed")) ": the evidence " (text("evidence")) }
            "cohort" => { "cohort " (text("cohort")) ": " (from_to(text("from"), text("to"))) }
            "promote" => "the gates require something else",
            "adoption" => "adoption of instances",
            "instance" => { "instance " (text("instance")) ": decided for " strong { (text("owner")) } }
            kind => { (kind) }
        }
    }
}

fn from_to(from: &str, to: &str) -> Markup {
    let or_none = |state: &str| if state.is_empty() { "none".to_owned() } else { state.to_owned() };
    html! {
        (or_none(from)) " " span aria-hidden="true" { "→" } span.unseen { "to" } " " strong { (or_none(to)) }
    }
}

/// The share of the rung to which a flip moved the route.
fn at_share(body: &Value) -> Markup {
    let to = body["to"].as_str().and_then(|to| to.parse::<State>().ok());
    let shares = serde_json::from_value::<Shares>(body["shares"].clone()).ok();
    html! {
        @if let Some(percent) = to.zip(shares).and_then(|(to, shares)| share(&shares, to)) { " at " (percent) " %" }
    }
}

/// The reason, what was forced, why it was refused, and what changed.
fn why(entry: &RecordEntry) -> Markup {
    let reasons: Vec<&str> = entry.body["why"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let changes = changed_keys(&entry.body["changes"]);
    html! {
        @if let Some(reason) = entry.body["reason"].as_str().filter(|reason| !reason.is_empty()) { bdi { (reason) } }
        @if let Some(forced) = forced(entry) { " " span.wait { span aria-hidden="true" { "◆ " } (forced) } }
        @if !reasons.is_empty() { ul { @for reason in reasons { li { (reason) } } } }
        @if !changes.is_empty() {
            div.sub {
                "changed: " (changes.iter().take(CHANGES_SHOWN).cloned().collect::<Vec<_>>().join(", "))
                @if changes.len() > CHANGES_SHOWN { " and " (changes.len() - CHANGES_SHOWN) " more" }
            }
        }
    }
}

/// Which gate was passed by force.
fn forced(entry: &RecordEntry) -> Option<String> {
    if matches!(entry.kind.as_str(), "candidate" | "declared") {
        return (entry.body["forced"] == true).then(|| "forced".to_owned());
    }
    let mut flip: FlipRow = serde_json::from_value(entry.body.clone()).ok()?;
    let rung = |name: &str| entry.body["overridden"][name].as_str().and_then(|rung| rung.parse().ok());
    (flip.forced_above, flip.forced_now_above) = (rung("from"), rung("by_this_move"));
    moves::forced(&flip)
}

/// The names of what changed.
fn changed_keys(parts: &Value) -> Vec<String> {
    let keys = parts.as_array().into_iter().flatten().flat_map(|part| part["keys"].as_array().into_iter().flatten());
    keys.filter_map(|key| key["key"].as_str()).map(str::to_owned).collect()
}

/// The pairs at that moment, and the gates as they were judged.
fn evidence(entry: &RecordEntry) -> Markup {
    let evidence = &entry.body["evidence"];
    let number = |name: &str| evidence[name].as_u64().unwrap_or_default();
    let pairs = number("shadow_pairs") + number("dark_pairs");
    let gates: Vec<&Value> = entry.body["gates"].as_array().into_iter().flatten().collect();
    html! {
        @if evidence.is_object() {
            (count(number("mismatched"))) " of " (count(pairs)) " pairs differ"
        } @else if gates.is_empty() {
            span.sub { "–" }
        }
        @if !gates.is_empty() {
            details id=(format!("gates-{}", entry.number)) {
                summary { "How the gates were judged" }
                @for gate in gates {
                    p {
                        "From " (gate["from"].as_str().unwrap_or_default())
                        " to " (gate["to"].as_str().unwrap_or_default()) ":"
                    }
                    ul {
                        @for condition in gate["conditions"].as_array().into_iter().flatten() {
                            li { (judged(condition)) }
                        }
                    }
                }
            }
        }
    }
}

/// A condition as it was judged.
fn judged(condition: &Value) -> Markup {
    let text = |name: &str| condition[name].as_str().unwrap_or_default();
    let is_met = text("verdict") == "pass";
    html! {
        span.good[is_met].bad[!is_met] { (if is_met { "✓ met: " } else { "✗ not met: " }) }
        code { (text("name")) } " " (text("wanted"))
        @if !text("found").is_empty() { " (" (text("found")) ")" }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(kind: &str, route: &Value, body: &Value) -> RecordEntry {
        let entry = json!({
            "number": 7, "at": "2026-12-01T12:00:00Z", "kind": kind, "route": route, "source": "flip 7", "flips": 7,
            "body": body, "previous": "", "hash": "",
        });
        serde_json::from_value(entry).unwrap()
    }

    #[test]
    fn a_flip_has_the_evidence_of_that_moment_and_its_gates() {
        let condition = json!({ "name": "pairs", "verdict": "pass", "wanted": "1000", "found": "4512 <pairs>" });
        let body = json!({
            "number": 7, "route": "a", "from": "shadow", "to": "dark", "by": "<b>ann</b>", "at": "2026-12-01T12:00:00Z",
            "shares": { "shadow": 100.0, "dark": 20.0, "live": 100.0 }, "reason": "enough", "forced": true,
            "evidence": { "shadow_pairs": 4000, "dark_pairs": 512, "mismatched": 1 },
            "gates": [{ "from": "shadow", "to": "dark", "conditions": [condition] }],
        });
        let shown = table(&[entry("flip", &json!("a"), &body)]).into_string().replace('\u{202f}', " ");
        for text in
            ["1 of 4 512 pairs differ", "✓ met: ", "4512 &lt;pairs&gt;", " at 20 %", "enough", "forced", "&lt;b&gt;ann"]
        {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }

    #[test]
    fn refusals_and_freezes_are_named() {
        let refused = entry("refused", &json!("a"), &json!({ "to": "live", "by": "bob", "why": ["needs 9 pairs"] }));
        let shown = row(&refused).into_string();
        assert!(shown.contains("refused") && shown.contains("<li>needs 9 pairs</li>"), "{shown}");
        let freeze = entry("freeze", &json!(null), &json!({ "from": "no", "to": "instances", "by": "bob" }));
        let shown = row(&freeze).into_string();
        assert!(shown.contains("kill switch") && shown.contains("freeze of new instances"), "{shown}");
    }

    #[test]
    fn an_unknown_kind_with_any_body_is_shown() {
        let shown = row(&entry("<new>", &json!("a"), &json!([1, 2]))).into_string();
        assert!(shown.contains("&lt;new&gt;"), "{shown}");
    }
}
