//! One stream of an HTTP/2 connection: one exchange, from its head to the last byte of its answer.
//!
//! Always true: the exchange counts as complete only when the socket has taken the last byte of the answer; if the
//! stream is reset or cut before, it is recorded as cut, and dropping its future closes legacy's connection. A body is
//! read from legacy only as the client's flow-control windows allow. `connection` checks the deadlines of the exchange
//! and reports when its bytes were flushed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::sync::oneshot;

use super::request::rewrite;
use super::request_stream::RequestStream;
use crate::proxy::client_body::ClientBody;
use crate::proxy::client_upgrade::{StreamIo, rewrite_extended_connect};
use crate::proxy::cut_reason::CutReason;
use crate::proxy::interim_replies::InterimReplies;
use crate::proxy::proxied_request::{Client, declared_length};
use crate::proxy::reply_body::ReplyBody;
use crate::proxy::switch;
use crate::proxy::wait::ConnectionWait;
use crate::proxy::wait_limits::WaitLimits;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Connection-specific fields, which a reply over HTTP/2 must not have (RFC 9113, section 8.2.2).
static CONNECTION_FIELDS: [HeaderName; 6] = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// What `connection` knows of a stream.
pub(super) struct Stream {
    pub wait: Arc<ConnectionWait>,
    cut: Mutex<Option<CutReason>>,
    is_flushed: AtomicBool,
}

