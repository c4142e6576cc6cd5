//! The commands that run a process or open a store. `main` passes them to the command line as functions: `app`
//! implements them, and `cli` must not depend on how a process is built.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Overrides;

/// The options of `serve`.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The directory of the flag files.
    pub flags: PathBuf,
    /// Settings that the command line overrides.
    pub overrides: Overrides,
    /// Whether it takes over from the process that has the store.
    pub takes_over: bool,
}

/// The options of `demo`.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Exit when the demonstration has ended.
    pub exit: bool,
    /// Whether to colour.
    pub colour: bool,
}

/// The addresses of `demo --services`.
#[derive(Clone, Copy, Debug)]
pub struct SampleServices {
    /// Where the sample shop listens, which is legacy.
    pub legacy: SocketAddr,
    /// Where the services listen that the shop and the engine call.
    pub world: SocketAddr,
}

/// How a store is named.
#[derive(Clone, Debug)]
pub enum StoreLocation {
    /// By the flag files of this directory.
    Flags(PathBuf),
    /// By its URL: `sqlite:PATH`, `postgres://…`.
    Url(String),
}

/// A fault in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFinding {
    /// The run concerned, if any.
    pub run: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub todo: String,
}

/// The result of `store check`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// The location of the store.
    pub location: String,
    /// The number of runs.
    pub runs: u64,
    /// How many of those runs are purged except for their summary.
    pub purged: u64,
    /// The number of events.
    pub events: u64,
    /// The number of payloads that are stored apart from their events.
    pub payloads: u64,
    /// The faults, up to a bound.
    pub findings: Vec<StoreFinding>,
    /// How many faults there are beyond those in `findings`.
    pub unlisted: u64,
}

/// The result of `store backup`.
#[derive(Clone, Debug)]
pub struct StoreCopy {
    /// The size of the copy.
    pub bytes: u64,
    /// The number of retry keys that were copied from the file beside the store because the store did not have them
    /// yet.
    pub waiting_keys: u64,
    /// The files of retry keys that could not be read, each with the reason.
    pub unread: Vec<String>,
    /// The result of checking the copy.
    pub report: StoreReport,
}

/// The commands that run a process (they return when it has ended) or open a store. A [`crate::config::CheckFailed`] in
/// an error is shown with its lines and carets.
pub struct ProcessCommands {
    /// `serve`.
    pub serve: fn(ServeOptions) -> anyhow::Result<()>,
    /// `demo`.
    pub demo: fn(DemoOptions) -> anyhow::Result<()>,
    /// `demo --services`.
    pub sample_services: fn(SampleServices) -> anyhow::Result<()>,
    /// `store check`.
    pub store_check: fn(StoreLocation) -> anyhow::Result<StoreReport>,
    /// `store backup`.
    pub store_backup: fn(StoreLocation, PathBuf) -> anyhow::Result<StoreCopy>,
}
