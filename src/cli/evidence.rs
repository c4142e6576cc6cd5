//! `evidence`: what the comparisons of a route add up to.

use std::cmp::Reverse;

use super::candidates;
use super::client::{CallError, Client, component};
use super::format::{Formatter, TableCell, Tone, count, counted, escape_control, fitted, plain};
use super::guard;
use super::output::Output;
use super::statistics;
use crate::admin::types::{
    CohortRow, Condition, EarlierEvidence, EvidenceGap, EvidenceRestart, EvidenceView, GateVerdict,
    UncomparedHeaderCounts, UncomparedHeaders, is_rule_note,
};

pub(crate) fn show(client: &Client, route: &str, candidate: bool, format: Formatter) -> Result<Output, CallError> {
    // A server of an earlier version does not know the parameter.
    let of = if candidate { "?candidate=true" } else { "" };
    let (view, json) = client.get::<EvidenceView>(&format!("/api/v2/routes/{}/evidence{of}", component(route)))?;
    if candidate && view.candidate.is_none() {
        let text = format!("{} has no candidate\n", format.tone(&view.route, Tone::Strong));
        return Ok(Output { text, json, is_ok: true });
    }
    Ok(Output { text: fitted(&text(&view, format)), json, is_ok: true })
}

pub(crate) fn text(view: &EvidenceView, format: Formatter) -> String {
    let evidence = &view.evidence;
    let number = |name: &str, number: u64, tone: Tone| -> Vec<TableCell> { vec![plain(name), (count(number), tone)] };
    let alarm = |number: u64| if number == 0 { Tone::Good } else { Tone::Bad };
    let with_error = evidence.shadow_pairs_with_error + evidence.dark_pairs_with_error;
    let mut rows = vec![
        number("pairs in shadow", evidence.shadow_pairs, Tone::Plain),
        number("pairs in dark", evidence.dark_pairs, Tone::Plain),
        number("  of both, answered by legacy with 4xx or 5xx", with_error, Tone::Plain),
        number("matched", evidence.matched, Tone::Plain),
        number("equal only by a rule", evidence.ignored, Tone::Plain),
        number("differ", evidence.mismatched, alarm(evidence.mismatched)),
        number("dark requests without a twin", evidence.dark_without_twin, Tone::Plain),
        number("answers of the engine in a row without an error", evidence.engine_answers, Tone::Plain),
        number("  of these, with 4xx", evidence.engine_answers_4xx, Tone::Plain),
        number("errors, fallbacks, unknown outcomes", evidence.engine_errors, alarm(evidence.engine_errors)),
    ];
    for (title, map) in [("skipped", &evidence.skipped), ("failed", &evidence.failed)] {
        rows.extend(map.iter().map(|(reason, n)| number(&format!("{title}: {reason}"), *n, Tone::Faint)));
    }
    rows.extend(evidence.rule_hits.iter().map(|(rule, n)| {
        let what = if is_rule_note(rule) { "note on rule" } else { "made equal by" };
        let last = evidence.rule_last_hits.get(rule).map(|at| format!(" (last {at:.0})")).unwrap_or_default();
        number(&format!("{what}: {rule}{last}"), *n, Tone::Faint)
    }));
    rows.extend(evidence.unparsable_bodies.iter().map(|(of, n)| {
        number(&format!("bodies that are not what their type says, compared as text: {of}"), *n, Tone::Faint)
    }));
    for (step, of) in &evidence.all.effects {
        let nothing = of.intents.saturating_sub(of.compared + of.asserted);
        let parts = [
            ("compared with legacy's", of.compared),
            ("read by an assert", of.asserted),
            ("compared with nothing", nothing),
        ];
        for (what, n) in parts {
            if n > 0 {
                rows.push(number(&format!("calls of {step}: {what}"), n, Tone::Faint));
            }
        }
    }
    let mut out = format!("{}\n", format.tone(&view.route, Tone::Strong));
    if let Some(restart) = &evidence.restarted {
        out.push_str(&format.tone(format!("{}\n", restarted(restart)), Tone::Warn));
    }
    out.push('\n');
    out.push_str(&format.table_with_broken(&["SINCE THE LAST CHANGE", "COUNT"], &[1], rows, 0));
    if evidence.pairs() > 0 {
        out.push_str(&format!("\n{}\n", upper_bound_text(view)));
    }
    out.push_str(&statistics::text(view, format));
    out.push_str(&earlier_text(&evidence.earlier));
    out.push_str(&gaps_text(&evidence.gaps, format));
    if !evidence.unresolved.is_empty() {
        out.push_str("\nskipped, because:\n");
        for (why, n) in &evidence.unresolved {
            out.push_str(&format!("  - {} ({})\n", escape_control(why), count(*n)));
        }
    }
    if let Some(why) = &view.reads_not_found {
        out.push_str(&format!("\n{}\n", format.tone(escape_control(why), Tone::Warn)));
    }
    if !view.uncompared_steps.is_empty() {
        let names: Vec<&str> = view.uncompared_steps.iter().map(|step| step.as_str()).collect();
        out.push_str(&format!("\nshared steps that nothing compared yet: {}\n", names.join(", ")));
    }
    if !view.dead_rules.is_empty() {
        out.push_str("\nrules that made nothing equal in all these pairs (remove them, or mend their paths):\n");
        for rule in &view.dead_rules {
            let condition = if rule.contains(" when ${") { " (or its condition never held)" } else { "" };
            out.push_str(&format!("  - {}{condition}\n", escape_control(rule)));
        }
    }
    out.push_str(&uncompared_headers_text(&evidence.uncompared_headers, format));
    out.push_str(&invariants_text(view, format));
    out.push_str(&guard_text(view, format));
    if let Some(candidate) = &view.candidate {
        out.push_str(&conditions_text(&candidate.conditions, format));
        out.push_str(&format!("\n{}", candidates::lines(view.route.as_str(), None, candidate, format)));
        return out;
    }
    out.push_str(&cohorts_text(view, format));
    match &view.next {
        None => out.push_str("\nthe route is on the highest rung\n"),
        Some(next) if next.missing.is_empty() => {
            out.push_str(&conditions_text(&next.conditions, format));
            let open = format!("the gate to {} is open", next.to);
            out.push_str(&format!("\n{}: pointsman flip {} {}\n", format.tone(open, Tone::Good), view.route, next.to));
        }
        Some(next) => {
            out.push_str(&conditions_text(&next.conditions, format));
            out.push_str(&format!("\n{}\n", format.tone(format!("the gate to {} is shut:", next.to), Tone::Warn)));
            for missing in &next.missing {
                out.push_str(&format!("  - {}\n", escape_control(missing)));
            }
        }
    }
    out
}

