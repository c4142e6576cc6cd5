//! The binary: gives the command line the functions that run a process or open a store.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use pointsman::cli::{self, DemoOptions, ProcessCommands, ServeOptions};
use pointsman::telemetry::{self, LogFormat};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Disables transparent huge pages for memory that is mapped from now on. The allocator requests them, and an idle
/// process would hold four times the memory that it uses. The error of a kernel without huge pages is ignored.
fn disable_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn serve(options: ServeOptions) -> anyhow::Result<()> {
    disable_huge_pages();
    telemetry::start_log(LogFormat::Text, "info");
    pointsman::app::serve(options.flags, options.overrides, options.takes_over)
}

fn demo(options: DemoOptions) -> anyhow::Result<()> {
    telemetry::start_log(LogFormat::Text, "off");
    pointsman::app::demo(options.exit)
}

fn main() -> ExitCode {
    cli::main(&ProcessCommands {
        serve,
        demo,
        sample_services: pointsman::app::sample_services,
        store_check: pointsman::app::store_check,
        store_backup: pointsman::app::store_backup,
    })
}
