//! A tunnel that legacy asks for with CONNECT, through the egress listener.
//!
//! Always true: the tunnel leads to a service's host and port or to a listed destination, and to no listener of this
//! process. Its bytes are not interpreted, so no comparison sees them; each tunnel is counted for that.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Response, StatusCode, request};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::admission::Admission;
use super::client_upgrade::{ClientUpgrade, on_upgrade};
use super::egress::{Egress, TunnelKind};
use super::egress_refusal::EgressRefusal;
use super::egress_targets::EgressTargets;
use super::failure::{Failure, WaitedFor};
use super::hygiene::HeadRefusal;
use super::legacy::CallError;
use super::proxied_request::{Client, ProxiedRequest};
use super::relay;
use super::reply_body::ReplyBody;
use super::respond::Refused;
use super::table::Table;
use super::wait::Phase;
use crate::clock;
use crate::flag::State;
use crate::limits::Limits;
use crate::listener::bare_host;
use crate::transport::{ConnectError, NotedCaller, client_text};

/// Connects, answers 200, and passes bytes both ways until one side ends.
pub(super) async fn open(
    client: &Client,
    egress: &Egress,
    table: &Arc<Table>,
    targets: &EgressTargets,
    admission: &mut Admission,
    head: &mut request::Parts,
    began: u64,
) -> Result<Response<ReplyBody>, Refused> {
    let ambiguous = |why| Refused::early(Failure::Head(HeadRefusal::Ambiguous(why)));
    let authority = head.uri.authority().ok_or_else(|| ambiguous("the target of CONNECT is not a host and port"))?;
    let port = authority.port_u16().ok_or_else(|| ambiguous("the target of CONNECT has no port"))?;
    // Servers disagree whether what follows such a head is a body or the tunnel's first bytes.
    let has_length = head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(ambiguous("CONNECT has a body"));
    }
    if authority.as_str().contains('@') {
        return Err(ambiguous("the target names a user"));
    }
    let (host, named) = (bare_host(authority.host()), authority.as_str().to_ascii_lowercase());
    let target = targets.of_tunnel(&host, port).map_err(|why| Refused::early(Failure::Egress(why)))?;
    let (entry, wait) = (&target.entry, &client.wait);
    wait.set_limits(entry.limits);
    client.record.set_egress(&target.route);
    let proxied =
        ProxiedRequest { client, table, entry, began, waited: 0, admission, params: Vec::new(), upgrade: None };
    let time = entry.upstream.service.connect.unwrap_or(Limits::ms(client.shared.limits.connect_ms));
    wait.enter(Phase::OwnDeadline);
    let connecting = timeout(time, connect(&host, port, egress));
    let connected = match wait.or_overdue(connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(_)) => Err(Failure::Legacy(CallError::Unreachable(ConnectError::TimedOut))),
        Err(_) => Err(Failure::OverdueUnsent(WaitedFor::Service)),
    };
    let stream = connected.map_err(|failure| proxied.refused(State::Off, failure))?;
    let ClientUpgrade::Connection(upgrade) = on_upgrade(head) else {
        return Err(ambiguous("the target of CONNECT is not a host and port"));
    };
    let unseen = egress.tunnel(target, named, TunnelKind::Connect);
    client.record.note(|record| record.service = Some(target.name.clone()));
    let answered = proxied.answered(State::Off, client.shared.forwarded_to(), StatusCode::OK);
    // Entered before the tunnel's task starts, which enters `Phase::Tunnel`.
    wait.enter(Phase::Reply);
    let callers = proxied.entry.upstream.callers();
    let caller =
        NotedCaller { source: "egress".to_owned(), client: client_text(client.peer, None), path: "CONNECT".to_owned() };
    callers.note(caller, clock::now());
    let held = ((callers.tunnel(), unseen), client.shared.open_connections.count());
    relay::tunnel(client, StatusCode::OK, relay::switched(upgrade), async { Some(stream) }, held);
    Ok(Response::new(ReplyBody::full(bytes::Bytes::new(), wait.clone(), Some(answered))))
}

/// Connects to the first address of the host that accepts.
async fn connect(host: &str, port: u16, egress: &Egress) -> Result<TcpStream, Failure> {
    let unreachable = |error| Failure::Legacy(CallError::Unreachable(error));
    let addresses = lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = addresses.map_err(|error| unreachable(ConnectError::Unresolved(error)))?.collect();
    if addresses.iter().any(|address| egress.own.contains(*address)) {
        return Err(Failure::Egress(EgressRefusal::Loop));
    }
    let mut why = ConnectError::Unresolved(std::io::Error::other("the name has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Without this, small writes wait for acknowledgements. A failure only costs time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => why = ConnectError::Refused(error),
        }
    }
    Err(unreachable(why))
}
