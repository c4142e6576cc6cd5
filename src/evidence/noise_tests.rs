//! Noise: what it hides and what it does not, over many histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::noise::{ALPHA, NoiseOfLegacy};
use super::noise_counts::NOISE_RULE;
use super::noise_places::DifferingPlaces;
use super::route::RouteEvidence;
use super::strata::StratumCounts;
use super::testing::Memory;
use super::{Evidence, EvidenceBasis, PairClass, PairsByKind};
use crate::compare::{Body, Comparison, Difference, DifferenceKind, Observation, Verdict};
use crate::flag::State;
use crate::names::RouteId;

pub(super) const AT: &str = "value $.at";
const TOTAL: &str = "value $.total";

pub(super) fn of(places: &[&str]) -> DifferingPlaces {
    let places = places.iter().map(|place| (*place).to_owned()).collect();
    DifferingPlaces {
        places,
        lists_all_differences: true,
        lists_all_of_replies: true,
        elements: Default::default(),
        has_path_placeholders: false,
        orders: Default::default(),
    }
}

/// Counters of a route that is declared safe to repeat.
pub(super) struct Counted {
    pub(super) evidence: RouteEvidence,
    pub(super) legacy: NoiseOfLegacy,
}

impl Counted {
    pub(super) fn new() -> Self {
        let mut legacy = NoiseOfLegacy::default();
        legacy.set_basis(&EvidenceBasis { noise: "rules".to_owned(), ..EvidenceBasis::default() }, false);
        Self { evidence: RouteEvidence::default(), legacy }
    }
    /// Counts a pair as `Counters::record_pair` does; returns whether it counts as equal.
    pub(super) fn pair(&mut self, places: &[&str]) -> bool {
        let e = &mut self.evidence;
        e.shadow_pairs += 1;
        let counts = e.all.strata.entry("GET 2xx".to_owned()).or_default();
        (counts.served, counts.compared) = (counts.served + 1, counts.compared + 1);
        if places.is_empty() {
            e.matched += 1;
            return true;
        }
        let ignored = e.noise.count_pairs(&self.legacy, &of(places), &PairsByKind::one(false, Some("GET 2xx")));
        if ignored {
            e.ignored += 1;
            e.count_noise_hits(1, jiff::Timestamp::UNIX_EPOCH);
        } else {
            e.mismatched += 1;
            e.all.strata.get_mut("GET 2xx").unwrap().mismatched += 1;
        }
        ignored
    }
    fn repeat(&mut self, engine: &[&str], again: &[&str]) {
        assert!(self.evidence.count_repeat(&mut self.legacy, &of(engine), &of(again), true));
    }
    pub(super) fn differs_more(&self, place: &str) -> bool {
        self.evidence.noise.places.get(place).is_some_and(|outcomes| outcomes.engine_differs_more)
    }
    pub(super) fn check_sums(&self) {
        let e = &self.evidence;
        assert_eq!(e.pairs(), e.matched + e.ignored + e.mismatched);
        let ignored: u64 = e.noise.groups.values().filter(|g| g.is_ignored).map(|g| g.pairs()).sum();
        assert_eq!((e.noise.ignored, e.rule_hits.get(NOISE_RULE).copied().unwrap_or(0)), (ignored, ignored));
        let strata: u64 = e.all.strata.values().map(|of: &StratumCounts| of.mismatched).sum();
        assert_eq!((strata, e.ignored), (e.mismatched, ignored));
    }
}

/// A reply whose value is not the usual one with the probability `noise`; two unusual values differ.
fn draw(noise: f64, random: &mut fastrand::Rng) -> Option<u64> {
    (random.f64() < noise).then(|| random.u64(..))
}

#[test]
fn pairs_are_judged_anew_as_soon_as_it_is_known_what_legacy_does() {
    let mut counted = Counted::new();
    assert!(!counted.pair(&[AT]) && !counted.pair(&[AT, TOTAL]));
    counted.check_sums();
    counted.repeat(&[AT], &[AT]);
    // The first pair is noise; the second one also differs where legacy does not.
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (1, 1));
    assert!(counted.pair(&[AT]) && !counted.pair(&[TOTAL]));
    counted.check_sums();
    assert_eq!(counted.evidence.noise.ignored_at(AT), 2);
    for _ in 0..20 {
        counted.repeat(&[AT], &[]);
    }
    assert!(counted.differs_more(AT) && !counted.pair(&[AT]));
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (5, 0), "those of the past count, too");
    counted.check_sums();
    // What was rejected stays rejected in this basis.
    for _ in 0..500 {
        counted.repeat(&[], &[AT]);
    }
    assert!(counted.differs_more(AT));
}

