//! Tests with every pair of inputs, in both orders, at every position of a run; and with many random faults in one run.

use jiff::SignedDuration;

use super::faults::child_end;
use super::plans;
use super::rig::{Faults, Rig};
use crate::engine::machine::Input;
use crate::names::RunId;

/// An input to feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TestInput {
    /// The result of the pending request at this position.
    Pending(usize),
    Timer,
    CallerDeadline,
    Cancel,
    Pause,
    Resume,
    Freeze,
    Drain,
    CallerGone,
    Changed,
    DescendantWaits,
    ChildEnded,
}

const ANYTIME: [TestInput; 11] = [
    TestInput::Timer,
    TestInput::CallerDeadline,
    TestInput::Cancel,
    TestInput::Pause,
    TestInput::Resume,
    TestInput::Freeze,
    TestInput::Drain,
    TestInput::CallerGone,
    TestInput::Changed,
    TestInput::DescendantWaits,
    TestInput::ChildEnded,
];

/// Feeds an input; does nothing where it cannot occur now.
fn feed(rig: &mut Rig, input: TestInput) {
    if rig.end.is_some() {
        return;
    }
    let input = match input {
        TestInput::Pending(position) => match rig.pending.remove(position) {
            Some(pending) => rig.resolve(pending),
            None => return,
        },
        TestInput::Timer => {
            let Some(at) = rig.timer else { return };
            rig.now = rig.now.max(at);
            Input::Time
        }
        TestInput::CallerDeadline => {
            rig.now += SignedDuration::from_secs(30);
            Input::Time
        }
        TestInput::Cancel => rig.cancel(true),
        TestInput::Pause => rig.pause(),
        TestInput::Resume => rig.resume(),
        TestInput::Freeze => {
            rig.frozen = true;
            Input::Freeze(true)
        }
        TestInput::Drain => Input::Drain,
        TestInput::CallerGone => Input::CallerGone,
        TestInput::Changed => Input::ExternalChange { reacquired: None },
        TestInput::DescendantWaits => Input::DescendantWaits,
        TestInput::ChildEnded => {
            let child = rig.machine.run().children().next().map(|child| child.run);
            Input::ChildEnded(child_end(child.unwrap_or(RunId(uuid::Uuid::from_u128(77)))))
        }
    };
    rig.step(input);
}

/// Moves the run to a position by feeding that many inputs: the results of pending requests, in the order in which they
/// were made, or the timer where none is pending. Returns false if the run has ended or is suspended before.
fn move_to(rig: &mut Rig, position: usize) -> bool {
    rig.begin();
    for _ in 0..position {
        if rig.end.is_some() {
            return false;
        }
        match (rig.pending.is_empty(), rig.timer) {
            (false, _) => feed(rig, TestInput::Pending(0)),
            (true, Some(_)) => feed(rig, TestInput::Timer),
            (true, None) => return false,
        }
    }
    rig.end.is_none()
}

#[test]
fn any_two_inputs_in_any_order_keep_every_promise() {
    let (mut violations, mut tried) = (Vec::new(), 0);
    for (name, plan) in plans() {
        for position in 0..40 {
            let mut rig = Rig::new(&plan);
            if !move_to(&mut rig, position) {
                break;
            }
            let pending = rig.pending.len();
            let inputs: Vec<TestInput> = (0..pending).map(TestInput::Pending).chain(ANYTIME).collect();
            for first in &inputs {
                for second in &inputs {
                    let mut rig = Rig::new(&plan);
                    move_to(&mut rig, position);
                    feed(&mut rig, *first);
                    feed(&mut rig, *second);
                    rig.finish();
                    tried += 1;
                    let at = format!("{name}, position {position}, {first:?} and then {second:?}");
                    violations.extend(rig.violations.into_iter().map(|violation| format!("{at}: {violation}")));
                }
            }
        }
    }
    assert!(tried > 1_000, "{tried} pairs were tried");
    assert!(
        violations.is_empty(),
        "{} of {tried}:\n{}",
        violations.len(),
        violations[..violations.len().min(20)].join("\n")
    );
}

#[test]
fn random_faults_never_break_a_promise_nor_leave_a_run_stuck() {
    let mut violations = Vec::new();
    for seed in 0..400_u64 {
        for (name, plan) in plans() {
            let mut rig = Rig::new(&plan);
            let mut random = fastrand::Rng::with_seed(seed);
            rig.faults = Some(Faults { random: random.fork(), percent: random.u8(5..60) });
            rig.begin();
            for _ in 0..random.usize(0..30) {
                let input = match random.u8(0..4) {
                    0 => ANYTIME[random.usize(..ANYTIME.len())],
                    _ if rig.pending.is_empty() => TestInput::Timer,
                    _ => TestInput::Pending(random.usize(..rig.pending.len())),
                };
                feed(&mut rig, input);
            }
            rig.faults = None;
            rig.finish();
            violations.extend(rig.violations.into_iter().map(|violation| format!("{name}, seed {seed}: {violation}")));
        }
    }
    assert!(violations.is_empty(), "{}:\n{}", violations.len(), violations[..violations.len().min(20)].join("\n"));
}
