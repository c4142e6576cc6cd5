//! The machine's two clocks: the wall clock, which people and NTP set, and the steady (monotonic) one.

use std::time::Duration;

use jiff::Timestamp;

/// Both of the machine's clocks, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// The wall clock: may be set to anything at any time.
    pub wall: Timestamp,
    /// The time since the machine was started, including sleep where [`STEADY`] counts it; it cannot be set.
    pub boot: Duration,
}

/// Reads both clocks; in a simulation, the simulated ones.
pub(super) fn read() -> ClockReading {
    ClockReading { wall: wall(), boot: boot_time() }
}

fn wall() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::wall() {
        return now;
    }
    Timestamp::now()
}

/// The steady clock.
pub(super) fn boot_time() -> Duration {
    #[cfg(test)]
    if let Some(now) = simulated::boot_time() {
        return now;
    }
    let now = rustix::time::clock_gettime(STEADY);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// On some other systems this clock stops while the machine sleeps. There the time is slewed to the wall clock after a
/// sleep of up to a minute, and a longer sleep is reported as a jump of the wall clock.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// A simulated time, for a thread on which tokio's time is paused, and the deviation of the simulated machines' clocks
/// from it.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    use crate::clock::ProcessClock;

    thread_local! {
        static PROCESS: Cell<Option<&'static Arc<ProcessClock>>> = const { Cell::new(None) };
        static BEGUN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
        static SKEW: Cell<SignedDuration> = const { Cell::new(SignedDuration::ZERO) };
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Starts the simulated time, which then advances with tokio's.
    pub fn begin(at: Timestamp) {
        BEGUN.set(Some((at, Instant::now())));
        SLEPT.set(Duration::ZERO);
        skew(SignedDuration::ZERO);
        // Never freed: there is one for each simulation.
        PROCESS.set(Some(Box::leak(Box::new(Arc::new(ProcessClock::starting())))));
    }
    /// Ends the simulation: the machine's own clocks are read again.
    pub fn end() {
        BEGUN.set(None);
        PROCESS.set(None);
    }
    /// The time of the processes of this thread's simulation.
    pub(in crate::clock) fn process() -> Option<&'static Arc<ProcessClock>> {
        PROCESS.get()
    }
    /// Whether this thread's time is simulated.
    pub fn is_on() -> bool {
        BEGUN.get().is_some()
    }
    /// Sets how far the machines' clocks deviate from the simulated time.
    pub fn skew(by: SignedDuration) {
        SKEW.set(by);
    }
    /// Lets the machine sleep: its clocks go on, and tokio's does not.
    pub fn suspend_machine(by: Duration) {
        SLEPT.set(SLEPT.get() + by);
    }
    /// The simulated time, without the deviation.
    pub fn time() -> Option<Timestamp> {
        BEGUN.get()?.0.checked_add(SignedDuration::try_from(boot_time()?).ok()?).ok()
    }
    pub(super) fn wall() -> Option<Timestamp> {
        time()?.checked_add(SKEW.get()).ok()
    }
    pub(super) fn boot_time() -> Option<Duration> {
        Some(BEGUN.get()?.1.elapsed() + SLEPT.get())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    const VARIABLE: &str = "POINTSMAN_TEST_BOOT_TIME_AHEAD_S";
    const AHEAD_S: u64 = 1_000_000;

    fn read_clock(clock: ClockId) -> Duration {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
    }

    /// The child process. Does nothing without the variable.
    #[test]
    fn child() {
        let Ok(ahead_s) = std::env::var(VARIABLE) else { return };
        let ahead = Duration::from_secs(ahead_s.parse().unwrap());
        let monotonic = read_clock(ClockId::Monotonic);
        assert!(boot_time() >= monotonic + ahead);
    }

    #[test]
    fn the_steady_clock_is_the_boot_time() {
        let before = read_clock(ClockId::Boottime);
        let now = boot_time();
        assert!(before <= now && now <= read_clock(ClockId::Boottime));
    }

    /// After a sleep of the machine the boot time is ahead of the monotonic clock. A time namespace imitates that.
    #[test]
    fn the_steady_clock_counts_the_machines_sleep() {
        let (ahead_s, program) = (AHEAD_S.to_string(), std::env::current_exe().unwrap());
        let slept = |program: &std::path::Path| {
            let mut command = Command::new("unshare");
            command.args(["--time", "--boottime", &ahead_s]).arg(program);
            command
        };
        if !slept("true".as_ref()).output().is_ok_and(|output| output.status.success()) {
            println!("not tried: no time namespace can be made here");
            return;
        }
        let child = ["--exact", "clock::machine::tests::child", "--test-threads=1"];
        let output = slept(&program).args(child).env(VARIABLE, &ahead_s).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
