//! The binary: gives the command line the functions that run a process or open a store.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use pointsman::cli::{self, DemoOptions, Failure, ProcessCommands, ServeOptions};
use pointsman::telemetry::{self, LogFormat};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Huge pages off, for what is mapped from now on: the allocator asks for them, and a process at rest would hold four
/// times what it uses. Kernels without them refuse, which is as good.
fn small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn serve(options: ServeOptions) -> Result<(), Failure> {
    small_pages();
    telemetry::log(LogFormat::Text, "info");
    pointsman::app::serve(options.flags, options.over)
}

fn demo(options: DemoOptions) -> Result<(), Failure> {
    telemetry::log(LogFormat::Text, "off");
    pointsman::app::demo(options.exit)
}

fn main() -> ExitCode {
    cli::main(&ProcessCommands {
        serve,
        demo,
        store_check: pointsman::app::store_check,
        store_backup: pointsman::app::store_backup,
    })
}
