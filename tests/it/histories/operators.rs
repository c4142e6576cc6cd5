//! Those that operate the system while clients use it: one moves the routes up and down the ladder, one injects faults,
//! and one reads the flags.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use pointsman::demo::http::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::clients::CLIENTS;
use super::history::{Absence, FlagRead, Flip, Flipped};
use super::models::{InForce, RUNGS};
use super::system::{CLIENT_WAIT, Condition, System};
use crate::support::test_system::FAMILY;
use crate::support::two_processes::LEASE;
use crate::support::{small_disk, until};

/// The creator's place in the family: the last one that is raised.
pub const CREATOR: usize = 2;
const DARK: usize = 2;
const LIVE: usize = 3;
const ONLY: usize = 4;

pub fn rung_of(state: &Value) -> Option<usize> {
    RUNGS.iter().position(|rung| *state == **rung)
}

async fn pause(random: &mut Rng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(ms))).await; // the moment is random
}

/// Moves the routes.
pub struct Mover<'a> {
    system: &'a System,
    client: Client,
    flips: AtomicU64,
    /// The requested states of the routes, where they are known.
    states: Mutex<[Option<usize>; FAMILY.len()]>,
}

impl<'a> Mover<'a> {
    pub fn new(system: &'a System) -> Self {
        Self { system, client: Client::new(CLIENT_WAIT), flips: AtomicU64::new(0), states: Mutex::default() }
    }

    /// Moves the routes to and fro until all is done.
    pub async fn run(&self, done: &AtomicBool) {
        let mut random = self.system.random_of(CLIENTS);
        self.raise(&mut random, 0, LIVE).await;
        while !done.load(Ordering::SeqCst) {
            let to = [0, 1, DARK, DARK, DARK, LIVE, LIVE, LIVE, LIVE, ONLY][random.usize(..10)];
            let now = self.requested(CREATOR, &mut random).await;
            if now >= LIVE && random.u8(..3) == 0 {
                self.move_twice_at_once(&mut random).await;
            } else if to > now {
                self.raise(&mut random, now, to).await;
            } else {
                self.lower(&mut random, to).await;
            }
            pause(&mut random, 50..800).await;
        }
    }

    fn set_state(&self, route: usize, state: Option<usize>) {
        self.states.lock().unwrap()[route] = state;
    }

    /// The requested state of a route.
    async fn requested(&self, route: usize, random: &mut Rng) -> usize {
        if let Some(state) = self.states.lock().unwrap()[route] {
            return state;
        }
        let path = format!("/api/v2/routes/{}", FAMILY[route]);
        loop {
            let at = self.system.pick(random);
            if let Some(shown) = self.system.get(&self.client, at, &path).await
                && let Some(rung) = rung_of(&shown["row"]["requested"])
            {
                self.set_state(route, Some(rung));
                return rung;
            }
        }
    }

    /// Raises the family one rung after the other, the creator last.
    async fn raise(&self, random: &mut Rng, from: usize, to: usize) {
        for rung in from + 1..=to {
            let is_raised = rung == LIVE;
            if is_raised {
                self.system.begin_raise().await;
            }
            for route in 0..FAMILY.len() {
                if self.requested(route, random).await < rung {
                    self.flip(random, route, rung).await;
                }
            }
            if is_raised {
                self.system.end_raise();
            }
            match self.requested(CREATOR, random).await {
                now if now < rung => return,
                DARK => self.system.is_at_dark(),
                _ => {}
            }
        }
    }

    /// Lowers the creator, and then some of its followers.
    async fn lower(&self, random: &mut Rng, to: usize) {
        let to = if to < DARK && !self.system.may_go_below_dark() { DARK } else { to };
        for route in (0..FAMILY.len()).rev() {
            if (route == CREATOR || random.bool()) && self.requested(route, random).await > to {
                self.flip(random, route, to).await;
            }
        }
    }

    /// Two flips of the creator at once, at different processes.
    async fn move_twice_at_once(&self, random: &mut Rng) {
        self.system.begin_raise().await;
        let (mut one, mut other) = (random.fork(), random.fork());
        let up = [LIVE, ONLY][random.usize(..2)];
        tokio::join!(self.flip(&mut one, CREATOR, DARK), self.flip(&mut other, CREATOR, up));
        self.set_state(CREATOR, None);
        self.system.end_raise();
    }

