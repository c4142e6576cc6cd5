//! What performs the outputs of a run's machine: calls, looks at locks, appends, messages to webhooks.
//!
//! Always true: nothing in here decides what a run does next. A call goes through its `service` (breaker, rate, places)
//! and the `client`; an append through the `writer`, which keeps what must be in the store before it; a webhook is told by
//! `webhooks` after its message is in the store.

pub(super) mod breaker;
pub(super) mod client;
pub(super) mod connections;
pub(super) mod decode;
pub(super) mod event_sealer;
pub(super) mod locks;
pub(super) mod outgoing;
pub(super) mod seal;
pub(super) mod service;
pub(super) mod webhooks;
pub(super) mod writer;
