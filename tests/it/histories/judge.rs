//! What must hold of a history, the flips that the store has, and the ledger.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use pointsman::demo::ledger::LedgerEntry;

use super::checker::{Timed, Verdict, check};
use super::history::{FlagRead, Flip, Flipped, History, OrderOperation};
use super::models::{Answer, Flag, FlagOperation, InForce, KeyOperation, KeyState, KeyedOrder, RUNGS};
use super::operators::CREATOR;
use crate::support::test_system::FAMILY;

/// How many configurations a check visits: what does not end within them is an error.
const CONFIGURATIONS_MAX: usize = 200_000;
const ONLY: usize = 4;
const LIVE: usize = 3;

/// By the reason of a flip: its number.
pub type Recorded = BTreeMap<String, u64>;

/// Judges a history.
pub struct Judge<'a> {
    pub history: &'a History,
    pub recorded: &'a Recorded,
    pub ledger: &'a [LedgerEntry],
    pub processes: usize,
}

/// A time in which a state of a route may be in force in some process.
#[derive(Debug)]
struct Possible {
    rung: usize,
    from: u64,
    to: u64,
}

/// The states that may be in force at some time in between.
fn rungs_between(possible: &[Possible], from: u64, to: u64) -> BTreeSet<usize> {
    possible.iter().filter(|of| of.from <= to && from <= of.to).map(|of| of.rung).collect()
}

