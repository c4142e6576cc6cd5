//! A change of the rules that only allows more.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::json;

use super::noise_places::DifferingPlaces;
use super::noise_tests::{comparison, replied};
use super::part_names::RULES;
use super::testing::{Memory, sample, samples};
use super::{Evidence, EvidenceBasis, GuardStop, NextEvidence, PairClass, RejudgedOutcome, RejudgedPairs};
use crate::compare::{Comparison, DifferenceKind, UncomparedHeader, Verdict};
use crate::exchange::{ComparisonOutcome, OfferedRequest};
use crate::flag::State;
use crate::names::RouteId;
use crate::store::Store as _;

const STRATUM: &str = "GET 2xx";

fn route() -> RouteId {
    "orders.get".into()
}

/// The basis of a route with this workflow and these ignored paths, which is declared safe to repeat.
fn basis(workflow: &str, ignore: &[&str]) -> EvidenceBasis {
    let rules = json!({ "ignore": ignore }).to_string();
    EvidenceBasis {
        hash: format!("{workflow} {rules}"),
        parts: [("the workflow `w`", workflow), (RULES, &rules)].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        noise: format!("shop {rules}"),
        noise_apart_from_rules: "shop".to_owned(),
        rules,
        ..EvidenceBasis::default()
    }
}

/// A pair that differs in value at these paths.
fn differing(paths: &[&str]) -> Comparison {
    let places: Vec<_> = paths.iter().map(|path| (DifferenceKind::Value, *path)).collect();
    Comparison { fingerprint: paths.join(" "), ..comparison(&places) }
}

fn places(paths: &[&str]) -> DifferingPlaces {
    DifferingPlaces::of(&differing(paths))
}

struct Rig {
    store: Arc<Memory>,
    evidence: Arc<Evidence>,
    files: u64,
}

impl Rig {
    async fn new() -> Self {
        let (evidence, store) = super::testing::evidence().await;
        Self { store, evidence, files: 0 }
    }
    /// Puts these rules in force.
    fn set(&mut self, basis: EvidenceBasis) -> Option<NextEvidence> {
        self.files += 1;
        self.evidence.set_basis(self.files, &[(route(), basis)]).first().map(|(_, change)| change.next)
    }
    /// Compares a request of which the pair differs at these paths.
    fn pair(&self, paths: &[&str]) -> Verdict {
        let generation = self.evidence.generation(&route(), self.files);
        let comparison = differing(paths);
        let class = PairClass { stratum: Some(STRATUM), ..State::Dark.into() };
        let verdict = self.evidence.record_pair(&route(), generation, class, &comparison, &replied(), &replied());
        if self.evidence.wants_sample(&route(), generation, &comparison.fingerprint) && !paths.is_empty() {
            self.evidence.keep_sample(generation, sample(route(), &comparison.fingerprint));
        }
        let outcome = match verdict {
            Verdict::Match => ComparisonOutcome::Matched,
            Verdict::Ignored => ComparisonOutcome::Ignored,
            Verdict::Mismatch => ComparisonOutcome::Mismatched,
        };
        let request = OfferedRequest::new(route(), self.files);
        let request = OfferedRequest { rung: State::Dark, legacy_status: Some(http::StatusCode::OK), ..request };
        let request = OfferedRequest { method: http::Method::GET, ..request };
        self.evidence.counters(&route()).lock().settle(&request, outcome);
        verdict
    }
    fn repeat(&self, paths: &[&str]) {
        self.repeat_once(paths, paths);
    }
    /// Repeats a request: where the engine differs from legacy, and legacy from itself.
    fn repeat_once(&self, engine: &[&str], again: &[&str]) {
        let generation = self.evidence.generation(&route(), self.files);
        assert!(self.evidence.record_repeat(&route(), generation, &places(engine), &places(again), true));
    }
    /// Judges: of the pairs that differ at the first paths, the second ones are left.
    fn judge(&self, found: &[(&[&str], &[&str])]) -> Option<RejudgedOutcome> {
        let waiting = self.evidence.to_rejudge().remove(0).1;
        let judged = |(before, after): &(&[&str], &[&str])| {
            let after_places = (!after.is_empty()).then(|| (after.join(" "), places(after)));
            let rules = vec!["ignore $.note".to_owned()];
            (before.join(" "), RejudgedPairs { before: places(before), after: after_places, rules })
        };
        let judged: BTreeMap<String, RejudgedPairs> = found.iter().map(judged).collect();
        let left = found.iter().filter(|(_, after)| !after.is_empty());
        let kept = left.map(|(_, after)| sample(route(), &after.join(" "))).collect();
        let read = self.store.samples(route(), 1_000).now_or_never().expect("no wait").expect("samples");
        self.evidence.set_rejudged(&route(), waiting.since, &judged, (read, kept))
    }
    /// Pairs that are equal, equal by a rule or by noise, and different.
    fn counts(&self) -> (u64, u64, u64) {
        let e = self.evidence.of(&route());
        let of_kind = e.dark.strata.get(STRATUM).copied().unwrap_or_default();
        assert_eq!((of_kind.compared, of_kind.mismatched), (e.pairs(), e.mismatched));
        let ignored: u64 = e.noise.groups.values().filter(|g| g.is_ignored).map(|g| g.pairs()).sum();
        assert_eq!(e.noise.ignored, ignored);
        (e.matched, e.ignored, e.mismatched)
    }
}

