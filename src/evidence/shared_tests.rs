//! Several processes count the evidence of one route.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::basis::EvidenceBasis;
use super::noise_tests::{comparison, replied};
use super::testing::Memory;
use super::{Evidence, RULES};
use crate::compare::{Comparison, DifferenceKind};
use crate::exchange::{ComparisonOutcome, ComparisonTicket, EngineAnswer, OfferedRequest, Served, ServedObserver as _};
use crate::flag::{Guard, GuardCondition, GuardRelease, State};
use crate::names::{RouteId, WorkerId};
use crate::store::Store as _;

fn route() -> RouteId {
    "orders".into()
}

/// Two processes with the same files on one store.
async fn two() -> (Arc<Memory>, [Arc<Evidence>; 2]) {
    let store = Arc::new(Memory::new());
    store.set_shared();
    let mut processes = Vec::new();
    for n in 0..2 {
        processes.push(process(&store, n).await);
    }
    (store, processes.try_into().ok().unwrap())
}

async fn process(store: &Arc<Memory>, n: u128) -> Arc<Evidence> {
    let evidence = Evidence::load(store.clone()).await.unwrap();
    evidence.set_process(WorkerId(Uuid::from_u128(n)), format!("process {n}"));
    evidence.set_basis(0, &[(route(), "one".into())]);
    evidence
}

fn ticket(evidence: &Arc<Evidence>, rung: State) -> ComparisonTicket {
    let mut ticket =
        ComparisonTicket::new(OfferedRequest { rung, ..OfferedRequest::new(route(), 0) }, evidence.clone());
    ticket.begin();
    ticket
}

