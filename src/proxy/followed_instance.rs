//! The instance that a request follows up, by the id in its head or in its body.
//!
//! Always true: the body is read only for a route whose requests have the id there (`key: body.…`), and only where
//! something depends on the instance: the engine owns instances of the family, legacy's may be moved, or a route of the
//! family is above `off`. A body that is too large, or has no id, is about no known instance, and goes on unchanged.
//! The id is read before anything is looked up, so that no result of a look-up is stale after a slow upload.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, request};
use serde_json::Value;

use super::failure::Failure;
use super::monotonic::now;
use super::proxied_request::{ProxiedRequest, declared_length};
use super::relay::is_grpc;
use super::respond::Refused;
use super::upload::Upload;
use super::wait::Phase;
use crate::exchange::decoded_body_value;
use crate::flag::{InstanceKey, RouteFlag};
use crate::limits::{Limits, PARSED_BY_CALLER_BYTES_MAX};

/// Returns the instance that a request of a route with a workflow follows up.
///
/// # Errors
/// The body could not be read in time, or ended early.
pub(super) async fn followed_instance(
    proxied: &mut ProxiedRequest<'_>,
    flag: &RouteFlag,
    params: &[(Arc<str>, String)],
    head: &request::Parts,
    upload: &mut Upload,
) -> Result<Option<InstanceKey>, Box<Refused>> {
    let body = match flag.follows_by_body() {
        true => read_body(proxied, flag, head, upload).await?,
        false => None,
    };
    let body = match body {
        Some(bytes) => value_of(&head.headers, bytes, &proxied.client.shared.limits).await,
        None => None,
    };
    Ok(flag.follows(params, head.uri.query(), &head.headers, || body))
}

/// Reads the body; `None` if nothing depends on the instance, or if the body is too large.
async fn read_body(
    proxied: &mut ProxiedRequest<'_>,
    flag: &RouteFlag,
    head: &request::Parts,
    upload: &mut Upload,
) -> Result<Option<Bytes>, Box<Refused>> {
    let client = proxied.client;
    let (shared, wait) = (&client.shared, &client.wait);
    let matters = flag.is_family_above_off || flag.adopt.is_some() || shared.affinity.engine_owns_any(&flag.family);
    // A client of gRPC, or of another protocol, may wait for a part of the reply before it goes on.
    if !matters || upload.is_empty() || proxied.upgrade.is_some() || is_grpc(&head.headers) {
        return Ok(None);
    }
    let bytes_max = usize::try_from(shared.limits.body_engine_bytes_max).unwrap_or(usize::MAX);
    let at = now();
    wait.enter(Phase::Upload);
    let read = wait.or_overdue(upload.read_ahead(bytes_max, declared_length(&head.headers))).await;
    wait.enter(Phase::OwnDeadline);
    proxied.waited += now().saturating_sub(at);
    let failure = match read {
        Ok(()) => match upload.whole() {
            Ok(body) => return Ok(body.cloned()),
            Err(()) => Failure::Body,
        },
        Err(overdue) => Failure::Overdue(overdue),
    };
    Err(Box::new(proxied.refused(flag.effective.state, failure)))
}

/// Returns the value of a body; `None` if it cannot be decoded within the bounds. A large or compressed body is decoded
/// by another thread, so that the other clients of this thread need not wait.
async fn value_of(headers: &HeaderMap, bytes: Bytes, limits: &Arc<Limits>) -> Option<Value> {
    if bytes.len() <= PARSED_BY_CALLER_BYTES_MAX && !headers.contains_key(CONTENT_ENCODING) {
        return decoded_body_value(headers, &bytes, limits);
    }
    let (headers, limits) = (headers.clone(), Arc::clone(limits));
    tokio::task::spawn_blocking(move || decoded_body_value(&headers, &bytes, &limits)).await.ok().flatten()
}
