//! The services of a simulation and the network to them: legacy, and the bank that a step of the workflow calls. Both
//! note what they have performed, and for which retry key.
//!
//! A request that has left its process is performed, some time later, whatever becomes of the process. Replies get
//! lost.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::time::sleep;

use crate::clock;
use crate::flag::Arm;
use crate::names::RouteId;
use crate::store::tests::simulated::Link;
use crate::transport::simulated::Network;

/// The port of legacy; every other one is the bank's.
pub(super) const LEGACY_PORT: u16 = 9;
/// The longest time that a request or a reply takes.
const SLOW_MAX_MS: u64 = 1_500;

/// What has happened to the requests with one retry key.
#[derive(Default)]
pub(super) struct KeyHistory {
    pub route: Option<RouteId>,
    /// How often legacy has performed it.
    pub by_legacy: u32,
    /// The idempotency keys with which steps have performed it: each run has its own.
    pub by_runs: BTreeSet<String>,
    /// Who has answered it.
    pub answered_by: BTreeSet<&'static str>,
    /// The freeze under which each of its tries came, if that is one, and was in force at the process of each.
    pub frozen_in: Option<u64>,
    tried: bool,
    /// When what was performed and answered.
    log: Vec<String>,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<u32, KeyHistory>,
    /// The number of the freeze that was reported as in force everywhere, until another change of the kill switch is
    /// asked for.
    freeze: Option<u64>,
    /// How many changes of the kill switch were asked for.
    freezes_asked: u64,
    /// By route: how many flips were, or may have been, forced past processes that had not acknowledged them.
    risks: BTreeMap<RouteId, u32>,
    violations: Vec<String>,
}

/// The services and their notes.
pub(super) struct Services {
    state: Mutex<State>,
    random: Mutex<Rng>,
    /// The percentage of calls that are slow, or whose reply is lost.
    faults: Mutex<u8>,
}

impl Services {
    pub(super) fn new(seed: u64, faults: u8) -> Arc<Self> {
        let (state, random) = (Mutex::default(), Mutex::new(Rng::with_seed(seed)));
        Arc::new(Self { state, random, faults: Mutex::new(faults) })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    /// Ends all faults.
    pub(super) fn heal(&self) {
        *self.faults.lock().unwrap() = 0;
    }
    /// Reports a violation.
    pub(super) fn report_violation(&self, what: String) {
        let mut state = self.state();
        if state.violations.len() < 20 {
            state.violations.push(format!("{}: {what}", at()));
        }
    }
    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// A flip may be in force that nobody has to have acknowledged: keys of the route may be performed twice.
    pub(super) fn add_risk(&self, route: &RouteId) {
        *self.state().risks.entry(route.clone()).or_default() += 1;
    }
    /// All have acknowledged it after all, or it was not made.
    pub(super) fn remove_risk(&self, route: &RouteId) {
        self.state().risks.entry(route.clone()).and_modify(|risks| *risks -= 1);
    }
    pub(super) fn is_at_risk(&self, route: &RouteId) -> bool {
        self.state().is_at_risk(route)
    }
    /// Another change of the kill switch is asked for: until the next freeze is in force everywhere, none is checked.
    /// Returns which change it is.
    pub(super) fn ask_freeze(&self) -> u64 {
        let mut state = self.state();
        state.freeze = None;
        state.freezes_asked += 1;
        state.freezes_asked
    }
    /// The freeze that was asked for by this change is in force everywhere, with this number. One that was asked for
    /// since may end it at any moment.
    pub(super) fn set_freeze(&self, asked: u64, number: u64) {
        let mut state = self.state();
        if state.freezes_asked == asked {
            state.freeze = Some(number);
        }
    }
    pub(super) fn freeze(&self) -> Option<u64> {
        self.state().freeze
    }

    /// A client sends a request. `frozen_in`: the freeze that the process has in force.
    pub(super) fn sent(&self, key: u32, route: &RouteId, frozen_in: Option<u64>) {
        let mut state = self.state();
        let frozen_in = frozen_in.filter(|_| frozen_in == state.freeze);
        let history = state.keys.entry(key).or_default();
        history.frozen_in = frozen_in.filter(|_| !history.tried || history.frozen_in == frozen_in);
        (history.route, history.tried) = (Some(route.clone()), true);
    }
    /// A client has an answer.
    pub(super) fn answered(&self, key: u32, by: &'static str, process: &str) {
        let mut state = self.state();
        state.note(key, format!("{} answered by {by} of {process}", at()));
        let history = state.keys.entry(key).or_default();
        history.answered_by.insert(by);
        state.check(key);
    }
    fn performed(&self, key: u32, arm: Arm, idempotency_key: String) {
        let mut state = self.state();
        state.note(key, format!("{} performed by {arm:?} ({idempotency_key})", at()));
        let freeze = state.freeze;
        let history = state.keys.entry(key).or_default();
        match arm {
            Arm::Legacy => history.by_legacy += 1,
            Arm::Engine => {
                let is_new = history.by_runs.insert(idempotency_key);
                if is_new && freeze.is_some() && history.frozen_in == freeze {
                    report_violation(
                        &mut state,
                        format!("the engine performs {key}, which came under freeze {freeze:?}"),
                    );
                }
            }
        }
        state.check(key);
    }

    /// The figures: keys that legacy performed, that the engine performed, and that are at risk.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let state = self.state();
        let count = |of: &dyn Fn(&KeyHistory) -> bool| state.keys.values().filter(|key| of(key)).count() as u64;
        let at_risk = |key: &KeyHistory| key.route.as_ref().is_some_and(|route| state.is_at_risk(route));
        (count(&|key| key.by_legacy > 0), count(&|key| !key.by_runs.is_empty()), count(&at_risk))
    }

