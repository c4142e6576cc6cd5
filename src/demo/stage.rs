//! Sets the stage, plays the walk, and settles the account.
//!
//! The question it answers: "did every promise hold, from the first request to the last?" The product is started by
//! whoever calls (it is handed a directory of files and wishes for addresses), so that the demo runs what everybody
//! runs. Always true: the files and the store are in a directory of their own, which is removed at the end.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::account::{self, Line};
use super::control::Control;
use super::http::Outage;
use super::launch::Launch;
use super::story::Story;
use super::traffic::Traffic;
use super::walk::Walk;
use super::{Legacy, Pace, World, files};
use crate::admin::types::Diffs;

/// How many clients there are.
const CLIENTS: usize = 12;
/// How long runs may take to end after the last request.
const SETTLE: Duration = Duration::from_secs(10);

/// What the demo is told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Ends after the walk instead of staying up.
    pub exit: bool,
    /// How `diffs` shows differences, coloured or not.
    pub render: fn(&Diffs, bool) -> String,
}

/// What the demo wants of the product.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The directory of the flag files.
    pub flags: PathBuf,
    /// Where the proxy should listen.
    pub listen: SocketAddr,
    /// Where the API should listen.
    pub admin: SocketAddr,
    /// The SQLite file of the store.
    pub store: PathBuf,
}

/// Stops what was started, in order.
pub type Stop = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The product, started.
pub struct Product {
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// Where the API listens.
    pub admin: SocketAddr,
    /// Ends it.
    pub stop: Stop,
}

/// Plays the demo; whether every promise held.
///
/// # Errors
/// A port or a directory cannot be had, the product does not start, or the outcome was asked for and the walk was told
/// to end before there was one.
pub async fn run(
    options: &DemoOptions,
    start: impl AsyncFnOnce(Wanted) -> anyhow::Result<Product>,
) -> anyhow::Result<bool> {
    let dir = Directory::new()?;
    let mut story = Story::new();
    let pace = Pace::new(1.0, 20_261_120);
    // The ports that the files name, so that what the README says works here too; any others where those are taken.
    let world = match World::start(wish(9100, options.exit), pace.clone()).await {
        Ok(world) => world,
        Err(_) => World::start(any(), pace.clone()).await?,
    };
    let legacy = match Legacy::start(wish(9000, options.exit), &world.url(), pace.clone()).await {
        Ok(legacy) => legacy,
        Err(_) => Legacy::start(any(), &world.url(), pace).await?,
    };
    let flags = dir.0.join("flags");
    files::write(&flags, &legacy.url(), &world.url())?;
    let store = dir.0.join("pointsman.db");
    let product = start(Wanted {
        flags: flags.clone(),
        listen: free(8080, options.exit),
        admin: free(8081, options.exit),
        store,
    })
    .await?;
    let admin = format!("http://{}", product.admin);
    story.chapter("demo", "A shop's orders move from legacy to the engine, and back, and on.");
    for (what, where_) in [
        ("clients ask proxy", format!("http://{}", product.listen)),
        ("API and metrics admin", admin.clone()),
        ("sample legacy", legacy.url()),
        ("outside world with ledger", format!("{}/ledger", world.url())),
        ("flag files", flags.display().to_string()),
    ] {
        story.say(&format!("{what} {where_}"));
    }

    let mut traffic = Traffic::start(&format!("http://{}", product.listen), CLIENTS);
    let control = Control::new(&admin);
    let unheard = story.unheard();
    let mut interrupted = false;
    let (walked, mut broken) = {
        let mut walk = Walk {
            control: control.clone(),
            traffic: &traffic,
            legacy: &legacy,
            flags: &flags,
            story: &mut story,
            render: options.render,
            broken: Vec::new(),
        };
        let walked = tokio::select! {
            walked = walk.all() => walked,
            () = told_to_end(&unheard) => {
                interrupted = true;
                Err(anyhow::anyhow!("told to end"))
            }
        };
        (walked, walk.broken)
    };
    if interrupted {
        story.chapter("ended", "Told to end in the middle of the walk.");
    } else if let Err(error) = walked {
        let why = format!("the walk ended early: {error:#}");
        story.bad(&why);
        broken.push(why);
    }
    traffic.stop().await;
    if !interrupted && broken.is_empty() {
        let mut launch = Launch { control: &control, world: &world, story: &story, broken: &mut broken };
        if let Err(error) = launch.all().await {
            let why = format!("the campaign ended early: {error:#}");
            story.bad(&why);
            broken.push(why);
        }
    }
    settle(&control).await;
    let lines = account::settle(world.ledger(), &traffic.tally());
    close(&story, &lines, &traffic, interrupted, &mut broken);

    if !options.exit && !interrupted {
        legacy.outage(Outage::None);
        let gentle = Traffic::start(&format!("http://{}", product.listen), 2);
        look_around(&story, &admin, &flags, product.listen);
        story.rest();
        told_to_end(&unheard).await;
        drop(gentle);
    }
    story.rest();
    (product.stop)().await;
    // Who asked for the outcome of the walk must not take half of it for the whole.
    anyhow::ensure!(!(interrupted && options.exit && broken.is_empty()), "told to end before the walk was over");
    Ok(broken.is_empty())
}

