//! The evidence of a route in parts: counts, kinds of requests, effects, rules, noise, guard, calls by legacy.

use maud::{Markup, html};

use crate::admin::types::{EgressView, EvidenceView, GuardWindowView, Interval, NoiseView, RatioInterval};
use crate::page::html::{count, time};
use crate::page::routes::latency_chart;
use crate::page::routes::rungs::{percent, percent_up};

/// The most rows of a table, and the most names of a list.
const ROWS_MAX: usize = 20;

/// What was counted: pairs, coverage, errors, latencies.
pub(in crate::page) fn counts(view: &EvidenceView) -> Markup {
    let evidence = &view.evidence;
    let statistics = &view.statistics;
    html! {
        dl.figures {
            (figure("Compared in shadow", &count(evidence.shadow_pairs)))
            (figure("Compared in dark", &count(evidence.dark_pairs)))
            (figure("Equal", &count(evidence.matched)))
            (figure("Equal only by a rule", &count(evidence.ignored)))
            (figure("Differ", &count(evidence.mismatched)))
            (figure("Coverage", &percent(evidence.coverage())))
            (figure("Requests in dark without a run of the engine", &count(evidence.dark_without_twin)))
            (figure("Answers of the engine in a row without an error", &count(evidence.engine_answers)))
            (figure("Errors, fallbacks and unknown outcomes of the engine", &count(evidence.engine_errors)))
        }
        @if let Some(Interval { at_least, at_most }) = statistics.errors.excess {
            p.bad[statistics.errors.engine_fails_more] {
                "Both arms failed in " (count(statistics.errors.both)) " of " (count(statistics.errors.requests))
                " requests, the engine alone in " (count(statistics.errors.only_engine)) ", legacy alone in "
                (count(statistics.errors.only_legacy)) ": the engine fails in " (signed(at_least)) " to "
                (signed(at_most))
                " more requests than legacy (95 % confidence)."
            }
        }
        (latency_chart::chart(&evidence.all.latencies.legacy, &evidence.all.latencies.engine))
        @if let Some(ratio) = statistics.latency_ratio {
            p { "The engine takes " (times(ratio)) " as long as legacy, for the median pair (95 % confidence)." }
        }
        @if let Some(ratio) = statistics.p99_ratio {
            p { "The 99th percentile of its latency is " (times(ratio)) " legacy's (95 % confidence)." }
        }
        (not_compared(view))
    }
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Why requests were not compared.
fn not_compared(view: &EvidenceView) -> Markup {
    let evidence = &view.evidence;
    let is_empty = evidence.skipped.is_empty() && evidence.failed.is_empty() && evidence.gaps.is_empty();
    html! {
        @if !is_empty {
            details #not-compared {
                summary { "Requests that were not compared" }
                ul {
                    @for (reason, number) in &evidence.skipped { li { "skipped: " (reason) ": " (count(*number)) } }
                    @for (reason, number) in &evidence.failed { li.bad { "failed: " (reason) ": " (count(*number)) } }
                    @for (why, number) in &evidence.unresolved { li { (why) ": " (count(*number)) } }
                    @for gap in &evidence.gaps {
                        li.wait {
                            (gap.process) " ended without writing what it had counted since " (time(gap.since)) ": "
                            (count(gap.requests)) " requests count as not compared"
                        }
                    }
                }
            }
        }
    }
}

/// The bound of each kind of request.
pub(in crate::page) fn strata(view: &EvidenceView) -> Markup {
    let statistics = &view.statistics;
    html! {
        @if view.evidence.pairs() > 0 && !statistics.strata.is_empty() {
            h3 { "By kind of request" }
            p {
                "Of all requests as legacy serves them, at most "
                (percent_up(statistics.combined_upper_bound)) " differ."
            }
            div.scroll tabindex="0" role="region" aria-label="Kinds of requests" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Kind" } th scope="col" { "Share" } th scope="col" { "Compared" }
                            th scope="col" { "Differ" } th scope="col" { "At most" }
                        }
                    }
                    tbody {
                        @for (name, of) in statistics.strata.iter().take(ROWS_MAX) {
                            @let counts = view.evidence.all.strata.get(name).copied().unwrap_or_default();
                            tr {
                                th scope="row" { (name) }
                                td { (percent(of.share)) }
                                td { (count(counts.compared)) }
                                td.bad[counts.mismatched > 0] { (count(counts.mismatched)) }
                                td { (percent_up(of.upper_bound)) }
                            }
                        }
                    }
                }
            }
            @if statistics.strata.len() > ROWS_MAX {
                p.hint { "and " (statistics.strata.len() - ROWS_MAX) " more kinds" }
            }
        }
    }
}

