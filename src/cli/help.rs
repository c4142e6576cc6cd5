//! `help`: the topics of the reference, or what one command takes.
//!
//! Always true: on a terminal a text is shown through the pager (PAGER, else `less`), elsewhere it is printed as it is. A
//! pager that is not there, or that ends early, is no error.

use std::io::{IsTerminal, Write};
use std::process::{Command as Process, ExitCode, Stdio};

use clap::CommandFactory;
use serde_json::json;

use super::args::{Globals, Line};
use super::paint::{Paint, Tone};
use super::{pretty, print};
use crate::docs::{self, Topic};

/// Leaves a text that fits the screen on it, passes colours on, and does not clear.
const PAGER: &str = "less -FRX";

pub(super) fn help(words: &[String], globals: &Globals) -> ExitCode {
    let Some((first, rest)) = words.split_first() else {
        return shown(globals, &topics(), &index());
    };
    let unknown = match docs::find(first) {
        Ok(topic) if rest.is_empty() => {
            return shown(
                globals,
                &json!({ "name": topic.name, "title": topic.title(), "text": topic.text() }),
                &text(topic),
            );
        }
        Ok(_) => None,
        Err(nearest) => nearest,
    };
    if let Some(text) = of_command(words) {
        return shown(globals, &json!({ "command": words.join(" "), "text": text }), &text);
    }
    let hint = match unknown {
        Some(nearest) => format!("did you mean `pointsman help {nearest}`?"),
        None => "`pointsman help` lists the topics, `pointsman --help` the commands".to_owned(),
    };
    let err = Paint::new(globals.color, &std::io::stderr());
    let (error, what) = (err.tone("error:", Tone::Bad), err.tone("what to do:", Tone::Strong));
    let _ =
        writeln!(std::io::stderr(), "{error} there is no topic and no command `{}`\n  {what} {hint}", words.join(" "));
    ExitCode::from(2)
}

/// A topic; where a command has the same name, how to see that one.
fn text(topic: &Topic) -> String {
    let mut text = topic.text();
    if Line::command().find_subcommand(topic.name).is_some() {
        text.push_str(&format!("\n`pointsman {} --help` describes the command of this name.\n", topic.name));
    }
    text
}

/// The list of topics, for a person.
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

/// What a command takes, as its own `--help` says it.
fn of_command(words: &[String]) -> Option<String> {
    let mut command = Line::command();
    command.build();
    for word in words {
        command = command.find_subcommand(word)?.clone();
    }
    Some(command.render_long_help().to_string())
}

fn shown(globals: &Globals, json: &serde_json::Value, text: &str) -> ExitCode {
    if globals.json {
        print(&pretty(json));
    } else if !std::io::stdout().is_terminal() || paged(text).is_err() {
        print(text);
    }
    ExitCode::SUCCESS
}

/// Shows a text through the pager.
///
/// # Errors
/// There is none, or it could not be started: nothing was shown.
fn paged(text: &str) -> std::io::Result<()> {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| PAGER.to_owned());
    let mut words = pager.split_whitespace();
    let program = words.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut pager = Process::new(program).args(words).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = pager.stdin.take() {
        // A reader who has seen enough closes it.
        let _ = stdin.write_all(text.as_bytes());
    }
    pager.wait().map(drop)
}
