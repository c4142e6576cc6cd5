//! Options of `store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Commands for stores.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read the whole store and report faults: a gap in a run's events, a summary that differs from its events, a pin
    /// of a run that does not exist. Nothing is changed.
    Check {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Copy the store to a new file, while runs continue.
    Backup {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// The options that name a store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// The directory of flag files whose `store:` is used.
    #[arg(value_name = "DIR", default_value = "flags", conflicts_with = "store")]
    pub dir: PathBuf,
    /// The URL of the store: `sqlite:PATH`, or for `check` also `postgres://…`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}
