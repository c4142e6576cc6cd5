mod renames;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::compare::{Body, Comparison, Difference, DifferenceKind, Observation, UnparsableBody, Verdict};
use crate::exchange::{
    ComparisonOutcome, ComparisonTicket, OfferedRequest, Served, ServedObserver as _, TicketCounter as _,
};
use crate::flag::{Promote, SkipReason, State};
use crate::ladder::tests::failing_store::FailingStore;
use crate::store::{MemoryStore, Store};

fn route() -> RouteId {
    RouteId::new("orders.create")
}

/// The evidence of the route, without the time and the reason of its last restart.
fn counts(evidence: &Evidence) -> RouteEvidence {
    RouteEvidence { restarted: None, earlier: Vec::new(), ..evidence.of(&route()) }
}

async fn evidence_over(store: &StoreHandle) -> Arc<Evidence> {
    Evidence::load(store.clone()).await.unwrap()
}

fn memory() -> StoreHandle {
    Arc::new(MemoryStore::new())
}

fn comparison(verdict: Verdict) -> Comparison {
    let (path, kind, contradicts) = ("$.a".into(), DifferenceKind::Value, Vec::new());
    let difference = Difference { path, kind, legacy: None, engine: None, contradicts };
    Comparison {
        verdict,
        differences: if verdict == Verdict::Mismatch { vec![difference] } else { Vec::new() },
        elements: Default::default(),
        truncated: false,
        ignored_by: if verdict == Verdict::Ignored { vec![("ignore $.at".into(), 2)] } else { Vec::new() },
        compares_replies: true,
        fingerprint: "f".into(),
        effects: None,
        intents: Default::default(),
        calls: Vec::new(),
        orders_not_kept: Vec::new(),
        unparsable: vec![UnparsableBody { arm: "legacy", format: "JSON" }],
        not_known: Vec::new(),
    }
}

/// Returns the observation of an arm that replied with this status after this many milliseconds.
fn replied(status: u16, after_ms: u64) -> Observation {
    let (status, body) = (StatusCode::from_u16(status).unwrap(), Body::Whole(Bytes::new()));
    Observation::new(status, HeaderMap::new(), body, Duration::from_millis(after_ms), Vec::new())
}

fn pair_with(evidence: &Evidence, rung: State, verdict: Verdict, status: u16) {
    let (legacy, engine) = (replied(status, 2), replied(status, 5));
    evidence.record_pair(&route(), evidence.generation(&route(), 0), rung, &comparison(verdict), &legacy, &engine);
}

fn pair(evidence: &Evidence, rung: State, verdict: Verdict) {
    pair_with(evidence, rung, verdict, 201);
}

fn sample(fingerprint: &str) -> Sample {
    testing::sample(route(), fingerprint)
}

#[tokio::test]
async fn pairs_add_up_and_survive_a_restart() {
    let store = memory();
    let evidence = evidence_over(&store).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    pair(&evidence, State::Shadow, Verdict::Match);
    pair(&evidence, State::Dark, Verdict::Ignored);
    pair(&evidence, State::Dark, Verdict::Mismatch);
    evidence.settle(&OfferedRequest::new(route(), 0), ComparisonOutcome::Skipped(SkipReason::QueueFull));
    evidence.flush().await.unwrap();

    let later = evidence_over(&store).await;
    later.set_basis(0, &[(route(), "one".into())]);
    let loaded = later.of(&route());
    assert_eq!(loaded, evidence.of(&route()));
    let pairs = (loaded.shadow_pairs, loaded.dark_pairs, loaded.matched, loaded.ignored, loaded.mismatched);
    assert_eq!(pairs, (1, 2, 1, 1, 1));
    assert_eq!(loaded.pairs(), loaded.matched + loaded.ignored + loaded.mismatched);
    assert_eq!(loaded.unparsable_bodies["legacy JSON"], 3);
    assert_eq!((loaded.rule_hits["ignore $.at"], loaded.skipped["queue_full"], loaded.coverage()), (2, 1, 0.75));
    let counted = |evidence: &Evidence| evidence.of(&route()).seen.values().map(|seen| seen.count).sum::<u64>();
    (0..9).for_each(|_| pair(&later, State::Dark, Verdict::Mismatch));
    assert_eq!((counted(&evidence), counted(&later)), (1, 10), "all pairs are counted, few are kept as samples");
}

