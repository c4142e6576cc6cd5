//! Options that several commands take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,
}

/// Options of every command that calls the API of a running process.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// The URL of the API of a running process.
    #[arg(long, env = "POINTSMAN_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub admin: String,
    /// Your name, where the API requires no token (recorded as unverified). Default: the user's name.
    #[arg(long = "as", value_name = "NAME")]
    pub by: Option<String>,
    /// A file with the API's token; POINTSMAN_TOKEN may hold the token itself.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Server {
    /// The name that is recorded where the API requires no token: `--as`, else the user's name.
    pub fn caller_name(&self) -> Option<String> {
        self.by.clone().or_else(|| std::env::var("USER").ok()).filter(|name| !name.trim().is_empty())
    }
}
