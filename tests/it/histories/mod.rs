//! Histories of keyed orders and flips, at several processes on one PostgreSQL, are linearizable: clients and operators
//! record what they did and when, through faults, and a checker looks for an order that explains it.
//!
//! - Each key is an order that is performed once and answered alike, at whatever process, and what was answered is read
//!   everywhere ([`models::KeyedOrder`]).
//! - The flag of each route is, in each process, a register that the flips of all processes write in one order
//!   ([`models::Flag`]): each process has a flip in force before the flip is answered. The processes together are no
//!   register, since until then two states are in force. A process that was stopped or cut off may show an older state
//!   until it has followed.
//! - An order is performed by an arm that a state in force meanwhile allows, and the ledger has its effects once (I5).

mod checker;
mod clients;
mod history;
mod judge;
mod legacy;
mod models;
mod operators;
mod system;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::seed::{report_violations, seed, tries_everything};
use crate::support::test_system::FAMILY;
use clients::Clients;
use judge::{FALSIFICATIONS, Judge, Recorded, falsify};
use operators::{Mover, inject_faults, read_flags};
use system::System;

/// The flips that the store has, by their reasons.
async fn recorded_flips(system: &System) -> Recorded {
    let client = pointsman::demo::http::Client::new(system::CLIENT_WAIT);
    let mut recorded = Recorded::new();
    for route in FAMILY {
        let path = format!("/api/v2/flips?route={route}&limit=1000");
        let rows = system.get(&client, 0, &path).await.expect("the flips");
        for row in rows.as_array().expect("a list") {
            if let (Some(reason), Some(number)) = (row["reason"].as_str(), row["number"].as_u64()) {
                recorded.insert(reason.to_owned(), number);
            }
        }
    }
    recorded
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_keys_and_flips_are_linearizable() {
    let test = "histories::histories_of_keys_and_flips_are_linearizable";
    // Faults take long, on a busy machine longer than a test may.
    let (operations, has_faults) = if tries_everything() { (10_000, true) } else { (1_200, false) };
    let seed = seed();
    let Some(system) = System::start(seed).await else { return };
    let processes = system.count;
    let (clients, mover, done) = (Clients::new(&system, operations), Mover::new(&system), AtomicBool::new(false));
    let began = std::time::Instant::now();
    let sending = async {
        clients.run().await;
        done.store(true, Ordering::SeqCst);
    };
    let faults = async {
        if has_faults {
            inject_faults(&system, &done).await;
        }
    };
    tokio::join!(sending, mover.run(&done), faults, read_flags(&system, &done));
    let took = began.elapsed();
    clients.try_unanswered().await;
    drop((clients, mover));
    for at in 0..processes {
        let fleet = system.fleet.read().await;
        let process = fleet.process(at);
        process
            .until_metric("all runs to end", |metrics| {
                let active = |status| metrics.sum("pointsman_runs_active", &[("status", status)]);
                active("running") + active("queued") + active("compensating") == 0.0
            })
            .await;
    }
    let recorded = recorded_flips(&system).await;
    let faults: u64 = system.recorder.history().faults.values().sum();
    let (mut wrong, ledger, history) = system.finish(faults).await;

    let judge = Judge { history: &history, recorded: &recorded, ledger: &ledger, processes };
    let checking = std::time::Instant::now();
    wrong.extend(judge.violations());
    let (checked, by_arm) = (checking.elapsed(), judge.orders_by_arm());
    let mut random = fastrand::Rng::with_seed(seed);
    for how in FALSIFICATIONS {
        let Some((history, ledger)) = falsify(&judge, &mut random, how) else {
            wrong.push(format!("nothing can be falsified: {how:?}"));
            continue;
        };
        let falsified = Judge { history: &history, ledger: &ledger, ..judge };
        if falsified.violations().is_empty() {
            wrong.push(format!("a falsified history passes: {how:?}"));
        }
    }
    let figures = format!(
        "{processes} processes, {} operations in {took:.1?} checked in {checked:.1?}, {} orders ({} by legacy, {} by \
         the engine), {} flips, {} reads of flags ({} routes with two states at once), outcomes {:?}, faults {:?}",
        judge.operations(),
        history.orders.len(),
        by_arm[0],
        by_arm[1],
        history.flips.len(),
        history.reads.len(),
        judge.routes_with_two_states(),
        history.outcomes,
        history.faults,
    );
    report_violations(test, Some(seed), &figures, &wrong);
}
