//! How the threads that answer callers share a core with those of work for which no caller waits: shadow runs,
//! comparisons, snapshots.
//!
//! Always true: that work has a lower priority than the threads that answer callers, and it yields the core between its
//! parts. The priority alone is not enough: it sets each thread's share of a core, but a running thread keeps the core
//! for a time slice of milliseconds before another one is scheduled. So the threads that answer callers also ask for
//! short time slices: of two threads that have not had their share, Linux runs the one whose slice would end sooner.

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

/// The time slice of a thread that answers callers, in nanoseconds: the shortest that Linux grants.
#[cfg(target_os = "linux")]
const TIME_SLICE_NS: u64 = 100_000;

/// Asks for short time slices for the calling thread on a core that it shares: it runs soon after it has become ready,
/// and more often. Its share of the core stays the same. Linux before 6.12 ignores the request; on other systems this
/// does nothing.
pub fn request_short_time_slices() {
    #[cfg(target_os = "linux")]
    if let Err(error) = set_time_slice(TIME_SLICE_NS) {
        tracing::debug!(%error, "the thread's time slice could not be set");
    }
}

/// Calls `sched_setattr(2)`. Only the time slice changes: the flag keeps the policy, and the niceness is written back.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn set_time_slice(nanoseconds: u64) -> std::io::Result<()> {
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
    // SAFETY: the kernel reads `size` bytes of the attributes during the call. No crate wraps this call safely.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Runs a future and yields the core before each of its polls.
pub async fn yielding<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        yield_core();
        future.as_mut().poll(cx)
    })
    .await
}

/// Yields the core to threads that are ready on it, between two parts of long work. Costs one system call if there are
/// none.
pub fn yield_core() {
    std::thread::yield_now();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The kernel shows the time slice from 6.12 on.
    #[test]
    fn a_thread_gets_short_time_slices_and_keeps_its_priority() {
        let of_this_thread = |name: &str| {
            let shown = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
            let line = shown.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let thread = std::thread::spawn(move || {
            lower();
            let before = (of_this_thread("se.slice"), of_this_thread("prio"));
            set_time_slice(TIME_SLICE_NS).unwrap();
            (before, (of_this_thread("se.slice"), of_this_thread("prio")))
        });
        let (before, after) = thread.join().unwrap();
        assert_eq!((after.0.is_some(), after.1), (before.0.is_some(), before.1));
        assert!(after.0.is_none_or(|slice| slice == TIME_SLICE_NS), "{before:?} {after:?}");
    }
}
