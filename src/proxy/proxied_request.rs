//! One request in the proxy, whichever arm answers.
//!
//! Always true: a [`ProxiedRequest`] borrows one table, and so one flag set, from the head to the reply; a
//! [`FlaggedRequest`] exists only for routes that have a workflow, or had one by earlier files.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode, request};
use jiff::Timestamp;

use super::admission::Admission;
use super::answered_exchange::AnsweredExchange;
use super::candidate::CandidateOfRoute;
use super::client_addresses::ConnectionPermit;
use super::client_upgrade::ClientUpgrade;
use super::exchange_record::CurrentRecord;
use super::failure::{Failure, WaitedFor};
use super::headers::{Forwarder, traceparent};
use super::own_connections::OwnConnections;
use super::respond::Refused;
use super::route_entry::RouteEntry;
use super::route_metrics::AnsweredBy;
use super::shared::Shared;
use super::table::Table;
use super::turns::NoTurn;
use super::wait::ConnectionWait;
use crate::exchange::{EarlierKeys, KeysOfLegacy, MayBegin, RequestCopy};
use crate::flag::{Instance, InstanceId, Owner, RetryKeys, RouteFlag, State, StratumValue};

/// The client of an exchange. Over HTTP/1.1 it is a connection, which has one exchange after the other; over HTTP/2 it
/// is one stream.
pub(super) struct Client {
    pub shared: Arc<Shared>,
    pub wait: Arc<ConnectionWait>,
    pub forwarder: Arc<Forwarder>,
    pub peer: IpAddr,
    /// The access log's record of the exchange that has no answer yet.
    pub record: CurrentRecord,
    /// The client's own connections to services that authenticate a connection and not each request (NTLM).
    pub own_connections: Arc<OwnConnections>,
    /// Counts the connection among the open ones. A tunnel keeps the permit.
    pub connection_permit: Arc<ConnectionPermit>,
}

/// A request that is being answered.
pub(super) struct ProxiedRequest<'a> {
    pub client: &'a Client,
    pub table: &'a Arc<Table>,
    pub entry: &'a Arc<RouteEntry>,
    /// When the head was complete, in microseconds of `monotonic::now`.
    pub began: u64,
    /// How long the request waited for its turn at the route and for its body before an arm was called, in
    /// microseconds. Does not count as overhead of the proxy.
    pub waited: u64,
    /// What the request holds until its client has the whole answer.
    pub admission: &'a mut Admission,
    /// The parameters of the route's path template, if the route has a workflow.
    pub params: Vec<(Arc<str>, String)>,
    /// Set if the client asks for another protocol.
    pub upgrade: Option<ClientUpgrade>,
}

impl ProxiedRequest<'_> {
    pub(super) fn refused(&self, rung: State, failure: Failure) -> Refused {
        Refused { failure, route: Some((self.entry.clone(), rung)) }
    }
    /// Waits for the request's turn at its route, if the route has a limit (`requests_max`). No arm has begun anything.
    pub(super) async fn take_turn(&mut self, rung: State) -> Result<(), Refused> {
        let Some(turns) = &self.entry.turns else { return Ok(()) };
        let failure = match self.client.wait.or_overdue(turns.take()).await {
            Ok(Ok(turn)) => {
                self.waited += turn.waited;
                self.admission.turn = Some(turn);
                return Ok(());
            }
            Ok(Err(NoTurn)) => Failure::RouteBusy,
            Err(_) => Failure::OverdueUnsent(WaitedFor::Route),
        };
        Err(self.refused(rung, failure))
    }
    pub(super) fn answered(&self, rung: State, answered_by: AnsweredBy, status: StatusCode) -> AnsweredExchange {
        self.entry.answered(rung, answered_by, status, self.began)
    }
}

/// A request of a route that has a workflow, or had one by earlier files.
pub(super) struct FlaggedRequest {
    pub flag: Arc<RouteFlag>,
    pub params: Vec<(Arc<str>, String)>,
    pub path: String,
    pub instance: Option<InstanceId>,
    /// Who owns the instance.
    pub owner: Owner,
    /// Whether an arm took an earlier request with this retry key. If legacy took it, it was run on the twin too.
    pub is_retry: bool,
    /// Whether the engine may begin a run for the request.
    pub may_begin: MayBegin,
    pub retry_keys: Option<RetryKeys>,
    /// The request's retry keys by earlier files.
    pub earlier: EarlierKeys,
    /// When the request was decided, which is before any of its keys was recorded.
    pub decided_at: Timestamp,
    /// The caller's cohort, as an index into the route's cohorts.
    pub cohort: Option<usize>,
    /// The value of the route's `promote.strata_by` for this request, if it may be compared.
    pub stratum_value: Option<StratumValue>,
    /// The candidate of the route, if the engine answers.
    pub candidate: Option<CandidateOfRoute>,
    /// Whether legacy is asked too once the engine has answered, for a reverse comparison.
    pub is_reversed: bool,
}

impl FlaggedRequest {
    /// Returns all retry keys of the request, to be recorded when legacy takes it.
    pub(super) fn keys_of_legacy(&self) -> KeysOfLegacy {
        let all = self.retry_keys.iter().chain(&self.earlier.keys);
        let of_legacy = |keys: &RetryKeys| [keys.scoped].into_iter().chain(keys.of_legacy_under_other_credentials());
        let keys = all.flat_map(of_legacy).collect();
        KeysOfLegacy { keys, decided_at: self.decided_at }
    }
    /// Whether the route creates instances.
    pub(super) fn creates(&self) -> bool {
        matches!(self.flag.route.instance, Some(Instance::Creates { .. }))
    }
    /// Returns the request as the engine sees it, without its body.
    pub(super) fn copy(&self, client: &Client, head: &request::Parts) -> RequestCopy {
        RequestCopy {
            method: head.method.clone(),
            path: self.path.clone(),
            query: head.uri.query().map(str::to_owned),
            params: self.params.clone(),
            headers: head.headers.clone(),
            traceparent: client.record.trace().and_then(traceparent),
            body: bytes::Bytes::new(),
            peer: client.peer,
        }
    }
}

/// Returns the declared length of a body (`content-length`).
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()).and_then(|n| n.trim().parse().ok())
}