/// The cohorts that wait for evidence of their own.
fn cohorts_text(view: &EvidenceView, format: Formatter) -> String {
    let mut out = String::new();
    for CohortRow { name, rule, reached, missing } in &view.cohorts_below {
        let line = format!("the cohort {name} is declared for {rule}, and its requests are held at {reached}:");
        out.push_str(&format!("\n{}\n", format.tone(line, Tone::Warn)));
        let open = "its gate is open: it goes up with the next flip or reload (pointsman reload)".to_owned();
        let missing = if missing.is_empty() { std::slice::from_ref(&open) } else { missing.as_slice() };
        missing.iter().for_each(|why| out.push_str(&format!("  - {}\n", escape_control(why))));
    }
    out
}

/// The headers of replies that no rule compares, those that differ in most pairs first.
fn uncompared_headers_text(UncomparedHeaders { names, unlisted }: &UncomparedHeaders, format: Formatter) -> String {
    if names.is_empty() && *unlisted == 0 {
        return String::new();
    }
    let mut named: Vec<_> = names.iter().collect();
    named.sort_by_key(|(name, of)| (Reverse((of.differs, of.pairs)), *name));
    let show = |(name, of): (&String, &UncomparedHeaderCounts)| {
        let differs =
            if of.differs == 0 { "never differs".to_owned() } else { format!("differs in {}", count(of.differs)) };
        format!("{} (in {}, {differs})", escape_control(name), counted(of.pairs, "pair"))
    };
    let mut shown: Vec<String> = named.into_iter().map(show).collect();
    if *unlisted > 0 {
        shown.push(format!("and others that are not listed ({})", counted(*unlisted, "time")));
    }
    let line = format!("headers never compared: {}", shown.join(", "));
    let hint = "list those that matter under `compare.headers`; one that may differ also under `compare.ignore`, as \
                `header.NAME`";
    format!("\n{}\n{hint}\n", format.tone(line, Tone::Warn))
}

