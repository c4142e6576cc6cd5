//! A randomized simulation: two processes on one store, in one thread, in simulated time.
//!
//! Runs are started and get commands at random; store and services fail at random; processes are killed, started, or
//! cut off from the store while they live; clocks jump by hours. In the end the faults stop, people answer all open
//! questions, and every run has to end with nothing done twice and nothing lost. The same seed gives the same random
//! numbers here and in the engine; the order in which tokio polls tasks that are ready at the same moment is not
//! controlled.

mod invariants;
mod plans;
mod services;
mod simulation;

use std::time::{Duration, Instant};

use self::simulation::{Scenario, Simulation};

/// The figures of one simulation, or the sums of several.
#[derive(Debug, Default)]
struct Figures {
    runs: usize,
    events: usize,
    kills: u64,
    jumps: u64,
    commands: u64,
    faults: u64,
    effects: u64,
    virtual_s: u64,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        let Figures { runs, events, kills, jumps, commands, faults, effects, virtual_s } = other;
        self.runs += runs;
        self.events += events;
        self.kills += kills;
        self.jumps += jumps;
        self.commands += commands;
        self.faults += faults;
        self.effects += effects;
        self.virtual_s += virtual_s;
    }
}

/// Runs one simulation; returns its figures and the violated invariants.
fn simulate(seed: u64, scenario: Scenario) -> (Figures, Vec<String>) {
    fastrand::seed(seed);
    let shown = std::env::var_os("POINTSMAN_SHOW").is_some().then(|| {
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).finish();
        tracing::subscriber::set_default(all)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let done = runtime.block_on(async { Simulation::new(seed, scenario).await.run().await });
    drop((runtime, shown)); // ends tasks that still run
    crate::clock::simulated::end();
    done
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Simulates the seed N with `POINTSMAN_SEED=N`, N seeds with `POINTSMAN_SEEDS=N` (with both: that many, from that seed
/// on), otherwise as many seeds as fit into this time.
fn simulate_many(test: &str, scenario: Scenario, within: Duration) {
    let (one, many) = (number("POINTSMAN_SEED"), number("POINTSMAN_SEEDS"));
    let first = one.unwrap_or_else(|| fastrand::u64(..1 << 40));
    let begun = Instant::now();
    let (mut all, mut seeds, mut wrong) = (Figures::default(), 0_u64, Vec::new());
    loop {
        let seed = first + seeds;
        let (figures, violations) = simulate(seed, scenario);
        all.add(&figures);
        wrong.extend(violations.into_iter().map(|violation| format!("seed {seed}: {violation}")));
        seeds += 1;
        let enough = match (one, many) {
            (Some(_), None) => true,
            (_, Some(many)) => seeds >= many,
            (None, None) => begun.elapsed() > within,
        };
        if enough || wrong.len() > 20 {
            break;
        }
    }
    let elapsed_s = begun.elapsed().as_secs_f64();
    let rate = seeds as f64 * 60.0 / elapsed_s;
    println!(
        "{test}: {seeds} seeds from {first} in {elapsed_s:.1} s ({rate:.0} a minute), {all:?}, {} violations",
        wrong.len()
    );
    println!("again: POINTSMAN_SEED={first} POINTSMAN_SEEDS={seeds} cargo test --lib engine::tests::sim::{test}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn with_all_faults_nothing_is_lost_or_done_twice() {
    simulate_many("with_all_faults", Scenario::AllFaults, Duration::from_secs(8));
}

/// On a store of one process no sweep makes up for lost wake-ups.
#[test]
fn a_single_process_loses_nothing_and_does_nothing_twice() {
    simulate_many("a_single_process", Scenario::SingleProcess, Duration::from_secs(5));
}

/// Replies of the store and of services are lost: nothing is done twice, and no unknown outcome is repeated blindly.
#[test]
fn with_lost_replies_nothing_is_done_twice() {
    simulate_many("with_lost_replies", Scenario::LostReplies, Duration::from_secs(4));
}