#[tokio::test]
async fn pairs_that_are_equal_stay_so_under_rules_that_only_allow_more() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    for _ in 0..3 {
        rig.pair(&[]);
    }
    assert_eq!(rig.set(basis("1", &["$.note"])), Some(NextEvidence::GoesOn));
    assert!(rig.evidence.to_rejudge().is_empty());
    rig.pair(&[]);
    assert_eq!(rig.counts(), (4, 0, 0));
    let seen = rig.evidence.of(&route());
    assert_eq!((&seen.restarted, seen.earlier.len(), seen.rule_changes_after_differences()), (&None, 0, 0));
    // Together with the workflow, or where something is taken away, it starts from zero; taken back, it goes on.
    assert_eq!(rig.set(basis("2", &["$.note", "$.at"])), Some(NextEvidence::FromZero));
    rig.pair(&[]);
    assert_eq!(rig.set(basis("2", &["$.at"])), Some(NextEvidence::FromZero));
    assert_eq!(rig.set(basis("1", &["$.note"])), Some(NextEvidence::Earlier));
    assert_eq!(rig.counts(), (4, 0, 0));
}

/// A request that is under way while the rules change is compared by the new ones, and counts as all others.
/// The new rules may ignore some of them by name.
#[tokio::test]
async fn headers_that_nothing_compares_are_counted_anew_where_the_evidence_goes_on() {
    let mut rig = Rig::new().await;
    rig.set(basis("one", &[]));
    rig.pair(&[]);
    let header = UncomparedHeader { name: &http::header::SET_COOKIE, differs: true };
    let generation = rig.evidence.generation(&route(), rig.files);
    rig.evidence.record_uncompared_headers(&route(), generation, [header].into_iter());
    assert_eq!(rig.evidence.of(&route()).uncompared_headers.names.len(), 1);
    assert_eq!(rig.set(basis("one", &["header.set-cookie"])), Some(NextEvidence::GoesOn));
    let after = rig.evidence.of(&route());
    assert_eq!((after.pairs(), after.uncompared_headers.names.len()), (1, 0));
}

#[tokio::test]
async fn requests_under_way_count_where_the_evidence_goes_on() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    rig.pair(&[]);
    let (decided, generation) = (rig.files, rig.evidence.generation(&route(), rig.files));
    assert_eq!(rig.set(basis("1", &["$.note"])), Some(NextEvidence::GoesOn));
    assert_eq!(rig.evidence.generation(&route(), decided), generation, "it is offered after the change");
    rig.files = decided;
    assert_eq!(rig.pair(&["$.total"]), Verdict::Mismatch);
    assert_eq!(rig.counts(), (1, 0, 1));
    rig.files = 2;
    // It counts in neither where the evidence does not go on; what is left says that it lacks one.
    let request = OfferedRequest { rung: State::Dark, ..OfferedRequest::new(route(), 2) };
    rig.evidence.counters(&route()).lock().begin(&request);
    assert_eq!(rig.set(basis("2", &[])), Some(NextEvidence::FromZero));
    assert_ne!(rig.evidence.generation(&route(), 2), rig.evidence.generation(&route(), rig.files));
    assert_eq!(rig.set(basis("1", &["$.note"])), Some(NextEvidence::Earlier));
    let skipped = rig.evidence.of(&route()).skipped;
    assert_eq!(skipped.get("files_changed"), Some(&1), "{skipped:?}");
}

