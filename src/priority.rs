//! The priority of work that no caller waits for: shadow runs, comparisons, snapshots.
//!
//! Always true: it has a lower priority than the threads that answer callers; and where both share a core, it lets them
//! run between two parts of its work. The priority alone is not enough: the scheduler decides by it who gets how much
//! of a core, but a thread that runs is left to run for milliseconds before another one gets its turn.

use std::pin::pin;

/// Added to the niceness of a thread.
pub const NICENESS: i32 = 10;

/// Lowers the priority of the calling thread. On Linux only: elsewhere the call would change the whole process's
/// priority.
pub fn lower() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        let thread = std::thread::current();
        tracing::debug!(%error, "the priority of the thread `{}` could not be lowered", thread.name().unwrap_or("?"));
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
