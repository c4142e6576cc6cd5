//! The threads of a process.

use tokio::runtime::{Builder, Runtime};

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Threads of the engine and its store: apart from those that serve the proxy's requests, so that neither holds the other
/// up. Fewer than there are cores: a run goes to and fro between its step's socket and the store's thread, and where
/// several idle threads are woken for each such move, a step costs half as much again.
pub(super) fn engine_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads((cores() / 2).max(1)).enable_all().thread_name("engine").build()
}

/// Threads of the admin listener and of what people look at: a run that is read, a list or the metrics are decoded and
/// rendered here, however large they are, while runs move.
pub(super) fn admin_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads((cores() / 4).max(1)).enable_all().thread_name("admin").build()
}

/// Threads of everything else.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    let runtime = Builder::new_multi_thread().enable_all().thread_name("pointsman").build()?;
    outlive_file_limits(&runtime)?;
    Ok(runtime)
}

/// A write beyond the limit on file sizes (`ulimit -f`) fails like one to a full disk, and ends nobody: once somebody
/// listens for the signal, it does nothing else for as long as the process lives.
fn outlive_file_limits(runtime: &Runtime) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let signal = rustix::process::Signal::XFSZ.as_raw();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(signal)).map(drop)
}
