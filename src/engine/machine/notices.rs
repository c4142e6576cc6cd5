//! What a webhook is told of a run: that it waits for a person.
//!
//! Always true: a message goes in with the events that it tells of; it names the run, the step and the question, and holds
//! no body, no answer and no secret.

use serde_json::{Value, json};

use super::state::Machine;
use crate::names::ServiceName;
use crate::store::Notice;
use crate::workflow::{CheckpointEvent, ConflictEvent, ControlEvent, Event, Mode};

impl Machine {
    /// Records a message, where the workflow wants to be told of such an event.
    pub(super) fn notify(&mut self, event: &Event) {
        let Some(url) = &self.plan.notify else { return };
        if self.run.mode() != Mode::Real || !self.log.is_durable() {
            return;
        }
        let Some(about) = about(event) else { return };
        let service = url.service().map(ServiceName::new);
        let Some(base) = service.as_ref().and_then(|service| self.world.base(service)) else {
            tracing::error!(run = %self.run.id(), url = url.source(), "the service of `notify` has gone: nobody is told");
            return;
        };
        let path = match url.evaluate(&self.world.plain(&self.run)) {
            Ok(path) => path,
            Err(error) => {
                tracing::error!(run = %self.run.id(), %error, "`notify` has no URL: nobody is told");
                return;
            }
        };
        let mut body = json!({
            "object": "notice",
            "run_id": self.run.id().to_string(),
            "workflow": self.run.started().workflow.as_str(),
            "seq": self.run.seq(),
            "at": self.now.to_string(),
        });
        if let (Some(body), Value::Object(about)) = (body.as_object_mut(), about) {
            body.extend(about);
        }
        let (destination, url) = (url.source().to_owned(), format!("{base}{path}"));
        let (number, run, at) = (0, self.run.id(), self.now);
        self.log.notice(Notice { number, run, destination, service, by: None, url, body, at });
        self.wants_stored(self.run.seq());
    }
}

/// What is told of an event; nothing of most.
fn about(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Conflict(ConflictEvent::Paused { conflict, .. }) => json!({
            "event": "paused",
            "step": conflict.step.as_str(),
            "item": conflict.item,
            "conflict": conflict.kind.as_str(),
            "choices": conflict.choices,
        }),
        Event::Control(ControlEvent::PauseOrdered { by, .. }) => json!({ "event": "paused", "by": by }),
        Event::Checkpoint(CheckpointEvent::Opened(asked)) => json!({
            "event": "checkpoint_opened",
            "checkpoint_id": asked.checkpoint.as_str(),
            "step": asked.step.as_str(),
            "item": asked.item,
            "risk": asked.risk.as_str(),
            "question": asked.question,
            "who": asked.who,
            "until": asked.until.map(|until| until.to_string()),
        }),
        Event::Checkpoint(CheckpointEvent::Escalated { checkpoint, who, until, on_timeout: _ }) => json!({
            "event": "checkpoint_escalated",
            "checkpoint_id": checkpoint.as_str(),
            "who": who,
            "until": until.map(|until| until.to_string()),
        }),
        _ => return None,
    })
}
