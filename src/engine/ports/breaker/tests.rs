use std::time::Duration;

use proptest::prelude::*;

use super::{AdmittedCall, Breaker, BreakerState, CallOutcome, Rejected};
use crate::flag::BreakerSettings as Rule;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rule() -> Rule {
    Rule { failures: 0.5, over: ms(1_000), min: 4, slow: Some(ms(200)), open: ms(100), open_max: ms(350), probes: 2 }
}

fn call(breaker: &mut Breaker, outcome: CallOutcome, now: u64) -> Result<(), Rejected> {
    let admission = breaker.admit(ms(now)).0?;
    breaker.record_outcome(admission, outcome, ms(now));
    Ok(())
}

fn opened_at(now: u64) -> Breaker {
    let mut breaker = Breaker::new(rule());
    for _ in 0..4 {
        call(&mut breaker, CallOutcome::Failed, now).unwrap();
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

#[test]
fn the_breaker_opens_at_the_failure_rate_and_not_below_the_minimum_of_calls() {
    let mut breaker = Breaker::new(rule());
    for _ in 0..3 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "three calls are too few to judge");
    call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(call(&mut breaker, CallOutcome::Succeeded, 99), Err(Rejected { retry_at: ms(100) }));

    let mut breaker = Breaker::new(rule());
    for _ in 0..5 {
        call(&mut breaker, CallOutcome::Succeeded, 0).unwrap();
    }
    for _ in 0..4 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "4 of 9");
    call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    assert_eq!(breaker.state(), BreakerState::Open, "5 of 10");
}

/// What another process found is a hint: it opens nothing by itself, and of this process's calls fewer suffice.
#[test]
fn one_failed_call_opens_the_breaker_while_it_is_open_in_another_process() {
    let mut breaker = Breaker::new(rule());
    breaker.set_open_elsewhere(true);
    assert!(breaker.admit(ms(0)).0.is_ok(), "what another process says refuses no call");
    for _ in 0..3 {
        call(&mut breaker, CallOutcome::Succeeded, 0).unwrap();
    }
    call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed, "1 of 4: the service answers this process");

    let mut breaker = Breaker::new(rule());
    call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    breaker.set_open_elsewhere(true);
    assert_eq!(breaker.state(), BreakerState::Closed, "opened by a call of this process only");
    call(&mut breaker, CallOutcome::Failed, 1).unwrap();
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.is_opened_by_hint() && !opened_at(0).is_opened_by_hint(), "a hint is not passed on");

    let mut breaker = Breaker::new(rule());
    breaker.set_open_elsewhere(true);
    breaker.set_open_elsewhere(false);
    call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed, "the other one has closed");
}

#[test]
fn calls_that_have_left_the_window_do_not_count() {
    let mut breaker = Breaker::new(rule());
    for _ in 0..3 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    call(&mut breaker, CallOutcome::Failed, 1_000).unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.counts(ms(1_000)).failed, 1);
}

#[test]
fn probes_close_the_breaker_when_all_succeed() {
    let mut breaker = opened_at(0);
    let (first, change) = breaker.admit(ms(100));
    assert_eq!(change.map(|change| change.to), Some(BreakerState::HalfOpen));
    let second = breaker.admit(ms(100)).0.unwrap();
    assert_eq!(breaker.admit(ms(100)).0, Err(Rejected { retry_at: ms(120) }), "at most two probes");
    assert_eq!(breaker.record_outcome(first.unwrap(), CallOutcome::Succeeded, ms(110)), None);
    assert!(breaker.admit(ms(110)).0.is_err(), "one in flight, one succeeded");
    let change = breaker.record_outcome(second, CallOutcome::Succeeded, ms(120)).unwrap();
    assert_eq!((change.from, change.to), (BreakerState::HalfOpen, BreakerState::Closed));
    assert!(breaker.admit(ms(120)).0.is_ok());
}

