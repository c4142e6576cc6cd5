use std::time::Duration;

use proptest::prelude::*;

use super::{Breaker, BreakerState, CallOutcome, Pass, Shut};
use crate::flag::Breaker as Rule;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rule() -> Rule {
    Rule { failures: 0.5, over: ms(1_000), min: 4, slow: Some(ms(200)), open: ms(100), open_max: ms(350), probes: 2 }
}

fn call(breaker: &mut Breaker, fate: CallOutcome, now: u64) -> Result<(), Shut> {
    let pass = breaker.admit(ms(now)).0?;
    breaker.settle(pass, fate, ms(now));
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
fn it_opens_at_the_rate_and_not_below_the_volume() {
    let mut breaker = Breaker::new(rule());
    for _ in 0..3 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "three calls are too few to judge");
    call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(call(&mut breaker, CallOutcome::Succeeded, 99), Err(Shut { retry_at: ms(100) }));

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

#[test]
fn what_has_left_the_window_does_not_count() {
    let mut breaker = Breaker::new(rule());
    for _ in 0..3 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    call(&mut breaker, CallOutcome::Failed, 1_000).unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.counts(ms(1_000)).failed, 1);
}

#[test]
fn probes_close_it_when_all_succeed() {
    let mut breaker = opened_at(0);
    let (first, change) = breaker.admit(ms(100));
    assert_eq!(change.map(|change| change.to), Some(BreakerState::HalfOpen));
    let second = breaker.admit(ms(100)).0.unwrap();
    assert_eq!(breaker.admit(ms(100)).0, Err(Shut { retry_at: ms(120) }), "two probes at the most");
    assert_eq!(breaker.settle(first.unwrap(), CallOutcome::Succeeded, ms(110)), None);
    assert!(breaker.admit(ms(110)).0.is_err(), "one under way, one succeeded");
    let change = breaker.settle(second, CallOutcome::Succeeded, ms(120)).unwrap();
    assert_eq!((change.from, change.to), (BreakerState::HalfOpen, BreakerState::Closed));
    assert!(breaker.admit(ms(120)).0.is_ok());
}

