//! README and reference compared with the command line: every shown command and option exists, every command is shown.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory, error::ErrorKind};

use super::*;
use crate::docs::TOPICS;

/// README and topics, by name.
fn documents() -> Vec<(String, String)> {
    let readme = include_str!("../../../README.md").to_owned();
    let topics = TOPICS.iter().map(|topic| (topic.name.to_owned(), topic.text()));
    std::iter::once(("README.md".to_owned(), readme)).chain(topics).collect()
}

/// Splits a command into words as a shell does, up to a comment or to one of the operators `|`, `>`, `;` and `&`.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | ';' | '&') => break,
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Commands in shell blocks and in code spans.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for (n, part) in text.split("```").enumerate() {
        match n % 2 {
            0 => commands.extend(part.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "))),
            _ if part.starts_with("sh\n") => commands.extend(part.lines().map(|line| line.trim().to_owned())),
            _ => {}
        }
    }
    commands.retain(|command| command.starts_with("pointsman ") && !command.contains("COMMAND"));
    commands
}

#[test]
fn every_command_in_the_docs_is_valid() {
    let mut count = 0;
    for (name, text) in documents() {
        for command in commands(&text) {
            count += 1;
            if let Err(error) = CommandLine::try_parse_from(words(&command))
                && !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
                // A code span may name a command without its arguments.
                && !(error.kind() == ErrorKind::MissingRequiredArgument && words(&command).len() == 2)
                && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            {
                panic!("{name}: `{command}`: {error}");
            }
        }
    }
    assert!(count > 60, "commands were found: {count}");
}

/// Adds every command below this one, each with all its words (`pointsman runs start`). `before` are the words of this
/// one.
fn all(command: &Command, before: &str, into: &mut BTreeSet<String>) {
    for sub in command.get_subcommands() {
        let words = format!("{before} {}", sub.get_name());
        if sub.get_subcommands().next().is_some() {
            all(sub, &words, into);
        } else {
            into.insert(words);
        }
    }
}

#[test]
fn every_command_is_in_the_docs() {
    let mut known = BTreeSet::new();
    all(&CommandLine::command(), "pointsman", &mut known);
    assert!(known.contains("pointsman runs start") && known.contains("pointsman demo"), "{known:?}");
    let shown: Vec<String> = documents().iter().flat_map(|(_, text)| commands(text)).collect();
    let missing: Vec<&String> =
        known.iter().filter(|command| !shown.iter().any(|shown| shown.starts_with(command.as_str()))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_option_in_the_docs_exists() {
    fn options(command: &Command, into: &mut BTreeSet<String>) {
        let longs =
            command.get_arguments().flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
        into.extend(longs.map(str::to_owned));
        command.get_subcommands().for_each(|command| options(command, into));
    }
    let mut known = BTreeSet::from(["help".to_owned()]);
    let mut line = CommandLine::command();
    line.build();
    options(&line, &mut known);
    // Of the scripts in `tests/bench`.
    let others = ["rows", "dir", "binary", "keys"];
    for (name, text) in documents() {
        let spans = text.split("```").step_by(2).flat_map(|part| part.split('`').skip(1).step_by(2));
        for span in spans.filter(|span| span.starts_with("--")) {
            let option = span[2..].split([' ', '=']).next().unwrap_or_default();
            assert!(known.contains(option) || others.contains(&option), "{name}: `{span}` is not an option");
        }
    }
}

#[test]
fn commands_are_split_as_a_shell_does() {
    assert_eq!(
        words("pointsman flip a live --reason \"two weeks\"   # up"),
        ["pointsman", "flip", "a", "live", "--reason", "two weeks"]
    );
    assert_eq!(words("pointsman help | head"), ["pointsman", "help"]);
}