impl Stream {
    pub(super) fn new(limits: &WaitLimits) -> Self {
        Self {
            wait: Arc::new(ConnectionWait::with_rates(limits)),
            cut: Mutex::default(),
            is_flushed: AtomicBool::new(false),
        }
    }
    /// Ends the exchange without the rest of its answer.
    pub(super) fn cut(&self, why: CutReason) {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.wait.waker.wake();
    }
    /// Records that the socket has taken the last byte of the answer.
    pub(super) fn flushed(&self) {
        self.is_flushed.store(true, Relaxed);
        self.wait.waker.wake();
    }
    fn why_cut(&self) -> Option<CutReason> {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records how the exchange ended, when this value is dropped.
struct ExchangeGuard {
    client: Arc<Client>,
    stream: Arc<Stream>,
    is_complete: bool,
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        let Self { client, stream, is_complete } = self;
        let (wait, settler) = (&client.wait, &client.shared.settler);
        if *is_complete {
            wait.unflushed.flushed(settler);
            return;
        }
        let cut = stream.why_cut().unwrap_or(CutReason::ClientGone);
        wait.unflushed.abandon(settler, cut);
        // An exchange without an answer.
        if wait.phase().awaits_answer() {
            cut.count();
        }
        if let Some(mut record) = client.record.take() {
            record.note(|record| record.request_bytes = wait.request_bytes());
            record.end(Some(cut));
        }
    }
}

/// Why a stream ends before its answer is complete.
enum Ended {
    /// The client reset the stream, or the connection has ended.
    Reset,
    /// The stream is to be cut.
    Cut(CutReason),
}

/// Serves one stream. Must be polled again when the waker of `stream.wait` is woken.
pub(super) async fn run(
    client: Arc<Client>,
    stream: Arc<Stream>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    // Dropped last, when the reply's body is gone.
    let mut exchange = ExchangeGuard { client: client.clone(), stream: stream.clone(), is_complete: false };
    match answer(client, &stream, request, &mut respond).await {
        Ok(()) => exchange.is_complete = true,
        Err(Ended::Reset) => {}
        Err(Ended::Cut(why)) => {
            stream.cut(why);
            respond.send_reset(reset_code(why));
        }
    }
}

/// Returns the error code that tells a client why its stream is cut.
fn reset_code(why: CutReason) -> Reason {
    match why {
        CutReason::LegacyReplyBroken
        | CutReason::LegacyReplyStalled
        | CutReason::LegacyReplySlow
        | CutReason::ServiceReplyBroken
        | CutReason::ServiceReplyStalled
        | CutReason::ServiceReplySlow => Reason::INTERNAL_ERROR,
        CutReason::ClientGone
        | CutReason::ClientStalled
        | CutReason::ClientSlow
        | CutReason::Timeout
        | CutReason::Drain
        | CutReason::TunnelIdle
        | CutReason::Http2Error => Reason::CANCEL,
    }
}

/// Serves the request, and sends its answer to the last byte.
async fn answer(
    client: Arc<Client>,
    stream: &Stream,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), Ended> {
    let (mut head, incoming) = request.into_parts();
    let mut hand_over = rewrite_extended_connect(&mut head);
    rewrite(&mut head);
    let is_extended_connect = hand_over.is_some();
    let expects = head.headers.contains_key(EXPECT);
    let method = head.method.clone();
    let identity_headers = client.shared.identity_headers.clone();
    let length = declared_length(&head.headers);
    // What follows an extended CONNECT is not its body.
    let (body, asked, tunnelled) = match hand_over {
        Some(_) => (ClientBody::None, Arc::default(), Some(incoming)),
        None => {
            let (body, asked) = RequestStream::new(incoming, length, stream.wait.clone(), identity_headers);
            (ClientBody::Http2(body), asked, None)
        }
    };
    let hints = InterimReplies::default();
    head.extensions.insert(hints.clone());
    let request = Request::from_parts(head, body);
    let response = {
        let mut served = pin!(switch::serve(client.clone(), request));
        let mut continues = expects;
        poll_fn(|cx| {
            if let Some(why) = stream.why_cut() {
                return Poll::Ready(Err(Ended::Cut(why)));
            }
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Ended::Reset));
            }
            let polled = served.as_mut().poll(cx);
            if continues && asked.is_asked() {
                continues = false;
                let _ = respond.send_informational(interim(StatusCode::CONTINUE)); // it fails if the stream has ended
            }
            for mut reply in hints.take() {
                *reply.version_mut() = Version::HTTP_2;
                strip(reply.headers_mut());
                let _ = respond.send_informational(reply); // it fails if the stream has ended
            }
            polled.map(|Ok(response)| Ok(response))
        })
        .await?
    };
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(incoming), Some(hand_over)) =
        (response.status(), tunnelled, hand_over.take())
    {
        return switch_protocol(&client, response, incoming, hand_over, stream, respond).await;
    }
    let (head, body) = response_of(response, &method);
    let is_empty = body.is_none();
    let Ok(mut send) = respond.send_response(head, is_empty) else { return Err(Ended::Reset) };
    stream.wait.flush.note_passed_on();
    if let Some(body) = body {
        send_body(body, stream, &mut send).await?;
    }
    poll_fn(|cx| {
        if stream.is_flushed.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = stream.why_cut() {
            return Poll::Ready(Err(Ended::Cut(why)));
        }
        send.poll_reset(cx).map(|_| Err(Ended::Reset))
    })
    .await?;
    if is_extended_connect || !stream.wait.is_request_done() {
        // Tells the client not to send the rest, and legacy that there is no more.
        send.send_reset(Reason::NO_ERROR);
    }
    Ok(())
}

