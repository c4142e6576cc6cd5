//! The demo from start to end: starts the sample services and the product, moves routes up the ladder, checks the
//! promises.
//!
//! The question it answers: "did every promise hold, from the first request to the last?" The caller passes
//! the function that starts the product with a directory of files and the addresses to listen on, so that the demo
//! shows the same program as `serve`. Always true: the files and the store are in a directory of their own, which is
//! removed at the end.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::campaign::Launch;
use super::console::Console;
use super::control::Control;
use super::http::Outage;
use super::ladder_demo::LadderDemo;
use super::promises::{self, Promise};
use super::traffic::Traffic;
use super::{Latency, Legacy, OutsideWorld, files};
use crate::admin::types::Diffs;

/// How many clients there are.
const CLIENTS: usize = 12;
/// How long runs may take to end after the last request.
const SETTLE: Duration = Duration::from_secs(10);

/// The options of `demo`.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Ends after the demonstration instead of staying up.
    pub exit: bool,
    /// How `diffs` shows differences, coloured or not.
    pub render: fn(&Diffs, bool) -> String,
}

/// The settings with which the product is started.
#[derive(Clone, Debug)]
pub struct ProductSettings {
    /// The directory of the flag files.
    pub flags: PathBuf,
    /// Where the proxy should listen.
    pub listen: SocketAddr,
    /// Where the API should listen.
    pub admin: SocketAddr,
    /// The SQLite file of the store.
    pub store: PathBuf,
}

/// Stops the product.
pub type Stop = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The running product.
pub struct Product {
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// Where the API listens.
    pub admin: SocketAddr,
    /// Ends it.
    pub stop: Stop,
}

/// Runs the demo. Returns whether every promise held.
///
/// # Errors
/// A port or a directory is not available, the product does not start, or (with `exit`) the demo was interrupted before
/// its end, so that there is no outcome.
pub async fn run(
    options: &DemoOptions,
    start: impl AsyncFnOnce(ProductSettings) -> anyhow::Result<Product>,
) -> anyhow::Result<bool> {
    let dir = TemporaryDirectory::new()?;
    let mut console = Console::new();
    let latency = Latency::new(1.0, 20_261_120);
    // Listens on the ports of the flag files, so that the README's commands work with the demo too; on other ports with
    // `--exit`, or if those are in use.
    let world = match OutsideWorld::start(preferred_address(9100, options.exit), latency.clone()).await {
        Ok(world) => world,
        Err(_) => OutsideWorld::start(any_port_address(), latency.clone()).await?,
    };
    // Legacy makes its calls through the product, which is started after it.
    let egress = bound_address(8090, options.exit)?;
    let outside = format!("http://{egress}");
    let legacy = match Legacy::start(preferred_address(9000, options.exit), &outside, latency.clone()).await {
        Ok(legacy) => legacy,
        Err(_) => Legacy::start(any_port_address(), &outside, latency).await?,
    };
    let flags = dir.0.join("flags");
    files::write(&flags, &legacy.url(), &world.url(), egress)?;
    let store = dir.0.join("pointsman.db");
    let product = start(ProductSettings {
        flags: flags.clone(),
        listen: free_address(8080, options.exit),
        admin: free_address(8081, options.exit),
        store,
    })
    .await?;
    let admin = format!("http://{}", product.admin);
    console.chapter("demo", "A shop's orders move from legacy to the engine, and back, and on.");
    for (what, where_) in [
        ("clients call the proxy", format!("http://{}", product.listen)),
        ("API and metrics", admin.clone()),
        ("sample legacy", legacy.url()),
        ("its own calls go through", outside.clone()),
        ("outside world with ledger", format!("{}/ledger", world.url())),
        ("flag files", flags.display().to_string()),
    ] {
        console.say(&format!("{what} {where_}"));
    }

    let mut traffic = Traffic::start(&format!("http://{}", product.listen), CLIENTS);
    let control = Control::new(&admin);
    let output_closed = console.output_closed();
    let mut interrupted = false;
    let (walked, mut broken) = {
        let mut walk = LadderDemo {
            control: control.clone(),
            traffic: &traffic,
            legacy: &legacy,
            world: &world,
            flags: &flags,
            console: &mut console,
            render: options.render,
            broken: Vec::new(),
        };
        let walked = tokio::select! {
            walked = walk.all() => walked,
            () = asked_to_end(&output_closed) => {
                interrupted = true;
                Err(anyhow::anyhow!("interrupted"))
            }
        };
        (walked, walk.broken)
    };
    if interrupted {
        console.chapter("ended", "Interrupted before the end of the demo.");
    } else if let Err(error) = walked {
        let why = format!("the demo ended before its last state: {error:#}");
        console.promise_broken(&why);
        broken.push(why);
    }
    traffic.stop().await;
    if !interrupted && broken.is_empty() {
        let mut launch = Launch { control: &control, world: &world, console: &console, broken: &mut broken };
        if let Err(error) = launch.launch_both().await {
            let why = format!("the campaign ended early: {error:#}");
            console.promise_broken(&why);
            broken.push(why);
        }
    }
    wait_for_runs(&control).await;
    let promises = promises::check(world.ledger(), &traffic.tally());
    report(&console, &promises, &traffic, interrupted, &mut broken);

    if !options.exit && !interrupted {
        legacy.outage(Outage::None);
        let light_traffic = Traffic::start(&format!("http://{}", product.listen), 2);
        suggest_commands(&console, &admin, &flags, product.listen);
        console.end_progress();
        asked_to_end(&output_closed).await;
        drop(light_traffic);
    }
    console.end_progress();
    (product.stop)().await;
    // With `--exit` an interrupted demo is an error: not every promise was checked.
    anyhow::ensure!(!(interrupted && options.exit && broken.is_empty()), "interrupted before the end of the demo");
    Ok(broken.is_empty())
}

