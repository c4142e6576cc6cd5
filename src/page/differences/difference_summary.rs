//! What the numbers of a route's comparisons mean, in a sentence, and what to do where there is nothing to see.

use maud::{Markup, html};

use crate::admin::types::{Difference, Diffs, RouteRow};
use crate::page::client::segment;
use crate::page::differences::difference_words::Arms;
use crate::page::html::{count, time};

/// One sentence about the numbers. `are_cut`: there may be more groups than are known here.
pub(in crate::page) fn summary(diffs: &Diffs, arms: &Arms, are_cut: bool) -> Markup {
    let Diffs { pairs, mismatched, noise, groups, .. } = diffs;
    let ways = groups.iter().filter(|group| !group.is_noise).count() as u64;
    let at_least = if are_cut { "at least " } else { "" };
    let own_noise = format!(
        "{} more {} only where legacy differs from itself, and {} as equal",
        count(*noise),
        if *noise == 1 { "differs" } else { "differ" },
        if *noise == 1 { "counts" } else { "count" }
    );
    html! {
        p.summary #summary data-live {
            @match (*pairs, *mismatched) {
                (0, _) => { "No request of this route has been compared yet." }
                (_, 0) => {
                    strong { "None" } " of " (count(*pairs)) " pairs " @if *pairs == 1 { "differs" } @else { "differ" }
                    @if *noise > 0 { "; " (own_noise) }
                    "."
                }
                (_, 1) => {
                    strong { "1 of " (count(*pairs)) } " pairs differs"
                    @if *noise > 0 { "; " (own_noise) }
                    "."
                }
                _ => {
                    strong { (count(*mismatched)) " of " (count(*pairs)) } " pairs differ"
                    @if ways > 0 { ", in " (at_least) (count(ways)) @if ways == 1 { " way" } @else { " ways" } }
                    @if *noise > 0 { "; " (own_noise) }
                    "."
                }
            }
            @if *pairs > 0 {
                " " span.sub {
                    "A pair is one request: the reply and the calls of " (arms.legacy) ", and what " (arms.engine)
                    " would have replied and called."
                }
            }
        }
    }
}

/// Where there are no groups: why, and what would bring some.
pub(in crate::page) fn empty(row: &RouteRow, diffs: &Diffs) -> Markup {
    let route = segment(row.id.as_str());
    html! {
        div.empty {
            @if diffs.pairs == 0 {
                @match (&row.workflow, row.effective.state.as_str()) {
                    (None, _) => {
                        p { "The route has no workflow: there is nothing that could be compared with legacy." }
                    }
                    (_, "off") => {
                        p {
                            "The route is in " code { "off" } ": legacy answers, and nothing is compared. In "
                            code { "shadow" } " the engine rehearses copies of the requests, and each becomes a pair. "
                            a href=(format!("/routes/{route}/flip")) { "Move the route to shadow" }
                        }
                    }
                    (_, "shadow" | "dark") => {
                        p {
                            "The next request that is sampled becomes the first pair. Captured traffic can be compared "
                            "at once: " code { "pointsman help captures" } " says how."
                        }
                    }
                    (_, _) => {
                        p {
                            "The engine answers the requests of this route: they are not compared with legacy. Pairs "
                            "come in " code { "shadow" } " and " code { "dark" } "."
                        }
                    }
                }
            } @else if diffs.mismatched == 0 {
                p {
                    "A difference appears here with the next pair that has one: more requests, other requests, or "
                    "stricter rules may bring one. Below, rules can be proposed that compare more."
                }
            } @else {
                p { "No sample of them is kept. The next pair that differs is kept as a sample, and shown here." }
            }
            @if let Some(restart) = &row.evidence_restarted {
                p.hint { "Counted since " (time(restart.at)) ", when the evidence was started from zero." }
            }
        }
    }
}

/// Whether a difference of two texts shows digests in place of their lines.
pub(in crate::page) fn has_lines_not_shown(difference: &Difference) -> bool {
    let is_text = difference.path == "text" || difference.path.ends_with(".text");
    let has_digest = |shown: &String| shown.contains(" lines, ") && shown.contains(", digest ");
    is_text && [&difference.legacy, &difference.engine].into_iter().flatten().any(has_digest)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn diffs(pairs: u64, mismatched: u64, noise: u64, groups: &[bool]) -> Diffs {
        let at = "2026-11-28T10:00:00Z";
        let group = |is_noise: &bool| {
            json!({ "fingerprint": "f", "count": 1, "first_seen": at, "last_seen": at, "differences": [],
                "is_noise": is_noise,
                "sample": { "at": at, "run": null, "request": "", "legacy": "", "engine": "" } })
        };
        let groups: Vec<Value> = groups.iter().map(group).collect();
        let value = json!({ "route": "orders", "pairs": pairs, "mismatched": mismatched, "noise": noise,
            "groups": groups });
        serde_json::from_value(value).unwrap()
    }

    /// The text without tags, with plain spaces in numbers.
    fn text(markup: &Markup) -> String {
        let parts = markup.0.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
        parts.collect::<String>().replace('\u{202f}', " ")
    }

    #[test]
    fn the_numbers_are_said_in_a_sentence() {
        for (expected, diffs, are_cut) in [
            (
                "3 of 4 512 pairs differ, in 2 ways; 12 more differ only where legacy differs from itself, and count as \
                 equal. A pair is one request",
                diffs(4_512, 3, 12, &[false, false, true]),
                false,
            ),
            ("3 of 9 pairs differ, in at least 1 way. A", diffs(9, 3, 0, &[false]), true),
            ("1 of 9 pairs differs. A", diffs(9, 1, 0, &[false]), false),
            ("None of 9 pairs differ; 1 more differs only", diffs(9, 0, 1, &[]), false),
            ("No request of this route has been compared yet.", diffs(0, 0, 0, &[]), false),
        ] {
            let said = text(&summary(&diffs, &Arms::OF_ROUTE, are_cut));
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
