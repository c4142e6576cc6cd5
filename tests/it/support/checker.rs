//! The checker: the invariants that must hold after every test.
//!
//! - I1 every acknowledged run exists, its events contiguous from 1; but of a route with `keep: none` no run exists, in
//!   any mode
//! - I2 at most one recorded outcome per run, step and item
//! - I3 one accepted effect per key; extra deliveries no more than crashes and lost replies explain
//! - I4 folding the events gives the stored summary
//! - I5 no ledger line from a rehearsed step; for one request a shared effect from exactly one arm, exactly once
//! - I7 offered = matched + ignored + mismatched + skipped + failed
//!
//! I6 (in off, shadow and dark the caller's bytes are legacy's own) has a test of its own in `ladder`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pointsman::demo::{Ledger, LedgerEntry};
use pointsman::limits::Limits;
use pointsman::names::Seq;
use pointsman::secret::Secret;
use pointsman::store::{PostgresStore, RunFilter, SqliteStore, StoreHandle, StoredEvent};
use pointsman::workflow::{Event, Mode, RunSummary, StepEvent, StepPart, fold};
use serde_json::Value;

use super::Metrics;
use super::test_system::id;

/// What the checker tolerates.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// How often the process was killed.
    pub crashes: u64,
    /// How many replies or connections of the outside world were lost on purpose.
    pub lost_replies: u64,
    /// Orders that were begun and not acknowledged (a caller gave up, or got an error): their effects may exist.
    pub unacknowledged: bool,
    /// Old runs were purged: the ledger may have effects of runs that no longer exist.
    pub purged: bool,
    /// Legacy may perform one request twice: a retry reaches it while it still works on the first try.
    pub legacy_repeats: bool,
    /// Routes with `keep: none`: the requests that they answered have no run.
    pub keep_none_routes: Vec<&'static str>,
}

/// Checks I7 in one scrape.
pub fn check_balance(metrics: &Metrics) {
    let wrong = metrics.unbalanced();
    assert!(wrong.is_empty(), "I7: {}", wrong.join("; "));
}

/// Checks I1 to I5 over a store that no process has open.
pub async fn check(store: &Path, ledger: &Ledger, placed: &[Value], allowed: &Allowed) {
    let mut wrong = Vec::new();
    let modes = check_store_file(store, placed, &allowed.keep_none_routes, &mut wrong).await;
    check_ledger(&ledger.entries(), &modes, placed, allowed, &mut wrong);
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("checked: {} runs, {} ledger lines, {} orders, 0 violations", modes.len(), ledger.len(), placed.len());
}

/// Checks I1, I2 and I4, for tests whose outside world keeps no ledger.
pub async fn check_runs(store: &Path, placed: &[Value]) {
    let mut wrong = Vec::new();
    let modes = check_store_file(store, placed, &[], &mut wrong).await;
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("checked: {} runs, {} creates, 0 violations", modes.len(), placed.len());
}

/// Checks I1, I2 and I4 of a store in a file, or of PostgreSQL. Returns its runs with their modes; adds violations to
/// `wrong`.
async fn check_store_file(
    store: &Path,
    placed: &[Value],
    keep_none_routes: &[&str],
    wrong: &mut Vec<String>,
) -> BTreeMap<String, Mode> {
    let path = store;
    let store = open(store).await;
    let modes = check_store(&store, placed, wrong).await;
    all_runs(&store).await.iter().for_each(|run| check_not_kept(run, keep_none_routes, wrong));
    store.close().await;
    let checked = match postgres(path) {
        Some(url) => PostgresStore::check(&url, None, &Limits::default()).await.map(|(checked, _)| checked),
        None => SqliteStore::check(path, std::time::Duration::from_secs(Limits::default().retry_window_s)).await,
    };
    let checked = checked.expect("the store can be looked at");
    wrong.extend(checked.findings.iter().map(|found| format!("store check: {:?} {}", found.run, found.what)));
    modes
}