#[test]
fn a_failed_probe_opens_the_breaker_for_twice_as_long_up_to_the_maximum() {
    let mut breaker = opened_at(0);
    let mut until = 100;
    for longer in [200, 350, 350] {
        assert!(call(&mut breaker, CallOutcome::Failed, until).is_ok());
        assert_eq!(breaker.open_until(), Some(ms(until + longer)));
        until += longer;
    }
    for _ in 0..2 {
        call(&mut breaker, CallOutcome::Succeeded, until).unwrap();
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for _ in 0..4 {
        call(&mut breaker, CallOutcome::Failed, until).unwrap();
    }
    assert_eq!(breaker.open_until(), Some(ms(until + 100)), "after it was closed it opens for the shortest time again");
}

#[test]
fn an_inconclusive_probe_makes_room_for_another() {
    let mut breaker = opened_at(0);
    let probes = [breaker.admit(ms(100)).0.unwrap(), breaker.admit(ms(100)).0.unwrap()];
    assert!(breaker.admit(ms(100)).0.is_err());
    breaker.record_outcome(probes[0], CallOutcome::Inconclusive, ms(100));
    assert!(breaker.admit(ms(100)).0.is_ok());
}

#[test]
fn the_outcome_of_a_call_of_an_earlier_period_changes_nothing() {
    let mut breaker = Breaker::new(rule());
    let early = breaker.admit(ms(0)).0.unwrap();
    for _ in 0..4 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    let probe = breaker.admit(ms(100)).0.unwrap();
    assert_eq!(breaker.record_outcome(early, CallOutcome::Failed, ms(100)), None);
    assert_eq!(breaker.record_outcome(early, CallOutcome::Succeeded, ms(100)), None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.record_outcome(probe, CallOutcome::Failed, ms(100)).unwrap();
}

#[test]
fn secondary_calls_are_rejected_and_do_not_change_the_breaker() {
    let breaker = opened_at(0);
    assert_eq!(breaker.check_secondary(ms(99)), Err(Rejected { retry_at: ms(100) }));
    assert!(breaker.check_secondary(ms(100)).is_err(), "only a real run sends the probe");
    assert_eq!(breaker.check_secondary(ms(450)), Ok(()), "no real run has called for open_max: its state is too old");
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn slowness_is_judged_by_the_rule() {
    let breaker = Breaker::new(rule());
    assert!(!breaker.is_too_slow(ms(200)));
    assert!(breaker.is_too_slow(ms(201)));
    assert!(!Breaker::new(Rule { slow: None, ..rule() }).is_too_slow(ms(10_000_000)));
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Wait(u64),
    Admit,
    Settle(usize, CallOutcome),
}

fn operation() -> impl Strategy<Value = Operation> {
    let outcome = prop_oneof![3 => Just(CallOutcome::Failed), 3 => Just(CallOutcome::Succeeded), 1 => Just(CallOutcome::Inconclusive)];
    prop_oneof![
        2 => (0u64..400).prop_map(Operation::Wait),
        5 => Just(Operation::Admit),
        5 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Operation::Settle(which, outcome)),
    ]
}

proptest! {
    /// Whatever happens: an open breaker admits nothing before its time; in a half-open period at most `probes` calls
    /// are admitted, it closes only after `probes` successes, and the first failure opens it; a closed breaker opens
    /// only when enough of the calls that have ended since it closed had failed.
    #[test]
    fn the_invariants_hold(
        min in 1u32..6,
        probes in 1u32..5,
        failures in 0.05f64..=1.0,
        operations in prop::collection::vec(operation(), 1..300),
    ) {
        let rule = Rule { min, probes, failures, ..rule() };
        let mut breaker = Breaker::new(rule);
        let mut now = Duration::ZERO;
        let mut in_flight: Vec<(AdmittedCall, u64)> = Vec::new();
        // What the model counts: periods; admitted and succeeded calls of a half-open period; ended and failed calls of
        // a closed period.
        let (mut period, mut admitted_calls, mut succeeded, mut ended, mut failed) = (0u64, 0u32, 0u32, 0u64, 0u64);
        for operation in operations {
            let before = breaker.state();
            let until = breaker.open_until();
            let change = match operation {
                Operation::Wait(time) => {
                    now += ms(time);
                    None
                }
                Operation::Admit => {
                    let would_reject = breaker.would_reject(now);
                    let (admitted, change) = breaker.admit(now);
                    prop_assert_eq!(would_reject.is_some(), admitted.is_err());
                    if let Some(change) = change {
                        prop_assert_eq!((change.from, change.to), (BreakerState::Open, BreakerState::HalfOpen));
                        prop_assert!(until.is_some_and(|until| until <= now));
                        (period, admitted_calls, succeeded) = (period + 1, 0, 0);
                    }
                    match admitted {
                        Ok(admission) => {
                            prop_assert!(breaker.state() != BreakerState::Open);
                            admitted_calls += 1;
                            prop_assert!(breaker.state() != BreakerState::HalfOpen || admitted_calls <= probes);
                            in_flight.push((admission, period));
                        }
                        Err(rejected) => {
                            prop_assert!(breaker.state() != BreakerState::Closed);
                            prop_assert!(rejected.retry_at > now);
                        }
                    }
                    None
                }
                Operation::Settle(_, _) if in_flight.is_empty() => None,
                Operation::Settle(which, outcome) => {
                    let (admission, admitted_in) = in_flight.swap_remove(which % in_flight.len());
                    let change = breaker.record_outcome(admission, outcome, now);
                    if admitted_in != period {
                        prop_assert_eq!(change, None);
                        continue;
                    }
                    match (before, outcome) {
                        (BreakerState::HalfOpen, CallOutcome::Inconclusive) => admitted_calls -= 1,
                        (BreakerState::HalfOpen, CallOutcome::Succeeded) => succeeded += 1,
                        (BreakerState::HalfOpen, CallOutcome::Failed) => {
                            prop_assert_eq!(breaker.state(), BreakerState::Open);
                        }
                        (BreakerState::Closed, CallOutcome::Succeeded) => ended += 1,
                        (BreakerState::Closed, CallOutcome::Failed) => (ended, failed) = (ended + 1, failed + 1),
                        (BreakerState::Closed, CallOutcome::Inconclusive) | (BreakerState::Open, _) => {}
                    }
                    change
                }
            };
            let Some(change) = change else {
                continue;
            };
            prop_assert_eq!(change.from, before);
            match change.to {
                BreakerState::Closed => prop_assert!(before == BreakerState::HalfOpen && succeeded == probes),
                BreakerState::Open if before == BreakerState::Closed => {
                    prop_assert!(ended >= u64::from(min) && failed > 0);
                    prop_assert!(change.counts.failed as f64 >= failures * change.counts.calls as f64);
                }
                BreakerState::Open => prop_assert_eq!(before, BreakerState::HalfOpen),
                BreakerState::HalfOpen => prop_assert!(false, "only an admission makes it half-open"),
            }
            if change.to == BreakerState::Open {
                let open_for = change.open_for.unwrap_or_default();
                prop_assert!(rule.open <= open_for && open_for <= rule.open_max);
            }
            (period, admitted_calls, succeeded, ended, failed) = (period + 1, 0, 0, 0, 0);
        }
    }
}
