//! What other rules would make of the samples that are kept.

use maud::{Markup, html};

use crate::admin::types::{Difference, FileProblem, NotJudgedSamples, TriedGroup, TriedRules};
use crate::page::differences::difference_words::{headline, sentence};
use crate::page::differences::rule_suggestions::{RulesOf, counted, outcome, samples};
use crate::page::differences::text_marks::shown_up_to;
use crate::page::html::count;

/// How many groups are shown.
const GROUPS_MAX: usize = 50;
/// How many differences, rules or reasons of one group.
const ITEMS_MAX: usize = 10;
/// How much of a text is shown, in bytes.
const TEXT_BYTES_MAX: usize = 2_000;

/// What rules make of a group of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Hidden,
    Changed,
    Stays,
    NotJudged,
}

impl Change {
    fn of(group: &TriedGroup) -> Self {
        let paths = |differences: &[Difference]| {
            let mut paths: Vec<_> = differences.iter().map(|found| (found.path.to_owned(), found.kind)).collect();
            paths.sort();
            paths.dedup();
            paths
        };
        let judged = group.samples.kept - group.samples.not_judged.min(group.samples.kept);
        match group.samples {
            _ if judged == 0 => Self::NotJudged,
            samples if samples.differ == 0 => Self::Hidden,
            samples if samples.equal > 0 || !group.new.is_empty() => Self::Changed,
            _ if paths(&group.still) != paths(&group.before) => Self::Changed,
            _ => Self::Stays,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Hidden => "Would be hidden",
            Self::Changed => "Would change",
            Self::Stays => "Would stay as it is",
            Self::NotJudged => "Cannot be judged again",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Hidden => "hidden-by-rule",
            Self::Changed => "changed-by-rule",
            Self::Stays => "not-changed",
            Self::NotJudged => "not-judged",
        }
    }
}

