//! A call that legacy makes: finds its target, and passes it on as it came.
//!
//! Always true:
//! - A call is forwarded like a client's request in `off` (`relay`): with the service's waits, turns and addresses.
//! - Only hop-by-hop fields are removed from the call's head, and `Host` is the service's. No field is added, in either
//!   direction.
//! - Nothing is copied unless the observer watches. The observer is told when the call begins, and gets the copy when
//!   the call has ended.

use std::sync::{Arc, Mutex};

use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Method, Response, request};

use super::admission::Admission;
use super::body_copy::BodyCopy;
use super::client_upgrade::on_upgrade;
use super::copied_call::CopiedCall;
use super::copied_exchange::CopiedExchange;
use super::egress::Egress;
use super::egress_refusal::EgressRefusal;
use super::egress_targets::{EgressTarget, FoundTarget};
use super::egress_tunnel;
use super::failure::Failure;
use super::headers::strip_hop_by_hop;
use super::hygiene;
use super::prepare_copy::CopySetup;
use super::proxied_request::{Client, ProxiedRequest};
use super::relay::{RequestToForward, forward};
use super::reply_body::ReplyBody;
use super::respond::Refused;
use super::upload::Upload;
use crate::compare::{Body, Effect};
use crate::flag::State;

/// Answers one call that legacy makes.
pub(super) async fn answer(
    client: &Client,
    egress: &Egress,
    admission: &mut Admission,
    head: &mut request::Parts,
    upload: &mut Upload,
    began: u64,
) -> Result<Response<ReplyBody>, Box<Refused>> {
    // hyper has refused such a head of HTTP/1.1.
    if head.headers.len() as u64 > client.shared.limits.head_fields_max {
        return Err(Refused::early(Failure::HeadTooLarge).into());
    }
    let table = client.shared.table();
    let refused = |why| Box::new(Refused::early(Failure::Egress(why)));
    let targets = table.egress.as_ref().ok_or_else(|| refused(EgressRefusal::NoService))?;
    if head.method == Method::CONNECT {
        return egress_tunnel::open(client, egress, &table, targets, admission, head, began).await.map_err(Box::new);
    }
    let checked = hygiene::check(head).map_err(|refusal| Refused::early(Failure::Head(refusal)))?;
    let FoundTarget { target, uri } = targets.find(&head.uri).map_err(refused)?;
    let entry = &target.entry;
    client.wait.set_limits(entry.limits);
    client.record.set_egress(&target.route);
    head.uri = uri;
    if checked.odd_coding {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let upgrade = checked.upgrade.then(|| on_upgrade(head));
    strip_hop_by_hop(&mut head.headers, checked.upgrade);
    let copies = copy_call(client, egress, target, head, upload);
    let proxied =
        ProxiedRequest { client, table: &table, entry, began, waited: 0, admission, params: Vec::new(), upgrade };
    forward(RequestToForward { proxied, head, upload, copies, rung: State::Off }).await.map_err(Box::new)
}

/// Prepares the copy of the call; nothing is copied unless the observer watches.
fn copy_call(
    client: &Client,
    egress: &Egress,
    target: &Arc<EgressTarget>,
    head: &request::Parts,
    upload: &Upload,
) -> CopySetup {
    if !egress.observer.is_watching() {
        return (None, None);
    }
    let bytes_max = usize::try_from(client.shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX);
    let copy = (!upload.is_empty()).then(|| Arc::new(Mutex::new(BodyCopy { bytes_max, ..BodyCopy::default() })));
    let effect = Effect {
        service: target.service.clone(),
        method: head.method.clone(),
        url: target.url(&head.uri),
        headers: head.headers.clone(),
        body: Body::TooLarge,
        reply: None,
        number: egress.next_number(),
        replied_before: None,
    };
    let (observer, queue) = (egress.observer.clone(), client.shared.settler.clone());
    let call = CopiedCall::new(effect, copy.clone(), bytes_max, observer, queue, egress.numbers.clone());
    (Some(CopiedExchange::Call(Box::new(call))), copy)
}
