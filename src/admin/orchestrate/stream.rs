//! What happens to a run, as server-sent events.
//!
//! Always true: every event of the run becomes one frame, in order and without a gap, whose `id:` is its place, so that
//! `Last-Event-ID` goes on exactly where a connection broke; nothing is read ahead of the client. How many streams
//! there are is bounded (`api_streams_max`).
//!
//! When nothing happens a comment goes out now and then, by which a client that is gone is found out: its stream ends,
//! its run does not. When the store does not answer, or the process ends, the stream ends and the client comes again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{Seen, envelope, find};
use crate::admin::extract::Named;
use crate::admin::problem::Refusal;
use crate::admin::types::Delivery;
use crate::admin::{Admin, Shared};
use crate::limits::Limits;
use crate::names::{RunId, Seq};
use crate::store::StoredEvent;
use crate::workflow::{Event, Outcome, Run, evolve};

/// Where a client goes on.
const LAST_EVENT_ID: &str = "last-event-id";
/// After a break, a client comes again so soon.
const COME_AGAIN_MS: u64 = 500;
/// A run that nobody here hears of is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The places for streams.
pub(in crate::admin) struct Streams(Arc<Semaphore>, u64);

/// One of them.
pub(in crate::admin) struct Place(#[allow(dead_code)] OwnedSemaphorePermit); // held while the stream lives

impl Streams {
    pub(in crate::admin) fn new(limits: &Limits) -> Self {
        let places = usize::try_from(limits.api_streams_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(places)), limits.api_streams_max)
    }
    /// A place, or a refusal: nobody waits for one.
    pub(in crate::admin) fn place(&self) -> Result<Place, Refusal> {
        self.0.clone().try_acquire_owned().map(Place).map_err(|_| {
            let detail = format!("there are {} streams already (api_streams_max)", self.1);
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many-streams", "There are too many streams", detail)
                .hint("ask without `stream`, or look again with GET")
        })
    }
}

pub(in crate::admin) async fn stream(
    admin: Admin,
    Named(id): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let after = match headers.get(LAST_EVENT_ID) {
        None => 0,
        Some(value) => {
            let place = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            place.ok_or_else(|| Refusal::bad("Last-Event-ID is not a place of an event"))?
        }
    };
    let run = find(&admin, &id).await?;
    let place = admin.streams.place()?;
    follow(&admin, run, Seq(after), place).await
}

/// Everything of a run after a place.
pub(super) async fn follow(shared: &Arc<Shared>, run: RunId, after: Seq, place: Place) -> Result<Response, Refusal> {
    // What cannot be read is a problem, not a stream that breaks off.
    let seen = Seen::read(shared, run).await?;
    if seen.view.seq <= after && seen.run.is_final() {
        // A client that comes again after the end is told so (and stops).
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let planned = seen.planned().map(str::to_owned).collect();
    let heartbeat = Limits::ms(shared.parts.limits.api_heartbeat_ms);
    let follower = Follower {
        shared: shared.clone(),
        id: run,
        after,
        planned,
        folded: None,
        read: seen.events.into(),
        heartbeat,
        greeted: false,
        ended: false,
        _place: place,
    };
    let frames = futures_util::stream::unfold(follower, |mut follower| async move {
        let bytes = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), follower))
    });
    let mut response = Body::from_stream(frames).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy in between must not wait for more.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Follower {
    shared: Arc<Shared>,
    id: RunId,
    /// What the client has.
    after: Seq,
    planned: Vec<String>,
    folded: Option<Run>,
    /// Read and not sent.
    read: VecDeque<StoredEvent>,
    heartbeat: Duration,
    greeted: bool,
    ended: bool,
    _place: Place,
}

