//! `help`: the topics of the reference, or the options of one command.
//!
//! Always true: on a terminal a text is shown through the pager (PAGER, else `less`), elsewhere it is printed. A pager
//! that is missing or ends early is no error.

use std::io::{IsTerminal, Write};
use std::process::{Command as Process, ExitCode, Stdio};

use clap::CommandFactory;
use serde_json::json;

use super::args::{CommandLine, Globals};
use super::format::{Formatter, Tone};
use super::output::{pretty, print};
use crate::docs::{self, Topic};

/// -F: exit at once where the text fits the screen; -R: pass colours; -X: leave the text on the screen.
const PAGER: &str = "less -FRX";

pub(super) fn help(words: &[String], globals: &Globals) -> ExitCode {
    let Some((first, rest)) = words.split_first() else {
        return print_help(globals, &topics(), &index());
    };
    let nearest = match docs::find(first) {
        Ok(topic) if rest.is_empty() => {
            return print_help(
                globals,
                &json!({ "name": topic.name, "title": topic.title(), "text": topic.text() }),
                &text(topic),
            );
        }
        Ok(_) => None,
        Err(nearest) => nearest,
    };
    if let Some(text) = command_help(words) {
        return print_help(globals, &json!({ "command": words.join(" "), "text": text }), &text);
    }
    let hint = match nearest {
        Some(nearest) => format!("did you mean `pointsman help {nearest}`?"),
        None => "`pointsman help` lists the topics, `pointsman --help` the commands".to_owned(),
    };
    let err = Formatter::new(globals.color, &std::io::stderr());
    let (error, what) = (err.tone("error:", Tone::Bad), err.tone("what to do:", Tone::Strong));
    let _ =
        writeln!(std::io::stderr(), "{error} there is no topic and no command `{}`\n  {what} {hint}", words.join(" "));
    ExitCode::from(2)
}

/// A topic's text; where a command has the same name, with a note on how to see the command's help.
fn text(topic: &Topic) -> String {
    let mut text = topic.text();
    if CommandLine::command().find_subcommand(topic.name).is_some() {
        text.push_str(&format!("\n`pointsman {} --help` describes the command of this name.\n", topic.name));
    }
    text
}

/// The list of topics, as text.
fn index() -> String {
    let width = docs::TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    let rows = docs::TOPICS.iter().map(|topic| format!("  {:<width$}  {}\n", topic.name, topic.title()));
    format!(
        "pointsman help TOPIC shows one of these:\n\n{}\npointsman --help lists the commands, pointsman COMMAND --help describes one.\n",
        rows.collect::<String>()
    )
}

fn topics() -> serde_json::Value {
    docs::TOPICS.iter().map(|topic| json!({ "name": topic.name, "title": topic.title() })).collect()
}

/// The text of a command's `--help`.
fn command_help(words: &[String]) -> Option<String> {
    let mut command = CommandLine::command();
    command.build();
    for word in words {
        command = command.find_subcommand(word)?.clone();
    }
    Some(command.render_long_help().to_string())
}

fn print_help(globals: &Globals, json: &serde_json::Value, text: &str) -> ExitCode {
    if globals.json {
        return print(&pretty(json), globals.color).exit_code(0);
    }
    if !std::io::stdout().is_terminal() || show_in_pager(text).is_err() {
        return print(text, globals.color).exit_code(0);
    }
    ExitCode::SUCCESS
}

/// Shows a text through the pager.
///
/// # Errors
/// The pager could not be started; nothing was shown.
fn show_in_pager(text: &str) -> std::io::Result<()> {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| PAGER.to_owned());
    let mut words = pager.split_whitespace();
    let program = words.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut pager = Process::new(program).args(words).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = pager.stdin.take() {
        // Fails where the reader quits before the end, which is no error.
        let _ = stdin.write_all(text.as_bytes());
    }
    pager.wait().map(drop)
}
