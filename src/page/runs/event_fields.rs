//! The fields of recorded events, by name: the page reads events as JSON, as any other client of the API.

use std::collections::HashMap;

use serde_json::Value;

use crate::admin::types::EventRow;

/// A step of a run, or one item of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) struct Subject<'a> {
    pub step: &'a str,
    pub item: Option<u64>,
}

/// What an event says: events are tagged with their kind.
pub(in crate::page) fn content(row: &EventRow) -> &Value {
    row.event.get(&row.kind).unwrap_or(&row.event)
}

/// A text of an object.
pub(in crate::page) fn text<'a>(fields: &'a Value, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

/// How a call ended: the name of the outcome and its fields.
pub(in crate::page) fn outcome(fields: &Value) -> Option<(&str, &Value)> {
    let (name, fields) = fields.get("outcome")?.as_object()?.iter().next()?;
    Some((name.as_str(), fields))
}

/// The steps that events are about. An answer names only its checkpoint, so the checkpoints' steps are looked up.
pub(in crate::page) struct Subjects<'a>(HashMap<&'a str, Subject<'a>>);

impl<'a> Subjects<'a> {
    pub(in crate::page) fn of(rows: &'a [EventRow]) -> Self {
        let opened = rows.iter().filter(|row| row.kind == "checkpoint_opened").filter_map(|row| {
            let asked = content(row);
            Some((text(asked, "checkpoint")?, named_in(asked)?))
        });
        Self(opened.collect())
    }

    /// The step that an event is about; `None` where it is about the run.
    pub(in crate::page) fn subject(&self, row: &'a EventRow) -> Option<Subject<'a>> {
        let fields = content(row);
        let named = named_in(fields).or_else(|| named_in(fields.get("conflict")?));
        named.or_else(|| self.0.get(text(fields, "checkpoint")?).copied())
    }
}

fn named_in(fields: &Value) -> Option<Subject<'_>> {
    Some(Subject { step: text(fields, "step")?, item: fields.get("item").and_then(Value::as_u64) })
}

#[cfg(test)]
pub(in crate::page) mod tests {
    use serde_json::json;

    use super::*;

    /// An event of a run that began at noon.
    pub(in crate::page) fn event(seq: u64, kind: &str, fields: Value) -> EventRow {
        let at = "2026-12-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let at = at + jiff::SignedDuration::from_secs(i64::try_from(seq).unwrap());
        EventRow { seq, at, kind: kind.to_owned(), event: json!({ kind: fields }) }
    }

    #[test]
    fn an_answer_belongs_to_the_step_that_asked() {
        let rows = [
            event(1, "checkpoint_opened", json!({ "checkpoint": "chk_1", "step": "ask", "item": 3 })),
            event(2, "checkpoint_answered", json!({ "checkpoint": "chk_1", "by": "ann" })),
            event(3, "paused", json!({ "conflict": { "step": "pay", "item": null } })),
            event(4, "completed", json!({})),
        ];
        let subjects = Subjects::of(&rows);
        let of = |at: usize| subjects.subject(&rows[at]);
        assert_eq!(of(1), Some(Subject { step: "ask", item: Some(3) }));
        assert_eq!(of(2), Some(Subject { step: "pay", item: None }));
        assert_eq!(of(3), None);
    }
}
