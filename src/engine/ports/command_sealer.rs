//! Seals commands to a run with sensitive values while they are in the store, on their way to the process that executes
//! the run.
//!
//! Always true: values that people entered are sealed like the run's own values, and open only for this run. The sender
//! of the command, its kind and the step that it concerns stay readable, and nothing in them is ever opened.

use serde_json::Value;

use crate::engine::ports::seal::Sealer;
use crate::engine::ports::sealed_values::{open_value, seal_value};
use crate::names::RunId;
use crate::store::CommandRecord;

/// The members of a command that hold values which a person entered.
const ENTERED_MEMBERS: [&str; 6] = ["input", "output", "values", "payload", "note", "reason"];

/// Seals the entered values; `None` if that fails.
pub(in crate::engine) fn seal_command(sealer: &Sealer, run: RunId, command: &mut Value) -> Option<()> {
    match command {
        Value::Object(members) => {
            members.iter_mut().try_for_each(|(name, member)| match ENTERED_MEMBERS.contains(&name.as_str()) {
                true => seal_value(sealer, run, member),
                false => seal_command(sealer, run, member),
            })
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| seal_command(sealer, run, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
    }
}

/// Opens the sealed parts of commands, as far as this process has the key.
pub(in crate::engine) fn open_commands(
    sealer: &Sealer,
    run: RunId,
    mut commands: Vec<CommandRecord>,
) -> Vec<CommandRecord> {
    commands.iter_mut().for_each(|record| open_entered(sealer, run, &mut record.command));
    commands
}

/// Opens the members that [`seal_command`] seals, and no others: the id of a signal may be a copy of a sealed value.
fn open_entered(sealer: &Sealer, run: RunId, command: &mut Value) {
    match command {
        Value::Object(members) => {
            for (name, member) in members {
                if ENTERED_MEMBERS.contains(&name.as_str()) {
                    open_value(sealer, run, member);
                } else {
                    open_entered(sealer, run, member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| open_entered(sealer, run, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::secret::Secret;
    use crate::workflow::{CheckpointAnswer, Choice, ControlCommand};

    #[test]
    fn a_command_is_opened_as_it_was_given_and_shows_nothing_that_was_typed() {
        let (sealer, run) = (Sealer::new(Some(&Secret::new("k"))), RunId(uuid::Uuid::from_u128(1)));
        let mut copied = json!("a value of the run");
        seal_value(&sealer, run, &mut copied).unwrap();
        let copied = copied.as_str().unwrap().to_owned();
        let typed =
            || Arc::new(json!({ "pin": "typed-1", "n": 1_234_567, "list": ["typed-2", null, true], "x": copied }));
        let said =
            CheckpointAnswer { approve: true, values: Some(typed()), approved: vec![1], struck: vec![2], note: None };
        let reason = || Some("typed-3".to_owned());
        let commands = [
            ControlCommand::Adjust { step: "s".into(), item: Some(1), input: typed(), reason: reason() },
            ControlCommand::Resolve {
                step: "s".into(),
                item: None,
                attempt: None,
                choice: Choice::Take { output: typed() },
                reason: reason(),
            },
            ControlCommand::Answer { checkpoint: "chk_1".into(), answer: said },
            ControlCommand::Signal { name: "go".to_owned(), payload: typed(), id: Some(copied.clone()) },
        ];
        for command in commands {
            let mut sealed = serde_json::to_value(&command).unwrap();
            seal_command(&sealer, run, &mut sealed).unwrap();
            let text = sealed.to_string();
            assert!(!text.contains("typed") && !text.contains("1234567") && text.contains(command.name()), "{text}");
            let record = CommandRecord {
                id: uuid::Uuid::nil(),
                run,
                command: sealed,
                by: "ann".to_owned(),
                at: jiff::Timestamp::UNIX_EPOCH,
                answer: None,
            };
            let opened = open_commands(&sealer, run, vec![record]).remove(0).command;
            assert_eq!(serde_json::from_value::<ControlCommand>(opened).unwrap(), command);
        }
    }
}