impl Follower {
    /// The next bytes; `None` is the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from(format!("retry: {COME_AGAIN_MS}\n\n")));
        }
        let quiet_since = Instant::now();
        loop {
            if self.ended {
                return None;
            }
            while let Some(stored) = self.read.pop_front() {
                if let Some(frame) = self.frame(stored).await {
                    return Some(frame);
                }
            }
            if self.folded.as_ref().is_some_and(Run::is_final) {
                return None;
            }
            let left = self.heartbeat.saturating_sub(quiet_since.elapsed());
            if left.is_zero() {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
            let seq = self.folded.as_ref().map_or(Seq(0), Run::seq);
            tokio::select! {
                () = self.shared.parts.ending.cancelled() => return None,
                () = beyond(&self.shared, self.id, seq, left) => {}
            }
            match self.shared.parts.store.events(self.id, seq.next()).await {
                Ok(events) => self.read = events.into(),
                Err(error) => {
                    tracing::warn!(%error, run = %self.id, "a stream ends: the store does not answer");
                    self.ended = true;
                    return Some(Bytes::from_static(b": the store does not answer, come again\n\n"));
                }
            }
        }
    }

    /// The frame of one event; none where the client has it.
    async fn frame(&mut self, stored: StoredEvent) -> Option<Bytes> {
        let run = match evolve(self.folded.take(), &stored.event) {
            Ok(run) => run,
            Err(error) => {
                tracing::error!(%error, run = %self.id, "a stream ends: the run's events cannot be read");
                self.ended = true;
                return Some(Bytes::from_static(b": the run's events cannot be read\n\n"));
            }
        };
        let seq = stored.seq;
        let mut shown = None;
        if seq > self.after {
            let (name, more) = self.told(&run, &stored).await;
            let mut data = json!({
                "run_id": self.id.to_string(), "seq": seq.0, "at": stored.at, "kind": stored.event.kind(),
                "status": run.status(),
            });
            if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
                data.extend(more);
            }
            shown = Some(Bytes::from(format!("id: {seq}\nevent: {name}\ndata: {data}\n\n")));
        }
        self.folded = Some(run);
        shown
    }

    /// The name of an event's frame, and what it says beside place, time, kind and status.
    async fn told(&self, run: &Run, stored: &StoredEvent) -> (&'static str, Value) {
        if run.is_final() {
            let data = match Seen::read(&self.shared, self.id).await {
                Ok(seen) => serde_json::to_value(seen.envelope(&self.shared, Delivery::Stream).data),
                Err(refusal) => Ok(json!({ "error": refusal.0.detail })),
            };
            return ("end", json!({ "data": data.unwrap_or_default() }));
        }
        match &stored.event {
            Event::RunStarted(started) => (
                "plan",
                json!({
                    "job_id": envelope::job_of(started).to_string(), "plan_id": started.plan,
                    "workflow": started.workflow, "steps": self.planned,
                }),
            ),
            Event::StepStarted(started) => (
                "step_started",
                json!({ "step_id": started.step, "item": started.item, "part": started.part, "attempt": started.attempt }),
            ),
            Event::StepFinished(finished) => (
                "step_finished",
                json!({
                    "step_id": finished.step, "item": finished.item, "part": finished.part,
                    "attempt": finished.attempt, "outcome": outcome(&finished.outcome),
                }),
            ),
            Event::RetryScheduled(retry) => (
                "step_retrying",
                json!({
                    "step_id": retry.step, "item": retry.item, "part": retry.part, "attempt": retry.attempt,
                    "unknown": retry.unknown, "why": retry.why, "next": retry.at,
                }),
            ),
            Event::StepComputed { step, .. } => ("step_finished", json!({ "step_id": step, "outcome": "done" })),
            Event::StepSkipped { step, item, reason } => {
                ("step_finished", json!({ "step_id": step, "item": item, "outcome": "skipped", "why": reason }))
            }
            Event::FailReached { step, .. } => ("step_finished", json!({ "step_id": step, "outcome": "done" })),
            Event::WaitBegan { step, until, signal } => {
                ("step_started", json!({ "step_id": step, "until": until, "signal": signal }))
            }
            Event::WaitEnded { step, .. } => ("step_finished", json!({ "step_id": step, "outcome": "done" })),
            Event::ChildStarted { step, item, child, workflow, .. } => (
                "step_started",
                json!({ "step_id": step, "item": item, "child": child.to_string(), "workflow": workflow }),
            ),
            Event::ChildEnded { step, item, child, status, note, .. } => (
                "step_finished",
                json!({ "step_id": step, "item": item, "child": child.to_string(), "outcome": status, "why": note }),
            ),
            Event::FallbackTaken { step, by, failure } => {
                ("step_retrying", json!({ "step_id": step, "fallback": by, "why": failure.message }))
            }
            Event::CheckpointOpened(asked) => {
                ("checkpoint", json!({ "checkpoint": envelope::checkpoint(asked, self.id) }))
            }
            Event::CheckpointEscalated { checkpoint, who, until, on_timeout } => {
                let said = json!({ "escalated": checkpoint, "who": who, "until": until, "on_timeout": on_timeout });
                ("checkpoint", said)
            }
            Event::Paused { conflict, .. } => {
                ("conflict", json!({ "conflict": envelope::conflict(conflict, self.id) }))
            }
            Event::CheckpointAnswered { checkpoint, said, by } => {
                ("progress", json!({ "checkpoint_id": checkpoint, "approve": said.approve, "by": by }))
            }
            Event::Resolved { step, item, choice, by, reason, .. } => {
                ("progress", json!({ "step_id": step, "item": item, "choice": choice.name(), "by": by, "why": reason }))
            }
            Event::PauseOrdered { by, reason } | Event::Resumed { by, reason } | Event::Cancelled { by, reason } => {
                ("progress", json!({ "by": by, "why": reason }))
            }
            Event::CancelOrdered { by, compensate, reason } => {
                ("progress", json!({ "by": by, "compensate": compensate, "why": reason }))
            }
            Event::InputAdjusted { step, item, by, reason, .. } => {
                ("progress", json!({ "step_id": step, "item": item, "by": by, "why": reason }))
            }
            Event::RetriedNow { step, item, by } => ("progress", json!({ "step_id": step, "item": item, "by": by })),
            Event::SignalReceived { name, by, .. } => ("progress", json!({ "signal": name, "by": by })),
            Event::LockQueued { step, item, name }
            | Event::LockTaken { step, item, name }
            | Event::LockLeft { step, item, name } => {
                ("progress", json!({ "step_id": step, "item": item, "lock": name }))
            }
            Event::Probed { step, item, attempt, done, .. } => {
                ("progress", json!({ "step_id": step, "item": item, "attempt": attempt, "done": done }))
            }
            Event::FanOutOpened { step, items, .. } => ("progress", json!({ "step_id": step, "items": items.len() })),
            Event::ResultTaken(taken) => {
                ("progress", json!({ "step_id": taken.step, "origin": taken.origin.to_string() }))
            }
            Event::Responded { answer, .. } | Event::PendingAnswered { answer, .. } => {
                ("progress", json!({ "answer": answer.status }))
            }
            Event::AnswerFailed { failure } | Event::Failed { failure } => {
                ("progress", json!({ "why": failure.message }))
            }
            Event::Abandoned { to, reason } => ("progress", json!({ "to": to, "why": reason })),
            Event::CompensationBegan { undo } => {
                let undo: Vec<Value> = undo.iter().map(|together| json!(together)).collect();
                ("progress", json!({ "undo": undo }))
            }
            Event::Superseded(superseded) => {
                let (by, from) = (superseded.by.to_string(), &superseded.from);
                ("progress", json!({ "superseded_by": by, "from": from, "by": superseded.who }))
            }
            Event::Completed {} | Event::DeadlinePassed {} => ("progress", Value::Null),
        }
    }
}

/// Waits until there is something to read, or for so long.
async fn beyond(shared: &Shared, run: RunId, seq: Seq, within: Duration) {
    let began = Instant::now();
    match shared.parts.desk.beyond(run, seq, within).await {
        Some(last) if last > seq => {}
        Some(_) | None => {
            // Whoever says "nothing" at once must not be asked in a circle.
            let least = LOOK_EVERY.min(within);
            tokio::time::sleep(least.saturating_sub(began.elapsed())).await;
        }
    }
}

fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::NotDone { .. } => "not_done",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Unfit { .. } => "unfit",
        Outcome::Failed { .. } => "failed",
        Outcome::Rehearsed { .. } => "rehearsed",
    }
}