#[tokio::test]
async fn pairs_that_an_earlier_version_counted_as_matched_and_ignored_count_once() {
    let store = memory();
    let evidence =
        serde_json::json!({ "shadow_pairs": 9, "dark_pairs": 1, "matched": 8, "ignored": 3, "mismatched": 2 });
    let value = serde_json::json!({ "basis": "one", "evidence": evidence });
    store.put_evidence(vec![EvidenceRecord { route: route(), at: clock::now(), value }]).await.unwrap();
    let loaded = evidence_over(&store).await.of(&route());
    assert_eq!((loaded.matched, loaded.ignored, loaded.mismatched, loaded.pairs()), (5, 3, 2, 10));
}

#[tokio::test]
async fn another_basis_starts_from_zero_and_ignores_comparisons_that_began_before() {
    let store = memory();
    let evidence = evidence_over(&store).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    pair(&evidence, State::Shadow, Verdict::Mismatch);
    let before = evidence.generation(&route(), 0);
    evidence.keep_sample(before, sample("f"));
    evidence.flush().await.unwrap();
    assert_eq!(store.samples(route(), 10).await.unwrap().len(), 1);
    evidence.set_basis(0, &[(route(), "two".into())]);
    let late = comparison(Verdict::Mismatch);
    evidence.record_pair(&route(), before, State::Shadow, &late, &replied(201, 0), &replied(201, 0));
    evidence.keep_sample(before, sample("f"));
    evidence.flush().await.unwrap();
    assert_eq!(counts(&evidence), RouteEvidence::default());
    assert!(store.samples(route(), 10).await.unwrap().is_empty());

    pair(&evidence, State::Shadow, Verdict::Match);
    evidence.set_basis(0, &[(route(), "two".into())]);
    assert_eq!(evidence.of(&route()).shadow_pairs, 1, "the same basis changes nothing");

    // Files of version 3 have another basis. A request that earlier files decided may be offered after that.
    evidence.set_basis(3, &[(route(), "three".into())]);
    evidence.set_basis(4, &[(route(), "three".into())]);
    for (files_version, pairs) in [(2, 0), (3, 1), (4, 2)] {
        let generation = evidence.generation(&route(), files_version);
        evidence.record_pair(&route(), generation, State::Shadow, &late, &replied(201, 0), &replied(201, 0));
        assert_eq!(evidence.of(&route()).shadow_pairs, pairs, "decided by version {files_version}");
        assert_eq!(evidence.wants_sample(&route(), generation, "f"), pairs > 0);
    }
}

fn set_renames<'a>(evidence: &Evidence, routes: &[(&'a RouteId, &'a [RouteId])]) {
    evidence.set_renames(routes.iter().copied());
}

#[tokio::test]
async fn samples_of_one_fingerprint_are_bounded() {
    let store = memory();
    let evidence = evidence_over(&store).await;
    let generation = evidence.generation(&route(), 0);
    for n in 0..50 {
        evidence.keep_sample(generation, Sample { request: format!("POST /orders {n}"), ..sample("same") });
    }
    evidence.keep_sample(generation, sample("other"));
    assert!(
        !evidence.wants_sample(&route(), generation, "same") && evidence.wants_sample(&route(), generation, "other")
    );
    evidence.flush().await.unwrap();
    assert_eq!(store.samples(route(), 100).await.unwrap().len(), 4);
}

#[tokio::test]
async fn what_a_failed_flush_did_not_write_is_written_once_by_the_next() {
    type Failure = fn(&FailingStore) -> &AtomicBool;
    let failures: [(&str, Failure); 3] = [
        ("samples are not stored", |store| &store.refuse_samples),
        ("samples are stored, and the reply is lost", |store| &store.lose_sample_replies),
        ("evidence is not stored", |store| &store.refuse_evidence),
    ];
    for (what, failure) in failures {
        let store = Arc::new(FailingStore::default());
        let evidence = evidence_over(&(store.clone() as StoreHandle)).await;
        evidence.set_basis(0, &[(route(), "one".into())]);
        pair(&evidence, State::Shadow, Verdict::Match);
        evidence.keep_sample(evidence.generation(&route(), 0), sample("f"));
        failure(&store).store(true, Ordering::SeqCst);
        for time in ["first", "second"] {
            assert!(evidence.flush().await.is_err(), "{what}, the {time} time");
        }
        assert_eq!(evidence.of(&route()).shadow_pairs, 1, "{what}");
        assert!(store.evidence().await.unwrap().is_empty(), "{what}: no row is written yet");

        failure(&store).store(false, Ordering::SeqCst);
        evidence.flush().await.unwrap();
        assert_eq!(store.samples(route(), 10).await.unwrap(), [sample("f")], "{what}");
        let later = evidence_over(&(store.clone() as StoreHandle)).await;
        assert_eq!(later.of(&route()).shadow_pairs, 1, "{what}");
    }
}

