//! Returns freed memory to the operating system.
//!
//! The allocator returns freed pages only while a thread allocates or frees: after a burst, an idle process would
//! keep them.

use std::time::Duration;

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

/// Does nothing if another allocator is in use, as in tests.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: the function takes no pointer, may be called from any thread at any time, and moves nothing that is in
    // use (mimalloc's documentation, "Extended functions").
    unsafe { libmimalloc_sys::mi_collect(true) }
}
