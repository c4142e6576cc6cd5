//! What `evidence` shows of a route's statistics: the bound of each kind of request, how often each arm fails, how long
//! each takes, and how legacy differs from itself.

use super::format::{Formatter, Tone, count, counted, escape_control, plain};
use crate::admin::types::{ErrorTable, EvidenceView, Interval, NoiseView, NoisyPlace, RatioInterval, SecondRuns};

/// The most rows of a table; the rest is in `--json`.
const ROWS_MAX: usize = 20;

pub(super) fn text(view: &EvidenceView, format: Formatter) -> String {
    let statistics = &view.statistics;
    let mut out = String::new();
    if view.evidence.pairs() > 0 && !statistics.strata.is_empty() {
        let bound = percent(statistics.combined_upper_bound);
        out.push_str(&format!(
            "of all requests as legacy serves them: at most {bound} differ, by kind of request:\n\n"
        ));
        let strata = statistics.strata.iter().take(ROWS_MAX).map(|(name, of)| {
            let counts = view.evidence.all.strata.get(name).copied().unwrap_or_default();
            let differ = if counts.mismatched == 0 { Tone::Good } else { Tone::Bad };
            vec![
                plain(escape_control(name)),
                plain(percent(of.share)),
                plain(count(counts.compared)),
                (count(counts.mismatched), differ),
                plain(percent(of.upper_bound)),
            ]
        });
        let header = ["KIND OF REQUEST", "SHARE", "COMPARED", "DIFFER", "AT MOST"];
        out.push_str(&format.table(&header, &[1, 2, 3, 4], strata.collect()));
    }
    out.push_str(&errors(&statistics.errors, format));
    let times = |RatioInterval { at_least, at_most }: RatioInterval| match at_most {
        Some(at_most) => format!("between {at_least:.2} and {at_most:.2} times"),
        None => format!("at least {at_least:.2} times"),
    };
    if let Some(median) = statistics.latency_ratio {
        let times = times(median);
        out.push_str(&format!("the engine takes {times} as long as legacy, for the median pair (95% confidence)\n"));
    }
    if let Some(p99) = statistics.p99_ratio {
        let times = times(p99);
        out.push_str(&format!("the 99th percentile of its latency is {times} legacy's (95% confidence)\n"));
    }
    out.push_str(&view.noise.as_ref().map_or_else(String::new, |noise| self::noise(noise, format)));
    out.push_str(&second_runs(&view.evidence.second_runs, format));
    out
}

fn errors(errors: &ErrorTable, format: Formatter) -> String {
    let Some(Interval { at_least, at_most }) = errors.excess else { return String::new() };
    let ErrorTable { requests, both, only_engine, only_legacy, engine_fails_more, .. } = errors;
    let found = format!(
        "in {} both arms failed in {}, the engine alone in {}, legacy alone in {}: the engine fails in {} to {} more \
         requests than legacy (95% confidence)",
        counted(*requests, "request"),
        count(*both),
        count(*only_engine),
        count(*only_legacy),
        signed_percent(at_least),
        signed_percent(at_most),
    );
    let tone = if *engine_fails_more { Tone::Bad } else { Tone::Plain };
    format!("\n{}\n", format.tone(found, tone))
}

