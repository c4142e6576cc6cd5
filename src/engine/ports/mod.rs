//! Performs the outputs of a run's machine: calls, queries of locks, appends, messages to webhooks.
//!
//! Always true: no port decides what a run does next. A call goes through its `service` (breaker, rate, concurrency
//! limit) and the `client`. An append goes through the `writer`, which first stores the run's plan and key if the store
//! does not have them. A message to a webhook is sent by `webhooks` after it is in the store.

pub(super) mod breaker;
pub(super) mod client;
pub(super) mod command_sealer;
pub(super) mod connections;
pub(super) mod decode;
pub(super) mod destination;
pub(super) mod echoed_secrets;
pub(super) mod event_sealer;
pub(super) mod guard_message_queue;
mod head_time;
pub(super) mod locks;
pub(super) mod opened_events;
pub(super) mod outgoing;
pub(super) mod pooled_connection;
pub(super) mod protocol;
pub(super) mod repeating_client;
pub(super) mod reply;
pub(super) mod seal;
pub(super) mod sealed_values;
pub(super) mod service;
mod streamed_reply;
pub(super) mod webhooks;
pub(super) mod writer;
