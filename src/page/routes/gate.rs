//! The gate to the next rung: in short for a table, and condition by condition.

use maud::{Markup, html};

use crate::admin::types::{Condition, ConditionName, GateVerdict, NextRung, RouteRow, State};
use crate::page::html::count;

/// What a route still needs for its next rung, in a few words.
pub(in crate::page) fn short(route: &RouteRow) -> Markup {
    let Some(gate) = &route.gate else {
        return html! {
            @if route.workflow.is_none() { span.sub { "no workflow: legacy answers it always" } }
            @else if route.requested == State::Only { span.sub { "on the highest rung" } }
            @else if route.requested == State::Off { span.sub { "to shadow: no conditions" } }
            @else { span.sub { "–" } }
        };
    };
    html! {
        @match &gate.needs {
            None => span.good { span aria-hidden="true" { "✓ " } "to " (gate.to) ": the gate is open" },
            Some(needs) => {
                span.bad[gate.verdict == GateVerdict::Fail].wait[gate.verdict != GateVerdict::Fail] {
                    span aria-hidden="true" { (sign(gate.verdict)) " " }
                    "to " (gate.to) ": "
                }
                (needs)
                @if gate.more > 0 { span.sub { " and " (count(gate.more)) " more" } }
            }
        }
    }
}

/// All conditions of a gate, one in a row, and then what is missing beyond them.
pub(in crate::page) fn conditions(next: &NextRung) -> Markup {
    let beyond: Vec<&String> =
        next.missing.iter().filter(|missing| !next.conditions.iter().any(|of| of.detail == **missing)).collect();
    html! {
        p {
            @if next.missing.is_empty() {
                strong.good { "✓ The gate to " (next.to) " is open." }
                @if next.to == State::Shadow { " Nothing is required for shadow." }
            } @else {
                strong.wait { (sign(next.verdict)) " The gate to " (next.to) " is shut." }
                " Each condition has to hold."
            }
        }
        @if !next.conditions.is_empty() { (table(&next.conditions)) }
        @if !beyond.is_empty() {
            p { @if next.conditions.is_empty() { "It needs:" } @else { "It also needs:" } }
            ul { @for missing in beyond { li { (missing) } } }
        }
    }
}

/// Conditions with their verdicts and what was found.
pub(in crate::page) fn table(conditions: &[Condition]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Conditions of the gate" {
            table.conditions {
                thead { tr { th scope="col" { "Condition" } th scope="col" { "Met" } th scope="col" { "Found" } } }
                tbody {
                    @for Condition { name, verdict, detail } in conditions {
                        tr {
                            th scope="row" { (title(*name)) div.sub { code { (name.as_str()) } } }
                            td { (verdict_words(*verdict)) }
                            td { (detail) }
                        }
                    }
                }
            }
        }
    }
}

/// A verdict as a sign and words.
pub(in crate::page) fn verdict_words(verdict: GateVerdict) -> Markup {
    let (class, words) = match verdict {
        GateVerdict::Pass => ("good", "met"),
        GateVerdict::Inconclusive => ("wait", "needs more evidence"),
        GateVerdict::Stale => ("wait", "evidence too old"),
        GateVerdict::Fail => ("bad", "not met"),
    };
    html! { span.verdict.(class) { span aria-hidden="true" { (sign(verdict)) " " } (words) } }
}

fn sign(verdict: GateVerdict) -> &'static str {
    match verdict {
        GateVerdict::Pass => "✓",
        GateVerdict::Inconclusive | GateVerdict::Stale => "…",
        GateVerdict::Fail => "✗",
    }
}

