//! Sends a request to legacy a second time.
//!
//! Always true: it sends by one method, which takes a [`RepeatCall`]. That can only be made of a [`RepeatRequest`],
//! which exists only for a route that is declared safe to repeat. Such a call counts among those of rehearsed runs: it
//! has their share of the service's limits, sees the breaker and never moves it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{StatusCode, Uri, response};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::compare::{Body, Observation};
use crate::engine::ports::client::{Outgoing, Transport};
use crate::engine::ports::echoed_secrets::EchoedSecrets;
use crate::engine::ports::service::ServiceLimits;
use crate::exchange::{NotRepeated, RepeatReply, RepeatRequest};
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{AttemptResult, Mode, RecordedHeaders};

/// Sends requests a second time.
#[derive(Clone)]
pub(in crate::engine) struct RepeatingClient(Transport);

/// A request that may be sent a second time, by construction.
pub(in crate::engine) struct RepeatCall {
    outgoing: Outgoing,
    reply: oneshot::Receiver<(response::Parts, Bytes)>,
}

impl RepeatCall {
    /// `id` identifies the call among those that wait for a permit of the service. `None` if the URL is not valid.
    pub fn new(request: &RepeatRequest, service: Arc<ServiceLimits>, id: RunId) -> Option<Self> {
        let copy = request.request();
        let query = copy.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let at = |base: &String| format!("{base}{}{query}", copy.path).parse::<Uri>();
        let uris = service.urls().iter().map(at).collect::<Result<_, _>>().ok()?;
        let (whole, reply) = oneshot::channel();
        let outgoing = Outgoing {
            method: copy.method.clone(),
            uris,
            headers: request.headers().clone(),
            body: copy.body.clone(),
            timeout: request.within() / 2,
            left: Some(request.within()),
            reserved: request.within() / 2,
            repeatable: true,
            mode: Mode::Rehearse,
            run: id,
            caller: format!("route {} (noise)", request.route()),
            service_limits: service,
            lease_proof: None,
            withdrawal: CancellationToken::new(),
            recorded_headers: Arc::new(RecordedHeaders::Only(Default::default())),
            secrets: EchoedSecrets::default(),
            streaming: None,
            read: None,
            whole: Some(whole),
        };
        Some(Self { outgoing, reply })
    }
}

impl RepeatingClient {
    pub fn new(limits: &Limits, key_secret: &[u8; 32]) -> Self {
        Self(Transport::new(limits, key_secret))
    }

    /// Sends a request a second time. A reply that says that legacy takes no more requests is none.
    pub async fn repeat(&self, RepeatCall { outgoing, mut reply }: RepeatCall) -> RepeatReply {
        let started = Instant::now();
        let result = self.0.clone().call(outgoing, None).await;
        let Ok((head, body)) = reply.try_recv() else {
            return Err(match result {
                AttemptResult::Reply { .. }
                | AttemptResult::Unreadable { .. }
                | AttemptResult::TimedOut(_)
                | AttemptResult::CutOff(_) => NotRepeated::Failed,
                // Nothing was sent.
                _ => NotRepeated::Refused,
            });
        };
        if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return Err(NotRepeated::Failed);
        }
        Ok(Observation::new(head.status, head.headers, Body::Whole(body), started.elapsed(), Vec::new()))
    }
}