/// With what the calls of each step were compared, and what legacy calls.
pub(in crate::page) fn effects(view: &EvidenceView, egress: Option<&EgressView>) -> Markup {
    let effects = &view.evidence.all.effects;
    html! {
        h3 { "Effects compared" }
        @if effects.is_empty() && view.uncompared_steps.is_empty() {
            p { "No call of the engine to the outside was seen in a pair." }
        }
        @if !view.uncompared_steps.is_empty() {
            p.wait {
                span aria-hidden="true" { "◆ " }
                "Shared steps that nothing compared yet: " (names(view.uncompared_steps.iter().map(|step|
                step.as_str()))) "."
            }
        }
        @if !effects.is_empty() {
            ul {
                @for (step, of) in effects {
                    li {
                        (step) ": " (count(of.compared)) " of " (count(of.intents)) " calls compared with legacy's"
                        @if of.asserted > 0 { ", " (count(of.asserted)) " read by an assert" }
                    }
                }
            }
        }
        @match egress.filter(|egress| egress.is_watched) {
            Some(egress) => { (calls_of_legacy(egress)) }
            None => p.hint { "Legacy's calls are not watched: " code { "egress:" } " in pointsman.yaml does that." }
        }
    }
}

fn calls_of_legacy(egress: &EgressView) -> Markup {
    let attributed = egress.calls.traceparent + egress.calls.header + egress.calls.value;
    html! {
        p {
            "Legacy's calls: " (count(attributed)) " belong to requests of this route; " (count(egress.without_call))
            " of "
            (count(egress.closed)) " requests made no call."
            @if let Some(share) = egress.all.attributed_share {
                " Of the calls for all routes, " (percent(share)) " were attributed to a request."
            }
        }
        @if egress.late > 0 {
            p.bad {
                span aria-hidden="true" { "▲ " }
                (count(egress.late)) " calls came too late to be compared, to " (egress.late_to.join(", ")) "."
            }
        }
        @if egress.of_no_request > 0 {
            p.bad {
                span aria-hidden="true" { "▲ " }
                (count(egress.of_no_request)) " calls belong to no known request, to "
                (egress.of_no_request_to.join(", ")) "."
            }
        }
        @if !egress.tunnels.is_empty() {
            p.wait {
                span aria-hidden="true" { "◆ " }
                "What goes through tunnels is not seen: " (names(egress.tunnels.iter().map(|tunnel|
                tunnel.to.as_str()))) "."
            }
        }
    }
}

/// What the rules did, and where legacy differs from itself.
pub(in crate::page) fn rules_and_noise(view: &EvidenceView) -> Markup {
    let evidence = &view.evidence;
    let headers: Vec<&String> = evidence.uncompared_headers.names.keys().collect();
    let is_empty =
        view.dead_rules.is_empty() && view.noise.is_none() && headers.is_empty() && evidence.rule_hits.is_empty();
    html! {
        @if !is_empty || view.reads_not_found.is_some() {
            h3 { "Rules and noise" }
            @if let Some(why) = &view.reads_not_found { p.wait { span aria-hidden="true" { "◆ " } (why) } }
            @if !view.dead_rules.is_empty() {
                p { "Rules that made nothing equal in all these pairs (remove them, or mend their paths):" }
                ul { @for rule in &view.dead_rules { li { code { (rule) } } } }
            }
            @if let Some(noise) = &view.noise { (noise_text(noise)) }
            @if !evidence.rule_hits.is_empty() {
                details #rule-hits {
                    summary { "How often each rule made values equal" }
                    ul { @for (rule, hits) in &evidence.rule_hits { li { code { (rule) } ": " (count(*hits)) } } }
                }
            }
            @if !headers.is_empty() {
                p.hint { "Headers that no rule compares: " (names(headers.iter().map(|name| name.as_str()))) "." }
            }
        }
    }
}

fn noise_text(noise: &NoiseView) -> Markup {
    html! {
        p {
            "Legacy answered " (count(noise.repeats)) " requests twice; " (count(noise.ignored))
            " pairs that differ only where it differed from itself count as equal."
        }
        @if let Some(write) = &noise.legacy_write {
            p.bad {
                span aria-hidden="true" { "▲ " }
                "No request is repeated any more since " (time(write.at)) ": legacy made a call that may change \
                 something ("
                (write.call) ")."
            }
        }
        @if !noise.places.is_empty() {
            ul {
                @for at in noise.places.iter().take(ROWS_MAX) {
                    li {
                        code { (at.place) } ": legacy differs from itself in " (count(at.legacy_differs)) " of "
                        (count(at.legacy_compared)) ", the engine from legacy in " (count(at.engine_differs))
                        @if at.engine_differs_more { strong.bad { " (more often: differences here count)" } }
                    }
                }
            }
        }
    }
}

