//! Tests of the checker itself: it finds each kind of violation, made on purpose, by name.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use jiff::Timestamp;
use pointsman::demo::LedgerEntry;
use pointsman::store::StoredEvent;
use pointsman::workflow::{Event, Mode, RunSummary};
use serde_json::{Value, json};

use crate::support::Metrics;
use crate::support::checker::{self, Allowed, check_ledger, check_run};
use crate::support::test_system::TestSystem;

fn line(operation: &str, key: &str, caused_by: &str, trace: &str) -> LedgerEntry {
    LedgerEntry {
        at: Timestamp::UNIX_EPOCH,
        service: "world".into(),
        operation: operation.into(),
        key: Some(key.into()),
        amount: None,
        caused_by: caused_by.into(),
        trace: Some(trace.into()),
        repeated: false,
    }
}

/// The ledger of one order of the engine with one reservation, without violations, and the order.
fn sound() -> (Vec<LedgerEntry>, Vec<Value>) {
    let lines = ["reserve", "charge", "mail"].map(|operation| line(operation, operation, "engine:r1", "t1"));
    (lines.to_vec(), vec![json!({ "id": "r1", "reservations": [{ "id": 1 }] })])
}

fn violations_in(lines: &[LedgerEntry], placed: &[Value], allowed: &Allowed) -> Vec<String> {
    let modes = [("r1", Mode::Real), ("r2", Mode::Dark), ("r3", Mode::Rehearse)];
    let modes: BTreeMap<String, Mode> = modes.into_iter().map(|(run, mode)| (run.to_owned(), mode)).collect();
    let mut wrong = Vec::new();
    check_ledger(lines, &modes, placed, allowed, &mut wrong);
    wrong
}

#[test]
fn violations_in_the_ledger_are_found() {
    let (lines, placed) = sound();
    assert!(violations_in(&lines, &placed, &Allowed::default()).is_empty());
    let repeat_of = |entry: LedgerEntry| LedgerEntry { repeated: true, ..entry };
    let cases: [(&str, &str, Vec<LedgerEntry>); 8] = [
        ("a key accepted twice", "I3", vec![line("mail", "mail", "engine:r1", "t1")]),
        ("a delivery that no crash explains", "I3", vec![repeat_of(line("charge", "charge", "engine:r1", "t1"))]),
        ("a second charge of one order", "I5", vec![line("charge", "other", "engine:r1", "t1")]),
        ("a charge of an order that nobody placed", "I5", vec![line("charge", "other", "legacy:7", "t2")]),
        ("the other arm's effect for one request", "I5", vec![line("mail", "other", "legacy:7", "t1")]),
        ("a shared effect of a dark run", "I5", vec![line("reserve", "other", "engine:r2", "t2")]),
        ("a private effect of a rehearsal", "I5", vec![line("draft", "other", "engine:r3", "t3")]),
        ("an effect of a run that does not exist", "I5", vec![line("draft", "other", "engine:r9", "t9")]),
    ];
    for (what, invariant, more) in cases {
        let all: Vec<LedgerEntry> = lines.iter().cloned().chain(more).collect();
        let found = violations_in(&all, &placed, &Allowed::default());
        assert!(found.iter().any(|text| text.starts_with(invariant)), "{what}: {found:?}");
    }
    for missing in 0..lines.len() {
        let mut some = lines.clone();
        let removed = some.remove(missing).operation;
        assert!(!violations_in(&some, &placed, &Allowed::default()).is_empty(), "an order without its {removed}");
    }
    // Repeated deliveries are tolerated only as far as crashes and lost replies explain them.
    let crashed = Allowed { crashes: 1, ..Allowed::default() };
    let charge = || repeat_of(line("charge", "charge", "engine:r1", "t1"));
    let with = |more: Vec<LedgerEntry>| lines.iter().cloned().chain(more).collect::<Vec<_>>();
    assert!(violations_in(&with(vec![charge()]), &placed, &crashed).is_empty());
    assert!(!violations_in(&with(vec![charge(), charge()]), &placed, &crashed).is_empty());
}

#[test]
fn unbalanced_comparison_counts_are_found() {
    let scrape = |settled: u32| {
        Metrics::parse(&format!(
            "pointsman_offered_total{{route=\"a\"}} 3\n\
             pointsman_comparisons_total{{route=\"a\",outcome=\"matched\",reason=\"\"}} {settled}\n"
        ))
    };
    checker::check_balance(&scrape(3));
    for settled in [2, 4] {
        assert!(catch_unwind(|| checker::check_balance(&scrape(settled))).is_err(), "{settled} of 3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_in_a_runs_events_are_found() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    system.order().await;
    let (run, events) = system.finish_then(|store| async move { checker::newest_run(&store).await }).await;
    let found = |events: &[StoredEvent], run: &RunSummary| {
        let mut wrong = Vec::new();
        check_run(run, events, &mut wrong);
        wrong
    };
    assert!(events.len() > 5 && found(&events, &run).is_empty());
    let assert_names = |wrong: Vec<String>, invariant: &str| {
        assert!(wrong.iter().any(|text| text.starts_with(invariant)), "{invariant}: {wrong:?}");
    };
    let mut gap = events.clone();
    gap.remove(3);
    assert_names(found(&gap, &run), "I1");
    let mut twice = events.clone();
    let done = events.iter().find(|stored| matches!(stored.event, Event::StepFinished(_))).expect("a finished step");
    twice.push(done.clone());
    assert_names(found(&twice, &run), "I2");
    assert_names(found(&events[..events.len() - 1], &run), "I4");
    assert_names(found(&events, &RunSummary { mode: Mode::Dark, ..run.clone() }), "I4");
    let kept = |keep_none_routes: &[&str]| {
        let mut wrong = Vec::new();
        checker::check_not_kept(&run, keep_none_routes, &mut wrong);
        wrong
    };
    assert_names(kept(&["orders.create"]), "I1");
    assert!(kept(&["orders.get"]).is_empty());
}