    /// The network, for a process with this link.
    pub(super) fn network(self: &Arc<Self>, link: Arc<Link>) -> Network {
        let services = self.clone();
        Arc::new(move |socket| {
            let (services, link) = (services.clone(), link.clone());
            Box::pin(async move {
                link.wait_until_running().await;
                let (ours, theirs) = tokio::io::duplex(16 << 10);
                tokio::spawn(services.serve(socket.port(), theirs, link));
                Ok(ours)
            })
        })
    }

    async fn serve(self: Arc<Self>, port: u16, stream: DuplexStream, link: Arc<Link>) {
        let service = service_fn(|request: Request<Incoming>| {
            let (services, link) = (self.clone(), link.clone());
            async move { services.answer(port, request, &link).await }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ = connection.await; // an error is the loss of a reply
    }

    async fn answer(
        self: Arc<Self>,
        port: u16,
        request: Request<Incoming>,
        link: &Link,
    ) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        link.wait_until_running().await;
        let (before, after, is_lost) = self.draw();
        let (arm, key) = match port {
            LEGACY_PORT => (Arm::Legacy, head.uri.query().and_then(|query| query.strip_prefix("k=")?.parse().ok())),
            _ => (Arm::Engine, key_of(&body)),
        };
        let header = head.headers.get("idempotency-key");
        let idempotency_key = header.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let performing = {
            let services = self.clone();
            async move {
                sleep(before).await;
                match key {
                    Some(key) => services.performed(key, arm, idempotency_key),
                    None => services.report_violation(format!("{arm:?} got a request without a key")),
                }
                sleep(after).await;
                Ok::<_, Infallible>(())
            }
        };
        // Performed also if the connection ends meanwhile.
        let _ = tokio::spawn(performing).await;
        link.wait_until_running().await;
        if is_lost {
            return Err(io::Error::other("the reply is lost"));
        }
        let by = if arm == Arm::Legacy { "legacy" } else { "bank" };
        let body = format!("{{\"by\":\"{by}\"}}");
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body))).map_err(io::Error::other)
    }

    /// How long a request and its reply take, and whether the reply is lost.
    fn draw(&self) -> (Duration, Duration, bool) {
        let (faults, mut random) = (*self.faults.lock().unwrap(), self.random.lock().unwrap());
        let mut slow = || match random.u8(0..100) < faults {
            true => Duration::from_millis(random.u64(1..SLOW_MAX_MS)),
            false => Duration::from_millis(random.u64(0..20)),
        };
        (slow(), slow(), random.u8(0..100) < faults / 2)
    }
}

impl State {
    fn is_at_risk(&self, route: &RouteId) -> bool {
        self.risks.get(route).is_some_and(|risks| *risks > 0)
    }
    fn note(&mut self, key: u32, what: String) {
        tracing::debug!(key, "{what}");
        self.keys.entry(key).or_default().log.push(what);
    }
    /// One arm performs a request, the engine by one run, and that arm answers it.
    fn check(&mut self, key: u32) {
        let Some(history) = self.keys.get(&key) else { return };
        let arms = usize::from(history.by_legacy > 0) + history.by_runs.len();
        let is_wrong = match history.answered_by.iter().next() {
            Some(&"legacy") => history.by_legacy == 0,
            Some(_) => history.by_runs.is_empty(),
            None => false,
        };
        let is_at_risk = history.route.as_ref().is_some_and(|route| self.is_at_risk(route));
        if !is_at_risk && (arms > 1 || history.answered_by.len() > 1 || is_wrong) {
            let route = history.route.as_ref().map_or("?", RouteId::as_str);
            let what = format!("not performed by one arm, once: key {key} of `{route}`: {}", history.log.join("; "));
            report_violation(self, what);
        }
    }
}

fn report_violation(state: &mut State, what: String) {
    if state.violations.len() < 20 {
        state.violations.push(format!("{}: {what}", at()));
    }
}

/// The simulated time, in seconds since its beginning.
pub(super) fn at() -> String {
    let begin: jiff::Timestamp = super::BEGIN.parse().unwrap();
    clock::simulated::time().map_or_else(String::new, |now| format!("{:.3}", now.duration_since(begin).as_secs_f64()))
}

/// The key in the body of a call of a step.
fn key_of(body: &[u8]) -> Option<u32> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?.get("k")?.as_str()?.parse().ok()
}
