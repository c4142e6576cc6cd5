//! The two commands that run a process: `serve` and `demo`.

use std::io::Write;
use std::path::PathBuf;

use super::App;
use crate::cli;
use crate::config::Overrides;
use crate::demo::{DemoOptions, Product};

/// `pointsman serve`: until SIGTERM or SIGINT. Says on stdout, as one JSON line, where it listens.
///
/// # Errors
/// As [`App::start`].
pub fn serve(flags: PathBuf, over: Overrides) -> anyhow::Result<()> {
    let engine = engine_runtime()?;
    runtime()?.block_on(async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut int = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let app = App::start(flags, over, engine.handle()).await?;
        // Nobody needs to read it.
        let mut addresses = serde_json::json!({ "listen": app.listen.to_string(), "admin": app.admin.to_string() });
        if let Some(api) = app.api {
            addresses["api"] = api.to_string().into();
        }
        let _ = writeln!(std::io::stdout(), "{addresses}");
        let stopper = app.stopper();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("stopping: requests finish, then the shadow queue, then runs");
            stopper.cancel();
        });
        app.ended().await;
        Ok(())
    })
}

/// `pointsman demo`: the sample world, this binary in front of it, and the walk up the ladder. Whether every promise
/// held is its end.
///
/// # Errors
/// A promise was broken; a port or a directory cannot be had; as [`App::start`].
pub fn demo(exit: bool) -> anyhow::Result<()> {
    let options = DemoOptions { exit, render: cli::diffs_text };
    let engine = engine_runtime()?;
    let kept = runtime()?.block_on(crate::demo::run(&options, async |wanted| {
        let over = Overrides {
            listen: Some(wanted.listen),
            admin: Some(wanted.admin),
            store: Some(format!("sqlite:{}", wanted.store.display())),
            ..Overrides::default()
        };
        let app = App::start(wanted.flags, over, engine.handle()).await?;
        Ok(Product { listen: app.listen, admin: app.admin, stop: Box::new(move || Box::pin(app.stop())) })
    }))?;
    anyhow::ensure!(kept, "a promise was broken; the lines above say which");
    Ok(())
}

/// Threads of the engine, its store and the admin listener: apart from those that serve the proxy's requests, so that
/// neither holds the other up. Fewer than there are cores: a run goes to and fro between its step's socket and the
/// store's thread, and where several idle threads are woken for each such move, a step costs half as much again.
fn engine_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .thread_name("engine")
        .build()
}

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
