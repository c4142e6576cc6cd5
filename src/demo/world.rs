//! The outside world: prices, stock, bank, mail, ads and a studio, behind one port, with a ledger.
//!
//! Each service has a base path of its own (`/bank`, …) and honours `Idempotency-Key`. Always true: each effect is
//! recorded in the ledger when it happens; a reply that is lost on purpose ([`Fault::LoseReply`]) is lost after the
//! effect. The header `x-caused-by`, which both arms send, names who caused an effect.
//!
//! ```text
//! POST /prices/quotes            computes        GET  /ledger            every entry so far
//! POST /stock/reservations       reserve         POST /mail/messages     mail
//! DELETE /stock/reservations/ID  release         POST /studio/{kind}     computes, slowly
//! POST /bank/charges, /refunds   charge, refund  POST /studio/drafts     draft
//! GET  /bank/charges/ID          reads         POST, DELETE /ads/budgets, /ads/bookings  set aside, book, undo
//! POST /ads/announcements        announce
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::http::{Call, Dropped, HandlerResult, Server, empty, json as reply};
use super::latency::Latency;
use super::ledger::{Delivery, DeliveryResult, Ledger};
use super::sample_answers;

/// The fault that is injected into one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault: for calls that come before a call with a fault.
    None,
    /// Answers with this status and performs nothing.
    Refuse(u16),
    /// Performs the call, then closes the connection without an answer.
    LoseReply,
    /// Closes the connection before performing anything.
    Close,
    /// Waits for this time before it performs the call.
    Delay(Duration),
    /// Performs the call, and waits for this time before it answers.
    DelayReply(Duration),
}

#[derive(Debug, Default)]
struct WorldState {
    charges: HashMap<String, Charge>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    seen: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Charge {
    amount: Value,
    refunded: bool,
}

#[derive(Clone, Debug)]
struct WorldServices {
    ledger: Ledger,
    latency: Latency,
    state: Arc<Mutex<WorldState>>,
}

/// The running services of the outside world.
#[derive(Debug)]
pub struct OutsideWorld {
    server: Server,
    services: WorldServices,
}

impl OutsideWorld {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(address: SocketAddr, latency: Latency) -> io::Result<Self> {
        let services = WorldServices { ledger: Ledger::default(), latency, state: Arc::default() };
        let handling = services.clone();
        let server = Server::start(address, move |call| {
            let services = handling.clone();
            async move { services.handle(call).await }
        })
        .await?;
        Ok(Self { server, services })
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
    /// Its base URL; the path of each service in it is the service's name.
    pub fn url(&self) -> String {
        self.server.url()
    }
    /// The record of everything that was done.
    pub fn ledger(&self) -> &Ledger {
        &self.services.ledger
    }
    /// Injects this fault into the next `times` calls of an operation (`charge`, `reserve`, …).
    pub fn fault(&self, operation: &str, fault: Fault, times: usize) {
        let mut state = self.services.state();
        state.faults.entry(operation.to_owned()).or_default().extend(std::iter::repeat_n(fault, times));
    }
    /// Removes the faults that have not been injected into a call yet.
    pub fn clear_faults(&self) {
        self.services.state().faults.clear();
    }
    /// How many calls of an operation arrived, with or without a fault.
    pub fn arrived(&self, operation: &str) -> u64 {
        self.services.state().seen.get(operation).copied().unwrap_or(0)
    }
}

impl WorldServices {
    fn state(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handle(&self, call: Call) -> HandlerResult {
        let (operation, ms) = match (call.method.as_str(), call.segments().as_slice()) {
            ("GET", ["ledger"]) => return Ok(reply(StatusCode::OK, &json!({ "entries": self.ledger.entries() }))),
            ("POST", ["prices", "quotes"]) => ("quote", 4.0),
            ("POST", ["stock", "reservations"]) => ("reserve", 5.0),
            ("DELETE", ["stock", "reservations", _]) => ("release", 4.0),
            ("POST", ["bank", "charges"]) => ("charge", 14.0),
            ("GET", ["bank", "charges", _]) => ("look", 4.0),
            ("POST", ["bank", "refunds"]) => ("refund", 10.0),
            ("POST", ["mail", "messages"]) => ("mail", 6.0),
            ("POST", ["ads", "budgets"]) => ("budget", 6.0),
            ("DELETE", ["ads", "budgets", _]) => ("budget-back", 4.0),
            ("POST", ["ads", "bookings"]) => ("book", 8.0),
            ("DELETE", ["ads", "bookings", _]) => ("book-back", 4.0),
            ("POST", ["ads", "announcements"]) => ("announce", 6.0),
            ("POST", ["studio", "drafts"]) => ("draft", 6.0),
            ("POST", ["studio", "headline" | "body" | "image" | "audience"]) => ("generate", 45.0),
            _ => return Ok(reply(StatusCode::NOT_FOUND, &json!({ "error": "unknown operation" }))),
        };
        let fault = {
            let mut state = self.state();
            *state.seen.entry(operation.to_owned()).or_insert(0) += 1;
            state.faults.get_mut(operation).and_then(VecDeque::pop_front)
        };
        match fault {
            Some(Fault::Refuse(status)) => {
                return Ok(empty(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)));
            }
            Some(Fault::Close) => return Err(Dropped),
            Some(Fault::Delay(duration)) => tokio::time::sleep(duration).await,
            Some(Fault::None | Fault::LoseReply | Fault::DelayReply(_)) | None => {}
        }
        // The effect happens halfway through the latency, so that a caller who gives up may have caused it.
        self.latency.wait(ms / 2.0).await;
        let answer = self.perform(operation, &call);
        self.latency.wait(ms / 2.0).await;
        match fault {
            Some(Fault::LoseReply) => return Err(Dropped),
            Some(Fault::DelayReply(duration)) => tokio::time::sleep(duration).await,
            _ => {}
        }
        Ok(answer)
    }

