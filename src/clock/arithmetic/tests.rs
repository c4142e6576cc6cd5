use proptest::prelude::*;

use super::*;

const START: &str = "2026-03-01T12:00:00Z";

fn s(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The two clocks of a machine, which the test sets.
struct Machine(ClockReading);

impl Machine {
    fn new() -> Self {
        Self(ClockReading { wall: START.parse().unwrap(), boot: Duration::from_secs(5_000) })
    }
    /// Lets time pass on both clocks.
    fn advance(&mut self, by: Duration) -> ClockReading {
        self.0.boot += by;
        self.set(SignedDuration::try_from(by).unwrap())
    }
    /// Sets the wall clock forward or back.
    fn set(&mut self, by: SignedDuration) -> ClockReading {
        self.0.wall = self.0.wall.checked_add(by).unwrap();
        self.0
    }
}

fn since_start(time: Timestamp) -> SignedDuration {
    time.duration_since(START.parse().unwrap())
}

#[test]
fn a_jump_of_the_machines_clock_does_not_change_the_time() {
    for jump in [s(86_400), s(-86_400), s(61), s(-61)] {
        let mut machine = Machine::new();
        let mut keeper = Timekeeper::starting(machine.0);
        assert_eq!(since_start(keeper.now(machine.advance(ms(10_000)))), s(10));
        assert_eq!(keeper.check(machine.0), (None, s(0)));
        let jumped = machine.set(jump);
        assert_eq!(since_start(keeper.now(jumped)), s(10));
        assert_eq!(keeper.check(jumped), (Some(ClockChange::Disagrees(Disagreement::Jumped(jump))), jump));
        // The time does not jump later either, and the disagreement is reported only once.
        for second in 11..200 {
            let later = machine.advance(ms(1_000));
            assert_eq!(since_start(keeper.now(later)), s(second), "after a jump by {jump}");
            assert_eq!(keeper.check(later), (None, jump));
            assert_eq!(keeper.disagreement(later), Some(Disagreement::Jumped(jump)));
        }
        let back = machine.set(-jump);
        assert_eq!(keeper.check(back), (Some(ClockChange::Agrees), s(0)));
        assert_eq!(keeper.disagreement(back), None);
        assert_eq!(keeper.check(machine.advance(ms(1_000))), (None, s(0)));
    }
}

#[test]
fn every_further_jump_is_reported_and_so_are_small_steps_that_add_up() {
    let mut machine = Machine::new();
    let mut keeper = Timekeeper::starting(machine.0);
    let reported = |keeper: &mut Timekeeper, reading| match keeper.check(reading).0 {
        Some(ClockChange::Disagrees(Disagreement::Jumped(by))) => Some(by.as_secs()),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(reported(&mut keeper, machine.set(s(3_600))), Some(3_600));
    assert_eq!(reported(&mut keeper, machine.set(s(30))), None);
    assert_eq!(reported(&mut keeper, machine.set(s(31))), Some(3_661));
    assert_eq!(reported(&mut keeper, machine.set(s(-7_200))), Some(-3_539));
    // Two steps, each small by itself; the second comes before the time has caught up with the first.
    let mut machine = Machine::new();
    let mut keeper = Timekeeper::starting(machine.0);
    assert_eq!(reported(&mut keeper, machine.set(s(40))), None);
    assert_eq!(reported(&mut keeper, machine.set(s(40))), Some(80));
}

#[test]
fn a_small_step_is_caught_up_with_slowly() {
    for step in [s(10), s(-10), s(60), s(-60)] {
        let mut machine = Machine::new();
        let mut keeper = Timekeeper::starting(machine.0);
        keeper.now(machine.advance(ms(1_000)));
        keeper.now(machine.set(step));
        // 500 ppm: 2,000 seconds for each second of the step.
        let needed = 2_000 * step.as_secs().unsigned_abs();
        for _ in 0..needed / 2 {
            keeper.now(machine.advance(ms(1_000)));
        }
        let half = machine.0.wall.duration_since(keeper.now(machine.0));
        assert!((half.as_millis() - step.as_millis() / 2).abs() < 5, "{half} of {step}");
        for _ in 0..needed / 2 + 2 {
            keeper.now(machine.advance(ms(1_000)));
        }
        assert_eq!(keeper.now(machine.0), machine.0.wall, "it does not overshoot");
        assert_eq!(keeper.check(machine.0), (None, s(0)));
    }
}

#[test]
fn a_disagreement_says_what_to_do() {
    let shown = |disagreement: Disagreement| disagreement.to_string();
    let jumped = shown(Disagreement::Jumped(SignedDuration::new(90_061, 5_000_000)));
    assert!(jumped.contains("is 25h 1m 1s ahead of the process's time"), "{jumped}");
    assert!(shown(Disagreement::Jumped(s(-61))).contains("1m 1s behind the process's time"));
    assert!(shown(Disagreement::StoreAhead(s(-7_200))).contains("was 2h behind the store's newest event"));
    assert!(shown(Disagreement::DiffersFromStore(s(7_200))).contains("is 2h ahead of the database's"));
}

/// CLOCK_BOOTTIME counts the sleep, and so does the wall clock.
#[test]
fn a_machine_that_slept_wakes_up_at_the_right_time() {
    let mut machine = Machine::new();
    let mut keeper = Timekeeper::starting(machine.0);
    keeper.now(machine.advance(ms(1_500)));
    let woken = machine.advance(Duration::from_secs(8 * 3_600));
    assert_eq!(keeper.now(woken), woken.wall);
    assert_eq!(keeper.check(woken), (None, s(0)));
}

#[test]
fn time_starts_at_the_stores_newest_event() {
    let mut machine = Machine::new();
    let event = |by: i64| START.parse::<Timestamp>().unwrap().checked_add(s(by)).unwrap();
    let mut keeper = Timekeeper::starting(machine.0);
    assert_eq!(keeper.raise_to_at_least(event(-5), machine.0), None);
    assert_eq!(keeper.now(machine.0), machine.0.wall, "an older event changes nothing");
    assert_eq!(keeper.raise_to_at_least(event(60), machine.0), None, "a minute ahead is not reported");
    assert_eq!(keeper.now(machine.0), event(60));
    assert_eq!(keeper.raise_to_at_least(event(7_200), machine.0), Some(s(7_200)));
    assert_eq!(keeper.now(machine.0), event(7_200));
    // `raise_to_at_least` has returned the offset to its caller, who reports it, so `check` does not. `disagreement`
    // returns the offset as long as it lasts, and the time continues from the event.
    assert_eq!(keeper.check(machine.0), (None, s(-7_200)));
    let later = machine.advance(ms(5_000));
    assert_eq!(keeper.now(later), event(7_205));
    assert_eq!(keeper.disagreement(later), Some(Disagreement::StoreAhead(s(-7_200))));
    // The machine's clock is corrected: this too counts as a jump.
    let right = machine.set(s(9_000));
    assert_eq!(keeper.check(right), (Some(ClockChange::Disagrees(Disagreement::Jumped(s(1_800)))), s(1_800)));
    assert_eq!(keeper.now(right), event(7_205));
}

/// Whether the store answers early or late, and even if its clock is set: the process's time differs from the store's
/// by no more than the time that the answer took.
#[test]
fn the_time_is_off_from_a_shared_store_by_at_most_the_round_trip() {
    let mut machine = Machine::new();
    let mut keeper = Timekeeper::starting(machine.0);
    let begun: Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
    // The store reads its clock as soon as it is asked, and its answer arrives `took` milliseconds later. Returns how
    // far the time is then behind the store's, in milliseconds.
    let mut answer_from_store = |took: u64, set: i64| {
        let store_time = |boot: Duration| {
            let since = SignedDuration::try_from(boot).unwrap() - s(5_000);
            begun.checked_add(since).unwrap().checked_add(s(set)).unwrap()
        };
        let (asked, answer) = (machine.0.boot, store_time(machine.0.boot));
        let at_answer = machine.advance(ms(took));
        keeper.follow(answer, asked, at_answer);
        let behind = store_time(at_answer.boot).duration_since(keeper.now(at_answer)).as_millis();
        machine.advance(ms(60_000));
        behind
    };
    assert_eq!(answer_from_store(900, 0), 900, "the store may have read its clock at once");
    assert_eq!(answer_from_store(3, 0), 3, "a quicker answer is more precise");
    assert_eq!(answer_from_store(2_000, 0), 3, "a slower one does not reduce the precision");
    assert_eq!(answer_from_store(10, 3_600), 10, "the store's clock was put forward");
    assert_eq!(answer_from_store(10, -3_600), 0, "put back: the time is never before the store's answer");
    let (change, offset) = keeper.check(machine.0);
    assert_eq!(change, Some(ClockChange::Disagrees(Disagreement::DiffersFromStore(offset))), "years behind");
    assert_eq!(keeper.check(machine.advance(ms(1_000))), (None, offset), "reported once, and not followed");
}

proptest! {
    /// Whatever happens to the machine's clock, and whenever the time is read: the time advances like the steady clock,
    /// within 500 ppm.
    #[test]
    fn the_time_advances_like_the_steady_clock(
        steps in prop::collection::vec((0_u64..5_000_000_000, prop_oneof![
            4 => Just(0_i64),
            2 => -70_000_000_000_i64..70_000_000_000,
            1 => -1_000_000_000_000_000_i64..1_000_000_000_000_000,
        ], any::<bool>()), 1..60),
        ahead in -100_i64..10_000,
    ) {
        let mut machine = Machine::new();
        let mut keeper = Timekeeper::starting(machine.0);
        let event = machine.0.wall.checked_add(s(ahead)).unwrap();
        keeper.raise_to_at_least(event, machine.0);
        let mut last = (keeper.now(machine.0), machine.0);
        prop_assert!(last.0 >= event);
        for (nanos, set, checked) in steps {
            let passed = Duration::from_nanos(nanos);
            machine.advance(passed);
            let reading = machine.set(SignedDuration::from_nanos(set));
            if checked {
                let (_, offset) = keeper.check(reading);
                prop_assert_eq!(keeper.disagreement(reading).is_some(), offset.abs() > FOLLOWED_MAX);
            }
            let now = keeper.now(reading);
            let advanced = now.duration_since(last.0).as_nanos();
            let bound = i128::from(nanos) / SLEW_DIVISOR + 1;
            prop_assert!(advanced >= 0 && (advanced - i128::from(nanos)).abs() <= bound, "{advanced} ns in {nanos} ns");
            last = (now, reading);
        }
    }

    /// After a small step of the machine's clock, forward or back, the time reaches that clock, does not overshoot, and
    /// stays there.
    #[test]
    fn a_small_step_is_slewed_to_the_end(step_ms in -60_000_i64..=60_000, every_ms in 1_000_u64..600_000) {
        let mut machine = Machine::new();
        let mut keeper = Timekeeper::starting(machine.0);
        keeper.now(machine.advance(ms(1_000)));
        keeper.now(machine.set(SignedDuration::from_millis(step_ms)));
        let needed = 2_000 * step_ms.unsigned_abs();
        for _ in 0..needed / every_ms + 3 {
            let reading = machine.advance(ms(every_ms));
            let left = reading.wall.duration_since(keeper.now(reading));
            prop_assert!(left.as_millis().signum() * i128::from(step_ms.signum()) >= 0, "overshot by {left}");
        }
        prop_assert_eq!(keeper.now(machine.0), machine.0.wall);
    }
}
