//! The sample legacy: a shop that answers `POST /orders` in many steps, one after the other.
//!
//! Always true: what it does to the outside world goes through the same services as the engine's steps and carries
//! `x-caused-by: legacy:N` and the caller's `traceparent`. Its ids are numbers that count up. It keeps everything in
//! memory and honours `Idempotency-Key` on `POST /orders`. When the outside world is slow, it waits; when the outside
//! world refuses, the caller gets 502 (402 for a declined card), and effects that were already performed are not
//! undone.
//!
//! ```text
//! POST /quotes   POST /orders   GET /orders   GET /orders/N   POST /orders/N/cancel   POST /campaigns
//! POST /orders/N/moved   the order is somebody else's from now on: it is not cancelled here any more
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::http::{Call, Client, HandlerResult, Outage, Server, json as reply};
use super::latency::Latency;
use super::sample_answers;

type Response = http::Response<http_body_util::Full<bytes::Bytes>>;

#[derive(Debug, Default)]
struct LegacyState {
    last: u64,
    orders: BTreeMap<u64, Value>,
    // The orders that it has released.
    moved: BTreeSet<u64>,
    // The answers by idempotency key: a repeat gets the first answer.
    answered: BTreeMap<String, (StatusCode, Value)>,
    served: u64,
}

#[derive(Clone, Debug)]
struct Shop {
    world: Arc<str>,
    client: Client,
    latency: Latency,
    state: Arc<Mutex<LegacyState>>,
}

/// The running sample legacy.
#[derive(Debug)]
pub struct Legacy {
    server: Server,
    shop: Shop,
}

/// The answer to a request that was not served.
struct Refusal(StatusCode, Value);

/// The request for which a call to the outside world is made; identifies it in the call's headers.
struct Cause {
    number: u64,
    trace: String,
}

impl Legacy {
    /// Listens; `world` is the outside world's base URL, or that of an egress listener in front of it.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(address: SocketAddr, world: &str, latency: Latency) -> io::Result<Self> {
        let client = Client::new(Duration::from_secs(10));
        let shop = Shop { world: world.into(), client, latency, state: Arc::default() };
        let handling = shop.clone();
        let server = Server::start(address, move |call| {
            let shop = handling.clone();
            async move { shop.handle(call).await }
        })
        .await?;
        Ok(Self { server, shop })
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }
    /// Begins or ends an outage.
    pub fn outage(&self, outage: Outage) {
        self.server.switch().set(outage);
    }
    /// How many requests it has begun to answer.
    pub fn served(&self) -> u64 {
        self.shop.state().served
    }
    /// How many orders it holds.
    pub fn orders(&self) -> usize {
        self.shop.state().orders.len()
    }
}

