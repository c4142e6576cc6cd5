//! What the pairs of a route say, in words.

use maud::{Markup, html};

use crate::admin::types::RouteEvidence;
use crate::page::html::count;
use crate::page::routes::rungs::percent_up;

/// How many pairs differ, and the bound, in two short lines. `at_most`: the upper bound of the share of requests that
/// differ, from 0 to 1; `None` where it is not known.
pub(in crate::page) fn short(pairs: u64, mismatched: u64, at_most: Option<f64>) -> Markup {
    html! {
        @if pairs == 0 {
            span.sub { "no pairs yet" }
        } @else {
            span.good[mismatched == 0].bad[mismatched > 0] {
                span aria-hidden="true" { @if mismatched == 0 { "✓ " } @else { "≠ " } }
                (count(mismatched)) " of " (count(pairs)) " " @if mismatched == 1 { "differs" } @else { "differ" }
            }
            @if let Some(at_most) = at_most {
                div.sub { "below " (percent_up(at_most)) " for sure" }
            }
        }
    }
}

/// The same as sentences, with how many more pairs would prove less than 0.1 %.
pub(in crate::page) fn sentences(evidence: &RouteEvidence) -> Markup {
    let (all, without_error) = (evidence.pairs(), evidence.pairs_without_error());
    html! {
        @if all == 0 {
            p { "No request has been compared yet." }
        } @else {
            div.figure { (short(all, evidence.mismatched, Some(evidence.mismatch_upper_bound()))) }
            p {
                "Of all requests, at most " (percent_up(evidence.mismatch_upper_bound()))
                " differ (95 % confidence, however often you look"
                @if without_error != all { "; from the " (count(without_error)) " pairs that legacy answered without \
                 an error" }
                ")."
                @if let Some(more @ 1..) = evidence.pairs_needed_for(0.001) {
                    " " (count(more)) " more pairs without a difference would prove less than 0.1 %."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(markup: &Markup) -> String {
        markup.0.replace('\u{202f}', " ")
    }

    #[test]
    fn the_pairs_and_the_bound_are_said_in_words() {
        let shown = text(&short(4_512, 0, Some(0.000_999)));
        assert!(shown.contains("0 of 4 512 differ") && shown.contains("below 0.1 % for sure"), "{shown}");
        assert!(shown.contains("good\"") && !shown.contains("bad"), "{shown}");
        let shown = text(&short(10, 1, None));
        assert!(shown.contains("1 of 10 differs") && !shown.contains("for sure"), "{shown}");
        assert!(shown.contains("bad\"") && !shown.contains("good"), "{shown}");
        assert!(text(&short(0, 0, Some(1.0))).contains("no pairs yet"));
    }

    #[test]
    fn the_sentences_say_how_many_more_pairs_are_needed() {
        let mut evidence = RouteEvidence::default();
        assert!(text(&sentences(&evidence)).contains("No request"));
        (evidence.shadow_pairs, evidence.matched) = (4_000, 4_000);
        let shown = text(&sentences(&evidence));
        assert!(shown.contains("more pairs without a difference"), "{shown}");
        evidence.mismatched = 1;
        assert!(!text(&sentences(&evidence)).contains("more pairs"));
    }
}
