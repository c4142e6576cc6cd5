//! Streams the events of a run as server-sent events.
//!
//! Always true: every event of the run becomes one server-sent event, in order and without a gap, whose `id:` is its
//! sequence number, so that `Last-Event-ID` continues exactly where a connection broke; the store is read again only
//! when the client has taken all events that were read before. The number of streams is bounded (`api_streams_max`).
//!
//! `Last-Event-ID` may belong to another run: to the run before a rerun, if the client follows a job, or to a purged
//! run, if the client repeated a start. A run that has fewer events is streamed from its first event. The first block
//! of a response has no data, only the number after which the response continues, so that the client's next
//! `Last-Event-ID` belongs to this run.
//!
//! While nothing happens, a comment is sent as a heartbeat. If the heartbeat cannot be sent, the client has
//! disconnected: the stream ends, the run goes on. When the store does not answer, or the process stops, the stream
//! ends and the client reconnects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::load::{RunForDisplay, resolve_id};
use super::{envelope, event_data};
use crate::admin::error::ApiError;
use crate::admin::event_response::{LAST_EVENT_ID, RECONNECT_AFTER_MS, event_response};
use crate::admin::extract::PathParams;
use crate::admin::state::{Admin, ApiState};
use crate::admin::stream_slots::StreamSlot;
use crate::admin::types::Delivery;
use crate::limits::Limits;
use crate::names::{RunId, Seq};
use crate::store::StoredEvent;
use crate::workflow::{Event, Run, evolve};

/// How often the store is polled for events of a run that another process executes.
const POLL_EVERY: Duration = Duration::from_millis(500);

pub(in crate::admin) async fn stream(
    admin: Admin,
    PathParams(id): PathParams<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = last_event_id(&headers)?;
    let run = resolve_id(&admin, &id).await?;
    let slot = admin.stream_slots.acquire()?;
    follow(&admin, run, after, slot).await
}

/// The sequence number of the last event that the client has; 0 if it names none.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Seq, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(Seq(0)) };
    let seq = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    seq.map(Seq).ok_or_else(|| ApiError::bad("Last-Event-ID is not the sequence number of an event"))
}

/// Streams every event of a run after the sequence number `after`.
pub(super) async fn follow(
    state: &Arc<ApiState>,
    run: RunId,
    after: Seq,
    slot: StreamSlot,
) -> Result<Response, ApiError> {
    // Loaded before the response begins, so that unreadable events are an error response and not a stream that ends
    // early.
    let loaded = RunForDisplay::load(state, run).await?;
    let after = if after > loaded.view.seq { Seq(0) } else { after };
    if loaded.view.seq == after && loaded.run.is_final() {
        // By the SSE standard, 204 tells a client not to reconnect.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let planned_steps = loaded.planned_steps().map(str::to_owned).collect();
    let heartbeat = Limits::ms(state.parts.limits.api_heartbeat_ms);
    let follower = Follower {
        state: state.clone(),
        id: run,
        after,
        planned_steps,
        run_so_far: None,
        unsent: loaded.events.into(),
        heartbeat,
        has_begun: false,
        is_ended: false,
        _slot: slot,
    };
    let chunks = futures_util::stream::unfold(follower, |mut follower| async move {
        let bytes = follower.next().await?;
        Some((bytes, follower))
    });
    Ok(event_response(chunks))
}

struct Follower {
    state: Arc<ApiState>,
    id: RunId,
    /// The sequence number of the last event that the client has.
    after: Seq,
    planned_steps: Vec<String>,
    /// The run's state after the last event that was taken from `unsent`.
    run_so_far: Option<Run>,
    /// Events that were read from the store and not sent yet.
    unsent: VecDeque<StoredEvent>,
    heartbeat: Duration,
    /// Whether the first block was sent.
    has_begun: bool,
    is_ended: bool,
    _slot: StreamSlot,
}

impl Follower {
    /// The next chunk of the response; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Some(Bytes::from(format!("id: {}\nretry: {RECONNECT_AFTER_MS}\n\n", self.after)));
        }
        let quiet_since = Instant::now();
        loop {
            if self.is_ended {
                return None;
            }
            while let Some(stored) = self.unsent.pop_front() {
                if let Some(bytes) = self.encode(stored).await {
                    return Some(bytes);
                }
            }
            if self.run_so_far.as_ref().is_some_and(Run::is_final) {
                return None;
            }
            let until_heartbeat = self.heartbeat.saturating_sub(quiet_since.elapsed());
            if until_heartbeat.is_zero() {
                return Some(Bytes::from_static(b": heartbeat\n\n"));
            }
            let seq = self.run_so_far.as_ref().map_or(Seq(0), Run::seq);
            tokio::select! {
                () = self.state.parts.stopping.cancelled() => return None,
                () = wait_for_event_after(&self.state, self.id, seq, until_heartbeat) => {}
            }
            match self.state.parts.store.events(self.id, seq.next()).await {
                Ok(events) => self.unsent = events.into(),
                Err(error) => {
                    tracing::warn!(%error, run = %self.id, "an event stream ends: the store does not answer");
                    self.is_ended = true;
                    return Some(Bytes::from_static(b": the store does not answer; reconnect\n\n"));
                }
            }
        }
    }

    /// One server-sent event; `None` if the client has it already.
    async fn encode(&mut self, stored: StoredEvent) -> Option<Bytes> {
        let run = match evolve(self.run_so_far.take(), &stored.event) {
            Ok(run) => run,
            Err(error) => {
                tracing::error!(%error, run = %self.id, "an event stream ends: the run's events cannot be read");
                self.is_ended = true;
                return Some(Bytes::from_static(b": the run's events cannot be read\n\n"));
            }
        };
        let seq = stored.seq;
        let mut encoded = None;
        if seq > self.after {
            let (name, more) = self.name_and_data(&run, &stored).await;
            let mut data = json!({
                "run_id": self.id.to_string(), "seq": seq.0, "at": stored.at, "kind": stored.event.kind(),
                "status": run.status(),
            });
            if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
                data.extend(more);
            }
            encoded = Some(Bytes::from(format!("id: {seq}\nevent: {name}\ndata: {data}\n\n")));
        }
        self.run_so_far = Some(run);
        encoded
    }

    /// The name of the server-sent event, and its data in addition to sequence number, time, kind and status.
    async fn name_and_data(&self, run: &Run, stored: &StoredEvent) -> (&'static str, Value) {
        if run.is_final() {
            let data = match RunForDisplay::load(&self.state, self.id).await {
                Ok(loaded) => serde_json::to_value(envelope::envelope(&self.state, &loaded, Delivery::Stream).data),
                Err(error) => Ok(json!({ "error": error.0.detail })),
            };
            return ("end", json!({ "data": data.unwrap_or_default() }));
        }
        if let Event::RunStarted(started) = &stored.event {
            let data = json!({
                "job_id": envelope::job_of(started).to_string(), "plan_id": started.plan,
                "workflow": started.workflow, "steps": self.planned_steps,
            });
            return ("plan", data);
        }
        event_data::name_and_data(&stored.event, self.id)
    }
}

/// Waits until the run has an event after `seq`, or for `within`.
async fn wait_for_event_after(state: &ApiState, run: RunId, seq: Seq, within: Duration) {
    let began = Instant::now();
    match state.parts.engine.wait_for_events_after(run, seq, within).await {
        Some(last) if last > seq => {}
        Some(_) | None => {
            // The engine returns at once for a run that it does not execute: the pause keeps the loop from spinning.
            let pause = POLL_EVERY.min(within);
            tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
        }
    }
}
