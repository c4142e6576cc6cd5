//! The stored form of answers to commands that came through the store.
//!
//! Always true: a refusal is read back as it was written; a refusal of a kind that this version does not know is read
//! back as text.

use serde_json::{Value, json};

use crate::workflow::CommandRefusal;

/// The answer to a command that was carried out.
pub(in crate::engine) fn done() -> Value {
    json!({ "done": true })
}

/// The answer to a command that this version cannot read.
pub(in crate::engine) fn unreadable(error: &serde_json::Error) -> Value {
    refused(&CommandRefusal::NotApplicable(format!(
        "the process that executes the run cannot read the command: {error}"
    )))
}

/// The answer to a command that was refused.
pub(in crate::engine) fn refused(refusal: &CommandRefusal) -> Value {
    let text = || json!({ "not_applicable": refusal.to_string() });
    let stored = match refusal {
        CommandRefusal::NotDue(_) => text(), // has no stored form of its own
        refusal => serde_json::to_value(refusal).unwrap_or_else(|_| text()),
    };
    json!({ "refused": stored })
}

/// Reads a stored refusal; `None` where it says that there is no such run.
pub(in crate::engine) fn refusal_of(stored: &Value) -> Option<CommandRefusal> {
    match stored.as_str() {
        // The store itself writes these two.
        Some("the run has ended") => return Some(CommandRefusal::Ended),
        Some("there is no such run") => return None,
        Some(_) | None => {}
    }
    let of_unknown_kind =
        |_| CommandRefusal::NotApplicable(stored.as_str().map_or_else(|| stored.to_string(), str::to_owned));
    Some(serde_json::from_value(stored.clone()).unwrap_or_else(of_unknown_kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Seq;
    use crate::workflow::CheckpointAnswer;

    #[test]
    fn a_refusal_is_read_back_from_the_store_as_it_was_written() {
        let said = CheckpointAnswer { approve: true, values: None, approved: vec![1], struck: Vec::new(), note: None };
        for refusal in [
            CommandRefusal::Ended,
            CommandRefusal::NoSuchStep,
            CommandRefusal::NoSuchCheckpoint,
            CommandRefusal::NotYours("bob decides".into()),
            CommandRefusal::NotApplicable("it is not paused".into()),
            CommandRefusal::BadValues(vec!["/a: is no string".into()]),
            CommandRefusal::AnsweredBefore { by: "bob".into(), said: Box::new(said), seq: Seq(7) },
        ] {
            assert_eq!(refusal_of(&refused(&refusal)["refused"]), Some(refusal));
        }
        assert_eq!(
            refusal_of(&refused(&CommandRefusal::NotDue("x"))["refused"]),
            Some(CommandRefusal::NotApplicable("not due: x".into()))
        );
        let newer = refusal_of(&json!({ "later": 1 }));
        assert!(
            matches!(newer, Some(CommandRefusal::NotApplicable(text)) if text.contains("later")),
            "a refusal of a newer version is read back as text"
        );
        assert_eq!(refusal_of(&crate::store::run_has_ended()["refused"]), Some(CommandRefusal::Ended));
        assert_eq!(refusal_of(&crate::store::no_such_run()["refused"]), None);
        assert_eq!(refusal_of(&json!("the run has ended")), Some(CommandRefusal::Ended));
        assert_eq!(refusal_of(&json!("there is no such run")), None);
    }
}