    /// Sends one flip, by force, and records it unless it was refused.
    async fn flip(&self, random: &mut Rng, route: usize, to: usize) {
        let process = self.system.pick(random);
        let reason = format!("flip {}", self.flips.fetch_add(1, Ordering::Relaxed));
        let mut body = json!({ "to": RUNGS[to], "force": true, "acknowledge": true, "reason": reason });
        if to >= LIVE {
            body["percent"] = json!(if to == ONLY { 100 } else { [30, 100, 100][random.usize(..3)] });
        }
        let url = format!("{}/api/v2/routes/{}/flip", self.system.admin_url(process).await, FAMILY[route]);
        self.set_state(route, None);
        let invoked = self.system.recorder.now();
        let reply = self.client.json(Method::POST, &url, &[], &body).await;
        let outcome = match reply {
            Ok(reply) => {
                let body = reply.json();
                let number = body["flip"]["number"].as_u64().unwrap_or(0);
                let from = rung_of(&body["flip"]["from"]);
                match (reply.status.as_u16(), from) {
                    (200, Some(from)) if number > 0 => {
                        if !body["not_in_force_in"].is_null() {
                            self.wait_until_followed(process, number).await;
                        }
                        self.set_state(route, Some(to));
                        Flipped::Moved { from, number }
                    }
                    (200, _) => return self.system.recorder.count("flip: nothing changed"),
                    (202, _) => Flipped::Unrecorded,
                    (400..500, _) => return self.system.recorder.count(format!("flip: {}", body["type"])),
                    (status, _) => {
                        self.system.recorder.count(format!("flip: {status} {}", body["type"]));
                        Flipped::Unknown
                    }
                }
            }
            Err(_) => Flipped::Unknown,
        };
        let returned = self.system.recorder.now();
        if outcome == Flipped::Unknown {
            // If it is recorded, the others follow before they are asked.
            tokio::time::sleep(LEASE / 4).await;
        }
        self.system.recorder.history().flips.push(Flip { route, to, reason, invoked, returned, outcome });
    }

    /// A flip is in force once those processes that its answer named have followed or are out.
    async fn wait_until_followed(&self, at: usize, number: u64) {
        self.system.recorder.count("flip: waited for another process");
        until("the other processes to follow, or to be out", || async {
            if self.system.condition(at) == Condition::Gone {
                return Some(());
            }
            let rows = self.system.get(&self.client, at, "/api/v2/processes").await?;
            let has = |row: &Value| row["newest_flip"].as_u64() >= Some(number);
            rows.as_array()?.iter().all(has).then_some(())
        })
        .await;
    }
}

/// Reads the flags of all routes at all processes until all is done.
pub async fn read_flags(system: &System, done: &AtomicBool) {
    let (client, mut random) = (Client::new(CLIENT_WAIT), system.random_of(CLIENTS + 1));
    while !done.load(Ordering::SeqCst) {
        let (process, route) = (system.pick(&mut random), random.usize(..FAMILY.len()));
        let invoked = system.recorder.now();
        let shown = system.get(&client, process, &format!("/api/v2/routes/{}", FAMILY[route])).await;
        let returned = system.recorder.now();
        if let Some(shown) = shown
            && let Some(rung) = rung_of(&shown["row"]["requested"])
        {
            // The state and the flip are not read at one moment: of a flip in between only the number is shown.
            let is_of_state = shown["flip"]["to"] == shown["row"]["requested"];
            let number = shown["flip"]["number"].as_u64().filter(|_| is_of_state).unwrap_or(0);
            let value = InForce { rung, number };
            system.recorder.history().reads.push(FlagRead { route, process, invoked, returned, value });
        }
        pause(&mut random, 2..30).await;
    }
}

/// The faults; the frequent ones more than once.
const FAULTS: &str = "kill kill kill kill stop stop terminate terminate reset silence restart crash read-only hang full \
                      clock takeover";
/// Offsets of a machine's clock from the others'.
const OFFSETS: [&str; 6] = ["+0", "+3s", "-3s", "+50s", "+2h", "-2h"];