/// This happens when a client that waits for the differences of a route disconnects.
#[tokio::test]
async fn a_flush_whose_caller_goes_away_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store: StoreHandle = Arc::new(crate::store::SqliteStore::open(path, &Limits::default()).await.unwrap());
    let evidence = evidence_over(&store).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    evidence.flush().await.unwrap();
    evidence.set_basis(0, &[(route(), "two".into())]); // the samples are cleared first
    evidence.keep_sample(evidence.generation(&route(), 0), sample("f"));
    // The flush is dropped while it waits for the store, unless the store's thread was faster.
    let _ = tokio::time::timeout(Duration::ZERO, evidence.flush()).await;
    evidence.flush().await.unwrap();
    assert_eq!(store.samples(route(), 10).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn an_engine_error_resets_the_count_of_consecutive_answers() {
    let evidence = evidence_over(&memory()).await;
    for served in [Served::Answered, Served::Answered, Served::FellBack, Served::Answered] {
        evidence.served(&route(), 0, served);
    }
    let seen = evidence.of(&route());
    assert_eq!((seen.engine_answers, seen.engine_errors), (1, 1));
}

#[tokio::test]
async fn a_dark_request_ends_with_or_without_a_twin() {
    let evidence = evidence_over(&memory()).await;
    let ticket = |expect_twin: bool, twin_made: bool| {
        let mut ticket = ComparisonTicket::new(OfferedRequest::new(route(), 0), evidence.clone());
        if expect_twin {
            ticket.expect_twin();
        }
        if twin_made {
            ticket.record_twin_made();
        }
        ticket
    };
    ticket(true, false).skip(SkipReason::QueueFull);
    drop(ticket(true, false));
    ticket(true, false).skip(SkipReason::LegacyFailed);
    ticket(true, true).settle(ComparisonOutcome::Matched);
    ticket(false, false).skip(SkipReason::Streaming);
    let seen = evidence.of(&route());
    assert_eq!(seen.dark_without_twin, 2);
    assert_eq!(seen.skipped["client_went_away"], 1);
}

#[tokio::test]
async fn sums_agree_whenever_they_are_read() {
    let evidence = evidence_over(&memory()).await;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..4u32 {
            let evidence = &evidence;
            scope.spawn(move || {
                for m in 0..5_000u32 {
                    evidence.settle(
                        &OfferedRequest::new(route(), 0),
                        match (n + m) % 5 {
                            0 => ComparisonOutcome::Matched,
                            1 => ComparisonOutcome::Ignored,
                            2 => ComparisonOutcome::Mismatched,
                            3 => ComparisonOutcome::Skipped(SkipReason::ALL[(m % 17) as usize]),
                            _ => ComparisonOutcome::Failed("timeout"),
                        },
                    );
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let totals = evidence.counters(&route()).lock().totals.clone();
                assert_eq!(totals.offered, totals.outcomes());
                done.store(totals.offered == 20_000, Ordering::Release);
            }
        });
    });
    assert_eq!(evidence.counters(&route()).lock().totals.offered, 20_000);
}

