//! The binary: reads the command line and opens the doors to whatever runs a process or a store.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use pointsman::cli::{self, DemoOptions, Doors, Failure, ServeOptions};
use pointsman::telemetry::{self, LogFormat};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn serve(options: ServeOptions) -> Result<(), Failure> {
    telemetry::log(LogFormat::Text, "info");
    pointsman::app::serve(options.flags, options.over)
}

fn demo(options: DemoOptions) -> Result<(), Failure> {
    telemetry::log(LogFormat::Text, "off");
    pointsman::app::demo(options.exit)
}

fn main() -> ExitCode {
    cli::main(&Doors {
        serve,
        demo,
        store_check: pointsman::app::store_check,
        store_backup: pointsman::app::store_backup,
    })
}
