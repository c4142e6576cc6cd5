use super::*;
use crate::workflow::{ConflictKind, StepPart};

const UNGROUPED: [&str; 4] = ["run_started", "step_started", "step_finished", "retry_scheduled"];

fn all_kinds() -> Vec<&'static str> {
    let groups = [
        StepEvent::KINDS,
        WaitEvent::KINDS,
        LockEvent::KINDS,
        ChildEvent::KINDS,
        CheckpointEvent::KINDS,
        ConflictEvent::KINDS,
        ControlEvent::KINDS,
        AnswerEvent::KINDS,
        EndingEvent::KINDS,
    ];
    UNGROUPED.into_iter().chain(groups.into_iter().flatten().copied()).collect()
}

fn refusal(json: &str) -> String {
    serde_json::from_str::<Event>(json).unwrap_err().to_string()
}

#[test]
fn every_kind_is_read_by_its_group() {
    let all = all_kinds();
    assert_eq!(
        all.iter().collect::<std::collections::BTreeSet<_>>().len(),
        all.len(),
        "no two kinds have the same name"
    );
    assert_eq!(all.len(), 39);
    for kind in all {
        // No event's content is a number, so this error shows that the kind is known and only its content is refused.
        let why = refusal(&format!(r#"{{"{kind}":7}}"#));
        assert!(why.contains("invalid type: integer"), "{kind}: {why}");
    }
}

#[test]
fn an_unknown_kind_is_named() {
    assert!(refusal(r#"{"step_forgotten":{}}"#).contains("unknown kind of event `step_forgotten`"));
}

#[test]
fn an_event_is_written_as_its_kind_and_its_content() {
    let queued = LockEvent::Queued { step: "take".into(), item: Some(3), name: "sku:a".into() };
    let written = r#"{"lock_queued":{"step":"take","item":3,"name":"sku:a"}}"#;
    assert_eq!(serde_json::to_string(&Event::Lock(queued.clone())).unwrap(), written);
    assert_eq!(serde_json::from_str::<Event>(written).unwrap(), Event::Lock(queued));
    let completed = r#"{"completed":{}}"#;
    assert_eq!(serde_json::from_str::<Event>(completed).unwrap(), Event::Ending(EndingEvent::Completed {}));
    assert_eq!(serde_json::to_string(&Event::Ending(EndingEvent::Completed {})).unwrap(), completed);
}

#[test]
fn numbers_keep_their_digits_within_a_group() {
    let written = r#"{"step_computed":{"step":"s","output":{"n":123456789012345678901234567890.10,"i":7}}}"#;
    let read: Event = serde_json::from_str(written).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), written);
}

#[test]
fn a_resolution_without_a_part_is_of_the_step_itself() {
    let resolved = r#"{"resolved":{"step":"s","item":2,"choice":"skip","by":"ann","reason":null}}"#;
    let Event::Conflict(ConflictEvent::Resolved { item: Some(2), part: StepPart::Do, .. }) =
        serde_json::from_str(resolved).unwrap()
    else {
        panic!("not read as a resolution of item 2");
    };
}

/// A new kind of conflict needs a new version of events: an older binary cannot read the kind, and it refuses a store
/// only if the version of its events is newer than the binary's own.
#[test]
fn a_new_kind_of_conflict_needs_a_new_version() {
    let names = serde_json::from_str::<ConflictKind>(r#""unknown""#).unwrap_err().to_string();
    let names = names.split_once("expected one of ").unwrap().1.split_once(" at line").unwrap().0.to_owned();
    let expected = "`outcome_unknown`, `refused`, `schema`, `expression`, `undo_failed`, `undo_unknown`, \
                    `attempts_used_up`, `busy`, `deadlock`, `child_failed`, `answer`, `missing`";
    assert_eq!((Event::VERSION, names.as_str()), (3, expected));
}