fn noise(noise: &NoiseView, format: Formatter) -> String {
    let mut out = format!(
        "\nnoise: legacy answered {} twice; {} that differ only where it differed from itself count as equal\n",
        counted(noise.repeats, "request"),
        counted(noise.ignored, "pair"),
    );
    if noise.bodies_compared < noise.repeats {
        out.push_str(&format!(
            "the bodies of {} of them were compared; of the others the three statuses are of different classes\n",
            count(noise.bodies_compared)
        ));
    }
    if let Some(write) = &noise.legacy_write {
        let why = format!(
            "no request is repeated any more since {:.0}: legacy made a call that may change something ({})",
            write.at,
            escape_control(&write.call)
        );
        out.push_str(&format!("{}\n", format.tone(why, Tone::Bad)));
    }
    let rows = noise.places.iter().take(ROWS_MAX).map(|at| {
        let NoisyPlace { place, legacy_differs, legacy_compared, rate, only_engine, only_legacy, excess, .. } = at;
        let share = |differs: u64, compared: u64, rate: &Interval| {
            let (at_least, at_most) = (percent(rate.at_least), percent(rate.at_most));
            plain(format!("{} of {}, {at_least} to {at_most}", count(differs), count(compared)))
        };
        let counts = match (at.may_be_noise, at.engine_differs_more, at.legacy_differs_more) {
            (false, ..) => ("stands for several values: counts".to_owned(), Tone::Warn),
            (true, true, _) => ("the engine differs more often: counts".to_owned(), Tone::Bad),
            (true, false, true) => ("legacy changes between the two: counts".to_owned(), Tone::Warn),
            (true, false, false) => {
                let ignored = counted(at.ignored, "time");
                match legacy_differs == legacy_compared && !at.is_in_list {
                    // Whatever the engine answers there, it differs as often as legacy does.
                    true => (format!("ignored {ignored}: always differs, so nothing is compared here"), Tone::Warn),
                    false => {
                        let may_hide = percent(excess.at_most.max(0.0));
                        (format!("ignored {ignored}, may hide up to {may_hide}"), Tone::Plain)
                    }
                }
            }
        };
        vec![
            plain(escape_control(place)),
            share(*legacy_differs, *legacy_compared, rate),
            share(at.engine_differs, at.engine_compared, &at.engine_rate),
            plain(format!("{} / {}", count(*only_engine), count(*only_legacy))),
            counts,
        ]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        let header = ["LEGACY DIFFERS FROM ITSELF AT", "IN", "ENGINE FROM LEGACY IN", "ONLY ENGINE / ONLY LEGACY", ""];
        out.push_str(&format!("\n{}", format.table(&header, &[], rows)));
    }
    out
}

/// Where the engine differs from itself; nothing if it was never run twice.
fn second_runs(twice: &SecondRuns, format: Formatter) -> String {
    let SecondRuns { runs, differed, places, unlisted } = twice;
    if *runs == 0 {
        return String::new();
    }
    let mut out = format!("\nthe engine ran {} twice from the same inputs", counted(*runs, "request"));
    if *differed == 0 {
        out.push_str(": the runs were equal\n");
        return out;
    }
    let differed = format!("the runs of {} differed: values that the engine draws itself", count(*differed));
    out.push_str(&format!("; {}\n", format.tone(differed, Tone::Warn)));
    let mut places: Vec<(&String, &u64)> = places.iter().collect();
    places.sort_by(|(a, in_a), (b, in_b)| in_b.cmp(in_a).then_with(|| a.cmp(b)));
    let rows = places.into_iter().take(ROWS_MAX).map(|(place, differs)| {
        vec![plain(escape_control(place)), plain(format!("{} of {}", count(*differs), count(*runs)))]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        out.push_str(&format!("\n{}", format.table(&["THE ENGINE DIFFERS FROM ITSELF AT", "IN"], &[], rows)));
    }
    if *unlisted > 0 {
        out.push_str(&format!("and at places that are not listed, {}\n", counted(*unlisted, "time")));
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

fn signed_percent(share: f64) -> String {
    format!("{:+.2}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn latencies_are_shown_with_their_intervals() {
        let evidence = serde_json::to_value(crate::evidence::RouteEvidence::default()).expect("json");
        let view = |statistics: serde_json::Value| -> EvidenceView {
            serde_json::from_value(
                json!({ "route": "r", "evidence": evidence, "next": null, "statistics": statistics }),
            )
            .expect("a view")
        };
        let median = json!({ "at_least": 0.5, "at_most": 1.25 });
        let shown = view(json!({ "latency_ratio": median, "p99_ratio": { "at_least": 0.75, "at_most": null } }));
        let lines = "the engine takes between 0.50 and 1.25 times as long as legacy, for the median pair (95% confidence)\n\
                     the 99th percentile of its latency is at least 0.75 times legacy's (95% confidence)\n";
        assert_eq!(text(&shown, Formatter(false)), lines);
        // A server of an earlier version knows no interval of the percentile.
        let shown = view(json!({ "latency_ratio": median }));
        assert_eq!(text(&shown, Formatter(false)).lines().count(), 1);
    }
}
