//! A request's body as it came, and how much of it is read before an arm has it.
//!
//! Always true: what was read ahead is part of what the arm gets; no more is read ahead than a limit.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::capture::RequestCapture;
use super::request_body::{Account, RequestBody};

/// A request's body on its way to an arm.
pub(super) struct Upload {
    incoming: Incoming,
    account: Account,
    ahead: Option<Ahead>,
}

/// What was read of it.
enum Ahead {
    Whole(Bytes, Option<HeaderMap>),
    /// It is larger than the limit: what came before that.
    Prefix(Bytes),
    Broken,
}

/// A request's body, read.
pub(super) enum Read {
    Whole(Bytes, Option<HeaderMap>),
    /// Larger than the limit: what was read, and the rest.
    TooLarge(Bytes, Incoming, Account),
    Broken,
}

impl Upload {
    pub(super) fn new(incoming: Incoming, account: Account) -> Self {
        Self { incoming, account, ahead: None }
    }

    /// As it comes; what was read ahead comes first.
    pub(super) fn stream(self, tee: Option<Arc<Mutex<RequestCapture>>>) -> RequestBody {
        match self.ahead {
            Some(Ahead::Whole(bytes, None)) if bytes.is_empty() => RequestBody::empty(),
            Some(Ahead::Whole(bytes, trailers)) => RequestBody::whole(bytes, trailers).copied_to(tee),
            Some(Ahead::Prefix(prefix)) => RequestBody::prefixed(prefix, self.incoming, self.account).copied_to(tee),
            Some(Ahead::Broken) | None if http_body::Body::is_end_stream(&self.incoming) => RequestBody::empty(),
            Some(Ahead::Broken) | None => RequestBody::streamed(self.incoming, self.account, tee),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.ahead {
            Some(Ahead::Whole(bytes, _)) => bytes.is_empty(),
            Some(Ahead::Prefix(_)) => false,
            Some(Ahead::Broken) | None => http_body::Body::is_end_stream(&self.incoming),
        }
    }

    /// Reads it up to a limit; its declared length may say at once that it is larger.
    pub(super) async fn read_ahead(&mut self, bytes_max: usize, declared: Option<u64>) {
        if self.ahead.is_none() {
            self.ahead = Some(read(&mut self.incoming, &self.account, bytes_max, declared).await);
        }
    }

    /// What was read ahead, where that is all of it. An error: it broke off.
    pub(super) fn whole(&self) -> Result<Option<&Bytes>, ()> {
        match &self.ahead {
            Some(Ahead::Whole(bytes, _)) => Ok(Some(bytes)),
            Some(Ahead::Prefix(_)) | None => Ok(None),
            Some(Ahead::Broken) => Err(()),
        }
    }

    /// Reads it up to a limit.
    pub(super) async fn read(mut self, bytes_max: usize, declared: Option<u64>) -> Read {
        self.read_ahead(bytes_max, declared).await;
        match self.ahead {
            Some(Ahead::Whole(bytes, trailers)) => Read::Whole(bytes, trailers),
            Some(Ahead::Prefix(prefix)) => Read::TooLarge(prefix, self.incoming, self.account),
            Some(Ahead::Broken) | None => Read::Broken,
        }
    }
}

async fn read(incoming: &mut Incoming, account: &Account, bytes_max: usize, declared: Option<u64>) -> Ahead {
    if declared.is_some_and(|n| n > bytes_max as u64) {
        return Ahead::Prefix(Bytes::new());
    }
    let mut whole = BytesMut::new();
    let mut trailers = None;
    account.clock.client_is_slow(account.turn);
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return Ahead::Broken };
        account.clock.uploaded(account.turn);
        account.clock.client_is_slow(account.turn);
        match frame.into_data() {
            Ok(data) => {
                whole.extend_from_slice(&data);
                if whole.len() > bytes_max {
                    return Ahead::Prefix(whole.freeze());
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    account.clock.request_ended(account.turn);
    Ahead::Whole(whole.freeze(), trailers)
}
