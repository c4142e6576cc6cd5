//! The messages to webhooks which report that a run waits for a person.
//!
//! Always true: a message is stored in the same append as its event; it names the run, the step and the question, and
//! contains no body, no answer and no secret.

use serde_json::{Value, json};

use super::state::Machine;
use crate::names::ServiceName;
use crate::store::WebhookMessage;
use crate::workflow::{CheckpointEvent, ConflictEvent, ControlEvent, Event, Mode, Plan, Run, ShownTexts};

impl Machine {
    /// Adds a message for an event, if the workflow has a `notify` and events of this kind are reported.
    pub(super) fn notify(&mut self, event: &Event) {
        let Some(url) = &self.plan.notify else { return };
        if self.run.mode() != Mode::Real || !self.log.is_kept() {
            return;
        }
        let Some(details) = details_of(event, &self.plan, &self.run) else { return };
        let service = url.service().map(ServiceName::new);
        let base = service.as_ref().and_then(|service| self.decision_inputs.base(service));
        let path = match url.evaluate(&self.decision_inputs.plain(&self.run)) {
            Ok(path) => path,
            Err(error) => {
                tracing::error!(
                    run = %self.run.id(), %error,
                    "the URL of `notify` cannot be evaluated: no message is sent"
                );
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
        if let (Some(body), Value::Object(details)) = (body.as_object_mut(), details) {
            body.extend(details);
        }
        let (destination, url) =
            (url.source().to_owned(), base.map(|base| format!("{base}{path}")).unwrap_or_default());
        let (number, run, path, at) = (0, self.run.id(), Some(path), self.now);
        let message = WebhookMessage { number, run, destination, service, by: None, path, url, body, at };
        self.log.push_webhook_message(message);
        self.require_durable(self.run.seq());
    }
}

/// The content of the message about an event; `None` for an event without a message.
fn details_of(event: &Event, plan: &Plan, run: &Run) -> Option<Value> {
    Some(match event {
        Event::Conflict(ConflictEvent::Paused { conflict, .. }) => json!({
            "event": "paused",
            "step": conflict.step.as_str(),
            "item": conflict.item,
            "conflict": conflict.kind.as_str(),
            "choices": conflict.choices,
        }),
        Event::Control(ControlEvent::PauseRequested { by, .. }) => json!({ "event": "paused", "by": by }),
        Event::Checkpoint(CheckpointEvent::Opened(opened)) => json!({
            "event": "checkpoint_opened",
            "checkpoint_id": opened.checkpoint.as_str(),
            "step": opened.step.as_str(),
            "item": opened.item,
            "risk": opened.risk.as_str(),
            "question": ShownTexts::of(plan, run).question(opened),
            "who": opened.who,
            "until": opened.until.map(|until| until.to_string()),
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
