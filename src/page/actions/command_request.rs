//! Reads a command to a run from its form.

use serde_json::{Value, json};

use crate::admin::types::{
    AdjustRequest, CancelRequest, PauseRequest, RerunRequest, RetryRequest, SignalRequest, SkipRequest, ValueError,
};
use crate::page::actions::command::Command;
use crate::page::actions::conflict_request::index;
use crate::page::actions::form_state::{typed_lines, wrong};
use crate::page::actions::json_text;
use crate::page::client::segment;
use crate::page::request::Fields;

/// A request to the API.
#[derive(Debug, PartialEq)]
pub(in crate::page) struct CommandCall {
    /// What follows the path of the run.
    pub path: String,
    pub body: Value,
}

/// The command in a form.
///
/// # Errors
/// What is wrong with the fields.
pub(in crate::page) fn read(command: Command, fields: &Fields) -> Result<CommandCall, Vec<ValueError>> {
    let mut errors = Vec::new();
    let reason = fields.get("/reason").map(typed_lines);
    let step = fields.get("step").unwrap_or_default().to_owned();
    if command.needs_step() && step.is_empty() {
        errors.push(wrong("/step", "Choose a step."));
    }
    let mut path = format!("/{}", command.name());
    let body = match command {
        Command::Pause | Command::Resume => json!(PauseRequest { reason, by: None }),
        Command::Cancel => {
            let compensate = match fields.get("undo") {
                Some("yes") => true,
                Some("no") => false,
                _ => {
                    errors.push(wrong("/compensate", "Choose what becomes of what the run did."));
                    false
                }
            };
            json!(CancelRequest { compensate, reason, by: None })
        }
        Command::Skip => json!(SkipRequest { step, reason, by: None }),
        // Without a step: with one, it would also decide a conflict that came up since the page was loaded.
        Command::Retry => json!(RetryRequest::default()),
        Command::Rerun => json!(RerunRequest { from: step, by: None }),
        Command::Adjust => {
            let item = index(fields, "item", &mut errors);
            let input = content(fields, "/input", &mut errors);
            json!(AdjustRequest { step, item, input, reason, by: None })
        }
        Command::Signal => {
            let name = fields.get("name").unwrap_or_default();
            if name.is_empty() {
                errors.push(wrong("name", "Give the name of the signal."));
            }
            path = format!("/signals/{}", segment(name));
            let payload = match fields.get("/payload") {
                None => Value::Null,
                Some(_) => content(fields, "/payload", &mut errors),
            };
            json!(SignalRequest { payload, id: fields.get("/id").map(str::to_owned), by: None })
        }
    };
    if errors.is_empty() { Ok(CommandCall { path, body }) } else { Err(errors) }
}

fn content(fields: &Fields, pointer: &str, errors: &mut Vec<ValueError>) -> Value {
    json_text::parse_to_send(fields.get(pointer).unwrap_or_default()).unwrap_or_else(|why| {
        errors.push(wrong(pointer, why));
        Value::Null
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(command: Command, fields: &[(&str, &str)]) -> Result<CommandCall, Vec<ValueError>> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(command, &Fields(fields))
    }

    #[test]
    fn each_command_is_sent_as_the_api_takes_it() {
        let sent = |command, fields: &[(&str, &str)]| {
            let call = read_with(command, fields).unwrap();
            format!("{} {}", call.path, call.body)
        };
        assert_eq!(sent(Command::Pause, &[("/reason", " odd\r\nvery ")]), r#"/pause {"reason":"odd\nvery"}"#);
        assert_eq!(sent(Command::Cancel, &[("undo", "no")]), r#"/cancel {"compensate":false}"#);
        assert_eq!(sent(Command::Skip, &[("step", "mail")]), r#"/skip {"step":"mail"}"#);
        assert_eq!(sent(Command::Retry, &[("step", "mail")]), "/retry {}");
        assert_eq!(sent(Command::Rerun, &[("step", "mail")]), r#"/rerun {"from":"mail"}"#);
        let adjust = [("step", "pay"), ("item", "2"), ("/input", "{\"amount\": 1.50}")];
        assert_eq!(sent(Command::Adjust, &adjust), r#"/adjust {"step":"pay","item":2,"input":{"amount":1.50}}"#);
        let signal = [("name", "a/b"), ("/payload", ""), ("/id", "d-1")];
        assert_eq!(sent(Command::Signal, &signal), r#"/signals/a%2Fb {"payload":null,"id":"d-1"}"#);
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_at_its_field() {
        let pointers = |command, fields: &[(&str, &str)]| -> Vec<String> {
            read_with(command, fields).unwrap_err().into_iter().map(|error| error.pointer).collect()
        };
        assert_eq!(pointers(Command::Cancel, &[]), ["/compensate"]);
        assert_eq!(pointers(Command::Skip, &[]), ["/step"]);
        assert_eq!(pointers(Command::Adjust, &[("step", "a"), ("item", "x"), ("/input", "{")]), ["item", "/input"]);
        assert_eq!(pointers(Command::Signal, &[("/payload", "{")]), ["name", "/payload"]);
        assert_eq!(pointers(Command::Adjust, &[("step", "a"), ("/input", "{\"a\": \"***\"}")]), ["/input"]);
    }
}
