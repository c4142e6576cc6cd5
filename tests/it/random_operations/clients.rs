//! The clients of a walk: keyed orders, their retries, and reads. Each answer is compared with the first answer to the
//! same order.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use serde_json::Value;

use super::Walk;
use super::files::SPECIAL_HOST;
use crate::support::test_system::{TestSystem, id, some_order};

/// A keyed order of a client.
pub struct Order {
    pub number: u64,
    is_staff: bool,
    /// Whether it goes to the host of the second family.
    pub is_special: bool,
    /// How often it was sent.
    pub tries: u32,
    /// Its first successful answer.
    pub answer: Option<Value>,
    /// Its client does not send it again.
    pub is_retired: bool,
    /// A restored store may not have it; its client does not send it again.
    pub is_lost: bool,
    /// A person decided about its run, or started it again.
    pub is_decided: bool,
}

impl Order {
    pub fn is_from_engine(&self) -> bool {
        self.answer.as_ref().is_some_and(is_from_engine)
    }

    /// The trace id that all its tries have.
    pub fn trace(&self) -> String {
        format!("{:032x}", self.number + 1)
    }

    fn host(&self) -> Vec<(&'static str, &'static str)> {
        if self.is_special { vec![("host", SPECIAL_HOST)] } else { Vec::new() }
    }

    /// Sends the order, with `client` if there is one. Returns the created order; `None` unless the request succeeds.
    async fn send(&self, system: &TestSystem, client: Option<&Client>) -> Option<Value> {
        let (key, trace) = (format!("key-{}", self.number), format!("00-{}-{:016x}-01", self.trace(), self.number + 1));
        let mut headers = vec![
            ("idempotency-key", key.as_str()),
            ("x-request-id", key.as_str()),
            ("traceparent", trace.as_str()),
            ("x-staff", if self.is_staff { "1" } else { "0" }),
        ];
        headers.extend(self.host());
        let body = some_order(self.number);
        let reply = match client {
            Some(client) => system.send_by(client, Method::POST, "/orders", &headers, &body).await,
            None => system.send_with(Method::POST, "/orders", &headers, &body).await,
        };
        let reply = reply.ok()?;
        (reply.status == StatusCode::CREATED).then(|| reply.json())
    }

    /// Reads the order. Returns what is wrong with the answer; `None` if nothing is wrong, or if there is no answer.
    pub async fn read(&self, system: &TestSystem) -> Option<String> {
        let path = format!("/orders/{}", id(self.answer.as_ref()?));
        let reply = system.send_with(Method::GET, &path, &self.host(), &Value::Null).await.ok()?;
        if reply.status == StatusCode::OK && id(&reply.json()) == id(self.answer.as_ref()?) {
            return None;
        }
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        Some(format!("{path} (order {}) is answered with {} {body}", self.number, reply.status))
    }
}

fn is_from_engine(order: &Value) -> bool {
    order["id"].is_string()
}

impl Walk {
    /// Picks orders to send: new ones, and earlier ones to retry.
    pub fn pick_orders(&mut self) -> Vec<usize> {
        let mut picked = Vec::new();
        for _ in 0..self.random.usize(1..7) {
            let comes_back = |order: &usize| !self.orders[*order].is_lost && !self.orders[*order].is_retired;
            let known: Vec<usize> = (0..self.orders.len()).filter(comes_back).collect();
            match self.random.choice(known).filter(|_| self.random.u8(..100) < 45) {
                Some(order) => picked.push(order),
                None => {
                    self.orders.push(Order {
                        number: self.orders.len() as u64,
                        is_staff: self.random.u8(..4) == 0,
                        is_special: self.random.u8(..4) == 0,
                        tries: 0,
                        answer: None,
                        is_retired: false,
                        is_lost: false,
                        is_decided: false,
                    });
                    picked.push(self.orders.len() - 1);
                }
            }
        }
        for order in &picked {
            self.orders[*order].tries += 1;
        }
        picked
    }

    /// Sends the orders at once.
    pub async fn send(&self, picked: &[usize]) -> Vec<Option<Value>> {
        self.send_by(None, picked).await
    }

    /// Like [`Walk::send`], with `client` if there is one.
    pub async fn send_by(&self, client: Option<&Client>, picked: &[usize]) -> Vec<Option<Value>> {
        join_all(picked.iter().map(|order| self.orders[*order].send(&self.system, client))).await
    }

    /// Sends some orders, and kills the process meanwhile.
    pub async fn send_and_kill(&mut self) {
        let (picked, wait) = (self.pick_orders(), Duration::from_micros(self.random.u64(..60_000)));
        let kill = async {
            tokio::time::sleep(wait).await; // the moment of the fault
            self.system.pointsman.signal(rustix::process::Signal::KILL);
        };
        let replies = tokio::join!(self.send(&picked), kill).0;
        self.take_answers(picked, replies);
        self.system.kill().await;
    }

    pub async fn send_orders(&mut self) {
        let picked = self.pick_orders();
        let replies = self.send(&picked).await;
        self.take_answers(picked, replies);
    }

    /// Records the answers, and compares each with the first answer to the same order.
    pub fn take_answers(&mut self, picked: Vec<usize>, replies: Vec<Option<Value>>) {
        for (order, answer) in picked.into_iter().zip(replies) {
            let (Some(answer), order) = (answer, &mut self.orders[order]) else { continue };
            match &order.answer {
                None => {
                    if !order.is_decided {
                        self.system.record_order(answer.clone());
                    }
                    order.answer = Some(answer);
                }
                // Legacy may answer two concurrent tries of one order with two ids.
                Some(first) if id(first) != id(&answer) && (is_from_engine(first) || is_from_engine(&answer)) => {
                    let number = order.number;
                    self.wrong.push(format!("order {number}: first answered with {first}, then with {answer}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Reads an order that the engine created.
    pub async fn read_order(&mut self) {
        let readable = |order: &&Order| order.is_from_engine() && !order.is_lost && !order.is_decided;
        let of_engine: Vec<&Order> = self.orders.iter().filter(readable).collect();
        let Some(order) = self.random.choice(of_engine) else { return };
        self.wrong.extend(order.read(&self.system).await);
    }
}
