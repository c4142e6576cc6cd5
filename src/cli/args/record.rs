//! The commands for the record: the chain of entries of who moved what, when and why.

use std::path::PathBuf;

use clap::Subcommand;

use super::Server;

/// Commands for the record.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordCommand {
    /// Show the newest entries: who moved what, when, and why.
    Show {
        /// Only of this route.
        route: Option<String>,
        /// Show this many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        server: Server,
    },
    /// Check that no entry was changed, removed or inserted later, and name the first that was.
    Verify {
        /// Check a file that `export` wrote, instead of the record of a running process.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// A hash that was noted earlier: it must still be in the chain.
        #[arg(long, value_name = "HASH")]
        hash: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Print all entries, one line of JSON each, the oldest first.
    Export {
        #[command(flatten)]
        server: Server,
    },
}
