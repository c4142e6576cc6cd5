//! The sample legacy behind a front that takes each key once: it performs an order for the first request with its key,
//! also if that request's connection is lost, answers the same to all others, and 422 if their body is another one.
//!
//! The sample legacy alone performs an order twice if two requests come at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::Full;
use pointsman::demo::http::{Call, Client, Dropped, HandlerResult, Server};
use serde_json::json;

use crate::support::{LOCAL, WAIT_MAX};

/// What it says of a key that came with another body.
pub const OTHER_BODY: &str = "this key came with another order before";

type Answered = tokio::sync::OnceCell<(Bytes, http::Response<Full<Bytes>>)>;

/// The running front.
pub struct KeyedLegacy(Server);

impl KeyedLegacy {
    /// In front of the legacy at this URL.
    pub async fn start(legacy: String) -> Self {
        let (client, keys) = (Client::new(WAIT_MAX), Arc::new(Mutex::new(HashMap::<String, Arc<Answered>>::new())));
        let handle = move |call: Call| {
            let (client, legacy, keys) = (client.clone(), legacy.clone(), Arc::clone(&keys));
            async move {
                let key = call.header("idempotency-key").to_owned();
                if call.method != Method::POST || call.path != "/orders" || key.is_empty() {
                    return forward(&client, &legacy, call).await;
                }
                let of_key = Arc::clone(keys.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
                // It goes on if the caller goes away.
                let served = tokio::spawn(async move {
                    let body = call.body.clone();
                    let performed = of_key.get_or_try_init(async || {
                        Ok::<_, Dropped>((call.body.clone(), forward(&client, &legacy, call).await?))
                    });
                    let (taken, answer) = performed.await?;
                    Ok(if *taken == body { answer.clone() } else { other_body() })
                });
                served.await.unwrap_or(Err(Dropped))
            }
        };
        Self(Server::start(LOCAL, handle).await.expect("a port"))
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        self.0.url()
    }
}

fn other_body() -> http::Response<Full<Bytes>> {
    pointsman::demo::http::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": OTHER_BODY }))
}

async fn forward(client: &Client, legacy: &str, call: Call) -> HandlerResult {
    let mut request = http::Request::builder().method(&call.method).uri(format!("{legacy}{}", call.path));
    for name in ["content-type", "traceparent", "idempotency-key"] {
        request = request.header(name, call.header(name));
    }
    let request = request.body(Full::new(call.body)).map_err(|_| Dropped)?;
    let reply = tokio::time::timeout(Duration::from_secs(30), client.send(request)).await;
    let reply = reply.map_err(|_| Dropped)?.map_err(|_| Dropped)?;
    let mut response = http::Response::builder().status(reply.status);
    for name in [header::CONTENT_TYPE, header::LOCATION] {
        if let Some(value) = reply.headers.get(&name) {
            response = response.header(name, value);
        }
    }
    response.body(Full::new(reply.body)).map_err(|_| Dropped)
}