/// Injects faults at random until all is done. Each ends before the next one begins.
pub async fn inject_faults(system: &System, done: &AtomicBool) {
    let (client, mut random) = (Client::new(CLIENT_WAIT), system.random_of(CLIENTS + 2));
    let faults: Vec<&str> = FAULTS.split_whitespace().collect();
    while !done.load(Ordering::SeqCst) {
        pause(&mut random, 200..1_200).await;
        let kind = faults[random.usize(..faults.len())];
        if (kind == "full" && !system.has_own_disk.load(Ordering::SeqCst))
            || !system.begin_fault(!matches!(kind, "kill" | "clock"))
        {
            continue;
        }
        let at = random.usize(..system.count);
        match kind {
            "kill" => {
                system.kill(at).await;
                pause(&mut random, 0..2_500).await;
                system.start_again(at).await;
            }
            "clock" => system.clock.set(OFFSETS[random.usize(..OFFSETS.len())]),
            "stop" => {
                let from = begin_absence(system, at);
                system.signal(at, Signal::STOP).await;
                pause(&mut random, absence_ms()).await;
                system.signal(at, Signal::CONT).await;
                end_absence(system, &client, at, from).await;
            }
            "reset" | "silence" => {
                let from = begin_absence(system, 0);
                match kind {
                    "reset" => system.fleet.read().await.two.link.reset(),
                    _ => system.fleet.read().await.two.link.drop_silently(),
                }
                pause(&mut random, absence_ms()).await;
                system.fleet.read().await.two.link.restore();
                end_absence(system, &client, 0, from).await;
            }
            _ => {
                let from: Vec<u64> = (0..system.count).map(|at| begin_absence(system, at)).collect();
                fail_database(system, kind, &mut random).await;
                for (at, from) in from.into_iter().enumerate() {
                    end_absence(system, &client, at, from).await;
                }
            }
        }
        system.end_fault();
        *system.recorder.history().faults.entry(kind).or_default() += 1;
    }
}

fn absence_ms() -> std::ops::Range<u64> {
    0..LEASE.as_millis() as u64 + 1_500
}

/// A fault of the database that all processes see, from its beginning to its end.
async fn fail_database(system: &System, kind: &str, random: &mut Rng) {
    if kind == "hang" {
        let mut fleet = system.fleet.write().await;
        block_in_place(|| fleet.two.cluster.freeze());
        drop(fleet);
        pause(random, absence_ms()).await;
        let mut fleet = system.fleet.write().await;
        block_in_place(|| fleet.two.cluster.thaw());
        return;
    }
    // Clients go on meanwhile: they read this too.
    let fleet = system.fleet.read().await;
    let cluster = &fleet.two.cluster;
    match kind {
        "terminate" => {
            for _ in 0..random.u8(1..4) {
                block_in_place(|| cluster.terminate_all());
                pause(random, 0..300).await;
            }
        }
        "restart" | "crash" => {
            block_in_place(|| cluster.stop(if kind == "crash" { "immediate" } else { "fast" }));
            pause(random, absence_ms()).await;
            block_in_place(|| cluster.start_again());
        }
        "read-only" => {
            let alter = |text: &str| {
                let text = format!("ALTER SYSTEM {text}");
                block_in_place(|| cluster.query(&text).and_then(|_| cluster.query("SELECT pg_reload_conf()")))
                    .expect("set");
            };
            alter("SET default_transaction_read_only = on");
            pause(random, absence_ms()).await;
            alter("RESET default_transaction_read_only");
        }
        "full" => {
            let filler = block_in_place(|| small_disk::fill(cluster.dir()));
            pause(random, absence_ms()).await;
            std::fs::remove_file(filler).expect("the disk has room again");
            // A server that could not write its log has crashed, and may have failed to recover.
            if block_in_place(|| cluster.query("SELECT 1")).is_err() {
                block_in_place(|| cluster.stop("immediate"));
                block_in_place(|| cluster.start_again());
            }
        }
        "takeover" => {
            let standby = block_in_place(|| cluster.standby());
            pause(random, absence_ms()).await;
            block_in_place(|| cluster.stop("immediate"));
            block_in_place(|| standby.promote());
            drop(fleet);
            let mut fleet = system.fleet.write().await;
            block_in_place(|| fleet.two.cluster.replace_by(standby));
            // The standby's folder is elsewhere.
            system.has_own_disk.store(false, Ordering::SeqCst);
        }
        _ => unreachable!("{kind}"),
    }
}

fn begin_absence(system: &System, at: usize) -> u64 {
    system.set_condition(at, Condition::Slow);
    system.recorder.now()
}

async fn end_absence(system: &System, client: &Client, process: usize, from: u64) {
    system.until_followed(client, process).await;
    system.set_condition(process, Condition::Well);
    let to = system.recorder.now();
    system.recorder.history().absences.push(Absence { process, from, to });
}