#[tokio::test]
async fn what_differed_counts_until_it_was_judged_again_also_over_a_restart() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    for paths in [&["$.note"][..], &["$.note"], &[], &["$.note", "$.total"], &["$.total"]] {
        rig.pair(paths);
    }
    assert_eq!(rig.set(basis("1", &["$.note"])), Some(NextEvidence::GoesOn));
    assert_eq!(rig.counts(), (1, 0, 4), "nothing is equal before it was judged");
    rig.pair(&["$.total"]);
    rig.evidence.flush().await.unwrap();
    rig.evidence = Evidence::load(rig.store.clone()).await.unwrap();
    rig.files = 0;
    rig.evidence.set_basis(0, &[(route(), basis("1", &["$.note"]))]);
    let waiting = rig.evidence.to_rejudge().remove(0).1;
    assert_eq!(waiting.rules, basis("1", &[]).rules);
    assert_eq!(waiting.fingerprints.into_keys().collect::<Vec<_>>(), ["$.note", "$.note $.total", "$.total"]);
    let judged: [(&[&str], &[&str]); 3] =
        [(&["$.note"], &[]), (&["$.note", "$.total"], &["$.total"]), (&["$.total"], &["$.total"])];
    assert_eq!(rig.judge(&judged), Some(RejudgedOutcome::Judged { equal: 2, differing: 2 }));
    assert_eq!(rig.counts(), (1, 2, 3));
    let seen = rig.evidence.of(&route());
    assert_eq!(seen.seen.iter().map(|(f, of)| (f.as_str(), of.count)).collect::<Vec<_>>(), [("$.total", 3)]);
    assert_eq!((seen.rule_hits["ignore $.note"], seen.rule_changes_after_differences()), (4, 1));
    let kept = samples(&rig.evidence, &rig.store, &route()).await;
    assert!(!kept.is_empty() && kept.iter().all(|sample| sample.fingerprint == "$.total"));
    assert!(rig.evidence.to_rejudge().is_empty());
}

/// The record has the entry of the change before that of what became of the pairs.
#[tokio::test]
async fn a_change_is_reported_before_its_pairs_can_be_judged_again() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    rig.pair(&["$.note"]);
    let (evidence, told) = (rig.evidence.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (judging, log) = (rig.evidence.clone(), told.clone());
    let judge = std::thread::spawn(move || {
        while judging.to_rejudge().is_empty() {
            std::thread::yield_now();
        }
        log.lock().unwrap().push("judged");
    });
    evidence.set_basis_and_tell(2, &[(route(), basis("1", &["$.note"]))], &mut |_, _| {
        (0..10_000).for_each(|_| std::thread::yield_now());
        told.lock().unwrap().push("changed");
    });
    judge.join().unwrap();
    assert_eq!(*told.lock().unwrap(), ["changed", "judged"]);
}

#[tokio::test]
async fn a_difference_that_cannot_be_judged_again_is_never_counted_as_equal() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    for paths in [&["$.note"][..], &[], &["$.total"]] {
        rig.pair(paths);
    }
    rig.set(basis("1", &["$.note"]));
    let stop = GuardStop { at: jiff::Timestamp::UNIX_EPOCH, why: "5 of the last 5 were refused".into() };
    rig.evidence.set_guard_stop(&route(), Some(stop.clone()));
    let legacy = rig.evidence.of(&route()).legacy;
    assert_eq!(rig.judge(&[(&["$.note"], &[])]), Some(RejudgedOutcome::FromZero));
    assert_eq!(rig.counts(), (0, 0, 0));
    let seen = rig.evidence.of(&route());
    assert_eq!((legacy.replies, &seen.legacy, &seen.stopped_by_guard), (3, &legacy, &Some(stop)), "the guard goes on");
    assert_eq!(seen.restarted.map(|restarted| restarted.pairs_before), Some(3));
    assert_eq!(seen.earlier.iter().map(|earlier| earlier.mismatched).collect::<Vec<_>>(), [2]);
    assert!(samples(&rig.evidence, &rig.store, &route()).await.is_empty());
    // A change while pairs wait to be judged starts from zero, too.
    rig.pair(&["$.at"]);
    rig.set(basis("1", &["$.note", "$.at"]));
    assert_eq!(rig.evidence.to_rejudge().len(), 1);
    assert_eq!(rig.set(basis("1", &["$.note", "$.at", "$.b"])), Some(NextEvidence::FromZero));
    assert!(rig.evidence.to_rejudge().is_empty());
}

