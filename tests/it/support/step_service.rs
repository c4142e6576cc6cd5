//! A service that steps call: performs each idempotency key once, fails as scripted, and records what arrived.
//!
//! An endpoint is a method and the first part of a path (`POST /charges`). Without a script an endpoint performs the
//! call and answers 200 with an id that counts up; a repeated key gets the first answer, and the ledger records the
//! repetition. A GET has no effect, and its id is always the same. A held endpoint answers no call before the test
//! releases it, so a test knows which calls are in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use pointsman::demo::Ledger;
use pointsman::demo::http::{Call, Dropped, HandlerResult, Server, json as reply};
use pointsman::demo::ledger::{Delivery, DeliveryResult};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::LOCAL;

/// The scripted reply to one call.
#[derive(Clone, Debug)]
pub enum ScriptedReply {
    /// Performs the call, and answers with this status and body.
    Done(u16, Value),
    /// Performs nothing, and answers with this status.
    Refuse(u16),
    /// Performs nothing, and answers with status, headers and body.
    RefuseWith(u16, Vec<(&'static str, String)>, Value),
    /// Performs the call, and closes the connection without an answer.
    LoseReply,
    /// Closes the connection without performing anything.
    Close,
    /// Never answers, and performs the call after this time, even if the connection is closed by then.
    Late(Duration),
    /// Performs the call, and answers with these bytes.
    Bytes(&'static str, Bytes),
}

/// One call that arrived.
#[derive(Clone, Debug)]
pub struct ReceivedCall {
    /// The path.
    pub path: String,
    /// Its `Idempotency-Key`.
    pub key: Option<String>,
    /// Its body.
    pub text: String,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// When it arrived.
    pub at: Instant,
}

impl ReceivedCall {
    /// The body as JSON; null where it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

#[derive(Default)]
struct Endpoint {
    script: VecDeque<ScriptedReply>,
    default_reply: Option<ScriptedReply>,
    hold: Option<Arc<Semaphore>>,
    seen: Vec<ReceivedCall>,
    active: usize,
    active_max: usize,
}

#[derive(Clone, Default)]
struct State {
    endpoints: Arc<Mutex<BTreeMap<String, Endpoint>>>,
    ledger: Ledger,
}

/// The step service; dropping it stops it.
pub struct StepService {
    server: Server,
    state: State,
}

impl StepService {
    /// Listens.
    pub async fn start() -> Self {
        let state = State::default();
        let handling = state.clone();
        let server = Server::start(LOCAL, move |call| {
            let state = handling.clone();
            async move { state.handle(call).await }
        });
        Self { server: server.await.expect("a port"), state }
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }
    /// Its effects.
    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }
    /// Replies to the next `times` calls of an endpoint like this.
    pub fn script(&self, endpoint: &str, reply: ScriptedReply, times: usize) {
        self.state.at(endpoint, |endpoint| endpoint.script.extend(std::iter::repeat_n(reply, times)));
    }
    /// Sets the reply of an endpoint while its script is empty.
    pub fn set_default(&self, endpoint: &str, reply: ScriptedReply) {
        self.state.at(endpoint, |endpoint| endpoint.default_reply = Some(reply));
    }
    /// Makes the calls of an endpoint wait.
    pub fn hold(&self, endpoint: &str) {
        self.state.at(endpoint, |endpoint| endpoint.hold = Some(Arc::new(Semaphore::new(0))));
    }
    /// Lets this many of the waiting or coming calls continue.
    pub fn release(&self, endpoint: &str, count: usize) {
        self.state.at(endpoint, |endpoint| endpoint.hold.as_ref().expect("it is held").add_permits(count));
    }
    /// Lets all calls continue.
    pub fn release_all(&self, endpoint: &str) {
        self.state.at(endpoint, |endpoint| endpoint.hold.take().expect("it is held").close());
    }
    /// The calls that arrived at an endpoint.
    pub fn seen(&self, endpoint: &str) -> Vec<ReceivedCall> {
        self.state.at(endpoint, |endpoint| endpoint.seen.clone())
    }
    /// How many calls arrived at an endpoint.
    pub fn count(&self, endpoint: &str) -> usize {
        self.state.at(endpoint, |endpoint| endpoint.seen.len())
    }
    /// The most calls of an endpoint at the same time.
    pub fn concurrent_max(&self, endpoint: &str) -> usize {
        self.state.at(endpoint, |endpoint| endpoint.active_max)
    }
    /// How many effects an endpoint had; repeated deliveries do not count.
    pub fn effects(&self, endpoint: &str) -> usize {
        let entries = self.ledger().entries();
        entries.iter().filter(|entry| entry.operation == endpoint && !entry.repeated).count()
    }
}

impl State {
    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<String, Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn at<T>(&self, endpoint: &str, work: impl FnOnce(&mut Endpoint) -> T) -> T {
        work(self.endpoints().entry(endpoint.to_owned()).or_default())
    }
    async fn handle(&self, call: Call) -> HandlerResult {
        let name = format!("{} /{}", call.method, call.segments().first().unwrap_or(&""));
        let key = Some(call.header("idempotency-key").to_owned()).filter(|key| !key.is_empty());
        let text = String::from_utf8_lossy(&call.body).into_owned();
        let seen =
            ReceivedCall { path: call.path.clone(), key, text, headers: call.headers.clone(), at: Instant::now() };
        let (scripted, hold) = self.at(&name, |endpoint| {
            endpoint.seen.push(seen.clone());
            endpoint.active += 1;
            endpoint.active_max = endpoint.active_max.max(endpoint.active);
            (endpoint.script.pop_front().or_else(|| endpoint.default_reply.clone()), endpoint.hold.clone())
        });
        let _inside = ActiveCall(self, &name);
        if let Some(hold) = hold
            && let Ok(permit) = hold.acquire().await
        {
            permit.forget();
        }
        match scripted {
            Some(ScriptedReply::Refuse(status)) => Ok(reply(code(status), &json!({ "error": "no" }))),
            Some(ScriptedReply::RefuseWith(status, headers, body)) => {
                let mut answer = reply(code(status), &body);
                for (name, value) in headers {
                    answer.headers_mut().insert(name, value.parse().expect("a header"));
                }
                Ok(answer)
            }
            Some(ScriptedReply::Close) => Err(Dropped),
            Some(ScriptedReply::Late(after)) => {
                let (state, name, seen, method) = (self.clone(), name.clone(), seen.clone(), call.method.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    state.perform(&name, &seen, &method, None).map_err(drop)
                });
                std::future::pending().await
            }
            Some(ScriptedReply::LoseReply) => {
                let _done = self.perform(&name, &seen, &call.method, None);
                Err(Dropped)
            }
            Some(ScriptedReply::Done(status, body)) => Ok(match self.perform(&name, &seen, &call.method, Some(body)) {
                Ok(body) => reply(code(status), &body),
                Err(reused) => *reused,
            }),
            Some(ScriptedReply::Bytes(kind, bytes)) => self.perform(&name, &seen, &call.method, None).map_or_else(
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
    /// Performs the call and records it. Returns the body of the answer.
    fn perform(
        &self,
        name: &str,
        seen: &ReceivedCall,
        method: &Method,
        with_body: Option<Value>,
    ) -> Result<Value, Box<Response<Full<Bytes>>>> {
        let answer =
            |number| with_body.unwrap_or_else(|| json!({ "id": format!("{name} {number}"), "number": number }));
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

/// Counts a call as active until it is dropped.
struct ActiveCall<'a>(&'a State, &'a str);

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        self.0.at(self.1, |endpoint| endpoint.active -= 1);
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}
