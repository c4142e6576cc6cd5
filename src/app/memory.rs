//! Returns freed memory to the operating system.
//!
//! The allocator returns freed pages only while a thread allocates or frees: after a burst, an idle process would
//! keep them.

use std::time::Duration;

use tokio::runtime::Handle;

/// The pause between two calls.
const PAUSE: Duration = Duration::from_secs(5);

/// Returns freed pages periodically: those of the whole process, and those that belong to the threads of the runtime on
/// which this runs. Never ends.
pub(super) async fn return_freed_pages() {
    let threads = Handle::current().metrics().num_workers();
    loop {
        tokio::time::sleep(PAUSE).await;
        // A thread returns its own pages only. Each of these tasks wakes another idle thread, which takes one of them;
        // a thread that got none has one in a later round.
        for _ in 0..threads {
            tokio::spawn(async { collect() });
        }
    }
}

/// Does nothing if another allocator is in use, as in tests.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: the function takes no pointer, may be called from any thread at any time, and moves nothing that is in
    // use (mimalloc's documentation, "Extended functions").
    unsafe { libmimalloc_sys::mi_collect(true) }
}