/// Waits for Ctrl-C, SIGTERM or a closed stdout. If the process cannot listen for signals, it returns at once, since
/// nothing could end the demo otherwise.
async fn asked_to_end(output_closed: &Notify) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
        () = output_closed.notified() => {}
    }
}

/// Waits until no durable run is under way, within a bound.
async fn wait_for_runs(control: &Control) {
    let begun = Instant::now();
    while begun.elapsed() < SETTLE {
        if control.status().await.is_ok_and(|status| status.runs_in_flight == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn report(console: &Console, promises: &[Promise], traffic: &Traffic, interrupted: bool, broken: &mut Vec<String>) {
    console.chapter("promises", "What callers were told, compared with what was done according to the ledger.");
    for promise in promises {
        let text = format!("{:<56}{:>8}", promise.what, promise.count);
        if promise.holds() {
            console.promise_held(&text);
        } else {
            let why = format!("{text}, and should be {}", promise.expected);
            console.promise_broken(&why);
            broken.push(why);
        }
    }
    for failure in &traffic.tally().failures {
        console.say(failure);
    }
    match broken.len() {
        0 if interrupted => console.chapter("held", "Up to the interruption every promise held."),
        0 => console.chapter("held", "Every promise held."),
        1 => console.chapter("BROKEN", "1 promise did not hold."),
        n => console.chapter("BROKEN", &format!("{n} promises did not hold.")),
    }
}

fn suggest_commands(console: &Console, admin: &str, flags: &Path, listen: SocketAddr) {
    console
        .chapter("look around", "Everything stays up, with a little traffic, until Ctrl-C. Try, in another terminal:");
    console.say(&format!("export POINTSMAN_ADMIN={admin}"));
    for command in [
        "pointsman status",
        "pointsman diffs orders.create",
        "pointsman runs list",
        "pointsman flip orders.create live --reason 'a step back' --yes",
        "pointsman freeze --reason 'trying the kill switch'",
    ] {
        console.say(command);
    }
    console.say(&format!("curl -s {admin}/metrics"));
    console.say(&format!("curl -s http://{listen}/orders"));
    console.say(&format!("edit {}", flags.join("workflows/create-order.yaml").display()));
    console.say(&format!("routes, differences and runs in a browser: {admin}/"));
}

fn any_port_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// This port; with `any_port` any free one, because scripts may run several demos at the same time.
fn preferred_address(port: u16, any_port: bool) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), if any_port { 0 } else { port })
}

/// The port that the files name if it is free, else any.
fn free_address(port: u16, any_port: bool) -> SocketAddr {
    let preferred = preferred_address(port, any_port);
    if std::net::TcpListener::bind(preferred).is_ok() { preferred } else { any_port_address() }
}

/// The port that the files name if it is free, else one that was free just now: the address has to be known before the
/// listener exists.
fn bound_address(port: u16, any_port: bool) -> std::io::Result<SocketAddr> {
    let preferred = std::net::TcpListener::bind(preferred_address(port, any_port));
    preferred.or_else(|_| std::net::TcpListener::bind(any_port_address()))?.local_addr()
}

/// A directory that is removed when it is dropped.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> std::io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("pointsman-demo-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's temporary directory.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}
