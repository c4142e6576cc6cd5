//! Everything at once, simulated: two processes on one store, in one thread, in simulated time.
//!
//! Runs are started, spoken to and cut by lot; the store and the world fail by lot; processes are killed, start again,
//! or are thought dead while they live; clocks are set by hours. In the end all heals, people say what they are asked, and every run has to come
//! to its end with nothing done twice and nothing lost. A seed repeats what is drawn here and by the engine; the order in
//! which tokio takes up tasks that are ready at the same moment is tokio's own.

mod outside;
mod plans;
mod play;
mod store;
mod verdict;

use std::time::{Duration, Instant};

use self::play::{Play, What};

/// What one simulation came to.
#[derive(Debug, Default)]
struct Figures {
    runs: usize,
    events: usize,
    kills: u64,
    jumps: u64,
    orders: u64,
    faults: u64,
    effects: u64,
    virtual_s: u64,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        let Figures { runs, events, kills, jumps, orders, faults, effects, virtual_s } = other;
        self.runs += runs;
        self.events += events;
        self.kills += kills;
        self.jumps += jumps;
        self.orders += orders;
        self.faults += faults;
        self.effects += effects;
        self.virtual_s += virtual_s;
    }
}

/// One simulation; what is wrong with it.
fn simulate(seed: u64, what: What) -> (Figures, Vec<String>) {
    fastrand::seed(seed);
    let shown = std::env::var_os("POINTSMAN_SHOW").is_some().then(|| {
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).finish();
        tracing::subscriber::set_default(all)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let done = runtime.block_on(async { Play::new(seed, what).await.play().await });
    drop((runtime, shown)); // whatever still moves
    crate::clock::simulated::end();
    done
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `POINTSMAN_SEED=N` plays one; `POINTSMAN_SEEDS=N` so many; otherwise as many as this time holds.
fn play(test: &str, what: What, within: Duration) {
    let (one, many) = (number("POINTSMAN_SEED"), number("POINTSMAN_SEEDS"));
    let first = one.unwrap_or_else(|| fastrand::u64(..1 << 40));
    let begun = Instant::now();
    let (mut all, mut seeds, mut wrong) = (Figures::default(), 0_u64, Vec::new());
    loop {
        let seed = first + seeds;
        let (figures, violations) = simulate(seed, what);
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
    let took = begun.elapsed().as_secs_f64();
    let rate = seeds as f64 * 60.0 / took;
    println!(
        "{test}: {seeds} seeds from {first} in {took:.1} s ({rate:.0} a minute), {all:?}, {} violations",
        wrong.len()
    );
    println!("again: POINTSMAN_SEED={first} POINTSMAN_SEEDS={seeds} cargo test --lib engine::tests::sim::{test}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn anything_may_happen_and_nothing_is_lost_or_done_twice() {
    play("anything_may_happen", What::Anything, Duration::from_secs(8));
}

/// The same where a store belongs to one process: nobody looks around behind it.
#[test]
fn a_process_alone_loses_nothing_and_does_nothing_twice() {
    play("a_process_alone", What::Alone, Duration::from_secs(5));
}

/// Committed and the reply lost, done and the reply cut: nothing is done twice, and nothing unknown is tried blindly.
#[test]
fn replies_are_lost_and_nothing_is_done_twice() {
    play("replies_are_lost", What::LostReplies, Duration::from_secs(4));
}