/// What the guard counts now.
pub(in crate::page) fn guard_windows(windows: &[GuardWindowView]) -> Markup {
    html! {
        @if !windows.is_empty() {
            h3 { "The guard" }
            div.scroll tabindex="0" role="region" aria-label="What the guard counts" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Counts" } th scope="col" { "Accepts" }
                            th scope="col" { "Now" } th scope="col" { "Acts at" }
                        }
                    }
                    tbody {
                        @for window in windows {
                            tr {
                                th scope="row" { (window.counted) }
                                td {
                                    @match window.accepted {
                                        Some(rate) => (percent(rate)),
                                        None => "legacy's rate is not known"
                                    }
                                }
                                td { (count(window.bad)) " of " (count(window.of)) }
                                td { (acts_at(window)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn acts_at(window: &GuardWindowView) -> String {
    match (window.acts_after, window.acts_at) {
        (Some(after), Some(at)) => format!("{after} in a row, {at} in any case"),
        (Some(after), None) => format!("{after} in a row"),
        (None, _) => "never".to_owned(),
    }
}

/// How often the engine's answers met the invariants; cohorts below the state of their rules; evidence of earlier
/// files.
pub(in crate::page) fn others(view: &EvidenceView) -> Markup {
    html! {
        @if !view.evidence.invariants.is_empty() {
            h3 { "Invariants" }
            ul {
                @for (name, counts) in &view.evidence.invariants {
                    li.bad[counts.broken > 0] {
                        (name) ": held " (count(counts.held)) ", broken " (count(counts.broken))
                    }
                }
            }
        }
        @if !view.cohorts_below.is_empty() {
            h3 { "Cohorts that wait for their evidence" }
            ul {
                @for cohort in &view.cohorts_below {
                    li {
                        (cohort.name) ": declared for " (cohort.rule) ", held at " (cohort.reached) ": "
                        @if cohort.missing.is_empty() { "its gate is open, it goes up with the next flip or reload" }
                        (cohort.missing.join("; "))
                    }
                }
            }
        }
        @if !view.evidence.earlier.is_empty() {
            details #earlier-evidence {
                summary { "Evidence of earlier files, which counts for no gate" }
                ul {
                    @for earlier in view.evidence.earlier.iter().rev() {
                        li {
                            "until " (time(earlier.until)) ": " (count(earlier.mismatched)) " of "
                            (count(earlier.pairs)) " differ; then "
                            @if earlier.changed.is_empty() { "its files" } @else { (earlier.changed.join(", ")) }
                            " changed"
                        }
                    }
                }
            }
        }
    }
}

fn times(RatioInterval { at_least, at_most }: RatioInterval) -> String {
    match at_most {
        Some(at_most) => format!("between {at_least:.2} and {at_most:.2} times"),
        None => format!("at least {at_least:.2} times"),
    }
}

fn signed(rate: f64) -> String {
    format!("{:+.2} %", rate * 100.0)
}

/// Names with commas between them; of many the first.
fn names<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = all.len().saturating_sub(ROWS_MAX);
    let shown: Vec<&str> = all.take(ROWS_MAX).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::types::RouteEvidence;

    fn view(more: &serde_json::Value) -> EvidenceView {
        let mut view = json!({ "route": "a", "evidence": RouteEvidence::default(), "next": null });
        for (name, value) in more.as_object().unwrap() {
            view[name] = value.clone();
        }
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn uncompared_steps_and_dead_rules_are_named_and_escaped() {
        let view = view(&json!({ "uncompared_steps": ["charge"], "dead_rules": ["$.a<script>"] }));
        assert!(effects(&view, None).into_string().contains("nothing compared yet: charge."));
        let rules = rules_and_noise(&view).into_string();
        assert!(rules.contains("$.a&lt;script&gt;") && !rules.contains("<script"), "{rules}");
    }

    #[test]
    fn without_egress_it_says_how_to_watch_calls() {
        assert!(effects(&view(&json!({})), None).into_string().contains("not watched"));
    }

    #[test]
    fn the_counts_have_their_names() {
        let shown = counts(&view(&json!({}))).into_string();
        assert!(shown.contains("<dt>Coverage</dt><dd>0.0 %</dd>"), "{shown}");
        assert!(!shown.contains("Requests that were not compared"), "{shown}");
    }

    #[test]
    fn the_guards_windows_say_when_it_acts() {
        let window = json!({
            "condition": "errors", "counted": "errors in live", "accepted": null, "of": 50, "bad": 2, "acts_after": 5,
            "acts_at": null,
        });
        let windows: Vec<GuardWindowView> = vec![serde_json::from_value(window).unwrap()];
        let shown = guard_windows(&windows).into_string();
        for text in ["errors in live", "2 of 50", "5 in a row", "not known"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }

    #[test]
    fn many_names_are_counted() {
        let many = vec!["n"; ROWS_MAX + 3];
        assert!(names(many.iter().copied()).ends_with("and 3 more"));
    }
}