impl Shop {
    fn state(&self) -> MutexGuard<'_, LegacyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handle(&self, call: Call) -> HandlerResult {
        self.state().served += 1;
        self.latency.wait(3.0).await;
        let result = match (call.method.as_str(), call.segments().as_slice()) {
            ("POST", ["quotes"]) => self.quote(&call),
            ("POST", ["orders"]) => self.create(&call).await,
            ("GET" | "HEAD", ["orders"]) => {
                let orders: Vec<Value> = self.state().orders.values().rev().take(50).cloned().collect();
                Ok(reply(StatusCode::OK, &json!({ "orders": orders })))
            }
            ("GET" | "HEAD", ["orders", id]) => self.order(id).map(|(_, order)| reply(StatusCode::OK, &order)),
            ("POST", ["orders", id, "cancel"]) => self.cancel(id, &call).await,
            ("POST", ["orders", id, "moved"]) => self.release_order(id),
            ("POST", ["campaigns"]) => self.campaign(&call).await,
            _ => Err(refusal(StatusCode::NOT_FOUND, "no such page")),
        };
        Ok(result.unwrap_or_else(|Refusal(status, body)| reply(status, &body)))
    }

    fn quote(&self, call: &Call) -> Result<Response, Refusal> {
        let mut quote = sample_answers::quote(&call.json()["items"]).map_err(unprocessable)?;
        quote["total"] = sample_answers::total(&quote).into();
        Ok(reply(StatusCode::OK, &quote))
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.last += 1;
        state.last
    }

    fn order(&self, id: &str) -> Result<(u64, Value), Refusal> {
        let found = id.parse().ok().and_then(|number| Some((number, self.state().orders.get(&number)?.clone())));
        found.ok_or_else(|| refusal(StatusCode::NOT_FOUND, "no such order"))
    }

    /// Computes the price, reserves each item, charges, and sends a mail, one call after the other.
    async fn create(&self, call: &Call) -> Result<Response, Refusal> {
        let key = call.header("idempotency-key");
        let before = self.state().answered.get(key).cloned();
        if let Some((status, body)) = before {
            return Ok(created(status, &body));
        }
        let request = call.json();
        let quote = sample_answers::quote(&request["items"]).map_err(unprocessable)?;
        let total = sample_answers::total(&quote);
        let cause = Cause { number: self.next_number(), trace: call.header("traceparent").to_owned() };

        let mut reservations = Vec::new();
        for (place, item) in request["items"].as_array().into_iter().flatten().enumerate() {
            let body = json!({ "sku": item["sku"], "qty": item["qty"] });
            reservations.push(self.post("stock/reservations", &cause, &format!("reserve-{place}"), &body).await?);
        }
        let mut charge = json!({ "amount": total });
        if !request["card"].is_null() {
            charge["card"] = request["card"].clone();
        }
        let payment = self.post("bank/charges", &cause, "charge", &charge).await?;
        let mail = json!({ "to": request["email"], "template": "order-confirmation", "total": total });
        self.post("mail/messages", &cause, "mail", &mail).await?;

        let order = json!({
            "id": cause.number,
            "status": "confirmed",
            "total": total,
            "payment_id": payment["id"],
            "reservations": reservations,
            "created_at": jiff::Timestamp::now(),
        });
        let mut state = self.state();
        state.orders.insert(cause.number, order.clone());
        if !key.is_empty() {
            state.answered.insert(key.to_owned(), (StatusCode::CREATED, order.clone()));
        }
        Ok(created(StatusCode::CREATED, &order))
    }

    /// Marks an order as somebody else's. May be repeated.
    fn release_order(&self, id: &str) -> Result<Response, Refusal> {
        let (number, order) = self.order(id)?;
        if order["status"] == "cancelled" {
            return Err(refusal(StatusCode::CONFLICT, "this order is cancelled already"));
        }
        self.state().moved.insert(number);
        Ok(reply(StatusCode::OK, &json!({ "id": number, "moved": true })))
    }

    /// Releases the reservations, refunds the money, and sends a mail.
    async fn cancel(&self, id: &str, call: &Call) -> Result<Response, Refusal> {
        let (number, order) = self.order(id)?;
        if order["status"] == "cancelled" {
            return Err(refusal(StatusCode::CONFLICT, "this order is cancelled already"));
        }
        if self.state().moved.contains(&number) {
            return Err(refusal(StatusCode::CONFLICT, "this order has moved"));
        }
        // Marked first, so that of two concurrent cancellations only one refunds the money.
        if let Some(order) = self.state().orders.get_mut(&number) {
            order["status"] = "cancelled".into();
        }
        let cause = Cause { number, trace: call.header("traceparent").to_owned() };
        for reservation in order["reservations"].as_array().into_iter().flatten() {
            let id = reservation["id"].as_str().unwrap_or_default();
            self.call(Method::DELETE, &format!("stock/reservations/{id}"), &cause, id, &Value::Null).await?;
        }
        let refund = self.post("bank/refunds", &cause, "refund", &json!({ "payment_id": order["payment_id"] })).await?;
        let mail = json!({ "template": "order-cancelled", "total": order["total"] });
        self.post("mail/messages", &cause, "mail-cancelled", &mail).await?;
        let body = json!({ "id": number, "status": "cancelled", "refund_id": refund["id"] });
        Ok(reply(StatusCode::OK, &body))
    }

    /// Generates four parts one after the other, although they do not depend on each other.
    async fn campaign(&self, call: &Call) -> Result<Response, Refusal> {
        let brief = call.json();
        let cause = Cause { number: self.next_number(), trace: call.header("traceparent").to_owned() };
        let mut assets = Vec::new();
        for kind in ["headline", "body", "image", "audience"] {
            assets.push(self.post(&format!("studio/{kind}"), &cause, kind, &brief).await?);
        }
        let body = json!({ "id": cause.number, "product": brief["product"], "assets": assets });
        Ok(reply(StatusCode::CREATED, &body))
    }

    async fn post(&self, path: &str, cause: &Cause, step: &str, body: &Value) -> Result<Value, Refusal> {
        self.call(Method::POST, path, cause, step, body).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        cause: &Cause,
        step: &str,
        body: &Value,
    ) -> Result<Value, Refusal> {
        let by = format!("legacy:{}", cause.number);
        let key = format!("legacy-{}-{step}", cause.number);
        let mut headers = vec![("x-caused-by", by.as_str()), ("idempotency-key", key.as_str())];
        if !cause.trace.is_empty() {
            headers.push(("traceparent", &cause.trace));
        }
        let answer = self.client.json(method, &format!("{}/{path}", self.world), &headers, body).await;
        match answer {
            Ok(reply) if reply.status.is_success() => Ok(reply.json()),
            Ok(refused) if refused.status == StatusCode::PAYMENT_REQUIRED => {
                Err(Refusal(StatusCode::PAYMENT_REQUIRED, refused.json()))
            }
            Ok(refused) => Err(refusal(StatusCode::BAD_GATEWAY, &format!("{path} said {}", refused.status.as_u16()))),
            Err(why) => Err(refusal(StatusCode::BAD_GATEWAY, &format!("{path}: {why}"))),
        }
    }
}

