//! Decides which requests wait while this process takes over from another one and does not have the store yet.
//!
//! Always true: a request is served without waiting only if its path, in whichever way a server may read it, belongs to
//! no route that has a workflow in the files of this process or of the previous one; a request that waited is answered
//! by the flags in force after the wait.

use std::sync::Arc;

use http::header::HOST;
use http::{Method, request};

use super::failure::{Failure, WaitedFor};
use super::hygiene;
use super::proxied_request::Client;
use super::respond::Refused;
use super::table::Table;
use crate::clock;
use crate::flag::{FlagSet, PathRefusal};

/// Returns the table by which the request is answered, and how long that took, in microseconds: in a process that takes
/// over from another one, requests that may concern a workflow wait here until it has the store.
pub(super) async fn table_with_store(
    client: &Client,
    head: &request::Parts,
) -> Result<(Arc<Table>, u64), Box<Refused>> {
    let shared = &client.shared;
    // Load the table only after the gate was checked: a table loaded before the gate opened has no states of routes.
    if !shared.workflow_gate.is_pending() {
        return Ok((shared.table(), 0));
    }
    let table = shared.table();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let method = hygiene::known_in_another_case(&head.method);
    if !reaches_workflow(&table.set, method.as_ref().unwrap_or(&head.method), host, head.uri.path()) {
        return Ok((table, 0));
    }
    let waited = client.wait.or_overdue(shared.workflow_gate.wait_while_pending()).await;
    match waited {
        Ok(Ok(waited)) => Ok((shared.table(), waited)),
        Ok(Err(why)) => Err(Refused::early(Failure::NoStore(why)).into()),
        Err(_) => Err(Refused::early(Failure::OverdueUnsent(WaitedFor::Store)).into()),
    }
}

/// Whether a request belongs to a route that has a workflow, or had one in earlier files, in at least one of the ways
/// in which servers read its path.
pub(super) fn reaches_workflow(set: &FlagSet, method: &Method, host: Option<&str>, path: &str) -> bool {
    match set.resolve(method, host, path, || clock::now().as_second()) {
        Ok(resolved) => resolved.concerns_workflow(),
        Err(refusal) => !matches!(refusal, PathRefusal::NotAbsolute | PathRefusal::Strict),
    }
}
