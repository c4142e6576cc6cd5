//! Random operations from outside: keyed orders and their retries, flips, edits of the flag files, freezes, faults of
//! services, decisions of people, a full disk, kills, restarts, hand-overs to successors, and stores that are restored,
//! in an order that a seed picks.
//!
//! What has to hold, whatever came in between:
//!
//! - each keyed order has its effects from one arm, those of the engine once; what the engine answered, it answers
//!   again, and it can be read;
//! - a refused reload changes nothing, and a restart without an edit changes no state;
//! - a route whose state in force is not the requested one says why, and the requested state is that of its last flip;
//! - in the end each run is over or says what it waits for, and the checker finds nothing.
//!
//! An order of the engine that a restored copy of the store may not have counts as lost: its client does not retry it
//! (`pointsman help store`).

mod clients;
mod files;
mod flips;
mod hand_overs;
mod people;
mod stores;

use std::collections::BTreeMap;

use fastrand::Rng;
use pointsman::demo::world::Fault;
use serde_json::json;

use crate::support::seed::{report_violations, seed, tries_everything};
use crate::support::test_system::TestSystem;
use clients::Order;
use files::{EDITS, Edit, Example, Files};
use stores::Copy;

const OPERATIONS: usize = 40;

/// What happens to the store in a walk. Each but `None` keeps most routes out of `live`, so a walk has only
/// one of them.
#[derive(Clone, Copy, Debug)]
enum Disaster {
    None,
    FullDisk,
    Restore,
    OlderCopy,
}

const DISASTERS: [Disaster; 4] = [Disaster::None, Disaster::FullDisk, Disaster::Restore, Disaster::OlderCopy];

/// A system and a sequence of operations on it, each of which a seed picks.
struct Walk {
    system: TestSystem,
    random: Rng,
    edits: Vec<Edit>,
    example: Example,
    /// The version of the files in the directory.
    files: Files,
    /// The earlier versions of the files, the newest last.
    earlier: Vec<Files>,
    orders: Vec<Order>,
    /// What happens to the store in this walk.
    disaster: Disaster,
    backup: Option<Copy>,
    /// Whether no client retries what legacy may have served.
    no_client_retries: bool,
    /// How many copies of stores were made.
    copies: u32,
    /// How many successors were started.
    successors: u32,
    wrong: Vec<String>,
}

impl Walk {
    async fn start(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let files = Files::first(random.bool());
        let mut example = None;
        let mut system = TestSystem::with(|flags| {
            let example = example.insert(Example::prepare(flags));
            example.write(flags, &files);
        })
        .await;
        system.allowed.unacknowledged = true;
        system.allowed.legacy_repeats = true;
        let edits = random.choose_multiple(EDITS, 3);
        let disaster = random.choice(DISASTERS).expect("some");
        eprintln!("{edits:?}, {disaster:?}");
        let (earlier, orders, wrong) = Default::default();
        let example = example.expect("the files were written");
        let (backup, copies, successors, no_client_retries) = (None, 0, 0, false);
        let walk = Self {
            system,
            random,
            edits,
            example,
            files,
            earlier,
            orders,
            disaster,
            backup,
            no_client_retries,
            copies,
            successors,
            wrong,
        };
        // The first family starts in `live`, the fourth of the states.
        walk.flip(false, 3, None).await;
        walk
    }

    /// Moves a family while orders are sent.
    async fn move_family(&mut self) {
        let to = [0, 1, 2, 3, 3, 3, 4][self.random.usize(..7)];
        let percent = (self.random.u8(..4) == 0).then(|| [10, 50, 100][self.random.usize(..3)]);
        let is_second = self.random.u8(..3) == 0;
        let picked = self.pick_orders();
        let (replies, ()) = tokio::join!(self.send(&picked), self.flip(is_second, to, percent));
        self.take_answers(picked, replies);
    }

    async fn freeze_for_a_while(&mut self) {
        eprintln!("freeze");
        let effects = self.random.bool();
        self.freeze(json!({ "on": true, "effects": effects, "reason": "a test" })).await;
        self.send_orders().await;
        self.freeze(json!({ "on": false, "reason": "a test" })).await;
    }

