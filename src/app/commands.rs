//! The two commands that run a process: `serve` and `demo`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::activation;
use super::memory;
use super::process::{App, StartOptions};
use super::running::{Ended, RemainingConnections};
use super::runtimes::{admin_runtime, engine_runtime, runtime};
use super::service_manager;
use super::signals::Signals;
use super::sockets::GivenSockets;
use crate::cli::{self, SampleServices};
use crate::clock;
use crate::config::Overrides;
use crate::demo::{DemoOptions, Latency, Legacy, OutsideWorld, Product};
use crate::traces;

/// Determines the latencies of the sample services.
const SAMPLE_LATENCY_SEED: u64 = 20_261_129;

/// Refuses a machine's clock before 1970: neither the ids of runs nor HTTP's `Date` can express such a time. Checking
/// at the start is enough, since the kernel refuses to set the clock to such a time.
fn refuse_early_clock(now: Timestamp) -> anyhow::Result<()> {
    anyhow::ensure!(
        now >= Timestamp::UNIX_EPOCH,
        "this machine's clock is before 1970 ({now}): set it, then start again; nothing was changed"
    );
    Ok(())
}

/// Raises the soft limit of open files to the hard limit. Each connection is an open file, and the usual soft limit of
/// 1,024 is meant for programs that use `select`. If the system refuses, the process serves with the limit it has.
fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the limit of open files is not raised; connections beyond it are not accepted");
    }
}

/// `pointsman serve`: runs until SIGTERM, SIGQUIT or SIGINT, or until a successor has taken over. Prints the addresses
/// on which the process listens to stdout, as one JSON line.
///
/// # Errors
/// See [`App::start`].
pub fn serve(flags: PathBuf, overrides: Overrides, takes_over: bool) -> anyhow::Result<()> {
    refuse_early_clock(clock::now())?;
    let given = activation::take_sockets()?; // before there are threads
    raise_open_files_limit();
    let (engine, admin) = (engine_runtime()?, admin_runtime()?);
    runtime()?.block_on(async {
        // Installed before anything that takes long, since without a handler these signals end the process.
        let signals = Signals::handle()?;
        let stop = stop_on_signal()?;
        let options = |sockets, takes_over, files, earlier| {
            let (flags, overrides, stop) = (flags.clone(), overrides.clone(), stop.clone());
            StartOptions { flags, overrides, sockets, takes_over, files, earlier, stop }
        };
        let start = options(given, takes_over, None, RemainingConnections::default());
        let mut app = App::start(start, signals, engine.handle(), admin.handle()).await?;
        print_addresses(&app);
        service_manager::notify_ready(&app.listen, app.admin);
        let pools = |app: &App| app.pools([engine.handle(), admin.handle()]);
        let mut watchdog = service_manager::watch_pools(pools(&app));
        tokio::spawn(memory::unmap_program_after_start());
        loop {
            let files = app.files();
            match app.wait_until_ended().await {
                Ended::Stopped => {
                    traces::finish().await;
                    return Ok(());
                }
                Ended::SuccessorLost(sockets, remaining) => {
                    let restart = options(sockets, false, Some(files.load_full()), remaining);
                    app = App::start(restart, Signals::handle()?, engine.handle(), admin.handle()).await?;
                    // The old task goes on until here: pools that were shut down do not stop it.
                    let earlier = std::mem::replace(&mut watchdog, service_manager::watch_pools(pools(&app)));
                    earlier.iter().for_each(JoinHandle::abort);
                }
            }
        }
    })
}

/// Returns a token that the signals that end the process cancel.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut int = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = quit.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping: requests finish, then the shadow queue, then runs");
        service_manager::notify_stopping();
        cancelled.cancel();
    });
    Ok(stop)
}

/// Prints the addresses on which the process listens.
fn print_addresses(app: &App) {
    let mut addresses = serde_json::json!({ "admin": app.admin.to_string() });
    // `listen` is the first address, for scripts that know only one; `listeners` has all, if there are several.
    addresses["listen"] = app.listen.first().map(ToString::to_string).into();
    if app.listen.len() > 1 {
        addresses["listeners"] = app.listen.iter().map(ToString::to_string).collect();
    }
    if let Some(egress) = app.egress {
        addresses["egress"] = egress.to_string().into();
    }
    if let Some(api) = app.api {
        addresses["api"] = api.to_string().into();
    }
    // A closed stdout is no error.
    let _ = writeln!(std::io::stdout(), "{addresses}");
}

/// `pointsman demo`: starts sample services and a process in front of them, and moves a route up the ladder.
///
/// # Errors
/// One of the demonstrated promises was broken; a port or a directory is not available; see also [`App::start`].
pub fn demo(exit: bool) -> anyhow::Result<()> {
    refuse_early_clock(clock::now())?;
    let options = DemoOptions { exit, render: cli::diffs_text };
    let (engine, admin) = (engine_runtime()?, admin_runtime()?);
    let promises_held = runtime()?.block_on(crate::demo::run(&options, async |product| {
        let overrides = Overrides {
            listen: Some(product.listen),
            admin: Some(product.admin),
            store: Some(format!("sqlite:{}", product.store.display())),
            ..Overrides::default()
        };
        let signals = Signals::handle()?;
        let start = StartOptions {
            flags: product.flags,
            overrides,
            sockets: GivenSockets::None,
            takes_over: false,
            files: None,
            earlier: RemainingConnections::default(),
            stop: CancellationToken::new(),
        };
        let app = App::start(start, signals, engine.handle(), admin.handle()).await?;
        let listen = *app.listen.first().ok_or_else(|| anyhow::anyhow!("the proxy has no listener"))?;
        Ok(Product { listen, admin: app.admin, stop: Box::new(move || Box::pin(app.stop())) })
    }))?;
    anyhow::ensure!(promises_held, "a promise was broken; the lines above say which");
    Ok(())
}

/// `pointsman demo --services`: serves the sample services until SIGTERM, SIGQUIT or SIGINT. Prints their addresses to
/// stdout, as one JSON line.
///
/// # Errors
/// An address is not available.
pub fn sample_services(addresses: SampleServices) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let stop = stop_on_signal()?;
        let latency = Latency::new(1.0, SAMPLE_LATENCY_SEED);
        let world = OutsideWorld::start(addresses.world, latency.clone()).await.context("serving what legacy calls")?;
        let legacy = Legacy::start(addresses.legacy, &world.url(), latency).await.context("serving legacy")?;
        let line = serde_json::json!({ "legacy": legacy.address().to_string(), "world": world.url() });
        let _ = writeln!(std::io::stdout(), "{line}"); // a closed stdout is no error
        stop.cancelled().await;
        Ok(())
    })
}
