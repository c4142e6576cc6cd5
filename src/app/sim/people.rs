//! Clients that repeat their requests, and operators that flip routes and freeze.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use http::Request;
use tokio::time::{sleep, timeout};

use super::ROUTES;
use super::checks::{self, Joined};
use super::fleet::Fleet;
use super::process::{Process, World};
use crate::flag::{Freeze, Percent, State};
use crate::ladder::MoveRequest;
use crate::names::RouteId;

/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// How long an operator waits for a move.
const MOVE_MAX: Duration = Duration::from_secs(20);

/// Sends the requests with one retry key.
pub(super) struct KeyClient {
    pub world: Arc<World>,
    pub fleet: Arc<Fleet>,
    pub key: u32,
    pub random: Rng,
}

impl KeyClient {
    pub(super) fn route(key: u32) -> &'static str {
        ROUTES[key as usize % ROUTES.len()]
    }

    /// Sends the request at some time, now and then to two processes at once, and again as long as there is no answer;
    /// some also after that.
    pub(super) async fn run(mut self, within: Duration) {
        sleep(within.mul_f64(self.random.f64())).await;
        for _ in 0..self.random.u32(1..7) {
            let is_answered = match self.random.u8(0..4) {
                0 => {
                    let (one, two) = (self.pick(), self.pick());
                    let (one, two) = tokio::join!(self.try_at(one), self.try_at(two));
                    one || two
                }
                _ => {
                    let process = self.pick();
                    self.try_at(process).await
                }
            };
            if is_answered && self.random.u8(0..10) < 6 {
                break;
            }
            sleep(Duration::from_millis(self.random.u64(0..2_500))).await;
        }
    }

    fn pick(&mut self) -> Option<Arc<Process>> {
        self.fleet.pick(&mut self.random)
    }

    /// Sends the request once. Returns whether there is an answer.
    pub(super) async fn try_at(&self, process: Option<Arc<Process>>) -> bool {
        match process {
            Some(process) => self.send_to(&process).await == Some(true),
            None => false,
        }
    }

    /// Sends the request once. Returns whether an arm has answered it (else the reply is an error); `None` if there was
    /// no reply in time.
    pub(super) async fn send_to(&self, process: &Process) -> Option<bool> {
        let (services, route) = (&self.world.services, RouteId::from(Self::route(self.key)));
        let token = self.key.is_multiple_of(3).then(|| fastrand::u8(0..2));
        // A freeze does not keep the engine from beginning runs of a route in `only`.
        let frozen_in = checks::freeze_at(&self.world, process).filter(|_| process.requested(&route) < State::Only);
        tracing::debug!(key = self.key, token, "sent to {}", process.name);
        services.sent(self.key, &route, frozen_in);
        let mut request = Request::post(format!("/{route}?k={}", self.key))
            .header("host", "shop.test")
            .header("content-length", "0")
            .header("idempotency-key", format!("key-{}", self.key));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).unwrap();
        let response = timeout(ANSWER_MAX, process.answer(request)).await.ok().flatten()?;
        if !response.status().is_success() {
            tracing::debug!(key = self.key, status = %response.status(), body = ?response.body(), "{}", process.name);
            return Some(false);
        }
        let by = match response.body() {
            body if body.as_ref() == br#"{"by":"legacy"}"# => "legacy",
            body if body.as_ref() == br#"{"by":"engine"}"# => "engine",
            body => {
                services.report_violation(format!("an answer says {body:?}"));
                return Some(true);
            }
        };
        services.answered(self.key, by, &process.name);
        Some(true)
    }
}

/// Moves routes at random processes.
pub(super) struct Operator {
    pub world: Arc<World>,
    pub fleet: Arc<Fleet>,
    pub random: Rng,
}

/// A move as it was asked for.
pub(super) fn asked(to: State, force: bool) -> MoveRequest {
    let reason = force.then(|| "the simulation moves it".to_owned());
    MoveRequest { to, percent: None, reason, force, acknowledge: true, by: String::new() }
}