#[test]
fn a_route_that_is_not_declared_safe_to_repeat_has_no_noise() {
    let mut counted = Counted::new();
    counted.repeat(&[AT], &[AT]);
    assert!(counted.pair(&[AT]));
    assert!(counted.legacy.set_basis(&EvidenceBasis::default(), false));
    counted.evidence.judge_groups(&counted.legacy);
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (1, 0));
    assert!(!counted.pair(&[AT]) && !counted.legacy.may_repeat());
    counted.check_sums();
    assert!(!counted.evidence.count_repeat(&mut counted.legacy, &of(&[AT]), &of(&[AT]), true));
}

#[test]
fn bodies_that_were_not_compared_say_nothing_of_their_places() {
    let mut counted = Counted::new();
    let (engine, again) = (of(&["status 200 500"]), of(&[AT]));
    assert!(counted.evidence.count_repeat(&mut counted.legacy, &engine, &again, false));
    let places: Vec<&str> = counted.evidence.noise.places.keys().map(String::as_str).collect();
    assert_eq!((places, counted.legacy.places.len()), (vec!["status 200 500"], 0));
    let unknown = DifferingPlaces { lists_all_of_replies: false, ..of(&[AT]) };
    assert!(!counted.evidence.count_repeat(&mut counted.legacy, &of(&[]), &unknown, true));
    assert_eq!(counted.legacy.repeats, 1);
}

#[test]
fn differences_that_find_no_room_in_a_full_table_count_as_differences() {
    let mut counted = Counted::new();
    let name = |n: usize| format!("value $.a{n}");
    for n in 0..400 {
        counted.repeat(&[&name(n)], &[&name(n)]);
    }
    let noise = &counted.evidence.noise;
    assert_eq!((counted.legacy.places.len(), noise.places.len(), counted.legacy.unlisted), (128, 128, 272));
    assert!(counted.pair(&[&name(3)]) && !counted.pair(&[&name(300)]));
    // Each place of legacy is tested, although places of the engine came first.
    let mut counted = Counted::new();
    for n in 0..400 {
        counted.repeat(&[&name(n)], &[]);
    }
    counted.repeat(&[AT], &[AT]);
    assert!(counted.evidence.noise.places.contains_key(AT) && counted.evidence.noise.places.len() == 128);
    for n in 0..400 {
        counted.pair(&[&name(n)]);
    }
    assert_eq!((counted.evidence.noise.groups.len(), counted.evidence.mismatched), (64, 400));
    counted.check_sums();
}

#[test]
fn a_place_that_stands_for_several_values_is_no_noise() {
    let mut counted = Counted::new();
    for place in ["value text", "value body", "header headers.set-cookie"] {
        counted.repeat(&[place], &[place]);
        assert!(!counted.pair(&[place]), "{place}");
    }
    counted.check_sums();
}

#[test]
fn where_legacy_differs_from_itself_more_often_than_the_engine_from_it_nothing_is_noise() {
    let mut counted = Counted::new();
    counted.repeat(&[AT], &[AT]);
    assert!(counted.pair(&[AT]));
    for _ in 0..20 {
        counted.repeat(&[], &[AT]);
    }
    assert!(!counted.pair(&[AT]) && !counted.differs_more(AT));
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (2, 0));
    counted.check_sums();
}

#[test]
fn pairs_that_find_no_group_of_their_own_are_equal_as_long_as_all_their_places_are_noise() {
    let names: Vec<String> = (0..8).map(|n| format!("value $.a{n}")).collect();
    let subset = |bits: usize| -> Vec<&str> {
        names.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0).map(|(_, name)| name.as_str()).collect()
    };
    let mut counted = Counted::new();
    counted.repeat(&subset(255), &subset(255));
    for bits in 1..256 {
        assert!(counted.pair(&subset(bits)), "{bits}");
    }
    assert_eq!((counted.evidence.noise.groups.len(), counted.evidence.ignored), (65, 255));
    counted.check_sums();
    assert!(!counted.pair(&[&names[0], TOTAL]), "legacy never differs in the total");
    counted.check_sums();
    for _ in 0..20 {
        counted.repeat(&subset(128), &[]);
    }
    assert!(counted.differs_more(&names[7]));
    let kept_apart = counted.evidence.noise.groups.values().filter(|group| group.is_ignored).count() as u64;
    assert_eq!(counted.evidence.ignored, kept_apart, "of those together, one may differ at the rejected place");
    assert!(counted.pair(&subset(127)) && !counted.pair(&subset(128)));
    counted.check_sums();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens elsewhere, each pair that differs where legacy never differs from itself counts.
    #[test]
    fn a_difference_where_legacy_never_differs_always_counts(
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 1..120),
    ) {
        let mut counted = Counted::new();
        let mut defects = 0;
        for (is_repeat, at, total, again) in steps {
            let places: Vec<&str> = [(at, AT), (total, TOTAL)].iter().filter(|(is, _)| *is).map(|(_, p)| *p).collect();
            if is_repeat {
                counted.repeat(&places, if again { &[AT] } else { &[] });
            } else {
                let is_equal = counted.pair(&places);
                prop_assert!(!(total && is_equal));
                defects += u64::from(total);
            }
            counted.check_sums();
        }
        prop_assert!(counted.evidence.mismatched >= defects);
    }
}