    fn inject_fault(&mut self) {
        let faults = [
            (Fault::Refuse(503), 1),
            (Fault::Refuse(400), 1),
            (Fault::Refuse(409), 1),
            (Fault::Refuse(429), 4),
            (Fault::LoseReply, 1),
            (Fault::Close, 1),
        ];
        let (fault, times) = faults[self.random.usize(..faults.len())];
        let operation = ["charge", "charge", "reserve", "mail"][self.random.usize(..4)];
        eprintln!("a fault of {operation}: {fault:?}");
        self.system.world.fault(operation, fault, times);
        self.system.allowed.lost_replies += 1;
    }

    /// One operation.
    async fn operate(&mut self) {
        match self.random.u8(..31) {
            0..=6 => self.send_orders().await,
            7 | 8 => self.read_order().await,
            9..=12 => self.move_family().await,
            13..=15 => self.edit().await,
            16 => {
                let before = self.states().await;
                self.stop().await;
                let edits = self.random.bool();
                self.restart(edits).await;
                if !edits {
                    self.expect_states("a restart", &before).await;
                }
            }
            17 | 18 => {
                eprintln!("kill");
                let before = self.states().await;
                self.send_and_kill().await;
                let edits = self.random.bool();
                self.restart(edits).await;
                if !edits {
                    self.expect_states("a kill", &before).await;
                }
            }
            19 => self.freeze_for_a_while().await,
            20..=22 => {
                self.inject_fault();
                self.send_orders().await;
                if self.random.bool() {
                    self.decide_paused().await;
                    self.rerun().await;
                }
            }
            23 => self.decide_paused().await,
            24 => self.rerun().await,
            25 if self.random.bool() => self.force_live().await,
            26..=28 => self.hand_over().await,
            _ => match self.disaster {
                Disaster::None => self.send_orders().await,
                Disaster::FullDisk => self.fill_disk().await,
                Disaster::Restore if self.backup.is_none() || self.random.bool() => self.back_up().await,
                Disaster::Restore => self.restore().await,
                Disaster::OlderCopy => self.move_to_older().await,
            },
        }
        self.check_states().await;
    }

    /// Ends all that was begun, and checks what has to hold in the end.
    async fn finish(mut self) -> Vec<String> {
        self.freeze(json!({ "on": false, "reason": "the end" })).await;
        self.system.world.clear_faults();
        self.decide_paused().await;
        self.system.wait_for_runs_to_end().await;
        self.check_open_runs().await;
        // In `only` the orders of legacy could not be read.
        for route in [false, true].into_iter().flat_map(|is_second| self.files.ids(is_second)) {
            self.flip_route(route, "off", None).await;
        }
        self.check_orders().await;
        let wrong = self.wrong;
        // A violation that was found already says more than what the checker makes of it.
        if wrong.is_empty() {
            self.system.finish().await
        } else {
            self.system.finish_unchecked().await
        }
        wrong
    }
}

/// Every keyed order is performed by one arm, and by the engine at most once, through any order of operations.
#[tokio::test(flavor = "multi_thread")]
async fn one_arm_performs_each_order_through_random_operations() {
    let first = seed();
    let walks = if tries_everything() { 30 } else { 2 };
    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::new());
    for seed in first..first + walks {
        eprintln!("seed {seed}");
        let mut walk = Walk::start(seed).await;
        for _ in 0..OPERATIONS {
            walk.operate().await;
        }
        for order in &walk.orders {
            let by = match order.answer {
                _ if order.is_lost => "lost",
                None => "not answered",
                Some(_) if order.is_from_engine() => "engine",
                Some(_) => "legacy",
            };
            *counts.entry(by).or_insert(0_u32) += 1;
        }
        let found = walk.finish().await;
        if !found.is_empty() {
            wrong.push(format!("seed {seed}: {}", found.join("\n")));
        }
    }
    assert!(counts.get("engine").is_some_and(|count| *count > 0), "the engine answered nothing: {counts:?}");
    report_violations(
        "random_operations::one_arm_performs_each_order_through_random_operations",
        Some(first),
        &format!("{walks} walks of {OPERATIONS} operations, orders by {counts:?}"),
        &wrong,
    );
}
