//! What is kept of a pair whose deadline passed before everything secret in it is hidden.

use std::cell::Cell;

use super::samples::{BOUNDS, finished, report_with};
use super::*;
use crate::compare::{KeepContext, NotKept, Pair, PairRecord, Rules, compare, keep};
use crate::evidence::Sample;
use crate::shadow::redaction::{PairRedaction, PairToRedact};
use crate::shadow::sample::sample;

/// A reply whose texts quote secrets: `texts` of them, or all of that in one text. `by` tells the arms apart.
fn quoting(texts: usize, is_one: bool, by: &str) -> Value {
    let secrets: Vec<Value> = (0..200).map(|n| json!({ "token": format!("token-of-{n:05}") })).collect();
    let said = (0..texts).map(|n| format!("said token-of-{:05} to {n} by {by}, in words", n % 200));
    let said =
        if is_one { json!(said.collect::<String>()) } else { said.map(|text| json!({ "text": text })).collect() };
    json!({ "secrets": secrets, "said": said })
}

/// What became of a pair whose deadline passed after so many checks.
struct ExpiredSample {
    sample: Sample,
    kept: PairRecord,
    was_over: bool,
    /// How often it was checked whether the deadline had passed.
    checked: u64,
    /// How long it went on after that, with the longest time between two checks before.
    went_on: Duration,
}

fn is_over(left: &Cell<u64>, over_at: &Cell<Option<Instant>>) -> bool {
    let now_left = left.get();
    left.set(now_left.saturating_sub(1));
    if now_left == 0 && over_at.get().is_none() {
        over_at.set(Some(Instant::now()));
    }
    now_left == 0
}

fn made_until(checks: u64, texts: usize, is_one: bool) -> ExpiredSample {
    let answered = answered(Mode::Rehearse, &quoting(texts, is_one, "legacy"), 0);
    let body = Body::Whole(quoting(texts, is_one, "engine").to_string().into());
    let engine = Observation::new(StatusCode::OK, headers(), body, Duration::ZERO, Vec::new());
    let report = report_with(&[finished(&json!({}), &quoting(texts, is_one, "a read"))]);
    let (rules, request) = (Rules::default(), json!({}));
    let pair = Pair {
        legacy: &answered.legacy,
        engine: &engine,
        effects: None,
        request: &request,
        instance: None,
        stale_reads: false,
        sensitive: None,
    };
    let began = Instant::now();
    let comparison = compare(&pair, &rules, &BOUNDS, &|| false).unwrap();
    let (comparing, places) = (began.elapsed(), comparison.differences.len());
    let (left, over_at) = (Cell::new(checks), Cell::new(None));
    let (last_check, longest) = (Cell::new(Instant::now()), Cell::new(Duration::ZERO));
    let expired = || {
        longest.set(longest.get().max(last_check.replace(Instant::now()).elapsed()));
        is_over(&left, &over_at)
    };
    let parts = PairToRedact {
        answered: &answered,
        engine: &engine,
        report: &report,
        effects: None,
        recorded: None,
        bounds: *BOUNDS,
        expired: &expired,
    };
    let (began, redaction) = (Instant::now(), PairRedaction::of(parts));
    let sample = sample(&answered, &engine, &report, &redaction, comparison, &limits());
    let context = KeepContext {
        earlier_ids: &[],
        request: &request,
        rules: &rules,
        bounds: &BOUNDS,
        sensitive: Some(&redaction),
        bytes_max: 8 << 20,
        expired: &|| redaction.is_over(),
    };
    let kept = keep(&pair, &context);
    let (took, after) = (began.elapsed(), over_at.get().map_or(Duration::ZERO, |at: Instant| at.elapsed()));
    let went_on = after + longest.get();
    println!(
        "{texts} texts, one: {is_one}; over after {checks} checks: compared in {comparing:?}, kept in {took:?}, of which \
         {after:?} after the time was over; at most {:?} between two checks",
        longest.get()
    );
    assert_eq!(sample.differences.len(), places, "their places are shown in any case");
    let checked = checks - left.get();
    ExpiredSample { sample, kept, was_over: redaction.was_over(), checked, went_on }
}

/// Replies of 1 MiB that quote 200 secrets. To make all that is kept of such a pair takes a hundred times as long as to
/// compare it, so it is cut short: from the start, among the secrets and the differences, and within the first body.
#[test]
fn sampling_stops_soon_after_the_deadline() {
    for (texts, is_one, checks) in
        [(15_000, false, &[0, 1_000, 40_000, 60_000, 85_000][..]), (20_000, true, &[0, 10, 1_000][..])]
    {
        for checks in checks {
            let ExpiredSample { sample, kept, was_over, went_on, .. } = made_until(*checks, texts, is_one);
            assert!(was_over, "{checks}");
            assert_eq!(kept, PairRecord::Not(NotKept::Time), "{checks}");
            let text = format!("{sample:?}");
            assert!(!text.contains("token-of-"), "{checks}: {}", &text[..2_000]);
            assert!(text.contains("not kept: the time for the pair"), "{checks}: {}", &text[..2_000]);
            // One pass over one body, in a debug build on a busy machine.
            assert!(went_on < Duration::from_secs(2), "{checks}: {went_on:?}");
        }
    }
}

#[test]
fn all_of_a_pair_is_kept_if_there_is_time() {
    let ExpiredSample { sample, kept, was_over, .. } = made_until(u64::MAX, 300, false);
    assert!(!was_over && matches!(kept, PairRecord::Pair(_)), "{kept:?}");
    assert!(sample.legacy.contains("said *** to 0 by legacy"), "{}", sample.legacy);
    let text = format!("{sample:?}{kept:?}");
    assert!(!text.contains("token-of-") && !text.contains("the time for the pair"), "{}", &text[..2_000]);
}

/// The deadline passes in each part of what is kept: the differences, the bodies and events of the sample, and the
/// pair.
#[test]
fn nothing_secret_is_kept_wherever_the_deadline_passes() {
    let all = made_until(u64::MAX, 600, false).checked;
    for part in 0..16 {
        let ExpiredSample { sample, kept, was_over, .. } = made_until(all * part / 16, 600, false);
        assert!(was_over && kept == PairRecord::Not(NotKept::Time), "{part} of 16: {kept:?}");
        let text = format!("{sample:?}");
        assert!(!text.contains("token-of-"), "{part} of 16: {}", &text[..2_000]);
    }
}
