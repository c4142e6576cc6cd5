//! The threads of a process.

/// Threads of the engine, its store and the admin listener: apart from those that serve the proxy's requests, so that
/// neither holds the other up. Fewer than there are cores: a run goes to and fro between its step's socket and the
/// store's thread, and where several idle threads are woken for each such move, a step costs half as much again.
pub(super) fn engine_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .thread_name("engine")
        .build()
}

/// Threads of everything else.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("pointsman").build()?;
    outlive_file_limits(&runtime)?;
    Ok(runtime)
}

/// A write beyond the limit on file sizes (`ulimit -f`) fails like one to a full disk, and ends nobody: once somebody
/// listens for the signal, it does nothing else for as long as the process lives.
fn outlive_file_limits(runtime: &tokio::runtime::Runtime) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let signal = rustix::process::Signal::XFSZ.as_raw();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(signal)).map(drop)
}