/// 1,000 histories of 150 repeated requests, with a look after each, at a place where the engine is what legacy is: it
/// is counted as a difference in no more of them than the error rate says.
#[test]
fn an_engine_that_differs_as_often_as_legacy_is_rarely_blamed() {
    let mut random = fastrand::Rng::with_seed(51);
    for noise in [0.05, 0.4] {
        let blamed = (0..1_000)
            .filter(|_| {
                let mut counted = Counted::new();
                (0..150).any(|_| {
                    let (first, again, engine) =
                        (draw(noise, &mut random), draw(noise, &mut random), draw(noise, &mut random));
                    let places = |differs: bool| if differs { vec![AT] } else { vec![] };
                    counted.repeat(&places(engine != first), &places(again != first));
                    counted.differs_more(AT)
                })
            })
            .count();
        // The error rate, and three standard deviations of the count.
        assert!(blamed as f64 <= 1_000.0 * ALPHA + 10.0, "{noise}: {blamed} of 1000");
    }
}

/// A defect that is more frequent than the noise at its place is found about as soon as theory says, and then all pairs
/// count. If the engine always differs, it takes 11 requests in which legacy does not. If it differs by the defect in
/// half of them, 92 % of the unequal outcomes are the engine's, which is 0.41 nats each, and it takes ln 100 and what
/// it costs not to know that share: 16 unequal outcomes, which half of the requests are.
#[test]
fn a_defect_at_a_noisy_place_is_found_when_it_is_more_frequent() {
    let mut random = fastrand::Rng::with_seed(52);
    for (noise, defect, expected) in [(0.1, 1.0, 11.0 / 0.81), (0.3, 1.0, 11.0 / 0.49), (0.1, 0.5, 33.0)] {
        let mut repeats = 0;
        for _ in 0..300 {
            let mut counted = Counted::new();
            while !counted.differs_more(AT) {
                let (first, again) = (draw(noise, &mut random), draw(noise, &mut random));
                let engine = if random.f64() < defect { Some(0) } else { draw(noise, &mut random) };
                let places = |differs: bool| if differs { vec![AT] } else { vec![] };
                counted.repeat(&places(engine != first), &places(again != first));
                counted.pair(&places(engine != first));
            }
            assert_eq!(counted.evidence.noise.ignored, 0, "no pair is hidden any more");
            counted.check_sums();
            repeats += counted.legacy.repeats;
        }
        let mean = repeats as f64 / 300.0;
        assert!((mean / expected - 1.0).abs() < 0.2, "noise {noise}, defect {defect}: {mean} and not {expected}");
    }
}

pub(super) fn comparison(places: &[(DifferenceKind, &str)]) -> Comparison {
    let differences = places.iter().map(|(kind, path)| Difference {
        path: (*path).to_owned(),
        kind: *kind,
        legacy: None,
        engine: None,
        contradicts: Vec::new(),
    });
    Comparison {
        verdict: if places.is_empty() { Verdict::Match } else { Verdict::Mismatch },
        differences: differences.collect(),
        elements: Default::default(),
        truncated: false,
        ignored_by: Vec::new(),
        compares_replies: true,
        fingerprint: places.iter().map(|(_, path)| *path).collect(),
        effects: None,
        intents: BTreeMap::new(),
        calls: Vec::new(),
        orders_not_kept: Vec::new(),
        unparsable: Vec::new(),
        not_known: Vec::new(),
    }
}

pub(super) fn replied() -> Observation {
    let latency = std::time::Duration::from_millis(1);
    Observation::new(StatusCode::OK, HeaderMap::new(), Body::Whole(bytes::Bytes::new()), latency, Vec::new())
}

pub(super) fn basis(workflow: &str, noise: &str) -> EvidenceBasis {
    EvidenceBasis { noise: noise.to_owned(), ..EvidenceBasis::from(format!("{workflow} {noise}").as_str()) }
}

/// Counts a pair of the route; returns its verdict.
fn record(evidence: &Evidence, route: &RouteId, files: u64, places: &[(DifferenceKind, &str)]) -> Verdict {
    let class = PairClass { stratum: Some("GET 2xx"), ..State::Dark.into() };
    let generation = evidence.generation(route, files);
    evidence.record_pair(route, generation, class, &comparison(places), &replied(), &replied())
}

