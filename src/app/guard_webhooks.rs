//! Posts what guards did to the webhooks of their routes (`guard.notify`).

use std::sync::Arc;

use serde_json::json;

use crate::engine::{Engine, GuardMessage};
use crate::flag::GuardWebhook;
use crate::ladder::{GuardActed, GuardListener};
use crate::names::PlanSet;

/// Hands each action to the engine, which sends messages to webhooks.
pub(super) struct GuardWebhooks(pub Arc<Engine>);

impl GuardListener for GuardWebhooks {
    fn acted(&self, GuardActed { record, route, requested, is_repeated }: GuardActed) {
        let Some(webhook) = route.guard.as_ref().and_then(|guard| guard.notify.as_ref()) else { return };
        let GuardWebhook { source, service, path } = webhook;
        let (destination, service, path) = (source.clone(), service.clone(), path.clone());
        let Some(guard) = &record.guard else {
            let Some(candidate) = &record.candidate else { return };
            let body = json!({
                "object": "guard",
                "id": format!("guard-{}-candidate-{}", candidate.route, record.at.as_microsecond()),
                "event": "candidate_stopped",
                "route": route.id.as_str(),
                "requested": requested.as_str(),
                "from": record.from,
                "to": record.to,
                "candidate": candidate.candidate.as_ref().map(PlanSet::label),
                "in_force": candidate.in_force.as_ref().map(PlanSet::label),
                "reason": record.reason,
                "by": record.by,
                "at": record.at.to_string(),
                "repeated": is_repeated,
            });
            return self.0.post(GuardMessage { destination, service, path, body });
        };
        let body = json!({
            "object": "guard",
            // The same for a message that is sent again.
            "id": format!("guard-{}-{}", guard.route, record.at.as_microsecond()),
            "event": guard.action.as_str(),
            "route": route.id.as_str(),
            "requested": requested.as_str(),
            "from": record.from,
            "to": record.to,
            "condition": guard.condition.map(|condition| condition.as_str()),
            "bad": guard.bad,
            "of": guard.of,
            "runs": guard.runs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "reason": record.reason,
            "by": record.by,
            "at": record.at.to_string(),
            "repeated": is_repeated,
        });
        self.0.post(GuardMessage { destination, service, path, body });
    }
}
