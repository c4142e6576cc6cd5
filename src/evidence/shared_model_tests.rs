//! What several processes count is added up in one row, each pair once, whatever happens.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::RULES;
use super::basis::EvidenceBasis;
use super::shared_rig::{Process, Row, WriteOutcome, basis, by_basis};

/// 3 processes count, write with lost replies and failures, get new files at different times, end, start with earlier
/// files, and are taken for gone while they go on: at the end the row has what all have counted, each pair once, for
/// each basis.
#[test]
fn what_all_processes_count_is_in_the_row_once() {
    let fates = [WriteOutcome::Done, WriteOutcome::Done, WriteOutcome::ReplyLost, WriteOutcome::Fails];
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut row = Row::default();
        let mut processes: Vec<Process> = (0..3).map(|n| Process::start(&row, n, 0)).collect();
        let mut expected = BTreeMap::<String, [u64; 2]>::new();
        let mut newest = 0;
        for step in 0..200 {
            let n = random.usize(..3);
            match random.u8(..21) {
                0..12 => {
                    let differs = random.u8(..4) == 0;
                    processes[n].count(differs, ["f", "g"][random.usize(..2)]);
                    let of_basis = expected.entry(basis(processes[n].files).hash).or_default();
                    *of_basis = [of_basis[0] + 1, of_basis[1] + u64::from(differs)];
                }
                12..17 => {
                    processes[n].flush(&mut row, fates[random.usize(..4)]);
                }
                17 => {
                    newest += usize::from(newest == processes[n].files);
                    processes[n].set_files(newest);
                }
                18 => {
                    // It ends, and another one starts, with the files of all or those before them.
                    processes[n].leave(&mut row, fates[random.usize(..4)]);
                    processes[n] = Process::start(&row, 10 + step, newest.saturating_sub(random.usize(..2)));
                }
                19 => {
                    // Another process takes it for gone.
                    let of = processes[random.usize(..3)].id;
                    if of != processes[n].id {
                        processes[n].settle(of);
                    }
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
            processes.iter_mut().for_each(|process| process.flush(&mut row, WriteOutcome::Done));
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

fn of_files(counts: &[(usize, [u64; 2])]) -> BTreeMap<String, [u64; 2]> {
    counts.iter().map(|(files, counts)| (basis(*files).hash, *counts)).collect()
}

/// Two processes have compared 16 equal pairs, and one of them gets other files.
fn two_with_other_files() -> (Row, [Process; 2]) {
    let mut row = Row::default();
    let [mut one, mut other] = [0, 1].map(|id| Process::start(&row, id, 0));
    for process in [&mut one, &mut other] {
        (0..8).for_each(|_| process.count(false, ""));
        process.flush(&mut row, WriteOutcome::Done);
    }
    other.set_files(1);
    other.flush(&mut row, WriteOutcome::Done);
    (row, [one, other])
}

#[test]
fn what_a_process_with_other_files_than_the_row_counts_is_kept_at_its_end() {
    let (mut row, [mut one, mut other]) = two_with_other_files();
    (0..6).for_each(|_| one.count(true, "f"));
    one.leave(&mut row, WriteOutcome::Done);
    assert_eq!(by_basis(&row.read().unwrap().0), of_files(&[(0, [22, 6])]));
    other.count(false, "");
    other.set_files(0);
    other.flush(&mut row, WriteOutcome::Done);
    assert_eq!(by_basis(&other.counters), of_files(&[(0, [22, 6]), (1, [1, 0])]));
}

/// It is killed after it has written; another process with the same files knows of it all the time.
#[test]
fn the_end_of_a_process_is_a_gap_in_the_evidence_of_its_own_files() {
    let (mut row, [mut one, mut other]) = two_with_other_files();
    one.count(true, "f");
    one.flush(&mut row, WriteOutcome::Done);
    let mut same = Process::start(&row, 2, 0);
    same.set_files(1);
    same.flush(&mut row, WriteOutcome::Done);
    other.pull(&row);
    other.settle(one.id);
    other.flush(&mut row, WriteOutcome::Done);
    other.set_files(0);
    other.flush(&mut row, WriteOutcome::Done);
    let evidence = &other.counters.evidence;
    assert_eq!((evidence.mismatched, evidence.gaps.len()), (1, 1));
}

/// A process that starts with other files does not hide from the rest what they count.
#[test]
fn processes_with_other_files_than_the_row_know_of_each_other() {
    let (mut row, [mut one, mut other]) = two_with_other_files();
    one.set_files(1);
    one.count(false, "");
    one.flush(&mut row, WriteOutcome::Done);
    let mut old = Process::start(&row, 2, 0);
    old.flush(&mut row, WriteOutcome::Done);
    one.pull(&row);
    one.count(true, "f");
    one.flush(&mut row, WriteOutcome::Done);
    other.flush(&mut row, WriteOutcome::Done);
    assert_eq!(row.read().unwrap().0.basis, Some(basis(0).hash));
    assert_eq!((other.counters.evidence.shadow_pairs, other.counters.evidence.mismatched), (2, 1));
    one.leave(&mut row, WriteOutcome::ReplyLost);
    other.flush(&mut row, WriteOutcome::Done);
    other.count(false, "");
    other.flush(&mut row, WriteOutcome::Done);
    assert_eq!(by_basis(&row.read().unwrap().0), of_files(&[(0, [16, 0]), (1, [3, 1])]));
}

/// Where the rules only allow more, the evidence goes on: with what a process counts whose files are not changed yet.
#[test]
fn what_is_counted_by_the_earlier_rules_goes_on_under_those_that_allow_more() {
    let rules = |ignore: &str| {
        let rules = format!(r#"{{"ignore":[{ignore}]}}"#);
        let parts = [(RULES.to_owned(), rules.clone())].into();
        EvidenceBasis { hash: rules.clone(), parts, rules, ..EvidenceBasis::default() }
    };
    let set = |process: &mut Process, ignore: &str| {
        let basis = rules(ignore);
        process.counters.edit(move |counters| counters.set_basis(0, &basis, Timestamp::UNIX_EPOCH));
    };
    let mut row = Row::default();
    let [mut one, mut other] = [0, 1].map(|id| Process::start(&row, id, 0));
    for process in [&mut one, &mut other] {
        set(process, "");
        process.count(false, "");
        process.flush(&mut row, WriteOutcome::Done);
    }
    set(&mut other, "\"$.a\"");
    other.flush(&mut row, WriteOutcome::Done);
    for _ in 0..2 {
        one.count(true, "f");
        one.flush(&mut row, WriteOutcome::Done);
    }
    other.flush(&mut row, WriteOutcome::Done);
    let of = |process: &Process| {
        let waiting = process.counters.rejudging.as_ref().map_or(0, |waiting| waiting.differing);
        (process.counters.evidence.shadow_pairs, process.counters.evidence.mismatched, waiting)
    };
    assert_eq!((of(&one), of(&other)), ((4, 2, 0), (4, 2, 2)));
    one.count(true, "g");
    set(&mut one, "\"$.a\"");
    one.flush(&mut row, WriteOutcome::Done);
    other.flush(&mut row, WriteOutcome::Done);
    assert_eq!((of(&one), of(&other)), ((5, 3, 3), (5, 3, 3)));
}
