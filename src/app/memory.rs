//! Memory that was freed goes back to the operating system.
//!
//! The allocator gives freed pages back only while a thread allocates or frees: after a burst, an idle process would
//! keep them.

use std::time::Duration;

/// The pause between two calls.
const PAUSE: Duration = Duration::from_secs(5);

/// Gives freed pages back from time to time: those of the whole process, and those that only the thread it runs on
/// could use again. Ends with the process.
pub(super) async fn return_freed_pages() {
    loop {
        tokio::time::sleep(PAUSE).await;
        collect();
    }
}

/// Where another allocator is in force (tests), there is nothing to give back.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: the function takes no pointer, may be called from any thread at any time, and moves nothing that is in
    // use (mimalloc's documentation, "Extended functions").
    unsafe { libmimalloc_sys::mi_collect(true) }
}
