//! `GET /api/v2/events`: tells clients what has changed of runs, routes, evidence, kill switch and files, so that they
//! read it again.
//!
//! Always true: events are numbered in each process, and a client that names the last one it has gets all later ones,
//! or is told (`reset`) to read everything again: never a gap without a word. What a client has not taken stays in
//! the ring that all share, so that a slow client costs no memory. One task reads the store for all clients, and none
//! while nobody listens; requests notice nothing of it. The number of streams is bounded (`api_streams_max`).
//!
//! When the store does not answer, the stream goes on and says so (`store`); changes of runs are told when it answers
//! again. When the process stops, the stream ends, and the client reconnects.

mod change;
mod feed;
mod flag_view;
mod ring;
mod sources;
mod told_runs;

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

pub(super) use self::feed::ChangeFeed;
#[cfg(test)]
pub(super) use self::ring::KEPT_MAX;

use self::change::{Change, Interest};
use self::feed::{Listener, Progress};
use super::error::ApiError;
use super::event_response::{LAST_EVENT_ID, RECONNECT_AFTER_MS, event_response};
use super::extract::QueryParams;
use super::state::{Admin, ApiState};
use super::stream_slots::StreamSlot;
use super::types::{ChangeData, ResetReason, StoreChange, StreamReset};
use crate::limits::Limits;
use crate::names::RunId;

/// The most runs that one client names.
const RUNS_MAX: usize = 64;
/// The most changes that are sent at once.
const CHANGES_AT_ONCE: usize = 256;
/// How long a stream lasts: then the client reconnects, and whether it may read is checked again.
const STREAM_LASTS: Duration = Duration::from_secs(15 * 60);
/// What a client can choose.
const NAMES: [&str; 6] = ["run", "waiting", "route", "evidence", "freeze", "files"];

/// Which events to stream.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// Of runs, only these and those that they started as steps; at most 64, separated by commas.
    #[schemars(regex(pattern = r"^run_[0-9a-f]{32}(,run_[0-9a-f]{32})*$"))]
    run: Option<String>,
    /// Only these events, separated by commas; `runs` comes with `run`, and `reset` and `store` always.
    #[schemars(regex(
        pattern = r"^(run|waiting|route|evidence|freeze|files)(,(run|waiting|route|evidence|freeze|files))*$"
    ))]
    events: Option<String>,
    /// The id of the last event that the client has, where it cannot send `Last-Event-ID`, which comes first.
    after: Option<String>,
}

pub(super) async fn stream(
    admin: Admin,
    QueryParams(query): QueryParams<ChangesQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let interest = Interest { runs: parse_runs(query.run.as_deref())?, names: parse_names(query.events.as_deref())? };
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned).or(query.after);
    let slot = admin.stream_slots.acquire()?;
    let listener = Listener::new(&admin.changes, &admin.parts, interest.runs.clone().unwrap_or_default());
    let client = Client {
        state: admin.0.clone(),
        listener,
        updates: admin.changes.progress(),
        interest,
        last: last.filter(|id| !id.is_empty()),
        number: None,
        has_begun: false,
        heartbeat: Limits::ms(admin.parts.limits.api_heartbeat_ms),
        ends: Instant::now() + STREAM_LASTS,
        _slot: slot,
    };
    Ok(event_response(futures_util::stream::unfold(client, |mut client| async move {
        let block = client.next().await?;
        Some((block, client))
    })))
}

fn parse_runs(text: Option<&str>) -> Result<Option<Vec<RunId>>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let parse = |id: &str| id.parse::<RunId>().map_err(|_| ApiError::bad(format!("run: `{id}` is not a run's id")));
    let runs = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
    match runs.len() <= RUNS_MAX {
        true => Ok(Some(runs)),
        false => Err(ApiError::bad(format!("run: {} runs are named; the most are {RUNS_MAX}", runs.len()))),
    }
}

fn parse_names(text: Option<&str>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let parse = |name: &str| match NAMES.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(ApiError::bad(format!("events: `{name}` is not one of {}", NAMES.join(", ")))),
    };
    text.split(',').map(parse).collect::<Result<Vec<_>, _>>().map(Some)
}

/// A client's stream.
struct Client {
    state: Arc<ApiState>,
    listener: Listener,
    updates: watch::Receiver<Progress>,
    interest: Interest,
    /// The id of the last event that the client had when it connected.
    last: Option<String>,
    /// The number of the last change that the client has, or does not want; `None` until the stream begins or goes on.
    number: Option<u64>,
    /// Whether the first block was sent.
    has_begun: bool,
    heartbeat: Duration,
    ends: Instant,
    _slot: StreamSlot,
}

impl Client {
    /// The next block of the response; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Some(Bytes::from(format!("retry: {RECONNECT_AFTER_MS}\n\n")));
        }
        let heartbeat_at = Instant::now() + self.heartbeat;
        loop {
            let progress = *self.updates.borrow_and_update();
            if progress.has_begun
                && let Some(block) = self.block(progress)
            {
                return Some(block);
            }
            let now = Instant::now();
            if now >= self.ends {
                return None;
            }
            if now >= heartbeat_at {
                // In case the task that reads has failed.
                self.listener.ensure_reading();
                return Some(self.heartbeat_block());
            }
            tokio::select! {
                () = self.state.parts.stopping.cancelled() => return None,
                changed = self.updates.changed() => changed.ok()?,
                () = tokio::time::sleep_until(heartbeat_at.min(self.ends)) => {}
            }
        }
    }

    /// What is to be sent now; `None` if nothing is.
    fn block(&mut self, progress: Progress) -> Option<Bytes> {
        let changes = &self.state.changes;
        let Some(after) = self.number else {
            let continued = self.last.as_deref().map_or(Err(ResetReason::Begins), |id| changes.number_of(id));
            return Some(match continued {
                Ok(number) => {
                    self.number = Some(number);
                    Bytes::from(format!("id: {}\n\n", changes.id(number)))
                }
                Err(why) => self.reset(why, progress),
            });
        };
        let Some(found) = changes.after(after, CHANGES_AT_ONCE) else {
            return Some(self.reset(ResetReason::Slow, progress));
        };
        self.number = Some(found.last()?.number);
        let mut block = BytesMut::new();
        for one in found.iter().filter(|one| self.interest.includes(&one.change)) {
            block.extend_from_slice(&one.text);
        }
        // If the client wants none of them there may be more; `next` would wait for a later change.
        match block.is_empty() && found.len() >= CHANGES_AT_ONCE {
            true => Some(self.heartbeat_block()),
            false => Some(block.freeze()).filter(|block| !block.is_empty()),
        }
    }

    /// Tells the client to read everything again; the stream continues after the newest change.
    fn reset(&mut self, why: ResetReason, progress: Progress) -> Bytes {
        self.number = Some(progress.newest);
        let reset = Change::new(ChangeData::Reset(StreamReset { why }));
        let mut block = BytesMut::from(&*reset.text(&self.state.changes.id(progress.newest)));
        if progress.store_is_silent {
            let silent = Change::new(ChangeData::Store(StoreChange { answers: false }));
            block.extend_from_slice(&silent.text(&self.state.changes.id(progress.newest)));
        }
        block.freeze()
    }

    /// Has no event, but the id of the last change, so that a client that wants few events can still continue later.
    fn heartbeat_block(&self) -> Bytes {
        match self.number {
            Some(number) => Bytes::from(format!(": heartbeat\nid: {}\n\n", self.state.changes.id(number))),
            None => Bytes::from_static(b": heartbeat\n\n"),
        }
    }
}
