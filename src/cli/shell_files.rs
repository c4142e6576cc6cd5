//! `completions` and `man`: what a package installs for shells and for `man`. Made from the command line's own
//! description, so that they cannot differ from it.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::CommandLine;
use super::client::CallError;
use super::output::Output;

/// The script that completes commands and options in a shell.
pub(crate) fn completions(shell: Shell) -> Output {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "pointsman", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Output { json: serde_json::json!({ "shell": shell.to_string(), "script": text }), text, is_ok: true }
}

/// Writes one page for each command into a directory, which is created if there is none.
pub(crate) fn man(dir: &Path) -> Result<Output, CallError> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(CommandLine::command(), dir));
    written.map_err(|error| {
        let message = format!("the pages cannot be written to `{}`: {error}", dir.display());
        CallError::Failed(message, "name a directory in which you may create files".to_owned())
    })?;
    let text =
        format!("wrote the pages to {}: `man -l {}/pointsman.1` shows the first\n", dir.display(), dir.display());
    Ok(Output { text, json: serde_json::json!({ "dir": dir }), is_ok: true })
}
