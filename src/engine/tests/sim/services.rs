//! The services of a simulation: they fail at random, and record every effect.
//!
//! `stock` honours idempotency keys: a repeated call with a known key is answered and has no effect. `bank` does that
//! only for PUT and DELETE: every POST that arrives has an effect, so that a blind repeat shows as a second one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock;
use crate::engine::ports::client::{Executor, Outgoing, withheld};
use crate::workflow::{AttemptResult, EffectClass};

/// What the services recorded of an idempotency key.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyRecord {
    /// Method and URL.
    pub request: String,
    body: Bytes,
    answer: Value,
    /// How many effects it had.
    pub effects: u64,
    /// How many calls arrived.
    pub arrived: u64,
    /// How many calls ended with an outcome that their sender does not know, because of a fault here.
    pub lost: u64,
    /// Whether another request came with the same key.
    pub reused: bool,
}

struct State {
    random: fastrand::Rng,
    percent: u8,
    faults: u64,
    number: u64,
    keys: BTreeMap<String, KeyRecord>,
    /// Shared and private calls without a key.
    keyless: u64,
    /// What happened, in order.
    log: Vec<String>,
}

/// All services of a simulation.
pub(super) struct SimServices(Mutex<State>);

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Slow,
    /// The call does not arrive, and the sender knows that.
    NotSent,
    /// The call does not arrive, and the sender does not know that.
    LostBefore,
    /// The effect is performed, and the reply is cut off.
    LostAfter,
    /// The effect is performed, and the reply comes after the timeout.
    TooSlow,
    /// The call is refused with this status; no effect is performed.
    Refused(u16),
    /// The effect is performed, and the reply has status 500.
    Broken,
}

impl SimServices {
    pub(super) fn new(seed: u64, percent: u8) -> Arc<Self> {
        let random = fastrand::Rng::with_seed(seed);
        let state = State { random, percent, faults: 0, number: 0, keys: BTreeMap::new(), keyless: 0, log: Vec::new() };
        Arc::new(Self(Mutex::new(state)))
    }
    /// Ends all faults.
    pub(super) fn heal(&self) {
        self.0.lock().unwrap().percent = 0;
    }
    /// The number of faults so far.
    pub(super) fn faults(&self) -> u64 {
        self.0.lock().unwrap().faults
    }
    /// The records by key.
    pub(super) fn keys(&self) -> BTreeMap<String, KeyRecord> {
        self.0.lock().unwrap().keys.clone()
    }
    /// The number of effects without a key.
    pub(super) fn keyless(&self) -> u64 {
        self.0.lock().unwrap().keyless
    }

    /// What happened, in order.
    pub(super) fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }
    fn note(&self, call: &Outgoing, what: &str) {
        let key = call.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("-");
        let line = format!("{} {} {} {key}: {what}", clock::now(), call.method, call.uris[0]);
        self.0.lock().unwrap().log.push(line);
    }

    fn draw(&self) -> (Fault, Duration) {
        let mut state = self.0.lock().unwrap();
        let quick = Duration::from_millis(state.random.u64(1..60));
        if state.random.u8(0..100) >= state.percent {
            return (Fault::None, quick);
        }
        state.faults += 1;
        let fault = match state.random.u8(0..9) {
            0 => Fault::Slow,
            1 => Fault::NotSent,
            2 => Fault::LostBefore,
            3 | 4 => Fault::LostAfter,
            5 => Fault::TooSlow,
            6 => Fault::Refused(503),
            7 => Fault::Refused(if state.random.u8(0..4) == 0 { 409 } else { 429 }),
            _ => Fault::Broken,
        };
        (fault, quick)
    }

    /// Performs the effect of a call. A service that honours keys performs it once for each key.
    fn perform_effect(&self, call: &Outgoing, effect: EffectClass) -> Value {
        let mut state = self.0.lock().unwrap();
        state.number += 1;
        let answer = json!({ "id": state.number, "charged": true });
        if effect == EffectClass::Read {
            return read(&state, call).unwrap_or(answer);
        }
        let Some(key) = call.headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
            state.keyless += 1;
            return answer;
        };
        let line = format!("{} {}", call.method, call.uris[0]);
        let honours = call.uris[0].host() == Some("stock") || matches!(call.method, Method::PUT | Method::DELETE);
        let known = state.keys.entry(key.to_owned()).or_default();
        known.arrived += 1;
        if known.effects > 0 {
            known.reused |= known.body != call.body || known.request != line;
            if honours {
                return known.answer.clone();
            }
        }
        (known.request, known.body, known.answer) = (line, call.body.clone(), answer.clone());
        known.effects += 1;
        answer
    }

    fn count_lost(&self, call: &Outgoing) {
        let mut state = self.0.lock().unwrap();
        if let Some(key) = call.headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
            state.keys.entry(key.to_owned()).or_default().lost += 1;
        }
    }
}

/// `GET /charges/KEY` says whether a charge with this key took place.
fn read(state: &State, call: &Outgoing) -> Option<Value> {
    let key = call.uris[0].path().strip_prefix("/charges/")?;
    let known = state.keys.get(key).filter(|known| known.effects > 0);
    Some(json!({ "found": known.is_some(), "charge": known.map(|known| known.answer.clone()) }))
}

/// Sends the calls of the simulated engines to the services.
pub(super) struct SimExecutor(pub Arc<SimServices>);

impl Executor for SimExecutor {
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, AttemptResult> {
        let services = self.0.clone();
        Box::pin(async move {
            let mut permit = match call.service_limits.acquire(call.mode, call.run, call.bounds()).await {
                Ok(permit) => permit,
                Err(refused) => return refused,
            };
            // `SendingClient` does the same.
            if let Some(withheld) = withheld(call.lease_proof.as_ref()) {
                services.note(&call, "withheld");
                return withheld;
            }
            let result = deliver(&services, effect, &call, permit.deadline()).await;
            permit.record_outcome(&result);
            result
        })
    }
}

async fn deliver(
    services: &Arc<SimServices>,
    effect: EffectClass,
    call: &Outgoing,
    deadline: Instant,
) -> AttemptResult {
    let (fault, quick) = services.draw();
    services.note(call, &format!("{fault:?}"));
    let reply = |status: u16, output: Value| AttemptResult::Reply {
        status,
        headers: BTreeMap::new(),
        output: Arc::new(output),
        retry_after_ms: None,
    };
    // The sender may be cancelled at any of these waits, before or after the effect.
    let pause = if matches!(fault, Fault::Slow) { call.timeout / 2 } else { quick };
    if timeout_at(deadline, sleep(pause)).await.is_err() {
        services.count_lost(call);
        return AttemptResult::TimedOut("it took too long".into());
    }
    match fault {
        Fault::NotSent => return AttemptResult::NotSent("no connection".into()),
        Fault::Refused(status) => return reply(status, Value::Null),
        Fault::LostBefore => {
            services.count_lost(call);
            return AttemptResult::CutOff("it was cut off".into());
        }
        Fault::None | Fault::Slow | Fault::LostAfter | Fault::TooSlow | Fault::Broken => {}
    }
    let output = services.perform_effect(call, effect);
    services.note(call, "done");
    sleep(quick).await;
    match fault {
        Fault::LostAfter => {
            services.count_lost(call);
            AttemptResult::CutOff("it was cut off".into())
        }
        Fault::TooSlow => {
            services.count_lost(call);
            tokio::time::sleep_until(deadline).await;
            AttemptResult::TimedOut("it took too long".into())
        }
        Fault::Broken => {
            services.count_lost(call);
            reply(500, Value::Null)
        }
        _ => reply(200, output),
    }
}
