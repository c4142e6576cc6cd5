//! The demo's hand on the product: the same API that every other client uses.
//!
//! When the API does not answer, that is an error of the demo with the address in it; nothing is asked twice.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::http::Client;
use crate::admin::types::{ApiProblem, Diffs, FlipAsk, FlipDone, RouteDetail, Status};
use crate::flag::State;

/// A client of the admin listener.
#[derive(Clone, Debug)]
pub struct Control {
    base: String,
    client: Client,
}

impl Control {
    /// A client of this base URL.
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), client: Client::new(Duration::from_secs(10)) }
    }
    /// Everything at a glance.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn status(&self) -> anyhow::Result<Status> {
        self.get("/api/v2/status").await
    }
    /// One route in full.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn route(&self, route: &str) -> anyhow::Result<RouteDetail> {
        self.get(&format!("/api/v2/routes/{route}")).await
    }
    /// Where a route's arms differ.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn diffs(&self, route: &str) -> anyhow::Result<Diffs> {
        self.get(&format!("/api/v2/routes/{route}/diffs")).await
    }
    /// Asks for a flip; the inner error is a shut gate or another refusal.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn flip(&self, route: &str, to: State, reason: &str) -> anyhow::Result<Result<FlipDone, ApiProblem>> {
        let ask = FlipAsk {
            to,
            percent: None,
            reason: Some(reason.to_owned()),
            force: false,
            acknowledge: true,
            by: Some("demo".to_owned()),
        };
        let reply = self.send(Method::POST, &format!("/api/v2/routes/{route}/flip"), &json(&ask)?).await?;
        if reply.status.is_success() {
            return Ok(Ok(serde_json::from_slice(&reply.body)?));
        }
        Ok(Err(serde_json::from_slice(&reply.body).with_context(|| format!("flip {route} {to}: {}", reply.status))?))
    }
    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let reply = self.send(Method::GET, path, &Value::Null).await?;
        if !reply.status.is_success() {
            bail!("GET {}{path}: {}", self.base, reply.status);
        }
        serde_json::from_slice(&reply.body).with_context(|| format!("GET {}{path}", self.base))
    }
    async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<super::http::Reply> {
        let url = format!("{}{path}", self.base);
        self.client.json(method, &url, &[], body).await.with_context(|| url.clone())
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(value)?)
}
