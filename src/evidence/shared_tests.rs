//! Several processes count the evidence of one route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::basis::EvidenceBasis;
use super::counters::Counters;
use super::fingerprints::{self, PairsByKind};
use super::process_share::GuardCounts;
use super::stored::StoredEvidence;
use super::testing::Memory;
use super::{Evidence, MATCH, RULES};
use crate::exchange::{ComparisonOutcome, ComparisonTicket, EngineAnswer, OfferedRequest, Served, ServedObserver as _};
use crate::flag::{Guard, GuardCondition, GuardRelease, State};
use crate::names::{RouteId, WorkerId};
use crate::store::EvidenceVersion;

/// One row, which is replaced as in a store that processes share.
#[derive(Default)]
struct Row {
    text: Option<String>,
    version: u64,
}

impl Row {
    fn read(&self) -> Option<(Counters, EvidenceVersion)> {
        let stored: StoredEvidence = serde_json::from_str(self.text.as_deref()?).unwrap();
        Some((Counters::restored(stored), self.version_now()))
    }

    fn version_now(&self) -> EvidenceVersion {
        EvidenceVersion(self.version.to_le_bytes().to_vec())
    }

    fn replace(&mut self, stored: &StoredEvidence, instead_of: Option<&EvidenceVersion>) -> bool {
        let fits = match &self.text {
            None => instead_of.is_none(),
            Some(_) => instead_of == Some(&self.version_now()),
        };
        if fits {
            self.text = Some(serde_json::to_string(stored).unwrap());
            self.version += 1;
        }
        fits
    }
}

struct Process {
    id: WorkerId,
    counters: Counters,
    /// The place in the sequence of files.
    files: usize,
}

impl Process {
    fn start(row: &Row, id: u128, files: usize) -> Self {
        let mut process = Self { id: WorkerId(Uuid::from_u128(id)), counters: Counters::default(), files };
        process.counters.shared = Some(Box::default());
        process.pull(row);
        process.set_files(files);
        process
    }

    fn set_files(&mut self, files: usize) {
        self.files = files;
        let basis = basis(files);
        self.counters.change(move |counters| counters.set_basis(0, &basis, Timestamp::UNIX_EPOCH));
    }

    fn pull(&mut self, row: &Row) {
        let known = self.counters.shared.as_ref().and_then(|shared| shared.version().cloned());
        if let Some((counters, version)) = row.read().filter(|(_, version)| Some(version) != known.as_ref()) {
            self.counters.read_row(counters, version, self.id);
        }
    }

    /// `fate`: what becomes of the write.
    fn flush(&mut self, row: &mut Row, fate: Fate) {
        self.pull(row);
        let written = self.counters.prepare_write(self.id, ("p", GuardCounts::default()), false);
        let Some((stored, instead_of)) = written else { return };
        let is_done = fate != Fate::Fails && row.replace(&stored, instead_of.as_ref());
        match is_done && fate == Fate::Done {
            true => self.counters.was_written(row.version_now()),
            false => self.counters.dirty = true,
        }
    }

