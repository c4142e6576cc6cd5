//! A step service: it does what it is asked once for each key, fails as it is told, and writes down what arrived.
//!
//! A place is a method and the first part of a path (`POST /charges`). Without a word a place does what it is asked and
//! answers 200 with an id that counts up; a key that comes again gets the first answer, and the ledger says so. A held
//! place answers nobody before it lets somebody go: so a test knows what is under way without waiting for a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use pointsman::demo::Ledger;
use pointsman::demo::http::{Answer, Call, Dropped, Server, json as reply};
use pointsman::demo::ledger::{Delivery, DeliveryResult};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::LOCAL;

/// What it says to one call.
#[derive(Clone, Debug)]
pub enum Say {
    /// It is done, and answered with this.
    Done(u16, Value),
    /// Nothing is done.
    Refuse(u16),
    /// Nothing is done, and more about that.
    RefuseWith(u16, Vec<(&'static str, String)>, Value),
    /// It is done, and the connection is closed without an answer.
    LoseReply,
    /// The connection is closed before anything is done.
    Close,
    /// Nobody is answered, and it is done after this time, whatever has become of the connection.
    Late(Duration),
    /// It is done, and answered with these bytes.
    Bytes(&'static str, Bytes),
}

/// One call that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The path.
    pub path: String,
    /// Its `Idempotency-Key`.
    pub key: Option<String>,
    /// Its body, as it came.
    pub text: String,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// When it came.
    pub at: Instant,
}

impl Seen {
    /// The body, as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

#[derive(Default)]
struct Place {
    script: VecDeque<Say>,
    otherwise: Option<Say>,
    gate: Option<Arc<Semaphore>>,
    seen: Vec<Seen>,
    inside: usize,
    inside_max: usize,
}

#[derive(Clone, Default)]
struct Floor {
    places: Arc<Mutex<BTreeMap<String, Place>>>,
    ledger: Ledger,
}

/// The step service; dropping it stops it.
pub struct Works {
    server: Server,
    floor: Floor,
}

impl Works {
    /// Listens.
    pub async fn start() -> Self {
        let floor = Floor::default();
        let handling = floor.clone();
        let server = Server::start(LOCAL, move |call| {
            let floor = handling.clone();
            async move { floor.handle(call).await }
        });
        Self { server: server.await.expect("a port"), floor }
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }
    /// What it did.
    pub fn ledger(&self) -> &Ledger {
        &self.floor.ledger
    }
    /// The next `times` calls of a place get this.
    pub fn next(&self, place: &str, say: Say, times: usize) {
        self.floor.at(place, |place| place.script.extend(std::iter::repeat_n(say, times)));
    }
    /// From now on a place says this whenever nothing else is to be said.
    pub fn otherwise(&self, place: &str, say: Say) {
        self.floor.at(place, |place| place.otherwise = Some(say));
    }
    /// Calls of a place wait from now on.
    pub fn hold(&self, place: &str) {
        self.floor.at(place, |place| place.gate = Some(Arc::new(Semaphore::new(0))));
    }
    /// So many of those that wait, or come, may go on.
    pub fn let_go(&self, place: &str, count: usize) {
        self.floor.at(place, |place| place.gate.as_ref().expect("it is held").add_permits(count));
    }
    /// Nobody waits any more.
    pub fn open(&self, place: &str) {
        self.floor.at(place, |place| place.gate.take().expect("it is held").close());
    }
    /// What arrived at a place.
    pub fn seen(&self, place: &str) -> Vec<Seen> {
        self.floor.at(place, |place| place.seen.clone())
    }
    /// How much arrived at a place.
    pub fn count(&self, place: &str) -> usize {
        self.floor.at(place, |place| place.seen.len())
    }
    /// How many calls of a place were there at the same time, at most.
    pub fn at_once(&self, place: &str) -> usize {
        self.floor.at(place, |place| place.inside_max)
    }
    /// How many effects a place had: repeated deliveries are none.
    pub fn done(&self, place: &str) -> usize {
        let entries = self.ledger().entries();
        entries.iter().filter(|entry| entry.operation == place && !entry.duplicate).count()
    }
}

impl Floor {
    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn at<T>(&self, place: &str, work: impl FnOnce(&mut Place) -> T) -> T {
        work(self.places().entry(place.to_owned()).or_default())
    }
    async fn handle(&self, call: Call) -> Answer {
        let name = format!("{} /{}", call.method, call.segments().first().unwrap_or(&""));
        let key = Some(call.header("idempotency-key").to_owned()).filter(|key| !key.is_empty());
        let text = String::from_utf8_lossy(&call.body).into_owned();
        let seen = Seen { path: call.path.clone(), key, text, headers: call.headers.clone(), at: Instant::now() };
        let (say, gate) = self.at(&name, |place| {
            place.seen.push(seen.clone());
            place.inside += 1;
            place.inside_max = place.inside_max.max(place.inside);
            (place.script.pop_front().or_else(|| place.otherwise.clone()), place.gate.clone())
        });
        let _inside = Inside(self, &name);
        if let Some(gate) = gate
            && let Ok(permit) = gate.acquire().await
        {
            permit.forget();
        }
        match say {
            Some(Say::Refuse(status)) => Ok(reply(code(status), &json!({ "error": "no" }))),
            Some(Say::RefuseWith(status, headers, body)) => {
                let mut answer = reply(code(status), &body);
                for (name, value) in headers {
                    answer.headers_mut().insert(name, value.parse().expect("a header"));
                }
                Ok(answer)
            }
            Some(Say::Close) => Err(Dropped),
            Some(Say::Late(after)) => {
                let (floor, name, seen, method) = (self.clone(), name.clone(), seen.clone(), call.method.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    floor.perform(&name, &seen, &method, None).map_err(drop)
                });
                std::future::pending().await
            }
            Some(Say::LoseReply) => {
                let _done = self.perform(&name, &seen, &call.method, None);
                Err(Dropped)
            }
            Some(Say::Done(status, body)) => Ok(match self.perform(&name, &seen, &call.method, Some(body)) {
                Ok(body) => reply(code(status), &body),
                Err(reused) => *reused,
            }),
            Some(Say::Bytes(kind, bytes)) => self.perform(&name, &seen, &call.method, None).map_or_else(
                |reused| Ok(*reused),
                |_| {
                    let mut answer = Response::new(Full::new(bytes));
                    answer.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a content type"));
                    Ok(answer)
                },
            ),
            None => Ok(match self.perform(&name, &seen, &call.method, None) {
                Ok(body) => reply(StatusCode::OK, &body),
                Err(reused) => *reused,
            }),
        }
    }
    /// Does it, and writes it down; what is answered.
    fn perform(
        &self,
        name: &str,
        seen: &Seen,
        method: &Method,
        says: Option<Value>,
    ) -> Result<Value, Box<Response<Full<Bytes>>>> {
        let answer = |number| says.unwrap_or_else(|| json!({ "id": format!("{name} {number}"), "number": number }));
        if *method == Method::GET {
            return Ok(answer(0));
        }
        let caused_by = seen.headers.get("x-caused-by").and_then(|by| by.to_str().ok()).unwrap_or_default();
        let delivery = Delivery {
            service: "works",
            operation: name,
            key: seen.key.as_deref(),
            body: seen.text.as_bytes(),
            amount: None,
            caused_by,
            trace: None,
        };
        match self.ledger.record(delivery, answer) {
            DeliveryResult::Accepted(body) | DeliveryResult::Repeated(body) => Ok(body),
            DeliveryResult::KeyReused => {
                let error = json!({ "error": "this key came with other bytes" });
                Err(Box::new(reply(StatusCode::BAD_REQUEST, &error)))
            }
        }
    }
}

/// Counts a call as being there, however it ends.
struct Inside<'a>(&'a Floor, &'a str);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.at(self.1, |place| place.inside -= 1);
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}
