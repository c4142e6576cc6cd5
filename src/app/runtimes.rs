//! The thread pools of a process.

use tokio::runtime::{Builder, Runtime};

use super::memory;
use crate::proxy::Workers;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Threads of the engine and its store, separate from those that serve the proxy's requests, so that neither delays the
/// other. Fewer threads than cores: a run waits alternately for its step's socket and for the store's thread, and if
/// each wake-up woke several idle threads, a step would take 1.5 times as long.
pub(super) fn engine_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads((cores() / 2).max(1)).enable_all().thread_name("engine").build()
}

/// Threads of the admin listener: runs, lists and metrics are read and rendered here, so that a large response does not
/// delay a run.
pub(super) fn admin_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads((cores() / 4).max(1)).enable_all().thread_name("admin").build()
}

/// Threads that serve the connections of clients, one for each core.
pub(super) fn proxy_workers() -> std::io::Result<Workers> {
    Workers::start(cores())
}

/// Threads of everything else.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_name("pointsman").on_thread_park(memory::return_own_freed_pages);
    let runtime = builder.build()?;
    handle_file_size_signal(&runtime)?;
    Ok(runtime)
}

/// Makes a write beyond the limit on file sizes (`ulimit -f`) fail with an error instead of killing the process: a
/// signal handler for SIGXFSZ replaces the default action for as long as the process lives.
fn handle_file_size_signal(runtime: &Runtime) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let signal = rustix::process::Signal::XFSZ.as_raw();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(signal)).map(drop)
}