/// A process whose successor was lost loads its evidence again, under the recorder that it has.
#[test]
fn counters_go_on_when_evidence_is_loaded_again() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        for outcome in [ComparisonOutcome::Matched, ComparisonOutcome::Skipped(SkipReason::QueueFull)] {
            let evidence = runtime.block_on(evidence_over(&memory()));
            evidence.settle(&OfferedRequest::new(route(), 0), ComparisonOutcome::Matched);
            evidence.publish();
            evidence.settle(&OfferedRequest::new(route(), 0), outcome);
            evidence.publish();
        }
    });
    let text = handle.render();
    for line in [
        r#"pointsman_offered_total{route="orders.create"} 4"#,
        r#"pointsman_comparisons_total{route="orders.create",outcome="matched",reason=""} 3"#,
        r#"pointsman_comparisons_total{route="orders.create",outcome="skipped",reason="queue_full"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_scrape_shows_one_copy_of_the_counters() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        let evidence = runtime.block_on(evidence_over(&memory()));
        pair(&evidence, State::Shadow, Verdict::Mismatch);
        evidence.settle(&OfferedRequest::new(route(), 0), ComparisonOutcome::Mismatched);
        evidence.settle(&OfferedRequest::new(route(), 0), ComparisonOutcome::Skipped(SkipReason::QueueFull));
        evidence.publish();
    });
    let text = handle.render();
    for line in [
        r#"pointsman_offered_total{route="orders.create"} 2"#,
        r#"pointsman_comparisons_total{route="orders.create",outcome="mismatched",reason=""} 1"#,
        r#"pointsman_comparisons_total{route="orders.create",outcome="skipped",reason="queue_full"} 1"#,
        r#"pointsman_differences_total{route="orders.create",kind="value"} 1"#,
        r#"pointsman_evidence_pairs{route="orders.create"} 1"#,
        r#"pointsman_evidence_mismatch_upper_bound{route="orders.create"} 1"#,
        r#"pointsman_evidence_coverage{route="orders.create"} 0.5"#,
        r#"pointsman_paired_latency_seconds_count{route="orders.create",slower="engine"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn errors_of_legacy_are_counted_by_rung() {
    let evidence = evidence_over(&memory()).await;
    for (rung, status) in
        [(State::Shadow, 404), (State::Shadow, 200), (State::Dark, 422), (State::Dark, 409), (State::Dark, 500)]
    {
        pair_with(&evidence, rung, Verdict::Match, status);
    }
    let counted = evidence.of(&route());
    assert_eq!(
        (counted.shadow_pairs, counted.shadow_pairs_with_error, counted.dark_pairs, counted.dark_pairs_with_error),
        (2, 1, 3, 3)
    );
}

/// As many 404s as anybody sends make the evidence of requests that succeed neither better nor worse.
#[tokio::test]
async fn errors_of_both_arms_count_for_their_kind_only() {
    let evidence = evidence_over(&memory()).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    let settle = |status, outcome| {
        let request = OfferedRequest { rung: State::Dark, ..OfferedRequest::new(route(), 0) };
        evidence.settle(&OfferedRequest { legacy_status: StatusCode::from_u16(status).ok(), ..request }, outcome);
    };
    let compared = |status| {
        pair_with(&evidence, State::Dark, Verdict::Match, status);
        settle(status, ComparisonOutcome::Matched);
    };
    compared(404);
    assert_eq!(evidence.of(&route()).mismatch_upper_bound(), 1.0, "nothing that succeeds was compared");
    (0..3).for_each(|_| compared(200));
    settle(200, ComparisonOutcome::Skipped(SkipReason::QueueFull));
    let before = evidence.of(&route());
    assert_eq!((before.coverage(), before.pairs_without_error()), (0.75, 3));
    (0..997).for_each(|_| compared(404));
    settle(404, ComparisonOutcome::Skipped(SkipReason::QueueFull));
    settle(500, ComparisonOutcome::Failed("timeout"));
    let after = evidence.of(&route());
    assert_eq!((after.coverage(), after.mismatch_upper_bound()), (0.75, before.mismatch_upper_bound()));
    assert_eq!(after.pairs_needed_for(0.001), before.pairs_needed_for(0.001));
    assert_eq!((after.dark.latencies, after.dark.latency_ratios), (before.dark.latencies, before.dark.latency_ratios));
    let of_kind = after.dark.strata["GET 4xx"];
    assert_eq!((of_kind.served, of_kind.compared, of_kind.skipped), (999, 998, 1));
}

#[tokio::test]
async fn an_error_of_the_answering_arm_is_marked_before_it_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let location = MarksLocation::File(dir.path().join("marks"));
    let marks = IncompleteEvidenceMarks::open(&location).await.unwrap();
    let evidence = Evidence::open(memory(), marks, &Limits::default(), None).await.unwrap();
    evidence.served(&route(), 0, Served::Answered);
    assert!(!evidence.marks.is_marked(&route()));
    evidence.served(&route(), 0, Served::FellBack);
    assert!(evidence.marks.is_marked(&route()), "the mark is made before `served` returns");
    evidence.flush().await.unwrap();
    assert!(!evidence.marks.is_marked(&route()), "the error is stored, so the mark is cleared");
    evidence.served(&route(), 0, Served::Error);
    drop(evidence);
    assert!(
        IncompleteEvidenceMarks::open(&location).await.unwrap().is_marked(&route()),
        "the next process finds the mark"
    );
}