    fn count(&mut self, differs: bool, fingerprint: &str) {
        let evidence = &mut self.counters.evidence;
        evidence.shadow_pairs += 1;
        match differs {
            true => {
                evidence.mismatched += 1;
                let kind = PairsByKind::one(false, Some("GET 2xx"));
                fingerprints::count(&mut evidence.seen, fingerprint, &kind, Timestamp::UNIX_EPOCH);
            }
            false => evidence.matched += 1,
        }
        let stratum = evidence.all.strata.entry("GET 2xx".into()).or_default();
        (stratum.served, stratum.compared) = (stratum.served + 1, stratum.compared + 1);
        stratum.mismatched += u64::from(differs);
        self.counters.dirty = true;
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Done,
    ReplyLost,
    Fails,
}

/// Three sets of files, in turn.
fn basis(files: usize) -> EvidenceBasis {
    let parts = [(MATCH, "/orders"), (RULES, ["1", "2", "3"][files % 3])];
    let parts = parts.map(|(name, hash)| (name.to_owned(), hash.to_owned()));
    EvidenceBasis { hash: format!("files {}", files % 3), parts: parts.into(), ..EvidenceBasis::default() }
}

/// How many pairs the evidence of each basis has, and how many of them differ.
fn by_basis(counters: &Counters) -> BTreeMap<String, [u64; 2]> {
    let now = counters.basis.iter().map(|basis| (basis.clone(), &counters.evidence));
    let kept = counters.kept.iter().map(|kept| (kept.basis.clone(), &kept.evidence));
    let counts = now.chain(kept).map(|(basis, of)| (basis, [of.shadow_pairs, of.mismatched]));
    counts.filter(|(_, counts)| *counts != [0, 0]).collect()
}

/// 3 processes count, write with lost replies and failures, and get new files at different times: at the end the row
/// has what all have counted, each pair once, for each basis.
#[test]
fn what_all_processes_count_is_in_the_row_once() {
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut row = Row::default();
        let mut processes: Vec<Process> = (0..3).map(|n| Process::start(&row, n, 0)).collect();
        let mut expected = BTreeMap::<String, [u64; 2]>::new();
        let mut newest = 0;
        for step in 0..200 {
            let n = random.usize(..3);
            match random.u8(..20) {
                0..12 => {
                    let differs = random.u8(..4) == 0;
                    processes[n].count(differs, ["f", "g"][random.usize(..2)]);
                    let of_basis = expected.entry(basis(processes[n].files).hash).or_default();
                    *of_basis = [of_basis[0] + 1, of_basis[1] + u64::from(differs)];
                }
                12..17 => {
                    let fate = [Fate::Done, Fate::Done, Fate::ReplyLost, Fate::Fails][random.usize(..4)];
                    processes[n].flush(&mut row, fate);
                }
                17 => {
                    newest += usize::from(newest == processes[n].files);
                    processes[n].set_files(newest);
                }
                18 => {
                    // It ends after everything was written, and another one starts.
                    processes[n].set_files(newest);
                    processes[n].flush(&mut row, Fate::Done);
                    processes[n] = Process::start(&row, 10 + step, newest);
                }
                _ => processes[n].pull(&row),
            }
            for Process { counters, .. } in &processes {
                let of = &counters.evidence;
                assert_eq!(of.pairs(), of.matched + of.mismatched, "seed {seed}");
            }
        }
        processes.iter_mut().for_each(|process| process.set_files(newest));
        for _ in 0..4 {
            processes.iter_mut().for_each(|process| process.flush(&mut row, Fate::Done));
        }
        let (in_store, _) = row.read().unwrap();
        assert_eq!(by_basis(&in_store), expected, "seed {seed}");
        let seen: u64 = in_store.evidence.seen.values().map(|seen| seen.count).sum();
        let strata = in_store.evidence.all.strata.get("GET 2xx").copied().unwrap_or_default();
        let [pairs, differ] = expected.get(&basis(newest).hash).copied().unwrap_or_default();
        assert!(seen <= differ, "seed {seed}: the groups of differences start anew with each change of the files");
        assert_eq!((strata.compared, strata.mismatched), (pairs, differ), "seed {seed}");
        for Process { counters, .. } in &processes {
            assert_eq!((&counters.evidence, by_basis(counters)), (&in_store.evidence, expected.clone()), "seed {seed}");
        }
    }
}

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

#[tokio::test]
async fn a_guard_counts_what_all_processes_have_seen() {
    let (_store, [a, b]) = two().await;
    let (errors, release) = (Some(0.01), GuardRelease::Hand);
    let (mismatch, p99_ratio, notify) = (None, None, None);
    let guard = Guard { mismatch, errors, p99_ratio, over: 500, at_least: 5, in_dark: false, release, notify };
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
