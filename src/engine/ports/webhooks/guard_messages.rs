//! Sends the messages about what the guards of routes did, which are about no run and not in the store.
//!
//! Always true: for each destination at most `notices_waiting_max` messages wait; what is not delivered when the
//! process ends is lost here. Whoever needs it posts it again at the next start, with the same `id`.

use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::queues::{DeliveryResult, Queues};
use super::{bounds, count_outcome, deliver, receiver_of, service, until};
use crate::engine::context::Core;
use crate::engine::ports::connections::ConnectionPool;
use crate::engine::ports::guard_message_queue::log_end;
use crate::store::WebhookMessage;

/// Sends these messages until the process ends.
pub(in crate::engine) async fn send(core: &Arc<Core>) {
    let mut queues = Queues::new(bounds(core));
    let connections = ConnectionPool::new(&core.files.limits);
    let mut in_flight: JoinSet<(Arc<WebhookMessage>, DeliveryResult)> = JoinSet::new();
    loop {
        for message in core.ports.guard_messages.take() {
            if let Some(dropped) = queues.add(message, Instant::now()) {
                log_end(&dropped, "dropped");
            }
        }
        let files = core.files.snapshot.load_full();
        for message in queues.start_due(Instant::now()) {
            let connections = connections.clone();
            let service_limits = message.service.as_ref().and_then(|service| files.services.get(service));
            let receiver = receiver_of(&message, service_limits.map(|limits| &**limits), &core.files.limits);
            in_flight.spawn(async move {
                let attempt = match receiver {
                    Ok(receiver) => deliver(&connections, &message, &receiver).await,
                    Err(not_sent) => not_sent,
                };
                (message, attempt)
            });
        }
        let next = queues.next_due(Instant::now());
        tokio::select! {
            () = core.ports.guard_messages.added() => {}
            Some(sent) = in_flight.join_next() => match sent {
                Ok((message, attempt)) => record_result(core, &mut queues, &message, &attempt),
                Err(error) => tracing::error!(%error, "the task of a delivery to a webhook failed"),
            },
            () = until(next) => {}
        }
    }
}

fn record_result(core: &Core, queues: &mut Queues, message: &WebhookMessage, attempt: &DeliveryResult) {
    let after = queues.record_result(message, attempt, Instant::now(), core.process.clock.now());
    let (id, service) = (message.body.get("id").and_then(Value::as_str), service(message));
    match attempt {
        DeliveryResult::Delivered => count_outcome(message, "sent"),
        DeliveryResult::Refused(why) | DeliveryResult::Failed(why) => {
            metrics::counter!("pointsman_notice_failures_total", "service" => service.clone()).increment(1);
            let again_in = after.pause.unwrap_or_default();
            tracing::warn!(id, service, why, ?again_in, "a message to a webhook was not delivered");
        }
    }
    for given_up in after.given_up {
        log_end(&given_up, "given_up");
    }
}