/// Ctrl-C, SIGTERM, or nobody reads what is told. A failure to listen for them is taken as one: nobody could end the
/// demo otherwise.
async fn told_to_end(unheard: &Notify) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _heard = tokio::signal::ctrl_c() => {}
        _heard = terminated.recv() => {}
        () = unheard.notified() => {}
    }
}

/// Waits until no durable run is under way, within a bound.
async fn settle(control: &Control) {
    let begun = Instant::now();
    while begun.elapsed() < SETTLE {
        if control.status().await.is_ok_and(|status| status.runs_in_flight == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn close(story: &Story, lines: &[Line], traffic: &Traffic, interrupted: bool, broken: &mut Vec<String>) {
    story.chapter("account", "What callers were told against what the ledger says was done.");
    for line in lines {
        let text = format!("{:<56}{:>8}", line.what, line.count);
        if line.holds() {
            story.good(&text);
        } else {
            let why = format!("{text}, and should be {}", line.due);
            story.bad(&why);
            broken.push(why);
        }
    }
    for failure in &traffic.tally().failures {
        story.say(failure);
    }
    match broken.len() {
        0 if interrupted => story.chapter("balanced", "What was done until then is as promised."),
        0 => story.chapter("balanced", "Every promise held."),
        1 => story.chapter("BROKEN", "1 promise did not hold."),
        n => story.chapter("BROKEN", &format!("{n} promises did not hold.")),
    }
}

fn look_around(story: &Story, admin: &str, flags: &Path, listen: SocketAddr) {
    story.chapter("look around", "Everything stays up, with a little traffic, until Ctrl-C. Try, in another terminal:");
    story.say(&format!("export POINTSMAN_ADMIN={admin}"));
    for command in [
        "pointsman status",
        "pointsman diffs orders.create",
        "pointsman runs list",
        "pointsman flip orders.create live --reason 'a step back' --yes",
        "pointsman freeze --reason 'a look at the switch'",
    ] {
        story.say(command);
    }
    story.say(&format!("curl -s {admin}/metrics"));
    story.say(&format!("curl -s http://{listen}/orders"));
    story.say(&format!("edit {}", flags.join("workflows/create-order.yaml").display()));
}

fn any() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// Scripts get any port: two of them may run at the same time.
fn wish(port: u16, any_port: bool) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), if any_port { 0 } else { port })
}

/// The port that the files name, if nobody has it now.
fn free(port: u16, any_port: bool) -> SocketAddr {
    let wish = wish(port, any_port);
    if std::net::TcpListener::bind(wish).is_ok() { wish } else { any() }
}

/// A directory that goes with the demo.
struct Directory(PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("pointsman-demo-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}