/// How often the engine's answers met the invariants of the route.
fn invariants_text(view: &EvidenceView, format: Formatter) -> String {
    if view.evidence.invariants.is_empty() {
        return String::new();
    }
    let rows = view.evidence.invariants.iter().map(|(name, counts)| {
        let not_judged = counts.not_judged.iter().map(|(why, n)| format!("{why} {}", count(*n))).collect::<Vec<_>>();
        let last = counts.last_broken.as_ref().map_or_else(String::new, |last| {
            let run = last.run.as_ref().map(|run| format!(" run {run}")).unwrap_or_default();
            let error = last.error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{:.0}{run}{error}", last.at)
        });
        let broken = (count(counts.broken), if counts.broken == 0 { Tone::Good } else { Tone::Bad });
        vec![plain(name), plain(count(counts.held)), broken, plain(not_judged.join(", ")), plain(last)]
    });
    let header = ["INVARIANT", "HELD", "BROKEN", "NOT JUDGED", "LAST BROKEN"];
    format!("\n{}", format.table_with_broken(&header, &[1, 2], rows.collect(), 4))
}

/// What the route's guard counts, and what it did.
fn guard_text(view: &EvidenceView, format: Formatter) -> String {
    let mut out = String::new();
    if !view.guard_windows.is_empty() {
        let rows = view.guard_windows.iter().map(|window| {
            let accepted = match window.accepted {
                Some(accepted) => format!("{:.2}%", accepted * 100.0),
                None => "not counted: legacy's rate is not known".to_owned(),
            };
            let acts = match (window.acts_after, window.acts_at) {
                (Some(after), Some(at)) => format!("{after} in a row, {at} in any case"),
                (Some(after), None) => format!("{after} in a row"),
                (None, _) => "never".to_owned(),
            };
            let found = format!("{} of {}", count(window.bad), count(window.of));
            vec![plain(&window.counted), plain(accepted), plain(found), plain(acts)]
        });
        let header = ["THE GUARD COUNTS", "ACCEPTS", "NOW", "ACTS AT"];
        out.push_str(&format!("\n{}", format.table(&header, &[], rows.collect())));
    }
    if let Some(guard) = &view.guard {
        out.push_str(&format!("\n{}", guard::line(view.route.as_str(), guard, format)));
    }
    out
}

/// The conditions on the evidence, one line each.
fn conditions_text(conditions: &[Condition], format: Formatter) -> String {
    if conditions.is_empty() {
        return String::new();
    }
    let rows = conditions.iter().map(|condition| {
        let tone = match condition.verdict {
            GateVerdict::Pass => Tone::Good,
            GateVerdict::Inconclusive | GateVerdict::Stale => Tone::Warn,
            GateVerdict::Fail => Tone::Bad,
        };
        // What is missing is listed below, in full.
        let found = match condition.verdict {
            GateVerdict::Pass => escape_control(&condition.detail),
            GateVerdict::Inconclusive | GateVerdict::Stale | GateVerdict::Fail => "see below".to_owned(),
        };
        vec![plain(condition.name.as_str()), (condition.verdict.as_str().to_owned(), tone), plain(&found)]
    });
    format!("\n{}", format.table_with_broken(&["CONDITION", "VERDICT", "FOUND"], &[], rows.collect(), 2))
}

/// How many of the times at which the evidence was started from zero are shown; the API has all that are kept.
const EARLIER_SHOWN: usize = 4;

/// The evidence of earlier files, the newest first: it is kept, and counts for no gate.
fn earlier_text(earlier: &[EarlierEvidence]) -> String {
    if earlier.is_empty() {
        return String::new();
    }
    let mut out = "\nstale, because it is of other files than those in force:\n".to_owned();
    for earlier in earlier.iter().rev().take(EARLIER_SHOWN) {
        let EarlierEvidence { until, changed, pairs, mismatched, .. } = earlier;
        let changed = if changed.is_empty() { "its files".to_owned() } else { escape_control(&changed.join(", ")) };
        let pairs = counted(*pairs, "pair");
        out.push_str(&format!("  - until {until:.0}: {pairs}, of which {mismatched} differ; then {changed} changed\n"));
    }
    out
}

