//! The guard's `p99_ratio` with planted ratios: it tells those above the limit from those below it by a few per cent.

use std::time::Duration;

use super::RouteEvidence;
use super::guard::RouteGuard;
use super::legacy_rates::LegacyRates;
use crate::exchange::{EngineAnswer, Served};
use crate::flag::{Guard, GuardRelease, State};

const RATIO: f64 = 1.5;

/// A latency in seconds, of a distribution with a long tail.
fn latency(random: &mut fastrand::Rng, scale: f64) -> f64 {
    scale * (0.2 - (1.0 - random.f64()).ln())
}

/// A guard that knows legacy's latencies, and their 99th percentile.
fn guard(random: &mut fastrand::Rng, scale: f64) -> (RouteGuard, f64) {
    let mut evidence = RouteEvidence::default();
    let mut all: Vec<f64> = (0..4_000).map(|_| latency(random, scale)).collect();
    for at in &all {
        let at = Duration::from_secs_f64(*at);
        evidence.legacy.latencies.count(at);
        evidence.all.latencies.legacy.count(at);
    }
    all.sort_by(f64::total_cmp);
    let settings = Guard {
        mismatch: None,
        errors: None,
        p99_ratio: Some(RATIO),
        over: 500,
        at_least: 5,
        in_dark: false,
        release: GuardRelease::Hand,
        notify: None,
    };
    (RouteGuard::new(settings, LegacyRates::of(&evidence)), all[3_959])
}

/// Whether the guard acts on the answers that take so long.
fn acts(guard: &mut RouteGuard, took: impl Iterator<Item = f64>) -> bool {
    took.map(|took| {
        let took = Some(Duration::from_secs_f64(took));
        EngineAnswer { files_version: 0, rung: State::Live, served: Served::Answered, took, run: None }
    })
    .filter(|answer| guard.count_answer(answer))
    .count()
        > 0
}

#[test]
fn a_ratio_is_told_from_the_limit_within_a_few_per_cent() {
    let mut random = fastrand::Rng::with_seed(91);
    for n in 0..40 {
        // All places in a bucket, of the wide ones too.
        let scale = 0.01 * (f64::from(n) / 16.0).exp2();
        for (planted, expected) in [(0.95, false), (1.05, true)] {
            let (mut guard, p99) = guard(&mut random, scale);
            let took = std::iter::repeat_n(p99 * RATIO * planted, 50);
            assert_eq!(acts(&mut guard, took), expected, "seed 91: {scale} s, {planted} of the limit");
        }
    }
}

/// Whole distributions: at a ratio a little below the limit a little less than 1 % of the answers are slow.
#[test]
fn a_distribution_above_the_limit_lowers_the_route_and_one_below_it_does_not() {
    let mut random = fastrand::Rng::with_seed(92);
    for (ratio, expected) in [(1.0, false), (0.97 * RATIO, false), (2.0 * RATIO, true)] {
        for n in 0..10 {
            let scale = 0.01 * (f64::from(n) / 40.0).exp2();
            let (mut guard, _) = guard(&mut random, scale);
            let took: Vec<f64> = (0..4_000).map(|_| ratio * latency(&mut random, scale)).collect();
            assert_eq!(acts(&mut guard, took.into_iter()), expected, "seed 92: {scale} s, ratio {ratio}");
        }
    }
}
