//! How the threads that answer callers share a core with those of work for which no caller waits: shadow runs,
//! comparisons, snapshots.
//!
//! Always true: that work has a lower priority than the threads that answer callers, and it lets them run between two
//! parts of it. The priority alone is not enough: the scheduler decides by it who gets how much of a core, but a thread
//! that runs is left to run for milliseconds before another one gets its turn. So the threads that answer callers ask
//! for short turns too: of two threads that have not had their share, Linux runs the one whose turn would end sooner.

use std::cell::Cell;
use std::pin::pin;

/// Added to the niceness of a thread.
pub const NICENESS: i32 = 10;

thread_local! {
    static IS_LOWERED: Cell<bool> = const { Cell::new(false) };
}

/// Whether [`lower`] was called on this thread.
pub fn is_lowered() -> bool {
    IS_LOWERED.get()
}

/// Lowers the priority of the calling thread. On Linux only: elsewhere the call would change the whole process's
/// priority.
pub fn lower() {
    IS_LOWERED.set(true);
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        let thread = std::thread::current();
        tracing::debug!(%error, "the priority of the thread `{}` could not be lowered", thread.name().unwrap_or("?"));
    }
}

/// How long a turn of a thread that answers callers is, in nanoseconds: the shortest that Linux grants.
#[cfg(target_os = "linux")]
const TURN_NS: u64 = 100_000;

/// Asks for short turns of the calling thread on a core that it shares: it runs soon after it has become ready, and
/// more often. Its share of the core stays the same. Linux before 6.12 does as if nothing was asked, other systems are
/// not asked.
pub fn take_short_turns() {
    #[cfg(target_os = "linux")]
    if let Err(error) = set_turn(TURN_NS) {
        tracing::debug!(%error, "the length of the thread's turns on a core could not be set");
    }
}

/// `sched_setattr(2)`; what is no field of the slice stays as it is.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn set_turn(nanoseconds: u64) -> std::io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: nanoseconds,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of the attributes during the call. It is the only way: no crate has it.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Runs a future that gives way before each of its polls.
pub async fn giving_way<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        give_way();
        future.as_mut().poll(cx)
    })
    .await
}

/// Lets threads run that have become ready on this core, between two parts of long work. Costs a system call if there
/// are none.
pub fn give_way() {
    std::thread::yield_now();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The kernel shows the length of turns from 6.12 on.
    #[test]
    fn a_thread_gets_short_turns_and_keeps_its_priority() {
        let of_this_thread = |name: &str| {
            let shown = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
            let line = shown.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let thread = std::thread::spawn(move || {
            lower();
            let before = (of_this_thread("se.slice"), of_this_thread("prio"));
            set_turn(TURN_NS).unwrap();
            (before, (of_this_thread("se.slice"), of_this_thread("prio")))
        });
        let (before, after) = thread.join().unwrap();
        assert_eq!((after.0.is_some(), after.1), (before.0.is_some(), before.1));
        assert!(after.0.is_none_or(|slice| slice == TURN_NS), "{before:?} {after:?}");
    }
}