    fn perform(&self, operation: &str, call: &Call) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        let body = call.json();
        let last = call.segments().last().map(|s| (*s).to_owned()).unwrap_or_default();
        match operation {
            "quote" => match sample_answers::quote(&body["items"]) {
                Ok(quote) => reply(StatusCode::OK, &quote),
                Err(why) => reply(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": why })),
            },
            "generate" => reply(StatusCode::OK, &sample_answers::asset(&last, &body)),
            "look" => match self.state().charges.get(&last) {
                Some(charge) => {
                    let status = if charge.refunded { "refunded" } else { "captured" };
                    reply(StatusCode::OK, &json!({ "id": last, "amount": charge.amount, "status": status }))
                }
                None => reply(StatusCode::NOT_FOUND, &json!({ "error": "no such charge" })),
            },
            "reserve" => self.effect(
                "stock",
                operation,
                call,
                None,
                |n| json!({ "id": format!("res_{n}"), "sku": body["sku"], "qty": body["qty"] }),
            ),
            "release" => self.effect("stock", operation, call, None, |_| json!({ "released": last })),
            "charge" => {
                // A customer without money, for workflows that answer 402.
                if body["card"] == "declined" {
                    return reply(StatusCode::PAYMENT_REQUIRED, &json!({ "error": "card declined" }));
                }
                let amount = body["amount"].clone();
                self.effect("bank", operation, call, Some(amount.clone()), |n| {
                    let id = format!("pay_{n}");
                    self.state().charges.insert(id.clone(), Charge { amount: amount.clone(), refunded: false });
                    json!({ "id": id, "amount": amount, "status": "captured" })
                })
            }
            "refund" => {
                let payment = body["payment_id"].as_str().unwrap_or_default().to_owned();
                if !self.state().charges.contains_key(&payment) {
                    return reply(StatusCode::NOT_FOUND, &json!({ "error": "no such charge" }));
                }
                self.effect("bank", operation, call, None, |n| {
                    if let Some(charge) = self.state().charges.get_mut(&payment) {
                        charge.refunded = true;
                    }
                    json!({ "id": format!("ref_{n}"), "payment_id": payment })
                })
            }
            "budget" => self.effect("ads", operation, call, None, |n| json!({ "id": format!("budget_{n}") })),
            "book" => {
                let channel = body["channel"].clone();
                self.effect(
                    "ads",
                    operation,
                    call,
                    None,
                    |n| json!({ "id": format!("booking_{n}"), "channel": channel }),
                )
            }
            "budget-back" | "book-back" => self.effect("ads", operation, call, None, |_| json!({ "returned": last })),
            "announce" => self.effect("ads", operation, call, None, |n| json!({ "id": format!("announcement_{n}") })),
            "mail" => self.effect("mail", operation, call, None, |n| json!({ "id": format!("mail_{n}") })),
            _ => self.effect("studio", operation, call, None, |n| json!({ "id": format!("draft_{n}") })),
        }
    }

    fn effect(
        &self,
        service: &str,
        operation: &str,
        call: &Call,
        amount: Option<Value>,
        answer: impl FnOnce(u64) -> Value,
    ) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        let key = Some(call.header("idempotency-key")).filter(|key| !key.is_empty());
        let caused_by = match call.header("x-caused-by") {
            "" => call.header("user-agent"),
            named => named,
        };
        let trace = call.header("traceparent").split('-').nth(1);
        let body = if call.method == Method::DELETE { call.path.as_bytes() } else { &call.body[..] };
        let result = self.ledger.record(Delivery { service, operation, key, body, amount, caused_by, trace }, answer);
        let status = if call.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        match result {
            DeliveryResult::Accepted(answer) | DeliveryResult::Repeated(answer) => reply(status, &answer),
            DeliveryResult::KeyReused => {
                let why = json!({ "error": "this Idempotency-Key came with another request before" });
                reply(StatusCode::UNPROCESSABLE_ENTITY, &why)
            }
        }
    }
}
