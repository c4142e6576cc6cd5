//! The latencies of both arms as two small histograms, one above the other, on one scale of time.

use maud::{Markup, html};

use crate::admin::types::LatencyCounts;
use crate::page::duration::duration_text;
use crate::page::html::count;

/// The upper bound of the first bucket, in seconds; that of bucket `n` (from 0) is this times 2^(n/4).
const FIRST_S: f64 = 100e-6;
/// The width of a bar with the gap behind it, in units of the drawing.
const BAR_WIDTH: f64 = 8.0;
/// The height of the highest bar.
const BAR_HEIGHT: f64 = 28.0;

/// The chart; nothing without latencies.
pub(in crate::page) fn chart(legacy: &LatencyCounts, engine: &LatencyCounts) -> Markup {
    let (legacy, engine) = (buckets(legacy), buckets(engine));
    let used = |counts: &[u64]| counts.iter().position(|count| *count > 0);
    let Some(first) = used(&legacy).into_iter().chain(used(&engine)).min() else { return html! {} };
    let last = legacy.len().max(engine.len());
    html! {
        div.latency {
            @for (arm, counts) in [("legacy", &legacy), ("engine", &engine)] {
                (row(arm, counts, first, last))
            }
            p.sub {
                "From " (duration_text(bound(first)))
                " to " (duration_text(bound(last.saturating_sub(1)))) ", of pairs."
            }
        }
    }
}

fn row(arm: &str, counts: &[u64], first: usize, last: usize) -> Markup {
    let highest = counts.iter().copied().max().unwrap_or_default().max(1);
    let number: u64 = counts.iter().sum();
    let width = position(last - first);
    html! {
        p.histogram {
            span.arm { (arm) }
            svg width=(width) height=(BAR_HEIGHT) viewBox=(format!("0 0 {width} {BAR_HEIGHT}")) aria-hidden="true" {
                @for (at, number) in counts.iter().enumerate().skip(first).filter(|(_, number)| **number > 0) {
                    @let height = bar_height(*number, highest);
                    rect x=(position(at - first)) y=(BAR_HEIGHT - height) width=(BAR_WIDTH - 1.0) height=(height)
                        fill="currentColor" {}
                }
            }
            span.sub {
                " half within " (duration_text(quantile(counts, 0.5)))
                ", 99 % within " (duration_text(quantile(counts, 0.99)))
                " (" (count(number)) ")"
            }
        }
    }
}

/// The counts of the buckets; the type of the API has them as a plain list.
fn buckets(counts: &LatencyCounts) -> Vec<u64> {
    serde_json::to_value(counts).ok().and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}

fn bound(bucket: usize) -> f64 {
    FIRST_S * (bucket as f64 / 4.0).exp2()
}

fn position(bucket: usize) -> f64 {
    bucket as f64 * BAR_WIDTH
}

/// At least one unit, so that a rare latency is seen.
fn bar_height(number: u64, highest: u64) -> f64 {
    (number as f64 / highest as f64 * BAR_HEIGHT).round().max(1.0)
}

/// The upper bound of the bucket with this quantile; 0 without latencies.
fn quantile(counts: &[u64], quantile: f64) -> f64 {
    let all: u64 = counts.iter().sum();
    let mut seen = 0;
    for (bucket, number) in counts.iter().enumerate() {
        seen += number;
        if *number > 0 && seen as f64 >= all as f64 * quantile {
            return bound(bucket);
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(buckets: &[u64]) -> LatencyCounts {
        serde_json::from_value(json!(buckets)).unwrap()
    }

    #[test]
    fn both_arms_have_the_same_scale() {
        let shown = chart(&counts(&[0, 0, 10, 5]), &counts(&[0, 0, 0, 0, 20])).into_string();
        assert_eq!(shown.matches("viewBox=\"0 0 24 28\"").count(), 2, "{shown}");
        assert_eq!(shown.matches("<rect").count(), 3, "{shown}");
        assert!(shown.contains("x=\"16\""), "{shown}");
    }

    #[test]
    fn the_text_says_what_the_bars_show() {
        let mut many = vec![0; 40];
        (many[20], many[39]) = (98, 2);
        assert_eq!(duration_text(quantile(&many, 0.5)), "3 ms");
        assert_eq!(duration_text(quantile(&many, 0.99)), duration_text(bound(39)));
        assert_eq!(chart(&counts(&[]), &counts(&[])).into_string(), "");
    }
}
