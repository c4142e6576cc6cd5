//! Returns freed memory to the operating system.
//!
//! The allocator returns freed pages only while a thread allocates or frees, and each thread returns only its own
//! pages: after a burst, an idle process would keep them.
//!
//! The largest part of an idle process is the program itself: the start (the files, their checks, the store) touches
//! most of the program's pages, and serving touches only few of them. These pages are given up too; the system maps
//! those that are needed again, from its cache, at their next use.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;

/// The pause between two collections of freed pages.
const PAUSE: Duration = Duration::from_secs(5);

/// Returns freed pages periodically: those that belong to no thread any more, and those of the thread that runs this
/// task. Never ends.
pub(super) async fn return_freed_pages() {
    loop {
        tokio::time::sleep(PAUSE).await;
        collect();
    }
}

/// How often threads were asked to return their pages.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many of these requests this thread has seen.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Makes all threads of a runtime return their freed pages periodically; they call [`return_own_freed_pages`] when they
/// become idle. Never ends.
pub(super) async fn ask_threads_of(runtime: Handle) {
    loop {
        tokio::time::sleep(PAUSE).await;
        REQUESTS.fetch_add(1, Relaxed);
        // Idle threads have to become idle once more: each thread that finds a task wakes another one.
        for _ in 0..runtime.metrics().num_workers() {
            runtime.spawn(std::future::ready(()));
        }
    }
}

/// Returns the freed pages of this thread, if that was requested since the last call.
pub(super) fn return_own_freed_pages() {
    let requests = REQUESTS.load(Relaxed);
    if SEEN.replace(requests) != requests {
        collect();
    }
}

/// How long after the start the program's pages are unmapped.
const STARTED_FOR: Duration = Duration::from_secs(1);

/// Unmaps the pages of the program once it has started.
pub(super) async fn unmap_program_after_start() {
    tokio::time::sleep(STARTED_FOR).await;
    let (program, smaps) = tokio::join!(tokio::fs::metadata("/proc/self/exe"), tokio::fs::read("/proc/self/smaps"));
    match (program, smaps) {
        (Ok(program), Ok(smaps)) => {
            unchanged_mappings(&String::from_utf8_lossy(&smaps), program.ino()).for_each(unmap_pages);
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::debug!(%error, "the pages of the program stay mapped: the system does not list them");
        }
    }
}

/// A part of the program's file that is mapped.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    address: usize,
    bytes: usize,
}

/// The mappings of a file (by its inode) that cannot be written and of which this process has no page of its own, so
/// that their pages equal those of the file. Excludes data that the linker relocated, and code in which a debugger set
/// breakpoints.
fn unchanged_mappings(smaps: &str, inode: u64) -> impl Iterator<Item = Mapping> {
    // The line of a mapping begins with its addresses, in lower case; the lines of its counts begin with a capital
    // letter.
    let is_count = |line: &&str| line.starts_with(|first: char| first.is_ascii_uppercase());
    let lines = smaps.lines();
    let with_counts = lines.clone().enumerate().filter(move |(_, line)| !is_count(line));
    with_counts.filter_map(move |(number, line)| {
        let mut counts = lines.clone().skip(number + 1).take_while(is_count);
        let mut fields = line.split_ascii_whitespace();
        let (range, flags, of_inode) = (fields.next()?, fields.next()?, fields.nth(2)?.parse::<u64>().ok()?);
        if of_inode != inode || !flags.starts_with('r') || flags.contains('w') {
            return None;
        }
        let is_own = |count: &str| {
            let (name, kib) = count.split_once(':').unwrap_or((count, "?"));
            matches!(name, "Anonymous" | "Swap") && kib.trim() != "0 kB"
        };
        let (from, to) = range.split_once('-')?;
        let address = |hexadecimal| usize::from_str_radix(hexadecimal, 16).ok();
        let (from, to) = (address(from)?, address(to)?);
        (!counts.any(is_own)).then(|| Mapping { address: from, bytes: to.saturating_sub(from) })
    })
}

/// Unmaps the pages of a mapping; the system maps them again when they are used.
#[allow(unsafe_code)]
fn unmap_pages(mapping: Mapping) {
    let start: *mut c_void = std::ptr::with_exposed_provenance_mut(mapping.address);
    // SAFETY: nothing writes to these pages, and none differs from the file, which cannot change while it is executed:
    // whoever reads or executes them finds the same content as before.
    let unmapped = unsafe { rustix::mm::madvise(start, mapping.bytes, rustix::mm::Advice::LinuxDontNeed) };
    if let Err(error) = unmapped {
        tracing::debug!(%error, "pages of the program stay mapped");
    }
}

/// Returns freed pages to the system. Does nothing if another allocator than mimalloc is in use, as in tests.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: the function takes no pointer, may be called from any thread at any time, and moves nothing that is in
    // use (mimalloc's documentation, "Extended functions").
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55c573380000-55c573b91000 r--p 00000000 fe:00 77                         /usr/bin/pointsman
Size:               8260 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
55c573b91000-55c575a37000 r-xp 00811000 fe:00 77                         /usr/bin/pointsman (deleted)
Private_Dirty:      8260 kB
Anonymous:             0 kB
55c575a37000-55c575b11000 r--p 026b6000 fe:00 77                         /usr/bin/pointsman
Private_Dirty:       864 kB
Anonymous:           864 kB
55c575b11000-55c575b1f000 rw-p 0278f000 fe:00 77                         /usr/bin/pointsman
Anonymous:             0 kB
55c575b1f000-55c575b2a000 r--p 0279d000 fe:00 77                         /usr/bin/pointsman
Anonymous:             0 kB
Swap:                  4 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 78                         /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000001000-7f0000002000 r-xp 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_mappings_of_the_program_without_a_page_of_its_own_are_unmapped() {
        let found: Vec<_> = unchanged_mappings(SMAPS, 77).collect();
        let code = Mapping { address: 0x55c5_73b9_1000, bytes: 0x1ea_6000 };
        assert_eq!(found, [Mapping { address: 0x55c5_7338_0000, bytes: 0x81_1000 }, code]);
    }

    /// The system maps the pages again with their contents.
    #[test]
    fn this_program_keeps_running_after_its_pages_are_unmapped() {
        // The third number of `statm`: pages of files that are mapped.
        let mapped = || -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(2).unwrap().parse().unwrap()
        };
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let program = std::fs::metadata("/proc/self/exe").unwrap().ino();
        let mappings: Vec<_> = unchanged_mappings(&smaps, program).collect();
        assert!(!mappings.is_empty(), "the code of this program is such a mapping");
        let before = mapped();
        mappings.into_iter().for_each(unmap_pages);
        let after = mapped();
        assert!(after < before, "{before} pages before, {after} after");
    }
}