#[test]
fn a_failed_probe_opens_it_for_longer_up_to_the_most() {
    let mut breaker = opened_at(0);
    let mut until = 100;
    for longer in [200, 350, 350] {
        assert!(call(&mut breaker, CallOutcome::Failed, until).is_ok());
        assert_eq!(breaker.opens_until(), Some(ms(until + longer)));
        until += longer;
    }
    for _ in 0..2 {
        call(&mut breaker, CallOutcome::Succeeded, until).unwrap();
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for _ in 0..4 {
        call(&mut breaker, CallOutcome::Failed, until).unwrap();
    }
    assert_eq!(breaker.opens_until(), Some(ms(until + 100)), "after it was closed the time is short again");
}

#[test]
fn a_probe_of_which_nothing_is_known_gives_its_place_back() {
    let mut breaker = opened_at(0);
    let probes = [breaker.admit(ms(100)).0.unwrap(), breaker.admit(ms(100)).0.unwrap()];
    assert!(breaker.admit(ms(100)).0.is_err());
    breaker.settle(probes[0], CallOutcome::Inconclusive, ms(100));
    assert!(breaker.admit(ms(100)).0.is_ok());
}

#[test]
fn what_a_call_of_an_earlier_time_says_moves_nothing() {
    let mut breaker = Breaker::new(rule());
    let early = breaker.admit(ms(0)).0.unwrap();
    for _ in 0..4 {
        call(&mut breaker, CallOutcome::Failed, 0).unwrap();
    }
    let probe = breaker.admit(ms(100)).0.unwrap();
    assert_eq!(breaker.settle(early, CallOutcome::Failed, ms(100)), None);
    assert_eq!(breaker.settle(early, CallOutcome::Succeeded, ms(100)), None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.settle(probe, CallOutcome::Failed, ms(100)).unwrap();
}

#[test]
fn others_see_it_and_do_not_move_it() {
    let breaker = opened_at(0);
    assert_eq!(breaker.look(ms(99)), Err(Shut { retry_at: ms(100) }));
    assert!(breaker.look(ms(100)).is_err(), "the probe is a real run's");
    assert_eq!(breaker.look(ms(450)), Ok(()), "nobody real has called for open_max: what it knows is too old");
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn slow_is_asked_of_the_rule() {
    let breaker = Breaker::new(rule());
    assert!(!breaker.too_slow(ms(200)));
    assert!(breaker.too_slow(ms(201)));
    assert!(!Breaker::new(Rule { slow: None, ..rule() }).too_slow(ms(10_000_000)));
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Pass(u64),
    Ask,
    Settle(usize, CallOutcome),
}

fn deed() -> impl Strategy<Value = Deed> {
    let fate = prop_oneof![3 => Just(CallOutcome::Failed), 3 => Just(CallOutcome::Succeeded), 1 => Just(CallOutcome::Inconclusive)];
    prop_oneof![
        2 => (0u64..400).prop_map(Deed::Pass),
        5 => Just(Deed::Ask),
        5 => (any::<usize>(), fate).prop_map(|(which, fate)| Deed::Settle(which, fate)),
    ]
}

proptest! {
    /// Whatever happens: an open one lets nothing through before its time, probes are bounded, it closes only after
    /// that many successes of that half-open time and opens at its first failure, or when enough of the calls that
    /// ended since it closed had failed.
    #[test]
    fn it_keeps_its_promises(
        min in 1u32..6,
        probes in 1u32..5,
        failures in 0.05f64..=1.0,
        deeds in prop::collection::vec(deed(), 1..300),
    ) {
        let rule = Rule { min, probes, failures, ..rule() };
        let mut breaker = Breaker::new(rule);
        let mut now = Duration::ZERO;
        let mut under_way: Vec<(Pass, u64)> = Vec::new();
        // The passes and successes of this half-open time, the calls of this closed time, and which time it is.
        let (mut period, mut asked, mut good, mut ended, mut bad) = (0u64, 0u32, 0u32, 0u64, 0u64);
        for deed in deeds {
            let before = breaker.state();
            let until = breaker.opens_until();
            let change = match deed {
                Deed::Pass(time) => {
                    now += ms(time);
                    None
                }
                Deed::Ask => {
                    let refuses = breaker.refuses(now);
                    let (admitted, change) = breaker.admit(now);
                    prop_assert_eq!(refuses.is_some(), admitted.is_err());
                    if let Some(change) = change {
                        prop_assert_eq!((change.from, change.to), (BreakerState::Open, BreakerState::HalfOpen));
                        prop_assert!(until.is_some_and(|until| until <= now));
                        (period, asked, good) = (period + 1, 0, 0);
                    }
                    match admitted {
                        Ok(pass) => {
                            prop_assert!(breaker.state() != BreakerState::Open);
                            asked += 1;
                            prop_assert!(breaker.state() != BreakerState::HalfOpen || asked <= probes);
                            under_way.push((pass, period));
                        }
                        Err(shut) => {
                            prop_assert!(breaker.state() != BreakerState::Closed);
                            prop_assert!(shut.retry_at > now);
                        }
                    }
                    None
                }
                Deed::Settle(_, _) if under_way.is_empty() => None,
                Deed::Settle(which, fate) => {
                    let (pass, of) = under_way.swap_remove(which % under_way.len());
                    let change = breaker.settle(pass, fate, now);
                    if of != period {
                        prop_assert_eq!(change, None);
                        continue;
                    }
                    match (before, fate) {
                        (BreakerState::HalfOpen, CallOutcome::Inconclusive) => asked -= 1,
                        (BreakerState::HalfOpen, CallOutcome::Succeeded) => good += 1,
                        (BreakerState::HalfOpen, CallOutcome::Failed) => {
                            prop_assert_eq!(breaker.state(), BreakerState::Open);
                        }
                        (BreakerState::Closed, CallOutcome::Succeeded) => ended += 1,
                        (BreakerState::Closed, CallOutcome::Failed) => (ended, bad) = (ended + 1, bad + 1),
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
                BreakerState::Closed => prop_assert!(before == BreakerState::HalfOpen && good == probes),
                BreakerState::Open if before == BreakerState::Closed => {
                    prop_assert!(ended >= u64::from(min) && bad > 0);
                    prop_assert!(change.counts.failed as f64 >= failures * change.counts.calls as f64);
                }
                BreakerState::Open => prop_assert_eq!(before, BreakerState::HalfOpen),
                BreakerState::HalfOpen => prop_assert!(false, "only who asks makes it half-open"),
            }
            if change.to == BreakerState::Open {
                let open_for = change.open_for.unwrap_or_default();
                prop_assert!(rule.open <= open_for && open_for <= rule.open_max);
            }
            (period, asked, good, ended, bad) = (period + 1, 0, 0, 0, 0);
        }
    }
}