#[tokio::test]
async fn the_noise_of_legacy_survives_a_restart_and_a_change_of_the_workflow() {
    let (store, route) = (Arc::new(Memory::new()), RouteId::from("orders.get"));
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let at = [(DifferenceKind::Value, "$.at")];
    evidence.set_basis(0, &[(route.clone(), basis("w1", "n1"))]);
    assert_eq!(record(&evidence, &route, 0, &at), Verdict::Mismatch);
    assert_eq!(evidence.noise(&route), None);
    assert!(evidence.record_repeat(&route, evidence.generation(&route, 0), &of(&[AT]), &of(&[AT]), true));
    assert_eq!((evidence.of(&route).mismatched, record(&evidence, &route, 0, &at)), (0, Verdict::Ignored));
    evidence.flush().await.unwrap();

    let evidence = Evidence::load(store.clone()).await.unwrap();
    evidence.set_basis(0, &[(route.clone(), basis("w1", "n1"))]);
    assert_eq!((evidence.of(&route).noise.ignored, record(&evidence, &route, 0, &at)), (2, Verdict::Ignored));
    // Another type at the same path is no noise.
    assert_eq!(record(&evidence, &route, 0, &[(DifferenceKind::Type, "$.at")]), Verdict::Mismatch);
    let view = evidence.noise(&route).unwrap();
    assert_eq!((view.repeats, view.ignored, view.places.len()), (1, 3, 1));
    assert_eq!((view.places[0].place.as_str(), view.places[0].ignored, view.places[0].legacy_differs), (AT, 3, 1));
    // Another workflow: what the engine did is forgotten, what legacy does is not.
    evidence.set_basis(1, &[(route.clone(), basis("w2", "n1"))]);
    assert_eq!((evidence.of(&route).noise.repeats, record(&evidence, &route, 1, &at)), (0, Verdict::Ignored));
    // Other rules: both are.
    evidence.set_basis(2, &[(route.clone(), basis("w2", "n2"))]);
    assert_eq!((evidence.noise(&route), record(&evidence, &route, 2, &at)), (None, Verdict::Mismatch));
    // The earlier evidence goes on, without the noise.
    evidence.set_basis(3, &[(route.clone(), basis("w1", "n1"))]);
    let again = evidence.of(&route);
    assert_eq!((again.noise.ignored, again.mismatched, again.ignored), (0, 4, 0));
}

#[tokio::test]
async fn once_legacy_made_a_writing_call_no_request_is_repeated() {
    let (evidence, _store) = super::testing::evidence().await;
    let route = RouteId::from("orders.get");
    evidence.set_basis(0, &[(route.clone(), basis("w1", ""))]);
    assert_eq!(evidence.may_repeat(&route), Err("forbidden"), "not declared safe to repeat");
    evidence.set_basis(1, &[(route.clone(), basis("w1", "n1"))]);
    assert_eq!(evidence.may_repeat(&route), Ok(()));
    evidence.record_legacy_write(&route, "POST to bank");
    assert_eq!(evidence.may_repeat(&route), Err("legacy_writes"));
    assert_eq!(evidence.noise(&route).unwrap().legacy_write.unwrap().call, "POST to bank");
    evidence.set_basis(2, &[(route.clone(), basis("w2", "n1"))]);
    assert_eq!(evidence.may_repeat(&route), Err("legacy_writes"), "another workflow does not change legacy");
    evidence.set_basis(3, &[(route.clone(), basis("w2", "n2"))]);
    assert_eq!(evidence.may_repeat(&route), Err("legacy_writes"), "nor do other rules");
    evidence.set_basis(4, &[(route.clone(), basis("w2", ""))]);
    evidence.set_basis(5, &[(route.clone(), basis("w2", "n2"))]);
    assert_eq!(evidence.may_repeat(&route), Ok(()), "it is declared once more");
}

/// Differences that noise hides must not be forgotten when a process ends before it has stored them.
#[tokio::test]
async fn lost_differences_leave_the_pairs_that_are_equal_by_noise_counted() {
    let (evidence, _store) = super::testing::evidence().await;
    let route = RouteId::from("orders.get");
    evidence.set_basis(0, &[(route.clone(), basis("w1", "n1"))]);
    let at = [(DifferenceKind::Value, "$.at")];
    evidence.record_repeat(&route, evidence.generation(&route, 0), &of(&[AT]), &of(&[AT]), true);
    for places in [&at[..], &[], &[(DifferenceKind::Value, "$.total")]] {
        record(&evidence, &route, 0, places);
    }
    evidence.counters(&route).lock().restart_after_loss(crate::clock::now());
    let seen = evidence.of(&route);
    assert_eq!((seen.pairs(), seen.matched, seen.ignored, seen.mismatched), (2, 0, 1, 1));
}