#[tokio::test]
async fn after_a_restart_a_marked_route_has_only_stored_mismatches_failures_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    let location = MarksLocation::File(dir.path().join("marks"));
    let store = memory();
    let open = async || {
        Evidence::open(store.clone(), IncompleteEvidenceMarks::open(&location).await.unwrap(), &Limits::default(), None)
            .await
    };
    let evidence = open().await.unwrap();
    evidence.set_basis(0, &[(route(), "a".into())]);
    for _ in 0..25 {
        pair(&evidence, State::Shadow, Verdict::Match);
        evidence.served(&route(), 0, Served::Answered);
    }
    for _ in 0..3 {
        pair(&evidence, State::Shadow, Verdict::Mismatch);
    }
    evidence.settle(&OfferedRequest::new(route(), 0), ComparisonOutcome::Failed("timeout"));
    evidence.served(&route(), 0, Served::Error);
    evidence.flush().await.unwrap();
    pair(&evidence, State::Shadow, Verdict::Mismatch);
    drop(evidence);

    let evidence = open().await.unwrap();
    let loaded = evidence.of(&route());
    assert_eq!((loaded.mismatched, loaded.pairs(), loaded.matched, loaded.seen["f"].count), (3, 3, 0, 3));
    assert_eq!((loaded.failed["timeout"], loaded.engine_errors, loaded.engine_answers), (1, 1, 0));
    for _ in 0..30 {
        pair(&evidence, State::Shadow, Verdict::Match);
    }
    let (of_route, promote, now) = (evidence.of(&route()), Promote::default(), clock::now());
    let judged = JudgedRoute {
        evidence: &of_route,
        promote: &promote,
        shared_steps: &[],
        private_steps: &[],
        sent_reads: &[],
        shared_steps_below: &[],
        invariants: &[],
        live_share_is_all: true,
        now,
    };
    let why = judged.open_differences().detail;
    assert!(why.contains("has 3 open mismatches") && why.contains("more are not"), "{why}");
    evidence.set_basis(0, &[(route(), "b".into())]);
    assert_eq!(counts(&evidence), RouteEvidence::default(), "a changed basis starts the evidence from zero");
}

/// The process is killed before the rename is stored.
#[tokio::test]
async fn a_mark_after_a_rename_names_the_id_under_which_the_evidence_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let location = MarksLocation::File(dir.path().join("marks"));
    let [renamed, again] = ["orders.make", "orders.new"].map(RouteId::new);
    let stages = [(renamed.clone(), vec![route()]), (again, vec![renamed, route()])];
    for renames in 1..=2 {
        let store = memory();
        let open = async || {
            Evidence::open(
                store.clone(),
                IncompleteEvidenceMarks::open(&location).await.unwrap(),
                &Limits::default(),
                None,
            )
            .await
            .unwrap()
        };
        let evidence = open().await;
        evidence.set_basis(0, &[(route(), "one".into())]);
        pair(&evidence, State::Shadow, Verdict::Match);
        evidence.flush().await.unwrap();
        stages[..renames].iter().for_each(|(id, was)| set_renames(&evidence, &[(id, was)]));
        pair(&evidence, State::Shadow, Verdict::Mismatch);
        drop(evidence);
        // The next process reads files with the new id, or with the earlier id again.
        let evidence = open().await;
        assert_eq!((evidence.of(&route()).pairs(), evidence.of(&route()).lost_differences.is_some()), (0, true));
        let (id, was) = &stages[renames - 1];
        set_renames(&evidence, &[(id, was)]);
        assert!(evidence.of(id).lost_differences.is_some());
        evidence.flush().await.unwrap();
        // The rows of both ids are stored now.
        pair(&evidence, State::Shadow, Verdict::Mismatch);
        assert!(!evidence.marks.is_marked(&route()) && evidence.marks.is_marked(id));
        evidence.flush().await.unwrap();
    }
}