/// Says what is wrong, if anything is.
fn describe<O: std::fmt::Debug>(what: &str, operations: &[Timed<O>], verdict: &Verdict) -> Option<String> {
    let show = |of: &[usize]| {
        let line = |index: &usize| {
            let Timed { invoked, returned, operation } = &operations[*index];
            let ms = |time: u64| time as f64 / 1e6;
            let until = returned.map_or("?".to_owned(), |returned| format!("{:.3}", ms(returned)));
            format!("    {:.3}..{until} ms {operation:?}", ms(*invoked))
        };
        of.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    match verdict {
        Verdict::Linearizable(_) => None,
        Verdict::TooConcurrent => Some(format!("{what}: {} operations are too concurrent to check", operations.len())),
        Verdict::Violation { longest, next } => {
            let last = &longest[longest.len().saturating_sub(12)..];
            Some(format!(
                "{what} is not linearizable. The longest order ends with\n{}\n  and next would be one of\n{}",
                show(last),
                show(next)
            ))
        }
    }
}

impl Judge<'_> {
    /// All that is wrong.
    pub fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_keys(&mut wrong);
        self.check_flags(&mut wrong);
        self.check_arms(&mut wrong);
        self.check_ledger(&mut wrong);
        wrong
    }

    /// Each key is one order.
    fn check_keys(&self, wrong: &mut Vec<String>) {
        for (number, operations) in &self.history.orders {
            let verdict = check::<KeyedOrder>(KeyState::Free, operations, CONFIGURATIONS_MAX);
            wrong.extend(describe(&format!("order {number}"), operations, &verdict));
        }
    }

    /// The operations on the flag of a route, as one process has it. `None` for reads of all processes.
    fn flag_history(&self, route: usize, process: Option<usize>) -> Vec<Timed<FlagOperation>> {
        let flips = self.history.flips.iter().filter(|flip| flip.route == route).filter_map(|flip| {
            let (from, number, returned) = match flip.outcome {
                Flipped::Moved { from, number } => (Some(from), number, Some(self.in_force_at(flip))),
                // One that the store does not have was not made, save for a moment in its own process.
                Flipped::Unknown | Flipped::Unrecorded => (None, *self.recorded.get(&flip.reason)?, None),
            };
            let to = InForce { rung: flip.to, number };
            Some(Timed { invoked: flip.invoked, returned, operation: FlagOperation::Flip { from, to } })
        });
        let reads = self.history.reads.iter().filter(|read| {
            let is_of = read.route == route && process.is_none_or(|process| read.process == process);
            is_of && self.absence_of(read).is_none()
        });
        let reads = reads.map(|read| Timed {
            invoked: read.invoked,
            returned: Some(read.returned),
            operation: FlagOperation::Read(read.value),
        });
        flips.chain(reads).collect()
    }

    /// Since when the process of a read was absent, if it was.
    fn absence_of(&self, read: &FlagRead) -> Option<u64> {
        let absences = self.history.absences.iter().filter(|absence| absence.process == read.process);
        let overlapping = absences.filter(|absence| absence.from <= read.returned && read.invoked <= absence.to);
        overlapping.map(|absence| absence.from).min()
    }

    /// When a flip is in force in all processes: one that was absent meanwhile has it later.
    fn in_force_at(&self, flip: &Flip) -> u64 {
        let overlapping =
            self.history.absences.iter().filter(|absence| absence.from <= flip.returned && flip.invoked <= absence.to);
        overlapping.map(|absence| absence.to).chain([flip.returned]).max().unwrap_or(flip.returned)
    }

    /// Each flag is a register in each process, and all processes have the flips in one order. An absent process shows
    /// a state that was in force since it has been absent.
    fn check_flags(&self, wrong: &mut Vec<String>) {
        for (route, id) in FAMILY.iter().enumerate() {
            for process in 0..self.processes {
                let operations = self.flag_history(route, Some(process));
                let verdict = check::<Flag>(InForce { rung: 0, number: 0 }, &operations, CONFIGURATIONS_MAX);
                wrong.extend(describe(&format!("`{id}` in process {process}"), &operations, &verdict));
            }
            let possible = self.possible(route);
            for read in self.history.reads.iter().filter(|read| read.route == route) {
                let Some(absent_since) = self.absence_of(read) else { continue };
                if !rungs_between(&possible, absent_since, read.returned).contains(&read.value.rung) {
                    wrong.push(format!("`{id}`: an absent process shows a state from before its absence: {read:?}"));
                }
            }
        }
    }

    /// The routes whose flag, read at all processes, is no single register: while a flip is not answered, two
    /// neighbouring states are in force, each in some processes.
    pub fn routes_with_two_states(&self) -> usize {
        let is_register = |route: &usize| {
            let operations = self.flag_history(*route, None);
            let verdict = check::<Flag>(InForce { rung: 0, number: 0 }, &operations, CONFIGURATIONS_MAX);
            matches!(verdict, Verdict::Linearizable(_))
        };
        (0..FAMILY.len()).filter(|route| !is_register(route)).count()
    }

    /// Which states of a route may be in force in some process, and when.
    fn possible(&self, route: usize) -> Vec<Possible> {
        let mut flips: Vec<(u64, &Flip)> = Vec::new();
        let mut possible = Vec::new();
        for flip in self.history.flips.iter().filter(|flip| flip.route == route) {
            let number = match flip.outcome {
                Flipped::Moved { number, .. } => Some(number),
                Flipped::Unknown | Flipped::Unrecorded => self.recorded.get(&flip.reason).copied(),
            };
            match number {
                Some(number) => flips.push((number, flip)),
                // A flip down that is not recorded is in force in its own process for a while.
                None if flip.outcome == Flipped::Unrecorded => {
                    possible.push(Possible { rung: flip.to, from: flip.invoked, to: u64::MAX });
                }
                None => {}
            }
        }
        flips.sort_by_key(|(number, _)| *number);
        // A flip that has an answer ends those before it.
        let end = |place: usize| {
            let later = flips[place..].iter().filter(|(_, flip)| matches!(flip.outcome, Flipped::Moved { .. }));
            later.map(|(_, flip)| self.in_force_at(flip)).min().unwrap_or(u64::MAX)
        };
        possible.push(Possible { rung: 0, from: 0, to: end(0) });
        for (place, (_, flip)) in flips.iter().enumerate() {
            possible.push(Possible { rung: flip.to, from: flip.invoked, to: end(place + 1) });
        }
        possible
    }

    /// The arm that performed an order is one that a state in force meanwhile allows.
    fn check_arms(&self, wrong: &mut Vec<String>) {
        let possible = self.possible(CREATOR);
        for (number, operations) in &self.history.orders {
            let Some((answer, returned)) = first_answer(operations) else { continue };
            let tries =
                operations.iter().filter(|of| !matches!(of.operation, KeyOperation::Read(_) | KeyOperation::NotFound));
            let invoked = tries.map(|of| of.invoked).min().unwrap_or(0);
            let rungs = rungs_between(&possible, invoked, returned);
            let allows = |rung: &usize| if answer.by_engine { *rung >= LIVE } else { *rung < ONLY };
            if !rungs.iter().any(allows) {
                let states: Vec<&str> = rungs.iter().map(|rung| RUNGS[*rung]).collect();
                wrong.push(format!("order {number} was performed as {answer:?} while only {states:?} may be in force"));
            }
        }
    }

    /// How many orders legacy performed, and how many the engine.
    pub fn orders_by_arm(&self) -> [usize; 2] {
        let answers = self.history.orders.values().filter_map(|of| first_answer(of));
        let (engine, legacy): (Vec<_>, Vec<_>) = answers.partition(|(answer, _)| answer.by_engine);
        [legacy.len(), engine.len()]
    }

    /// I5: each order that was answered has its effects once, by the arm that answered it, and each other one at most
    /// once; one whose tries all say that nothing was done has none.
    fn check_ledger(&self, wrong: &mut Vec<String>) {
        let mut effects: BTreeMap<u64, Vec<&LedgerEntry>> = BTreeMap::new();
        for entry in self.ledger.iter().filter(|entry| !entry.repeated && entry.operation != "draft") {
            let number = entry.trace.as_deref().and_then(|trace| u64::from_str_radix(trace, 16).ok());
            match number {
                Some(number) => effects.entry(number).or_default().push(entry),
                None => wrong.push(format!("I5: an effect of no order: {entry:?}")),
            }
        }
        let answered =
            self.history.orders.iter().filter(|(_, of)| first_answer(of).is_some()).map(|(number, _)| *number);
        let numbers: BTreeSet<u64> = effects.keys().copied().chain(answered).collect();
        for number in numbers {
            let of = effects.get(&number).map_or(&[][..], Vec::as_slice);
            let operations = self.history.orders.get(&number).map_or(&[][..], Vec::as_slice);
            let causes: BTreeSet<&str> = of.iter().map(|entry| entry.caused_by.as_str()).collect();
            let count = |operation: &str| of.iter().filter(|entry| entry.operation == operation).count();
            let counts = [count("charge"), count("mail"), count("reserve")];
            let is_right = match first_answer(operations) {
                Some((answer, _)) => {
                    let arm = if answer.by_engine { "engine" } else { "legacy" };
                    counts == [1, 1, 2] && causes.iter().copied().eq([format!("{arm}:{}", answer.id).as_str()])
                }
                None => {
                    let may_be_done = operations.iter().any(|of| matches!(of.operation, KeyOperation::Unknown { .. }));
                    may_be_done && causes.len() <= 1 && counts[0] <= 1 && counts[1] <= 1 && counts[2] <= 2
                }
            };
            if !is_right {
                wrong.push(format!(
                    "I5: order {number} has (charge, mail, reserve) {counts:?} by {causes:?}:\n{}",
                    show(operations)
                ));
            }
        }
    }

    /// How many operations were checked.
    pub fn operations(&self) -> usize {
        self.history.orders.values().map(Vec::len).sum::<usize>() + self.history.flips.len() + self.history.reads.len()
    }
}

