//! What is known of one request on its way, whichever arm answers.
//!
//! Always true: an [`Exchange`] borrows one table, and so one flag set, from the head to the reply; a [`Flagged`] exists
//! only for routes that the engine may have a part in.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode, request};
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use super::clock::Clock;
use super::headers::Forwarder;
use super::meter::{By, Finish};
use super::respond::{Failure, Refused};
use super::shared::Shared;
use super::table::{Entry, Table};
use crate::exchange::RequestCopy;
use crate::flag::{Instance, InstanceId, RetryKey, RetryKeys, RouteFlag, State};

/// What the requests of one client connection share.
pub(super) struct Client {
    pub shared: Arc<Shared>,
    pub clock: Arc<Clock>,
    pub forwarder: Forwarder,
    pub peer: IpAddr,
    /// Its place among the open connections, which a tunnel keeps.
    pub place: Arc<OwnedSemaphorePermit>,
}

/// A request on its way: what every arm needs to know.
pub(super) struct Exchange<'a> {
    pub client: &'a Client,
    pub table: &'a Table,
    pub entry: &'a Arc<Entry>,
    pub began: u64,
    /// Asks for another protocol.
    pub upgrade: Option<OnUpgrade>,
}

impl Exchange<'_> {
    pub(super) fn refused(&self, rung: State, failure: Failure) -> Refused {
        Refused { failure, counted: Some((self.entry.meter.clone(), rung)) }
    }
    pub(super) fn finish(&self, rung: State, by: By, status: StatusCode) -> Finish {
        Finish { meter: self.entry.meter.clone(), rung, by, status, began: self.began }
    }
}

/// What is known of a request of a route that has a workflow.
pub(super) struct Flagged {
    pub flag: Arc<RouteFlag>,
    pub params: Vec<(Arc<str>, String)>,
    pub path: String,
    pub instance: Option<InstanceId>,
    pub retry_keys: Option<RetryKeys>,
}

impl Flagged {
    /// What tells its retries.
    pub(super) fn retry_key(&self) -> Option<RetryKey> {
        self.retry_keys.map(|keys| keys.scoped)
    }
    /// Its replies name what they created.
    pub(super) fn creates(&self) -> bool {
        matches!(self.flag.route.instance, Some(Instance::Creates { .. }))
    }
    /// The request as the engine sees it, without its body.
    pub(super) fn copy(&self, client: &Client, head: &request::Parts) -> RequestCopy {
        RequestCopy {
            method: head.method.clone(),
            path: self.path.clone(),
            query: head.uri.query().map(str::to_owned),
            params: self.params.clone(),
            headers: head.headers.clone(),
            body: bytes::Bytes::new(),
            peer: client.peer,
        }
    }
}

/// The declared length of a body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()).and_then(|n| n.trim().parse().ok())
}