/// A copy of the store, such as a restored backup, may lack differences that were seen after it was made.
#[tokio::test]
async fn the_first_start_on_a_copied_store_counts_pairs_without_a_difference_from_zero() {
    let store = memory();
    let evidence = evidence_over(&store).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    for verdict in [Verdict::Match, Verdict::Match, Verdict::Mismatch] {
        pair(&evidence, State::Dark, verdict);
        evidence.served(&route(), 0, Served::Answered);
    }
    evidence.flush().await.unwrap();
    let copy_started = clock::now();
    let open = async || {
        Evidence::open(store.clone(), IncompleteEvidenceMarks::default(), &Limits::default(), Some(copy_started))
            .await
            .unwrap()
    };
    let evidence = open().await;
    let loaded = evidence.of(&route());
    assert_eq!((loaded.matched, loaded.mismatched, loaded.engine_answers), (0, 1, 0));
    assert!(loaded.lost_differences >= Some(copy_started));
    pair(&evidence, State::Dark, Verdict::Match);
    evidence.flush().await.unwrap();
    assert_eq!(open().await.of(&route()).matched, 1, "the next start of the copy keeps its pairs");
}

/// Requests that began under earlier files may end after the reload.
#[tokio::test]
async fn requests_that_earlier_files_decided_count_in_the_totals_only() {
    let evidence = evidence_over(&memory()).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    let before = evidence.generation(&route(), 0);
    let ticket = |files_version: u64| {
        let mut ticket = ComparisonTicket::new(OfferedRequest::new(route(), files_version), evidence.clone());
        ticket.expect_twin();
        ticket
    };
    let (first, second) = (ticket(0), ticket(0));
    evidence.set_basis(1, &[(route(), "two".into())]);
    evidence.set_basis(2, &[(route(), "two".into())]);
    first.skip(SkipReason::QueueFull);
    second.settle(ComparisonOutcome::Failed("timeout"));
    evidence.record_twin(&route(), before);
    for served in [Served::Answered, Served::FellBack] {
        evidence.served(&route(), 0, served);
    }
    assert_eq!(evidence.of(&route()), RouteEvidence::default());
    assert_eq!(crate::evidence::testing::sums(&evidence, &route()), (2, 2));

    ticket(1).skip(SkipReason::QueueFull);
    ticket(2).settle(ComparisonOutcome::Failed("timeout"));
    evidence.record_twin(&route(), evidence.generation(&route(), 2));
    evidence.served(&route(), 2, Served::Answered);
    let seen = evidence.of(&route());
    assert_eq!((seen.skipped["queue_full"], seen.failed["timeout"], seen.dark_without_twin), (1, 1, 2));
    assert_eq!((seen.dark_with_twin, seen.engine_answers, seen.engine_errors), (1, 1, 0));
}

#[tokio::test]
async fn evidence_that_starts_from_zero_says_since_when_and_what_changed() {
    let basis = |workflow: &str, rules: &str| EvidenceBasis {
        hash: format!("{workflow} {rules}"),
        parts: [("the workflow `w`", workflow), ("`compare:`", rules)].map(|(a, b)| (a.into(), b.into())).into(),
        ..EvidenceBasis::default()
    };
    let store = memory();
    let evidence = Evidence::load_with(store.clone(), &Limits::default()).await.unwrap();
    let id = route;
    evidence.set_basis(1, &[(id(), basis("1", "1"))]);
    evidence.set_basis(2, &[(id(), basis("2", "1"))]);
    assert_eq!(evidence.of(&id()).restarted, None, "nothing had been counted");
    evidence.counters(&id()).lock().record_pair(
        State::Shadow.into(),
        &comparison(Verdict::Match),
        &replied(200, 1),
        &replied(200, 1),
    );
    evidence.flush().await.unwrap();
    // Known after a restart of the process, too.
    let evidence = Evidence::load_with(store, &Limits::default()).await.unwrap();
    evidence.set_basis(3, &[(id(), basis("2", "2"))]);
    let restarted = evidence.of(&id()).restarted.unwrap();
    assert_eq!((restarted.changed, restarted.pairs_before), (vec!["`compare:`".to_owned()], 1));
    evidence.set_basis(4, &[(id(), basis("3", "2"))]);
    let both = ["`compare:`", "the workflow `w`"];
    assert_eq!(evidence.of(&id()).restarted.unwrap().changed, both, "nothing was compared between the two");
}

#[tokio::test]
async fn a_rule_without_a_hit_is_dead_once_there_are_enough_pairs() {
    let evidence = evidence_over(&memory()).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    let dead = |evidence: &Evidence| evidence.of(&route()).dead_rules(["ignore $.at", "ignore $.gone"].into_iter());
    (0..499).for_each(|_| pair(&evidence, State::Shadow, Verdict::Ignored));
    assert_eq!(dead(&evidence), [""; 0], "too few pairs to tell");
    pair(&evidence, State::Dark, Verdict::Match);
    assert_eq!(dead(&evidence), ["ignore $.gone"]);
}