/// Answers an extended CONNECT that legacy has granted, and hands the stream over to its tunnel. Returns when that has
/// ended.
async fn switch_protocol(
    client: &Client,
    response: Response<ReplyBody>,
    incoming: RecvStream,
    hand_over: oneshot::Sender<StreamIo>,
    stream: &Stream,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), Ended> {
    let (mut head, body) = response.into_parts();
    drop(body);
    (head.status, head.version) = (StatusCode::OK, Version::HTTP_2);
    strip(&mut head.headers);
    // Only a reply over HTTP/1.1 has these fields.
    for name in [SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    let sent = respond.send_response(Response::from_parts(head, ()), false);
    let Ok(send) = sent else { return Err(Ended::Reset) };
    // The answer is counted now: the tunnel may last for days.
    stream.wait.unflushed.flushed(&client.shared.settler);
    let (io, mut ended) = StreamIo::new(send, incoming);
    if hand_over.send(io).is_err() {
        return Err(Ended::Reset);
    }
    poll_fn(|cx| match stream.why_cut() {
        Some(why) => Poll::Ready(Err(Ended::Cut(why))),
        None => Pin::new(&mut ended).poll(cx).map(|whole| whole.unwrap_or(false).then_some(()).ok_or(Ended::Reset)),
    })
    .await
}

fn interim(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

/// Returns the reply's head as HTTP/2 has it, and the body if there is one.
fn response_of(response: Response<ReplyBody>, method: &Method) -> (Response<()>, Option<ReplyBody>) {
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_2;
    strip(&mut head.headers);
    let has_none = head.status == StatusCode::NO_CONTENT;
    if has_none {
        head.headers.remove(CONTENT_LENGTH);
    } else if let Some(length) = body.size_hint().exact()
        && head.status != StatusCode::NOT_MODIFIED
        && (length > 0 || *method != Method::HEAD)
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    if !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
    {
        head.headers.insert(DATE, date);
    }
    let has_none = has_none || *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    let body = (!has_none && !body.is_end_stream()).then_some(body);
    (Response::from_parts(head, ()), body)
}

fn strip(headers: &mut HeaderMap) {
    for name in &CONNECTION_FIELDS {
        headers.remove(name);
    }
}

/// Sends a body as the client's windows allow.
async fn send_body(mut body: ReplyBody, stream: &Stream, send: &mut SendStream<Bytes>) -> Result<(), Ended> {
    let mut waiting = Bytes::new();
    let mut window = ClientWindow::default();
    poll_fn(|cx| {
        if let Some(why) = stream.why_cut() {
            return Poll::Ready(Err(Ended::Cut(why)));
        }
        if send.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Ended::Reset));
        }
        loop {
            if !waiting.is_empty() {
                let Poll::Ready(capacity) = poll_capacity(send, cx) else {
                    window.record_used_up(&stream.wait);
                    return Poll::Pending;
                };
                capacity?;
                let part = waiting.split_to(waiting.len().min(send.capacity()));
                let ends = waiting.is_empty() && body.is_end_stream();
                let bytes = part.len();
                send.send_data(part, ends).map_err(|_| Ended::Reset)?;
                window.sent(&stream.wait, bytes);
                stream.wait.progress();
                if ends {
                    return Poll::Ready(Ok(()));
                }
                send.reserve_capacity(waiting.len());
                continue;
            }
            match ready!(Pin::new(&mut body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        send.reserve_capacity(data.len());
                        waiting = data;
                    }
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            strip(&mut trailers);
                            return Poll::Ready(send.send_trailers(trailers).map_err(|_| Ended::Reset));
                        }
                    }
                },
                Some(Err(_)) => return Poll::Ready(Err(Ended::Cut(CutReason::LegacyReplyBroken))),
                None => return Poll::Ready(send.send_data(Bytes::new(), true).map_err(|_| Ended::Reset)),
            }
        }
    })
    .await
}

/// Estimates how many of the bytes that were sent of a reply's body the client may not have read yet: at most a window.
/// A client shows that it has read by opening its window again, often only when it has read half of it.
#[derive(Default)]
struct ClientWindow {
    /// The bytes that were sent since the window was last used up.
    sent: usize,
    /// The most bytes that were sent between two such moments. The first time they are the whole window, or the part
    /// that other streams left of the connection's window.
    largest: usize,
}

impl ClientWindow {
    fn sent(&mut self, wait: &ConnectionWait, bytes: usize) {
        self.sent += bytes;
        wait.rates().into_iter().for_each(|rates| rates.written(bytes));
    }
    fn record_used_up(&mut self, wait: &ConnectionWait) {
        self.largest = self.largest.max(std::mem::take(&mut self.sent));
        wait.rates().into_iter().for_each(|rates| rates.write_blocked(self.largest));
    }
}

/// Completes when the client's windows, and the bound on what waits to be written, allow some bytes.
fn poll_capacity(send: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(Ended::Reset)),
        }
    }
    Poll::Ready(Ok(()))
}