/// Checks I1, I2 and I4 of any store. Returns its runs with their modes; adds violations to `wrong`.
pub async fn check_store(store: &StoreHandle, placed: &[Value], wrong: &mut Vec<String>) -> BTreeMap<String, Mode> {
    let mut modes = BTreeMap::new();
    for run in all_runs(store).await {
        let events = store.events(run.run_id, Seq::FIRST).await.expect("events are readable");
        let purged =
            events.is_empty() && store.purged_run_bodies(run.run_id).await.expect("the store answers").is_some();
        if !purged {
            check_run(&run, &events, wrong);
        }
        modes.insert(run.run_id.0.simple().to_string(), run.mode);
    }
    for order in placed {
        if let Value::String(run) = &order["id"]
            && !modes.contains_key(run)
        {
            wrong.push(format!("I1: {run} was acknowledged and does not exist"));
        }
    }
    modes
}

/// The newest real run of a store that no process has open, with its events.
pub async fn newest_run(store: &Path) -> (RunSummary, Vec<StoredEvent>) {
    let store = open(store).await;
    let filter = RunFilter { mode: Some(Mode::Real), limit: 1, ..RunFilter::default() };
    let run = store.runs(filter).await.expect("runs are readable").into_iter().next().expect("a run");
    let events = store.events(run.run_id, Seq::FIRST).await.expect("events are readable");
    store.close().await;
    (run, events)
}

async fn open(path: &Path) -> StoreHandle {
    match postgres(path) {
        Some(url) => Arc::new(PostgresStore::open(&url, None, &Limits::default()).await.expect("the store opens")),
        None => Arc::new(SqliteStore::open(path, &Limits::default()).await.expect("the store opens")),
    }
}

/// The address of a PostgreSQL store; `None` for a path of a SQLite file.
fn postgres(store: &Path) -> Option<Secret> {
    store.to_str().filter(|text| text.starts_with("postgres:")).map(Secret::new)
}

async fn all_runs(store: &StoreHandle) -> Vec<RunSummary> {
    let mut runs: Vec<RunSummary> = Vec::new();
    loop {
        let before = runs.last().map(|run| run.run_id);
        let filter = RunFilter { before, limit: 1_000, ..RunFilter::default() };
        let page = store.runs(filter).await.expect("runs are readable");
        if page.is_empty() {
            return runs;
        }
        runs.extend(page);
    }
}

/// Checks I1 of a run: its route does not say `keep: none`.
pub fn check_not_kept(run: &RunSummary, keep_none_routes: &[&str], wrong: &mut Vec<String>) {
    if let Some(route) = run.route.as_ref().filter(|route| keep_none_routes.contains(&route.as_str())) {
        wrong.push(format!("I1: {} of `{route}` is kept, and its route says `keep: none`", run.run_id));
    }
}

/// Checks I1, I2 and I4 of one run.
pub fn check_run(run: &RunSummary, events: &[StoredEvent], wrong: &mut Vec<String>) {
    let id = run.run_id;
    for (place, event) in events.iter().enumerate() {
        if event.seq != Seq(place as u64 + 1) {
            wrong.push(format!("I1: {id} has seq {} at place {}", event.seq, place + 1));
        }
    }
    let mut outcomes = BTreeSet::new();
    for event in events {
        let named = match &event.event {
            Event::StepFinished(done) if done.part == StepPart::Do => Some((done.step.to_string(), done.item)),
            Event::Step(StepEvent::Computed { step, .. }) | Event::Step(StepEvent::Skipped { step, .. }) => {
                Some((step.to_string(), None))
            }
            _ => None,
        };
        if let Some((step, item)) = named
            && !outcomes.insert((step.clone(), item))
        {
            wrong.push(format!("I2: {id} has two outcomes of {step} {item:?}"));
        }
    }
    match (fold(events.iter().map(|e| &e.event)), events.last()) {
        (Ok(folded), Some(last)) => {
            // `wake` is set by the scheduler, not derived from events.
            let holds_sensitive = folded.holds_sensitive();
            let mut folded = RunSummary { wake: run.wake, ..folded.summary(last.at) };
            if holds_sensitive {
                // Folded, the note has `***` where the stored one is sealed; `store check` compares what is sealed.
                folded.note.clone_from(&run.note);
            }
            if folded != *run {
                wrong.push(format!("I4: {id} folds to {folded:?}, stored is {run:?}"));
            }
        }
        (Ok(_), None) => wrong.push(format!("I1: {id} has no events")),
        (Err(misfit), _) => wrong.push(format!("I4: {id} does not fold: {misfit}")),
    }
}

