//! The outside world of a simulation: it answers by lot, and writes down what was really done.
//!
//! `stock` honours keys: a further delivery with a known key is answered and does nothing. `bank` does not: whatever
//! arrives is done, so that a blind repeat shows as a second effect.

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

/// What the world knows of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub line: String,
    body: Bytes,
    answer: Value,
    /// How often it was done.
    pub effects: u64,
    /// How often it arrived.
    pub arrived: u64,
    /// How often the sender could not know what became of it, because of this world.
    pub lost: u64,
    /// Another body came with the same key.
    pub reused: bool,
}

struct Book {
    random: fastrand::Rng,
    percent: u8,
    faults: u64,
    number: u64,
    keys: BTreeMap<String, Known>,
    /// Shared or private calls without a key.
    keyless: u64,
    /// What happened, in order.
    log: Vec<String>,
}

/// See the module.
pub(super) struct Outside(Mutex<Book>);

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Fine,
    Slow,
    /// It never arrives, and the sender knows.
    NotSent,
    /// It never arrives, and the sender does not know.
    LostBefore,
    /// Done, and the reply is cut off.
    LostAfter,
    /// Done, and the reply comes after the sender has given up.
    TooSlow,
    /// Nothing was done.
    Refused(u16),
    /// Done, and the reply says otherwise.
    Broken,
}

impl Outside {
    pub(super) fn new(seed: u64, percent: u8) -> Arc<Self> {
        let random = fastrand::Rng::with_seed(seed);
        let book = Book { random, percent, faults: 0, number: 0, keys: BTreeMap::new(), keyless: 0, log: Vec::new() };
        Arc::new(Self(Mutex::new(book)))
    }
    /// Nothing goes wrong from now on.
    pub(super) fn heal(&self) {
        self.0.lock().unwrap().percent = 0;
    }
    /// Calls that went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.0.lock().unwrap().faults
    }
    /// Everything that was asked for, by key.
    pub(super) fn keys(&self) -> BTreeMap<String, Known> {
        self.0.lock().unwrap().keys.clone()
    }
    /// Effects that came without a key.
    pub(super) fn keyless(&self) -> u64 {
        self.0.lock().unwrap().keyless
    }

    /// What happened, in order.
    pub(super) fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }
    fn note(&self, call: &Outgoing, what: &str) {
        let key = call.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("-");
        let line = format!("{} {} {} {key}: {what}", clock::now(), call.method, call.uri);
        self.0.lock().unwrap().log.push(line);
    }

    fn luck(&self) -> (Luck, Duration) {
        let mut book = self.0.lock().unwrap();
        let quick = Duration::from_millis(book.random.u64(1..60));
        if book.random.u8(0..100) >= book.percent {
            return (Luck::Fine, quick);
        }
        book.faults += 1;
        let luck = match book.random.u8(0..9) {
            0 => Luck::Slow,
            1 => Luck::NotSent,
            2 => Luck::LostBefore,
            3 | 4 => Luck::LostAfter,
            5 => Luck::TooSlow,
            6 => Luck::Refused(503),
            7 => Luck::Refused(if book.random.u8(0..4) == 0 { 409 } else { 429 }),
            _ => Luck::Broken,
        };
        (luck, quick)
    }

    /// It is done, once for each key of a service that honours them.
    fn done(&self, call: &Outgoing, effect: EffectClass) -> Value {
        let mut book = self.0.lock().unwrap();
        book.number += 1;
        let answer = json!({ "id": book.number, "charged": true });
        if effect == EffectClass::Read {
            return read(&book, call).unwrap_or(answer);
        }
        let Some(key) = call.headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
            book.keyless += 1;
            return answer;
        };
        let line = format!("{} {}", call.method, call.uri);
        let honours = call.uri.host() == Some("stock") || matches!(call.method, Method::PUT | Method::DELETE);
        let known = book.keys.entry(key.to_owned()).or_default();
        known.arrived += 1;
        if known.effects > 0 {
            known.reused |= known.body != call.body || known.line != line;
            if honours {
                return known.answer.clone();
            }
        }
        (known.line, known.body, known.answer) = (line, call.body.clone(), answer.clone());
        known.effects += 1;
        answer
    }

    fn lost(&self, call: &Outgoing) {
        let mut book = self.0.lock().unwrap();
        if let Some(key) = call.headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
            book.keys.entry(key.to_owned()).or_default().lost += 1;
        }
    }
}

/// `GET /charges/KEY` says whether a charge with this key took place.
fn read(book: &Book, call: &Outgoing) -> Option<Value> {
    let key = call.uri.path().strip_prefix("/charges/")?;
    let known = book.keys.get(key).filter(|known| known.effects > 0);
    Some(json!({ "found": known.is_some(), "charge": known.map(|known| known.answer.clone()) }))
}

/// The way out of one simulation's engines.
pub(super) struct Way(pub Arc<Outside>);

impl Executor for Way {
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, AttemptResult> {
        let outside = self.0.clone();
        Box::pin(async move {
            let ends = Instant::now() + call.timeout;
            let permit = match call.upstream.acquire(call.mode, call.run, ends).await {
                Ok(permit) => permit,
                Err(refused) => return refused,
            };
            // As the program's own way out does.
            if let Some(withheld) = withheld(call.lease_proof.as_ref()) {
                outside.note(&call, "withheld");
                return withheld;
            }
            let heard = travel(&outside, effect, &call, ends).await;
            permit.finish(&heard);
            heard
        })
    }
}

async fn travel(outside: &Arc<Outside>, effect: EffectClass, call: &Outgoing, ends: Instant) -> AttemptResult {
    let (luck, quick) = outside.luck();
    outside.note(call, &format!("{luck:?}"));
    let reply = |status: u16, output: Value| AttemptResult::Reply {
        status,
        headers: BTreeMap::new(),
        output: Arc::new(output),
        retry_after_ms: None,
    };
    // Whoever sends may end at any of these waits, before or after the effect.
    let pause = if matches!(luck, Luck::Slow) { call.timeout / 2 } else { quick };
    if timeout_at(ends, sleep(pause)).await.is_err() {
        outside.lost(call);
        return AttemptResult::TimedOut("it took too long".into());
    }
    match luck {
        Luck::NotSent => return AttemptResult::NotSent("no connection".into()),
        Luck::Refused(status) => return reply(status, Value::Null),
        Luck::LostBefore => {
            outside.lost(call);
            return AttemptResult::CutOff("it was cut off".into());
        }
        Luck::Fine | Luck::Slow | Luck::LostAfter | Luck::TooSlow | Luck::Broken => {}
    }
    let output = outside.done(call, effect);
    outside.note(call, "done");
    sleep(quick).await;
    match luck {
        Luck::LostAfter => {
            outside.lost(call);
            AttemptResult::CutOff("it was cut off".into())
        }
        Luck::TooSlow => {
            outside.lost(call);
            tokio::time::sleep_until(ends).await;
            AttemptResult::TimedOut("it took too long".into())
        }
        Luck::Broken => {
            outside.lost(call);
            reply(500, Value::Null)
        }
        _ => reply(200, output),
    }
}