async fn flush_all(processes: &[Arc<Evidence>; 2]) {
    for _ in 0..2 {
        for process in processes {
            process.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn each_process_has_the_sum_of_all() {
    let (store, [a, b]) = two().await;
    for (process, failures) in [(&a, 2), (&b, 3)] {
        for _ in 0..failures {
            ticket(process, State::Dark).settle(ComparisonOutcome::Failed("timeout"));
        }
    }
    flush_all(&[a.clone(), b.clone()]).await;
    let of = |process: &Arc<Evidence>| process.of(&route()).failed["timeout"];
    assert_eq!((of(&a), of(&b)), (5, 5));
    // What is counted next comes to the sum of both.
    ticket(&b, State::Dark).settle(ComparisonOutcome::Failed("timeout"));
    b.flush().await.unwrap();
    a.refresh().await;
    let third = process(&store, 2).await;
    assert_eq!((of(&a), of(&b), of(&third)), (6, 6, 6));
}

/// One process starts the evidence from zero, because the one before it lost an error: then a process that has answered
/// for days has to wait for the whole `window` again, too.
#[tokio::test]
async fn since_when_the_engine_answers_starts_from_zero_in_all_processes() {
    let (_store, [a, b]) = two().await;
    b.served(&route(), 0, Served::Answered);
    flush_all(&[a.clone(), b.clone()]).await;
    assert!([&a, &b].iter().all(|process| process.of(&route()).answers_since.is_some()));
    a.counters(&route()).lock().edit(|counters| counters.restart_after_loss(crate::clock::now()));
    a.flush().await.unwrap();
    b.refresh().await;
    assert_eq!(b.of(&route()).answers_since, None);
    b.served(&route(), 0, Served::Answered);
    flush_all(&[a.clone(), b.clone()]).await;
    assert_eq!(a.of(&route()).answers_since, b.of(&route()).answers_since);
    assert_eq!(b.of(&route()).engine_answers, 1);
}

#[tokio::test]
async fn an_error_of_any_process_ends_the_consecutive_answers_of_all() {
    let (_store, [a, b]) = two().await;
    let serve = |process: &Arc<Evidence>, served: Served, times: u64| {
        (0..times).for_each(|_| process.served(&route(), 0, served));
    };
    serve(&a, Served::Answered, 4);
    serve(&b, Served::Answered, 5);
    flush_all(&[a.clone(), b.clone()]).await;
    assert_eq!(b.of(&route()).engine_answers, 9);
    serve(&a, Served::Answered, 7);
    serve(&b, Served::Error, 1);
    serve(&b, Served::Answered, 2);
    flush_all(&[a.clone(), b.clone()]).await;
    for process in [&a, &b] {
        let of = process.of(&route());
        assert_eq!((of.engine_errors, of.engine_answers), (1, 2), "it is not known what A answered after the error");
    }
}

/// A process that is killed has pairs under way; one that ends in order has not.
#[tokio::test(start_paused = false)]
async fn what_a_killed_process_had_under_way_counts_as_not_compared_and_is_a_gap() {
    let (store, [a, b]) = two().await;
    let under_way = [ticket(&b, State::Dark), ticket(&b, State::Dark)];
    b.flush().await.unwrap();
    a.refresh().await;
    assert_eq!((a.in_flight(&route()), a.of(&route()).skipped.len()), (2, 0));
    let living = BTreeSet::from([WorkerId(Uuid::from_u128(0))]);
    let settle_when_gone = || async {
        let started = std::time::Instant::now();
        while a.in_flight(&route()) > 0 && started.elapsed() < Duration::from_secs(10) {
            a.set_living(&living);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    settle_when_gone().await;
    let of = a.of(&route());
    assert_eq!((of.skipped["shutting_down"], of.gaps.len(), of.gaps[0].requests), (2, 1, 2));
    assert_eq!(of.gaps[0].process, "process 1");
    a.flush().await.unwrap();
    // Another process notices the same: it is counted once.
    let third = process(&store, 2).await;
    third.set_living(&living);
    third.flush().await.unwrap();
    assert_eq!((third.of(&route()).skipped["shutting_down"], third.of(&route()).gaps.len()), (2, 1));
    // It was not killed after all, only slow: what it goes on to count is counted.
    under_way.into_iter().for_each(|ticket| ticket.settle(ComparisonOutcome::Failed("timeout")));
    b.flush().await.unwrap();
    a.refresh().await;
    assert_eq!((a.of(&route()).failed["timeout"], a.in_flight(&route())), (2, 0));

    let open = ticket(&third, State::Dark);
    third.leave();
    third.flush().await.unwrap();
    a.refresh().await;
    assert_eq!((a.of(&route()).skipped["shutting_down"], a.of(&route()).gaps.len()), (3, 1), "it has left in order");
    drop(open);
}

fn guard() -> Guard {
    let (mismatch, errors, p99_ratio, notify) = (None, None, None, None);
    Guard { mismatch, errors, p99_ratio, over: 0, at_least: 0, in_dark: false, release: GuardRelease::Hand, notify }
}

#[tokio::test]
async fn a_guard_counts_what_all_processes_have_seen() {
    let (_store, [a, b]) = two().await;
    let guard = Guard { errors: Some(0.01), over: 500, at_least: 5, ..guard() };
    for process in [&a, &b] {
        process.set_guards([(&route(), Some(&guard))].into_iter());
    }
    let failed = EngineAnswer { files_version: 0, rung: State::Live, served: Served::Error, took: None, run: None };
    let fail = |process: &Arc<Evidence>, times: u64| {
        for _ in 0..times {
            process.served(&route(), 0, Served::Error);
            process.answered(&route(), failed);
        }
    };
    fail(&a, 1);
    fail(&b, 1);
    flush_all(&[a.clone(), b.clone()]).await;
    fail(&a, 2);
    fail(&b, 2);
    assert!(a.take_guard_crossings().is_empty() && b.take_guard_crossings().is_empty(), "3 of each are too few");
    flush_all(&[a.clone(), b.clone()]).await;
    let found: Vec<_> = a.take_guard_crossings().into_iter().map(|crossing| crossing.condition).collect();
    assert_eq!(found, [GuardCondition::Errors]);
}

#[tokio::test]
async fn a_guard_counts_what_a_process_has_seen_last_before_its_end() {
    let (_store, [a, b]) = two().await;
    let guard = Guard { errors: Some(0.01), over: 500, at_least: 5, ..guard() };
    [&a, &b].into_iter().for_each(|process| process.set_guards([(&route(), Some(&guard))].into_iter()));
    flush_all(&[a.clone(), b.clone()]).await;
    let failed = EngineAnswer { files_version: 0, rung: State::Live, served: Served::Error, took: None, run: None };
    (0..5).for_each(|_| b.answered(&route(), failed));
    b.leave();
    b.flush().await.unwrap();
    a.flush().await.unwrap();
    let found: Vec<_> = a.take_guard_crossings().into_iter().map(|crossing| crossing.condition).collect();
    assert_eq!(found, [GuardCondition::Errors]);
}

/// One process has new files already.
#[tokio::test]
async fn clean_pairs_of_a_process_with_other_files_do_not_count_for_a_guard() {
    for (basis_of_b, counted) in [("one", 3), ("two", 0)] {
        let (_store, [a, b]) = two().await;
        let guard = Guard { mismatch: Some(0.01), over: 500, at_least: 5, ..guard() };
        b.set_basis(1, &[(route(), basis_of_b.into())]);
        [&a, &b].into_iter().for_each(|process| process.set_guards([(&route(), Some(&guard))].into_iter()));
        flush_all(&[a.clone(), b.clone()]).await;
        let generation = b.generation(&route(), 1);
        for _ in 0..3 {
            b.record_pair(&route(), generation, State::Shadow, &comparison(&[]), &replied(), &replied());
        }
        b.flush().await.unwrap();
        a.flush().await.unwrap();
        assert_eq!(a.clean_pairs(&route(), State::Shadow).pairs, counted, "{basis_of_b}");
    }
}

#[tokio::test]
async fn a_renamed_route_keeps_what_each_process_has_counted() {
    let (store, [a, b]) = two().await;
    let fail = |process: &Arc<Evidence>, route: &RouteId, times: u64| {
        for _ in 0..times {
            let request = OfferedRequest { rung: State::Dark, ..OfferedRequest::new(route.clone(), 0) };
            ComparisonTicket::new(request, process.clone()).settle(ComparisonOutcome::Failed("timeout"));
        }
    };
    let (new, was) = (RouteId::from("new"), [route()]);
    let rename = |process: &Arc<Evidence>| {
        process.set_renames([(&new, was.as_slice())].into_iter());
        process.set_basis(0, &[(new.clone(), "one".into())]);
    };
    fail(&a, &route(), 1);
    fail(&b, &route(), 2);
    flush_all(&[a.clone(), b.clone()]).await;
    fail(&a, &route(), 3);
    fail(&b, &route(), 4);
    rename(&a);
    a.flush().await.unwrap();
    // B learns of the rename by the row before its files have it.
    b.flush().await.unwrap();
    fail(&b, &route(), 5);
    b.flush().await.unwrap();
    rename(&b);
    flush_all(&[a.clone(), b.clone()]).await;
    let of = |process: &Arc<Evidence>| process.of(&new).failed["timeout"];
    assert_eq!((of(&a), of(&b)), (15, 15));
    let third = process(&store, 2).await;
    assert_eq!(third.of(&new).failed["timeout"], 15);
}

/// The processes get rules that allow more one after the other.
#[tokio::test]
async fn pairs_that_another_process_has_counted_by_the_earlier_rules_are_judged_again() {
    let (_store, [a, b]) = two().await;
    let set = |process: &Arc<Evidence>, ignore: &str| {
        let rules = format!(r#"{{"ignore":[{ignore}]}}"#);
        let parts = [(RULES.to_owned(), rules.clone())].into();
        let basis = EvidenceBasis { hash: rules.clone(), parts, rules, ..EvidenceBasis::default() };
        process.set_basis(0, &[(route(), basis)]);
    };
    [&a, &b].into_iter().for_each(|process| set(process, ""));
    flush_all(&[a.clone(), b.clone()]).await;
    set(&a, r#""$.note""#);
    a.rejudging_wanted().await;
    a.flush().await.unwrap();
    assert!(a.to_rejudge().is_empty(), "no pair has differed");
    let generation = b.generation(&route(), 0);
    let comparison = Comparison { fingerprint: "f".to_owned(), ..comparison(&[(DifferenceKind::Value, "$.note")]) };
    b.record_pair(&route(), generation, State::Dark, &comparison, &replied(), &replied());
    b.flush().await.unwrap();
    a.flush().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), a.rejudging_wanted()).await.expect("it is told");
    assert_eq!(a.to_rejudge()[0].1.fingerprints, [("f".to_owned(), 1)].into());
    set(&b, r#""$.note""#);
    b.flush().await.unwrap();
    assert_eq!(b.to_rejudge(), a.to_rejudge());
}

/// A process knows since when it could not write, which it tells the others, or read what they have written.
#[tokio::test]
async fn a_process_knows_since_when_it_could_not_write() {
    let (store, [a, _b]) = two().await;
    let started = a.exchanged_until();
    assert_eq!(a.unwritten_since(), Some(started), "its basis is not written yet");
    a.refresh().await;
    let written = a.exchanged_until();
    assert!(written > started);
    assert_eq!(a.unwritten_since(), None);
    store.close().await;
    ticket(&a, State::Dark).settle(ComparisonOutcome::Failed("timeout"));
    a.refresh().await;
    assert_eq!((a.unwritten_since(), a.exchanged_until()), (Some(written), written));
}

/// Starts a process, or gives it new files, with this id of the route; the other id is an earlier one.
fn set_id(process: &Arc<Evidence>, id: usize) {
    let ids = [route(), RouteId::from("new")];
    let was = [ids[1 - id].clone()];
    process.set_renames([(&ids[id], was.as_slice())].into_iter());
    process.set_basis(0, &[(ids[id].clone(), "one".into())]);
}

/// 3 processes rename a route and take that back, at different times, and restart with either id: what each has counted
/// is there once.
#[tokio::test]
async fn renames_at_different_times_lose_nothing_and_count_nothing_twice() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Arc::new(Memory::new());
        store.set_shared();
        let start = async |n: u128, id: usize| {
            let evidence = Evidence::load(store.clone()).await.unwrap();
            evidence.set_process(WorkerId(Uuid::from_u128(n)), format!("process {n}"));
            set_id(&evidence, id);
            evidence
        };
        let mut processes = Vec::new();
        for n in 0..3 {
            processes.push((start(n, 0).await, 0));
            processes[0].0.flush().await.unwrap();
        }
        let mut counted = 0;
        for step in 0..60 {
            let (process, id) = &mut processes[random.usize(..3)];
            match random.u8(..10) {
                0..5 => {
                    let request = OfferedRequest::new(["orders", "new"][*id], 0);
                    let request = OfferedRequest { rung: State::Dark, ..request };
                    ComparisonTicket::new(request, process.clone()).settle(ComparisonOutcome::Failed("timeout"));
                    counted += 1;
                }
                5..8 => process.flush().await.unwrap(),
                8 => {
                    *id = 1 - *id;
                    set_id(process, *id);
                }
                _ => {
                    process.leave();
                    process.flush().await.unwrap();
                    *id = random.usize(..2);
                    *process = start(10 + step, *id).await;
                }
            }
        }
        let last = random.usize(..2);
        processes.iter().for_each(|(process, _)| set_id(process, last));
        for _ in 0..2 {
            for (process, _) in &processes {
                process.flush().await.unwrap();
            }
        }
        for (process, _) in &processes {
            let of = process.of(&["orders", "new"][last].into());
            assert_eq!(of.failed.get("timeout").copied().unwrap_or(0), counted, "seed {seed}");
        }
        let rows = store.evidence().await.unwrap();
        let full = rows.iter().filter(|row| !row.value["basis"].is_null()).count();
        assert_eq!(full, 1, "seed {seed}: the route has one row");
    }
}

/// The files give the earlier id to another route.
#[tokio::test]
async fn a_row_leaves_its_id_when_another_route_gets_it() {
    let (store, [a, b]) = two().await;
    let fail = |process: &Arc<Evidence>, route: &str| {
        let request = OfferedRequest { rung: State::Dark, ..OfferedRequest::new(route, 1) };
        ComparisonTicket::new(request, process.clone()).settle(ComparisonOutcome::Failed("timeout"));
    };
    fail(&a, "orders");
    flush_all(&[a.clone(), b.clone()]).await;
    [&a, &b].into_iter().for_each(|process| set_id(process, 1));
    fail(&b, "new");
    flush_all(&[a.clone(), b.clone()]).await;
    let new = RouteId::from("new");
    for process in [&a, &b] {
        process.set_renames([(&new, [].as_slice()), (&route(), [].as_slice())].into_iter());
        process.set_basis(1, &[(new.clone(), "one".into()), (route(), "two".into())]);
        process.flush().await.unwrap();
    }
    fail(&a, "new");
    fail(&b, "orders");
    flush_all(&[a.clone(), b.clone()]).await;
    let third = Evidence::load(store).await.unwrap();
    for process in [&a, &b, &third] {
        let of = |id: &RouteId| process.of(id).failed.get("timeout").copied();
        assert_eq!((of(&new), of(&route())), (Some(3), Some(1)));
    }
}