/// Checks I3 and I5 in the ledger.
pub fn check_ledger(
    entries: &[LedgerEntry],
    modes: &BTreeMap<String, Mode>,
    placed: &[Value],
    allowed: &Allowed,
    wrong: &mut Vec<String>,
) {
    let mut deliveries: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    let mut by_cause: BTreeMap<&str, Vec<&LedgerEntry>> = BTreeMap::new();
    for entry in entries {
        if let Some(key) = &entry.key {
            let (accepted, extra) = deliveries.entry((&entry.service, key)).or_default();
            *(if entry.repeated { extra } else { accepted }) += 1;
        }
        if !entry.repeated {
            by_cause.entry(&entry.caused_by).or_default().push(entry);
        }
        if entry.by_engine() {
            match entry.caused_by.strip_prefix("engine:").and_then(|run| modes.get(run)) {
                Some(Mode::Real) => {}
                Some(Mode::Dark) if entry.operation == "draft" => {}
                None if allowed.purged => {}
                mode => wrong.push(format!("I5: {} by {} in mode {mode:?}", entry.operation, entry.caused_by)),
            }
        }
    }
    for ((service, key), (accepted, extra)) in deliveries {
        if accepted > 1 || extra > allowed.crashes + allowed.lost_replies {
            wrong.push(format!("I3: {service} {key}: {accepted} accepted, {extra} extra"));
        }
    }
    for order in placed {
        let cause = match &order["id"] {
            Value::String(run) => format!("engine:{run}"),
            _ => format!("legacy:{}", id(order)),
        };
        let of =
            |operation| by_cause.get(cause.as_str()).into_iter().flatten().filter(|e| e.operation == operation).count();
        let reservations = order["reservations"].as_array().map_or(0, Vec::len);
        if of("charge") != 1 || of("mail") == 0 || of("reserve") != reservations {
            let counts = (of("reserve"), of("charge"), of("mail"));
            wrong.push(format!(
                "I5: order {} of {reservations} reservations has (reserve, charge, mail) {counts:?}",
                cause
            ));
        }
    }
    if !allowed.unacknowledged {
        let charges = entries.iter().filter(|e| e.operation == "charge" && !e.repeated).count();
        if charges != placed.len() {
            wrong.push(format!("I5: {charges} charges for {} acknowledged orders", placed.len()));
        }
    }
    for entry in effects_of_two_causes(entries, allowed.legacy_repeats) {
        wrong.push(format!("I5: {entry}"));
    }
}

/// Traces in which one operation has effects of more than one cause.
fn effects_of_two_causes(entries: &[LedgerEntry], legacy_repeats: bool) -> Vec<String> {
    let cause = |entry: &LedgerEntry| {
        if legacy_repeats && !entry.by_engine() { "legacy".to_owned() } else { entry.caused_by.clone() }
    };
    let mut causes: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for entry in entries.iter().filter(|e| !e.repeated && e.operation != "draft") {
        if let Some(trace) = &entry.trace {
            causes.entry((trace, &entry.operation)).or_default().insert(cause(entry));
        }
    }
    causes
        .into_iter()
        .filter(|(_, by)| by.len() > 1)
        .map(|((trace, operation), by)| format!("{operation} of trace {trace} was done by {by:?}"))
        .collect()
}
