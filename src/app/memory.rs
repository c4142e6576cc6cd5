//! Returns freed memory to the operating system.
//!
//! The allocator returns freed pages only while a thread allocates or frees, and each thread only its own: after a
//! burst, an idle process would keep them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;

/// The pause between two calls.
const PAUSE: Duration = Duration::from_secs(5);

/// Returns freed pages periodically: those of the whole process, and those that belong to the thread on which this
/// runs. Never ends.
pub(super) async fn return_freed_pages() {
    loop {
        tokio::time::sleep(PAUSE).await;
        collect();
    }
}

/// How often threads were asked to return their pages.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many of the requests this thread has seen.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Has all threads of a runtime return their freed pages periodically; they call [`return_own_freed_pages`] when they
/// become idle. Never ends.
pub(super) async fn ask_threads_of(runtime: Handle) {
    loop {
        tokio::time::sleep(PAUSE).await;
        REQUESTS.fetch_add(1, Relaxed);
        // Threads that are idle already become idle once more: each that finds a task wakes another one.
        for _ in 0..runtime.metrics().num_workers() {
            runtime.spawn(std::future::ready(()));
        }
    }
}

/// Returns the freed pages of this thread, if it was asked to since the last call.
pub(super) fn return_own_freed_pages() {
    let requests = REQUESTS.load(Relaxed);
    if SEEN.replace(requests) != requests {
        collect();
    }
}

/// Does nothing if another allocator is in use, as in tests.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: the function takes no pointer, may be called from any thread at any time, and moves nothing that is in
    // use (mimalloc's documentation, "Extended functions").
    unsafe { libmimalloc_sys::mi_collect(true) }
}