impl Operator {
    /// Flips a route, mostly up by one rung.
    pub(super) async fn flip(mut self) -> Option<Flip> {
        let process = self.fleet.pick(&mut self.random)?;
        let route = RouteId::from(*self.random.choice(&ROUTES)?);
        let present = process.requested(&route);
        let up = above(present);
        let (up_percent, percent) = (if present < State::Live { 85 } else { 60 }, self.random.u8(0..100));
        let to = match up {
            Some(up) if percent < up_percent => up,
            _ => self
                .random
                .choice(State::ALL.iter().filter(|state| **state < present).collect::<Vec<_>>())
                .copied()
                .unwrap_or(State::Off),
        };
        let force = to > present && self.random.u8(0..25) == 0;
        // Now and then only the share changes.
        let to = if present == State::Live && self.random.u8(0..6) == 0 { present } else { to };
        let percent = (to == State::Live && self.random.bool()).then(|| self.random.u8(0..=100));
        let percent = percent.map(|percent| Percent::new(f64::from(percent)).unwrap());
        let request = MoveRequest { percent, ..asked(to, force) };
        Some(flip(&self.world, &self.fleet, &process, &route, request).await)
    }

    /// Freezes, or ends the freeze.
    pub(super) async fn freeze(mut self) -> Option<()> {
        let process = self.fleet.pick(&mut self.random)?;
        let (services, ladder) = (&self.world.services, process.parts.ladder.clone());
        let on = self.random.bool();
        let asked = services.ask_freeze();
        tracing::debug!(process = process.name, on, asked, "the kill switch is asked for");
        let joined = Joined::now(&self.world, &self.fleet);
        let to = if on { Freeze::Instances } else { Freeze::No };
        let freezing = timeout(MOVE_MAX, ladder.freeze(to, Some("the simulation".into()), process.name.clone()));
        if let Some(Ok(Ok(frozen))) = process.serve(freezing).await
            && on
            && frozen.recorded
            && joined.have(&self.world, &process, frozen.flip.number).await
        {
            checks::note_freeze(&self.world, asked, frozen.flip.number).await;
        }
        Some(())
    }
}

/// The next rung up.
pub(super) fn above(state: State) -> Option<State> {
    State::ALL.into_iter().find(|above| above.below() == Some(state))
}

/// What became of a flip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flip {
    Made,
    /// It is in force at the process, and is recorded later, unless a newer flip overtakes it.
    Unrecorded,
    Refused(String),
    /// The process ended, or does not know.
    Unknown,
}

/// Flips a route at a process.
pub(super) async fn flip(
    world: &World,
    fleet: &Arc<Fleet>,
    process: &Arc<Process>,
    route: &RouteId,
    request: MoveRequest,
) -> Flip {
    // By force it may get past a process that has not acknowledged it: then the route's keys are not checked.
    let may_be_risky = request.force && request.to >= State::Live;
    if may_be_risky {
        world.services.add_risk(route);
    }
    // Two processes may make the same flip at the same moment of simulated time.
    let request = MoveRequest { by: process.name.clone(), ..request };
    let joined = Joined::now(world, fleet);
    let (to, ladder) = (request.to, &process.parts.ladder);
    let flipped = process.serve(timeout(MOVE_MAX, ladder.flip(route, request))).await;
    match flipped {
        Some(Ok(Ok(flipped))) => {
            tracing::info!(%route, %to, number = flipped.flip.number, recorded = flipped.recorded, "{} flips", process.name);
            if may_be_risky && flipped.still_required.is_empty() {
                world.services.remove_risk(route);
            }
            if flipped.recorded && flipped.changed {
                joined.have(world, process, flipped.flip.number).await;
            }
            if flipped.recorded { Flip::Made } else { Flip::Unrecorded }
        }
        Some(Ok(Err(error))) => {
            let (is_unknown, error) = (error.to_string().contains("not known"), format!("{error:?}"));
            tracing::info!(%route, %to, error, "{} does not flip", process.name);
            if may_be_risky && error.starts_with("Refused") {
                world.services.remove_risk(route);
            }
            if is_unknown { Flip::Unknown } else { Flip::Refused(error) }
        }
        Some(Err(_)) | None => Flip::Unknown,
    }
}