/// The result of a trial.
pub(in crate::page) fn result(tried: &TriedRules, of: RulesOf<'_>) -> Markup {
    let number = |change: Change| tried.groups.iter().filter(|group| Change::of(group) == change).count() as u64;
    let parts = [
        (number(Change::Hidden), "would be hidden"),
        (number(Change::Changed), "would change"),
        (number(Change::Stays), "would stay as it is"),
        (number(Change::NotJudged), "cannot be judged again"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(of, _)| *of > 0).map(|(number, words)| format!("{} {words}", count(*number))).collect();
    html! {
        @if tried.samples.kept == 0 {
            p.result { "No sample is kept: nothing could be compared again." }
        } @else {
            p.result {
                "With these rules, of " (samples(tried.samples.kept)) ": " (outcome(tried.samples)) ". Of "
                (counted(tried.groups.len() as u64, "way")) " in which pairs differ: " (parts.join(", ")) "."
            }
        }
        p.hint {
            "Nothing was written. Samples are kept only of pairs that differ: rules that compare more may find "
            "differences in pairs that are equal now."
        }
        @if !tried.warnings.is_empty() {
            h2 { "Warnings about the rules" }
            ul { @for problem in tried.warnings.iter().take(ITEMS_MAX) { li { (warning(problem)) } } }
        }
        @if !tried.groups.is_empty() {
            h2 { "Way by way" }
            div.scroll tabindex="0" role="region" aria-label="What the rules would make of each way" {
                table.tried {
                    thead {
                        tr {
                            th scope="col" { "Difference" }
                            th scope="col" { "Pairs" }
                            th scope="col" { "With these rules" }
                            th scope="col" { "Of the samples" }
                            th scope="col" { "Details" }
                        }
                    }
                    tbody { @for tried in tried.groups.iter().take(GROUPS_MAX) { (group(tried, of)) } }
                }
            }
        }
        @if tried.groups.len() > GROUPS_MAX {
            p.hint { (count((tried.groups.len() - GROUPS_MAX) as u64)) " more ways are not shown." }
        }
    }
}

fn warning(problem: &FileProblem) -> Markup {
    let FileProblem { line, column, message, hint, .. } = problem;
    html! {
        @if let (Some(line), Some(column)) = (line, column) { "Line " (line) ", column " (column) ": " }
        (shown_up_to(message, TEXT_BYTES_MAX))
        @if let Some(hint) = hint { " (" (shown_up_to(hint, TEXT_BYTES_MAX)) ")" }
    }
}

fn group(tried: &TriedGroup, of: RulesOf<'_>) -> Markup {
    let change = Change::of(tried);
    let fingerprint = crate::page::client::segment(&tried.fingerprint);
    html! {
        tr class=(change.class()) {
            th scope="row" { a href=(of.page(&format!("group={fingerprint}"))) { (headline(&tried.before)) } }
            td { (count(tried.pairs)) }
            td { strong { (change.words()) } }
            td { "Of " (samples(tried.samples.kept)) ": " (outcome(tried.samples)) }
            td { (details(tried, of)) }
        }
    }
}

/// By which rules samples would be equal, what would differ still and in addition, and what cannot be judged.
fn details(tried: &TriedGroup, of: RulesOf<'_>) -> Markup {
    let listed = |title: &str, differences: &[Difference]| {
        html! {
            @if !differences.is_empty() {
                p { (title) }
                ul { @for found in differences.iter().take(ITEMS_MAX) { li { (sentence(found, of.arms)) } } }
                (more(differences.len()))
            }
        }
    };
    html! {
        @if !tried.equal_by.is_empty() {
            p { "Made equal by:" }
            ul {
                @for (rule, number) in tried.equal_by.iter().take(ITEMS_MAX) {
                    li { code { (shown_up_to(rule, TEXT_BYTES_MAX)) } ", in " (samples(*number)) }
                }
            }
            (more(tried.equal_by.len()))
        }
        (listed("Differs still:", &tried.still))
        (listed("Differs in addition:", &tried.new))
        @for NotJudgedSamples { reason, samples: number } in tried.not_judged.iter().take(ITEMS_MAX) {
            p { "Not judged again, in " (samples(*number)) ": " (shown_up_to(reason, TEXT_BYTES_MAX)) "." }
        }
    }
}

fn more(number: usize) -> Markup {
    html! { @if number > ITEMS_MAX { p.sub { (count((number - ITEMS_MAX) as u64)) " more" } } }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::page::differences::difference_words::Arms;

    fn difference(path: &str) -> Value {
        json!({ "path": path, "kind": "value", "legacy": "1", "engine": "2" })
    }

    /// A group of three samples with two differences.
    fn tried(equal: u64, differ: u64, not_judged: u64, still: &[&str], new: &[&str]) -> TriedGroup {
        let of = |paths: &[&str]| paths.iter().map(|path| difference(path)).collect::<Vec<_>>();
        let value = json!({
            "fingerprint": "f\"1", "pairs": 7, "before": of(&["$.id", "$.total"]), "still": of(still), "new": of(new),
            "samples": { "kept": 3, "equal": equal, "differ": differ, "not_judged": not_judged },
            "equal_by": { "ids <b>": equal },
            "not_judged": [{ "reason": "an earlier version stored the sample", "samples": not_judged }],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_becomes_of_a_group_is_said() {
        for (expected, group) in [
            (Change::Hidden, tried(3, 0, 0, &[], &[])),
            (Change::Hidden, tried(2, 0, 1, &[], &[])),
            (Change::Changed, tried(1, 2, 0, &["$.id", "$.total"], &[])),
            (Change::Changed, tried(0, 3, 0, &["$.total"], &[])),
            (Change::Changed, tried(0, 3, 0, &["$.id", "$.total"], &["$.sku"])),
            (Change::Stays, tried(0, 3, 0, &["$.total", "$.id"], &[])),
            (Change::NotJudged, tried(0, 0, 3, &[], &[])),
        ] {
            assert_eq!(Change::of(&group), expected, "{group:?}");
        }
    }

    #[test]
    fn a_trial_says_what_it_would_hide_and_that_nothing_was_written() {
        let groups = vec![tried(3, 0, 0, &[], &[]), tried(0, 2, 1, &["$.id", "$.total"], &[])];
        let value = json!({ "route": "orders", "pairs": 9, "mismatched": 8, "groups": [], "warnings": [],
            "samples": { "kept": 6, "equal": 3, "differ": 2, "not_judged": 1 } });
        let all = TriedRules { groups, ..serde_json::from_value(value).unwrap() };
        let of = RulesOf { route: "orders", candidate: false, arms: &Arms::OF_ROUTE };
        let html = result(&all, of).into_string();
        for text in [
            "of 6 samples: 3 would be equal, 2 would differ, 1 cannot be judged again.",
            "Of 2 ways in which pairs differ: 1 would be hidden, 1 would stay as it is.",
            "Nothing was written",
            "ids &lt;b&gt;",
            "href=\"/routes/orders/differences?group=f%221\"",
            "Not judged again, in 1 sample: an earlier version stored the sample.",
        ] {
            assert!(html.contains(text), "{text}: {html}");
        }
        assert!(!html.contains("<b>"), "{html}");
    }
}
