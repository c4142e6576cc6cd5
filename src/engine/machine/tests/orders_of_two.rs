//! Every order of any two inputs, at every place of a run; and long runs of bad luck.

use jiff::SignedDuration;

use super::outcomes::child_end;
use super::plans;
use super::rig::{Luck, Rig};
use crate::engine::machine::Input;
use crate::names::RunId;

/// An input that may come at any place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Any {
    /// What is under way, by its place.
    Pending(usize),
    Timer,
    CallerLate,
    Cancel,
    Pause,
    Resume,
    Freeze,
    Drain,
    CallerGone,
    Changed,
    WaitsBelow,
    ChildEnded,
}

const ANYWHERE: [Any; 11] = [
    Any::Timer,
    Any::CallerLate,
    Any::Cancel,
    Any::Pause,
    Any::Resume,
    Any::Freeze,
    Any::Drain,
    Any::CallerGone,
    Any::Changed,
    Any::WaitsBelow,
    Any::ChildEnded,
];

/// Feeds it, where it can come there.
fn feed(rig: &mut Rig, any: Any) {
    if rig.end.is_some() {
        return;
    }
    let input = match any {
        Any::Pending(place) => match rig.pending.remove(place) {
            Some(pending) => rig.resolve(pending),
            None => return,
        },
        Any::Timer => {
            let Some(at) = rig.timer else { return };
            rig.now = rig.now.max(at);
            Input::Time
        }
        Any::CallerLate => {
            rig.now += SignedDuration::from_secs(30);
            Input::Time
        }
        Any::Cancel => rig.cancel(true),
        Any::Pause => rig.pause(),
        Any::Resume => rig.resume(),
        Any::Freeze => {
            rig.frozen = true;
            Input::Freeze(true)
        }
        Any::Drain => Input::Drain,
        Any::CallerGone => Input::CallerGone,
        Any::Changed => Input::Changed { taken_again: None },
        Any::WaitsBelow => Input::WaitsBelow,
        Any::ChildEnded => {
            let child = rig.machine.run().children().next().map(|child| child.run);
            Input::ChildEnded(child_end(child.unwrap_or(RunId(uuid::Uuid::from_u128(77)))))
        }
    };
    rig.step(input);
}

/// The run up to a place, everything in its order; false where it has ended by then.
fn up_to(rig: &mut Rig, place: usize) -> bool {
    rig.begin();
    for _ in 0..place {
        if rig.end.is_some() {
            return false;
        }
        match (rig.pending.is_empty(), rig.timer) {
            (false, _) => feed(rig, Any::Pending(0)),
            (true, Some(_)) => feed(rig, Any::Timer),
            (true, None) => return false,
        }
    }
    rig.end.is_none()
}

#[test]
fn any_two_inputs_in_any_order_keep_every_promise() {
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (name, plan) in plans() {
        for place in 0..40 {
            let mut rig = Rig::new(&plan);
            if !up_to(&mut rig, place) {
                break;
            }
            let pending = rig.pending.len();
            let inputs: Vec<Any> = (0..pending).map(Any::Pending).chain(ANYWHERE).collect();
            for first in &inputs {
                for second in &inputs {
                    let mut rig = Rig::new(&plan);
                    up_to(&mut rig, place);
                    feed(&mut rig, *first);
                    feed(&mut rig, *second);
                    rig.finish();
                    tried += 1;
                    let at = format!("{name}, place {place}, {first:?} and then {second:?}");
                    wrong.extend(rig.wrong.into_iter().map(|wrong| format!("{at}: {wrong}")));
                }
            }
        }
    }
    assert!(tried > 1_000, "{tried} orders were tried");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

#[test]
fn bad_luck_never_breaks_a_promise_nor_leaves_a_run_stuck() {
    let mut wrong = Vec::new();
    for seed in 0..400_u64 {
        for (name, plan) in plans() {
            let mut rig = Rig::new(&plan);
            let mut random = fastrand::Rng::with_seed(seed);
            rig.luck = Some(Luck { random: random.fork(), percent: random.u8(5..60) });
            rig.begin();
            for _ in 0..random.usize(0..30) {
                let any = match random.u8(0..4) {
                    0 => ANYWHERE[random.usize(..ANYWHERE.len())],
                    _ if rig.pending.is_empty() => Any::Timer,
                    _ => Any::Pending(random.usize(..rig.pending.len())),
                };
                feed(&mut rig, any);
            }
            rig.luck = None;
            rig.finish();
            wrong.extend(rig.wrong.into_iter().map(|wrong| format!("{name}, seed {seed}: {wrong}")));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