fn show(operations: &[Timed<KeyOperation>]) -> String {
    operations.iter().map(|of| format!("    {of:?}")).collect::<Vec<_>>().join("\n")
}

/// The answer of an order, and when the first try that got it returned.
fn first_answer(operations: &[Timed<KeyOperation>]) -> Option<(&Answer, u64)> {
    let answers = operations.iter().filter_map(|of| match &of.operation {
        KeyOperation::Ordered { answer, .. } => Some((answer, of.returned?)),
        _ => None,
    });
    answers.min_by_key(|(_, returned)| *returned)
}

/// What can be changed in a history so that it is a violation.
#[derive(Clone, Copy, Debug)]
pub enum Falsification {
    /// One of two tries got another order.
    OtherAnswer,
    /// An order is not found after it was answered.
    NotFound,
    /// A read of a flag shows a state that is not that of its flip.
    OtherState,
    /// No flip went above `dark`.
    NoFlipToLive,
    /// An effect is missing in the ledger.
    MissingEffect,
    /// An effect was performed twice.
    RepeatedEffect,
}

pub const FALSIFICATIONS: [Falsification; 6] = [
    Falsification::OtherAnswer,
    Falsification::NotFound,
    Falsification::OtherState,
    Falsification::NoFlipToLive,
    Falsification::MissingEffect,
    Falsification::RepeatedEffect,
];

/// Changes a history and the ledger so that they are a violation. `None` if there is nothing to change in this way.
pub fn falsify(of: &Judge<'_>, random: &mut Rng, how: Falsification) -> Option<(History, Vec<LedgerEntry>)> {
    let (mut history, mut ledger) = (of.history.clone(), of.ledger.to_vec());
    let is_answer = |of: &Timed<KeyOperation>| matches!(of.operation, KeyOperation::Ordered { .. });
    // The operations of an order that was answered at least so often.
    let pick_order = |history: &mut History, random: &mut Rng, at_least: usize| {
        let answers = |of: &[OrderOperation]| of.iter().filter(|of| is_answer(of)).count();
        let numbers = history.orders.iter().filter(|(_, of)| answers(of) >= at_least).map(|(number, _)| *number);
        random.choice(numbers.collect::<Vec<_>>())
    };
    match how {
        Falsification::OtherAnswer => {
            let number = pick_order(&mut history, random, 2)?;
            let changed = history.orders.get_mut(&number)?.iter_mut().find(|of| is_answer(of))?;
            let KeyOperation::Ordered { answer, .. } = &mut changed.operation else { return None };
            answer.id.push('0');
        }
        Falsification::NotFound => {
            let number = pick_order(&mut history, random, 1)?;
            let order = history.orders.get_mut(&number)?;
            let (_, returned) = first_answer(order)?;
            order.push(Timed {
                invoked: returned + 1,
                returned: Some(returned + 2),
                operation: KeyOperation::NotFound,
            });
        }
        Falsification::OtherState => {
            let is_checked = |read: &FlagRead| read.value.number > 0 && of.absence_of(read).is_none();
            let reads = history.reads.iter_mut().filter(|read| is_checked(read));
            let read = random.choice(reads.collect::<Vec<_>>())?;
            read.value.rung = (read.value.rung + 1) % RUNGS.len();
        }
        Falsification::NoFlipToLive => history.flips.iter_mut().for_each(|flip| flip.to = flip.to.min(LIVE - 1)),
        Falsification::MissingEffect | Falsification::RepeatedEffect => {
            let effects = (0..ledger.len()).filter(|at| !ledger[*at].repeated && ledger[*at].operation == "charge");
            let at = random.choice(effects.collect::<Vec<_>>())?;
            match how {
                Falsification::MissingEffect => drop(ledger.remove(at)),
                _ => ledger.push(ledger[at].clone()),
            }
        }
    }
    Some((history, ledger))
}