fn created(status: StatusCode, order: &Value) -> Response {
    let mut response = reply(status, order);
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{}", order["id"])) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn refusal(status: StatusCode, why: &str) -> Refusal {
    Refusal(status, json!({ "error": why }))
}

fn unprocessable(why: String) -> Refusal {
    refusal(StatusCode::UNPROCESSABLE_ENTITY, &why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::OutsideWorld;
    use crate::demo::world::Fault;

    const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    async fn world_and_legacy() -> (OutsideWorld, Legacy, Client) {
        let world = OutsideWorld::start(LOCAL, Latency::instant()).await.expect("a port");
        let legacy = Legacy::start(LOCAL, &world.url(), Latency::instant()).await.expect("a port");
        (world, legacy, Client::new(Duration::from_secs(5)))
    }

    fn order() -> Value {
        json!({ "email": "a@example.com", "items": [{ "sku": "tea", "qty": 2 }, { "sku": "cup", "qty": 1 }] })
    }

    #[tokio::test]
    async fn an_order_is_made_read_and_cancelled() {
        let (world, legacy, client) = world_and_legacy().await;
        let orders = format!("{}/orders", legacy.url());
        let made = client.json(Method::POST, &orders, &[], &order()).await.expect("a reply");
        assert_eq!(made.status, StatusCode::CREATED);
        assert_eq!(made.headers["location"], "/orders/1");
        let url = format!("{orders}/{}", made.json()["id"]);
        let read = client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
        assert_eq!(read.json(), made.json());
        let cancel = format!("{url}/cancel");
        let cancelled = client.json(Method::POST, &cancel, &[], &Value::Null).await.expect("a reply");
        assert_eq!(cancelled.json()["status"], "cancelled");
        let again = client.json(Method::POST, &cancel, &[], &Value::Null).await.expect("a reply");
        assert_eq!(again.status, StatusCode::CONFLICT);
        let balance = world.ledger().balance();
        let counts = ["reserve", "charge", "mail", "release", "refund"].map(|o| balance.total(o));
        assert_eq!(counts, [2, 1, 2, 2, 1]);
    }

    #[tokio::test]
    async fn an_order_that_has_moved_is_read_and_not_cancelled() {
        let (world, legacy, client) = world_and_legacy().await;
        let orders = format!("{}/orders", legacy.url());
        client.json(Method::POST, &orders, &[], &order()).await.expect("a reply");
        let post = async |path: &str| {
            client.json(Method::POST, &format!("{orders}/1/{path}"), &[], &Value::Null).await.expect("a reply").status
        };
        assert_eq!([post("moved").await, post("moved").await], [StatusCode::OK; 2]);
        assert_eq!(post("cancel").await, StatusCode::CONFLICT);
        let read = client.json(Method::GET, &format!("{orders}/1"), &[], &Value::Null).await.expect("a reply");
        assert_eq!(read.json()["status"], "confirmed");
        assert_eq!(world.ledger().balance().total("refund"), 0);
    }

    #[tokio::test]
    async fn a_repeated_create_gets_the_first_answer() {
        let (world, legacy, client) = world_and_legacy().await;
        let orders = format!("{}/orders", legacy.url());
        let key = [("idempotency-key", "k1")];
        let first = client.json(Method::POST, &orders, &key, &order()).await.expect("a reply");
        let second = client.json(Method::POST, &orders, &key, &order()).await.expect("a reply");
        assert_eq!(first.json(), second.json());
        assert_eq!(world.ledger().balance().total("charge"), 1);
    }

    #[tokio::test]
    async fn faults_and_outages_are_seen_by_callers() {
        let (world, legacy, client) = world_and_legacy().await;
        let orders = format!("{}/orders", legacy.url());
        world.fault("charge", Fault::LoseReply, 1);
        let lost = client.json(Method::POST, &orders, &[], &order()).await.expect("a reply");
        assert_eq!(lost.status, StatusCode::BAD_GATEWAY);
        assert_eq!(world.ledger().balance().total("charge"), 1, "the charge was done although its reply was lost");
        legacy.outage(Outage::Unavailable);
        let refused = client.json(Method::GET, &orders, &[], &Value::Null).await.expect("a reply");
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        legacy.outage(Outage::Gone);
        assert!(client.json(Method::GET, &orders, &[], &Value::Null).await.is_err());
        legacy.outage(Outage::None);
        assert!(client.json(Method::GET, &orders, &[], &Value::Null).await.is_ok());
    }
}