/// What a condition is about, for people who do not know the keys of the files.
fn title(name: ConditionName) -> &'static str {
    match name {
        ConditionName::OneRung => "One rung at a time",
        ConditionName::Pairs => "Enough pairs compared",
        ConditionName::OpenDifferences => "No open differences",
        ConditionName::MismatchBelow => "Few enough requests differ",
        ConditionName::CoverageAtLeast => "Enough of the requests compared",
        ConditionName::StrataAtLeast => "Enough of each kind of request compared",
        ConditionName::EffectsCompared => "Effects compared with legacy's calls",
        ConditionName::PrivateSteps => "Private steps not made by legacy too",
        ConditionName::SentReads => "Reads not made by legacy too",
        ConditionName::ErrorsNotWorseBy => "The engine fails no more often than legacy",
        ConditionName::CandidateErrors => "The candidate fails no more often than the plan in force",
        ConditionName::NoiseNotWorseBy => "The engine varies no more than legacy does by itself",
        ConditionName::P99RatioBelow => "The engine is not slower than allowed",
        ConditionName::AgeAtMost => "The evidence is recent",
        ConditionName::Twins => "Requests in dark have a run of the engine",
        ConditionName::Share => "The share is 100 %",
        ConditionName::Answers => "Enough answers of the engine without an error",
        ConditionName::Window => "For long enough",
        ConditionName::ClientErrors => "Few enough answers refuse the client",
        ConditionName::StoppedByGuard => "Not stopped by the guard",
        ConditionName::Invariants => "The answers meet the invariants",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn next(missing: &serde_json::Value) -> NextRung {
        let condition =
            |name: &str, verdict: &str, detail: &str| json!({ "name": name, "verdict": verdict, "detail": detail });
        let conditions = [
            condition("pairs", "pass", "4,512 pairs of 1,000"),
            condition("mismatch_below", "inconclusive", "needs 12 more pairs"),
            condition("open_differences", "fail", "2 open <b>differences</b>"),
        ];
        let next = json!({ "to": "dark", "verdict": "fail", "missing": missing, "conditions": conditions });
        serde_json::from_value(next).unwrap()
    }

    #[test]
    fn each_condition_is_met_or_not_or_needs_more_in_words() {
        let shown = conditions(&next(&json!(["needs 12 more pairs", "a follower is below"]))).into_string();
        for verdict in ["met", "not met", "needs more evidence"] {
            assert!(shown.contains(&format!("</span>{verdict}</span>")), "{verdict}: {shown}");
        }
        assert!(shown.contains("gate to dark is shut"), "{shown}");
        assert!(shown.contains("&lt;b&gt;differences"), "{shown}");
        // What a condition says already is not said again.
        assert_eq!(shown.matches("needs 12 more pairs").count(), 1, "{shown}");
        assert!(shown.contains("<li>a follower is below</li>"), "{shown}");
    }

    #[test]
    fn an_open_gate_says_so() {
        let shown = conditions(&next(&json!([]))).into_string();
        assert!(shown.contains("The gate to dark is open") && !shown.contains("shut"), "{shown}");
    }

    #[test]
    fn a_row_names_the_first_thing_that_is_missing_and_how_many_more() {
        let row = |gate: serde_json::Value, workflow: Option<&str>| -> RouteRow {
            let row = json!({
                "id": "a", "matches": "GET /", "legacy": "shop", "workflow": workflow, "follows": null,
                "requested": "shadow", "effective": { "state": "shadow", "why": "requested" }, "gate": gate,
                "shares": { "shadow": 100.0, "dark": 100.0, "live": 100.0 },
                "pairs": 0, "mismatched": 0, "requests": 0, "overhead_p50_us": null,
            });
            serde_json::from_value(row).unwrap()
        };
        let shut = json!({ "to": "dark", "verdict": "inconclusive", "needs": "2 more pairs", "more": 3 });
        let shown = short(&row(shut, Some("w"))).into_string();
        assert!(
            shown.contains("to dark: ") && shown.contains("2 more pairs") && shown.contains("and 3 more"),
            "{shown}"
        );
        let open = json!({ "to": "dark", "verdict": "pass", "needs": null, "more": 0 });
        assert!(short(&row(open, Some("w"))).into_string().contains("the gate is open"));
        assert!(short(&row(json!(null), None)).into_string().contains("no workflow"));
    }
}