/// The processes that ended without writing what they had counted last.
fn gaps_text(gaps: &[EvidenceGap], format: Formatter) -> String {
    if gaps.is_empty() {
        return String::new();
    }
    let mut out =
        format.tone("\nmissing, because a process ended before it had written what it counted last:\n", Tone::Warn);
    for EvidenceGap { process, since, until, requests } in gaps.iter().rev() {
        let compared = counted(*requests, "request");
        out.push_str(&format!(
            "  - {}: last written {since:.0}, gone by {until:.0}; {compared} that it was comparing count as not compared\n",
            escape_control(process)
        ));
    }
    out
}

/// Since when the evidence of a route is counted, and why.
pub(crate) fn restarted(EvidenceRestart { at, changed, pairs_before }: &EvidenceRestart) -> String {
    let changed = match changed.is_empty() {
        true => "its files".to_owned(),
        false => escape_control(&changed.join(", ")),
    };
    let before = counted(*pairs_before, "pair");
    format!("counted from zero since {at:.0} ({before} before): {changed} changed")
}

/// The upper bound on the share of requests that differ, and how many more pairs without a difference would bring it
/// below 0.1 %.
fn upper_bound_text(view: &EvidenceView) -> String {
    let evidence = &view.evidence;
    let percent = evidence.mismatch_upper_bound() * 100.0;
    let all = counted(evidence.pairs_without_error(), "pair");
    let all = match evidence.pairs_without_error() == evidence.pairs() {
        true => all,
        false => format!("{all} that legacy answered without an error"),
    };
    let more = match evidence.pairs_needed_for(0.001) {
        Some(0) | None => String::new(),
        Some(pairs) => format!("; {} more pairs without a difference would prove less than 0.1%", count(pairs)),
    };
    format!(
        "of all {all}: at most {percent:.2}% of requests differ (95% confidence, no matter how often you look){more}"
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn headers_that_nothing_compares_are_named_those_that_differ_first() {
        assert_eq!(uncompared_headers_text(&UncomparedHeaders::default(), Formatter(false)), "");
        let of = |pairs, differs| UncomparedHeaderCounts { pairs, differs };
        let names = [("vary", of(1, 0)), ("x-total-count", of(40, 3)), ("set-cookie", of(40, 40))];
        let names = names.map(|(name, of)| (name.to_owned(), of)).into();
        let text = uncompared_headers_text(&UncomparedHeaders { names, unlisted: 2 }, Formatter(false));
        let expected = "\nheaders never compared: set-cookie (in 40 pairs, differs in 40), x-total-count (in 40 pairs, \
                        differs in 3), vary (in 1 pair, never differs), and others that are not listed (2 times)\nlist";
        assert!(text.starts_with(expected) && text.contains("`compare.headers`"), "{text}");
    }

    #[test]
    fn evidence_of_earlier_files_is_stale_and_the_newest_comes_first() {
        let earlier = |second: i64, changed: &[&str], pairs, mismatched| EarlierEvidence {
            until: Timestamp::from_second(second).unwrap(),
            changed: changed.iter().map(|part| (*part).to_owned()).collect(),
            pairs,
            mismatched,
            basis: String::new(),
            outweighed: false,
            clean_pairs: None,
        };
        assert_eq!(earlier_text(&[]), "");
        let text = earlier_text(&[earlier(0, &[], 1, 0), earlier(60, &["`compare:`", "the workflow `w`"], 1_204, 3)]);
        let expected = "\nstale, because it is of other files than those in force:\n  \
             - until 1970-01-01T00:01:00Z: 1,204 pairs, of which 3 differ; then `compare:`, the workflow `w` changed\n  \
             - until 1970-01-01T00:00:00Z: 1 pair, of which 0 differ; then its files changed\n";
        assert_eq!(text, expected);
        let many: Vec<_> = (0..9).map(|n| earlier(n, &[], 1, 0)).collect();
        assert_eq!(earlier_text(&many).matches("until").count(), EARLIER_SHOWN);
    }
}
