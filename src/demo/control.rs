//! The demo's client of the product's API. It uses the same API as every other client.
//!
//! When the API does not answer, the error names the address; no request is repeated.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::http::Client;
use crate::admin::types::{
    AdoptRequest, AdoptionsView, ApiProblem, CandidateRequest, CandidateResponse, CandidateStage, CapturePage, Diffs,
    FlipRequest, FlipResponse, GuardReleaseRequest, GuardReleaseResponse, Orchestration, RouteDetail, Status,
};
use crate::flag::State;
use crate::workflow::RunStatus;

/// The longest wait until a run ends or waits for a person.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest wait until all instances are adopted.
const ADOPTION_MAX: Duration = Duration::from_secs(20);

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
    /// The status of the process and of all routes.
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
    /// Requests a flip; the inner error is a shut gate or another refusal.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn flip(&self, route: &str, to: State, reason: &str) -> anyhow::Result<Result<FlipResponse, ApiProblem>> {
        let request = FlipRequest {
            to,
            percent: None,
            reason: Some(reason.to_owned()),
            force: false,
            acknowledge: true,
            by: Some("demo".to_owned()),
        };
        self.post_or_refused(&format!("/api/v2/routes/{route}/flip"), &json(&request)?).await
    }
    /// Requests a share of new requests for a route's candidate; the inner error is a shut gate or another refusal.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn flip_candidate(
        &self,
        route: &str,
        percent: f64,
    ) -> anyhow::Result<Result<CandidateResponse, ApiProblem>> {
        let request = CandidateRequest {
            to: CandidateStage::Live,
            percent: Some(percent),
            plan: None,
            reason: None,
            force: false,
            by: Some("demo".to_owned()),
        };
        self.post_or_refused(&format!("/api/v2/routes/{route}/candidate"), &json(&request)?).await
    }
    /// Releases what the guard of a route did.
    ///
    /// # Errors
    /// The API does not answer, or refuses.
    pub async fn release_guard(&self, route: &str, reason: &str) -> anyhow::Result<GuardReleaseResponse> {
        let request = GuardReleaseRequest { reason: reason.to_owned(), force: false, by: Some("demo".to_owned()) };
        self.post(&format!("/api/v2/routes/{route}/guard/release"), &json(&request)?).await
    }
    /// Has the engine adopt all of legacy's instances, and waits until it has tried; after a bound returns how far it
    /// is.
    ///
    /// # Errors
    /// The API does not answer, or refuses.
    pub async fn adopt_all(&self, route: &str) -> anyhow::Result<AdoptionsView> {
        let path = format!("/api/v2/routes/{route}/adoptions");
        let request = AdoptRequest { all: true, ids: Vec::new(), by: Some("demo".to_owned()) };
        let begun = Instant::now();
        let mut view: AdoptionsView = self.post(&path, &json(&request)?).await?;
        while view.bulk.as_ref().is_none_or(|bulk| bulk.is_running) && begun.elapsed() < ADOPTION_MAX {
            tokio::time::sleep(Duration::from_millis(50)).await;
            view = self.get(&path).await?;
        }
        Ok(view)
    }
    /// The captures of a route, a page of the oldest ones.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn captures(&self, route: &str) -> anyhow::Result<Vec<Value>> {
        let page: CapturePage = self.get(&format!("/api/v2/routes/{route}/captures")).await?;
        Ok(page.captures)
    }
    /// Starts the run of a campaign; returns it once it has ended or waits for a person.
    ///
    /// # Errors
    /// The API does not answer, or refuses.
    pub async fn launch(&self, request: &Value) -> anyhow::Result<Orchestration> {
        self.post("/api/v2/orchestrate/run", request).await
    }
    /// Answers a checkpoint or a conflict: posts to the path that the run shows for it.
    ///
    /// # Errors
    /// The API does not answer, or refuses.
    pub async fn answer(&self, path: &str, answer: &Value) -> anyhow::Result<Orchestration> {
        self.post(path, answer).await
    }
    /// Waits until the run has one of these statuses or has ended; after a bound returns the run as it is.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn wait_for_status(&self, run: Orchestration, statuses: &[RunStatus]) -> anyhow::Result<Orchestration> {
        let begun = Instant::now();
        let mut run = run;
        while !statuses.contains(&run.data.status) && !run.data.status.is_final() && begun.elapsed() < WAIT_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
            run = self.get(&run.data.links.this).await?;
        }
        Ok(run)
    }
    async fn post_or_refused<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Result<T, ApiProblem>> {
        let reply = self.send(Method::POST, path, body).await?;
        if reply.status.is_success() {
            return Ok(Ok(serde_json::from_slice(&reply.body)?));
        }
        Ok(Err(serde_json::from_slice(&reply.body).with_context(|| format!("POST {path}: {}", reply.status))?))
    }
    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let reply = self.send(Method::POST, path, body).await?;
        if !reply.status.is_success() {
            let text = String::from_utf8_lossy(&reply.body);
            bail!("POST {}{path}: {}: {text}", self.base, reply.status);
        }
        serde_json::from_slice(&reply.body).with_context(|| format!("POST {}{path}", self.base))
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
