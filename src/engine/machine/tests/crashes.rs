//! The process ends after each output of each step; the next one goes on from what the store holds.

use super::plans;
use super::rig::{Crash, Rig};
use crate::engine::machine::Input;

/// The next input in its order, where there is one.
fn next(rig: &mut Rig) -> Option<Input> {
    if rig.end.is_some() {
        return None;
    }
    match (rig.pending.pop_front(), rig.timer) {
        (Some(pending), _) => Some(rig.resolve(pending)),
        (None, Some(at)) => {
            rig.now = rig.now.max(at);
            Some(Input::Time)
        }
        (None, None) => None,
    }
}

/// Goes so many steps, and performs only so many outputs of the next one; how many that one has. `None`: the run came to
/// rest before.
fn cut(rig: &mut Rig, steps: usize, outputs: usize) -> Option<usize> {
    let mut input = Input::Begin { frozen: false, draining: false };
    for _ in 0..steps {
        rig.step(input);
        input = next(rig)?;
    }
    Some(rig.step_until(input, outputs))
}

#[test]
fn a_crash_after_any_output_loses_nothing_and_does_nothing_twice() {
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (name, plan) in plans() {
        for steps in 0..40 {
            let Some(outputs) = cut(&mut Rig::new(&plan), steps, usize::MAX) else { break };
            for performed in 0..=outputs {
                for (appends_written, calls_arrived) in [(false, false), (true, false), (false, true), (true, true)] {
                    let mut rig = Rig::new(&plan);
                    cut(&mut rig, steps, performed);
                    let acknowledged = rig.kept[..rig.acknowledged].to_vec();
                    rig.crash(Crash { appends_written, calls_arrived });
                    rig.finish();
                    tried += 1;
                    let at = format!(
                        "{name}, step {steps}, output {performed}, written {appends_written}, arrived {calls_arrived}"
                    );
                    if !rig.kept.starts_with(&acknowledged) {
                        rig.wrong.push("I1: what was acknowledged is gone".into());
                    }
                    wrong.extend(rig.wrong.into_iter().map(|wrong| format!("{at}: {wrong}")));
                }
            }
        }
    }
    assert!(tried > 300, "{tried} crashes were tried");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