#[tokio::test]
async fn the_noise_of_legacy_goes_on_where_parts_are_left_out() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    rig.repeat(&["$.at"]);
    for paths in [&["$.at"][..], &["$.at", "$.note"], &["$.note"], &["$.at", "$.total"]] {
        rig.pair(paths);
    }
    assert_eq!(rig.counts(), (0, 1, 3));
    rig.set(basis("1", &["$.note"]));
    assert_eq!((rig.pair(&["$.at"]), rig.counts()), (Verdict::Ignored, (0, 2, 3)), "it is still noise");
    let judged: [(&[&str], &[&str]); 4] = [
        (&["$.at"], &["$.at"]),
        (&["$.at", "$.note"], &["$.at"]),
        (&["$.note"], &[]),
        (&["$.at", "$.total"], &["$.at", "$.total"]),
    ];
    assert_eq!(rig.judge(&judged), Some(RejudgedOutcome::Judged { equal: 1, differing: 3 }));
    assert_eq!(rig.counts(), (0, 4, 1), "what is left of the second pair is noise");
}

/// A value that may differ by a tolerance is still compared: noise that was found without it would hide more.
#[tokio::test]
async fn after_another_change_the_guard_still_counts_earlier_noise_as_noise() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    rig.repeat(&["$.at"]);
    let rules = json!({ "ignore": [], "tolerance": { "$.at": "5s" } }).to_string();
    let tolerant = EvidenceBasis { rules: rules.clone(), noise: rules.clone(), ..basis("1", &["x"]) };
    rig.set(EvidenceBasis { hash: rules, ..tolerant });
    assert_eq!(rig.pair(&["$.at"]), Verdict::Mismatch);
    let was_noise = |rig: &Rig, paths: &[&str]| rig.evidence.counters(&route()).lock().was_noise(&differing(paths));
    assert!(was_noise(&rig, &["$.at"]) && !was_noise(&rig, &["$.at", "$.total"]) && !was_noise(&rig, &[]));
    // The engine was seen to differ more often there: that counts at once.
    (0..20).for_each(|_| rig.repeat_once(&["$.at"], &[]));
    assert!(!was_noise(&rig, &["$.at"]));
    rig.set(EvidenceBasis { hash: "other".into(), noise: "other".into(), rules: "{}".into(), ..basis("1", &["y"]) });
    assert!(was_noise(&rig, &["$.at"]));
    (0..100).for_each(|_| rig.repeat(&[]));
    assert!(!was_noise(&rig, &["$.at"]), "by now it would be known again");
}

/// A request differs while the stored samples are judged again, and the evidence is flushed before they are replaced.
#[tokio::test]
async fn a_sample_that_is_kept_meanwhile_is_not_deleted_with_those_that_are_judged() {
    let mut rig = Rig::new().await;
    rig.set(basis("one", &[]));
    rig.pair(&["$.a"]);
    assert_eq!(rig.set(basis("one", &["$.note"])), Some(NextEvidence::GoesOn));
    rig.evidence.flush().await.unwrap();
    let deferred = rig.evidence.defer_sample_writes(&route());
    rig.pair(&["$.b"]);
    rig.evidence.flush().await.unwrap();
    assert_eq!(rig.judge(&[(&["$.a"], &["$.a"])]), Some(RejudgedOutcome::Judged { equal: 0, differing: 1 }));
    drop(deferred);
    let stored = samples(&rig.evidence, &rig.store, &route()).await;
    let mut stored: Vec<_> = stored.into_iter().map(|sample| sample.fingerprint).collect();
    stored.sort();
    assert_eq!(stored, ["$.a", "$.b"]);
}

/// Another process finds a difference by the earlier rules while those before it are being judged.
#[tokio::test]
async fn samples_that_are_written_while_others_are_judged_stay() {
    let mut rig = Rig::new().await;
    rig.set(basis("1", &[]));
    rig.pair(&["$.note"]);
    samples(&rig.evidence, &rig.store, &route()).await;
    rig.set(basis("1", &["$.note"]));
    assert_eq!(rig.judge(&[(&["$.note"], &[])]), Some(RejudgedOutcome::Judged { equal: 1, differing: 0 }));
    rig.store.put_samples(vec![sample(route(), "$.note $.total")], 3, 64).await.unwrap();
    let left = samples(&rig.evidence, &rig.store, &route()).await;
    assert_eq!(left.iter().map(|sample| &*sample.fingerprint).collect::<Vec<_>>(), ["$.note $.total"]);
}
