//! A client's request body, of which a part may be read before an arm gets it.
//!
//! Always true: the arm gets the whole body, also the part that was read ahead; reading ahead stops with the frame that
//! exceeds the limit, or for which there is no room.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;

use super::body_copy::BodyCopy;
use super::client_body::ClientBody;
use super::request_body::{BodyProgress, RequestBody};
use super::request_buffer::{BufferedBytes, RequestBuffers};

/// A request's body from the client.
pub(super) struct Upload {
    incoming: ClientBody,
    progress: BodyProgress,
    ahead: Option<ReadAhead>,
    /// The reservation for what was read ahead, if that is counted.
    buffered: Option<BufferedBytes>,
}

/// What was read ahead.
enum ReadAhead {
    Whole(Bytes, Option<HeaderMap>),
    /// The body is larger than the limit, or there was no room for more: the part that was read.
    Prefix(Bytes),
    /// The body ended early, or is framed wrongly.
    Broken,
}

/// A request's body, read up to a limit.
pub(super) enum ReadBody {
    Whole(Bytes, Option<HeaderMap>),
    /// The body is larger than the limit: the part that was read, and the rest.
    TooLarge(Bytes, ClientBody, BodyProgress),
    Broken,
}

impl Upload {
    pub(super) fn new(incoming: ClientBody, progress: BodyProgress) -> Self {
        Self { incoming, progress, ahead: None, buffered: None }
    }

    /// Takes the body out, to be streamed to legacy, beginning with what was read ahead.
    pub(super) fn stream(&mut self, copy: Option<Arc<Mutex<BodyCopy>>>) -> RequestBody {
        let buffered = self.buffered.take();
        match self.ahead.take() {
            Some(ReadAhead::Whole(bytes, None)) if bytes.is_empty() => RequestBody::empty(),
            Some(ReadAhead::Whole(bytes, trailers)) => {
                RequestBody::whole(bytes, trailers).with_reservation(buffered).copied_to(copy)
            }
            Some(ReadAhead::Prefix(prefix)) => {
                let body = RequestBody::prefixed(prefix, self.take_incoming(), self.progress.clone());
                body.with_reservation(buffered).copied_to(copy)
            }
            Some(ReadAhead::Broken) | None if http_body::Body::is_end_stream(&self.incoming) => RequestBody::empty(),
            Some(ReadAhead::Broken) | None => RequestBody::streamed(self.take_incoming(), self.progress.clone(), copy),
        }
    }

    fn take_incoming(&mut self) -> ClientBody {
        std::mem::replace(&mut self.incoming, ClientBody::None)
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.ahead {
            Some(ReadAhead::Whole(bytes, _)) => bytes.is_empty(),
            Some(ReadAhead::Prefix(_)) => false,
            Some(ReadAhead::Broken) | None => http_body::Body::is_end_stream(&self.incoming),
        }
    }

    /// Reads the body up to a limit; reads nothing if the declared length is larger.
    pub(super) async fn read_ahead(&mut self, bytes_max: usize, declared: Option<u64>) {
        if self.ahead.is_none() {
            self.ahead = Some(read(&mut self.incoming, &self.progress, bytes_max, declared, None).await);
        }
    }

    /// Like [`Self::read_ahead`], but stops when there is no room for more.
    pub(super) async fn buffer(&mut self, bytes_max: u64, declared: Option<u64>, room: &Arc<RequestBuffers>) {
        if self.ahead.is_none() {
            let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            let room = self.buffered.insert(room.begin());
            self.ahead = Some(read(&mut self.incoming, &self.progress, bytes_max, declared, Some(room)).await);
        }
    }

    /// Returns the body if all of it was read ahead; an error if it ended early.
    pub(super) fn whole(&self) -> Result<Option<&Bytes>, ()> {
        match &self.ahead {
            Some(ReadAhead::Whole(bytes, _)) => Ok(Some(bytes)),
            Some(ReadAhead::Prefix(_)) | None => Ok(None),
            Some(ReadAhead::Broken) => Err(()),
        }
    }

    /// Reads the body up to a limit, and takes it out.
    pub(super) async fn read(&mut self, bytes_max: usize, declared: Option<u64>) -> ReadBody {
        self.read_ahead(bytes_max, declared).await;
        drop(self.buffered.take());
        match self.ahead.take() {
            Some(ReadAhead::Whole(bytes, trailers)) => ReadBody::Whole(bytes, trailers),
            Some(ReadAhead::Prefix(prefix)) => ReadBody::TooLarge(prefix, self.take_incoming(), self.progress.clone()),
            Some(ReadAhead::Broken) | None => ReadBody::Broken,
        }
    }
}

async fn read(
    incoming: &mut ClientBody,
    progress: &BodyProgress,
    bytes_max: usize,
    declared: Option<u64>,
    mut room: Option<&mut BufferedBytes>,
) -> ReadAhead {
    if declared.is_some_and(|n| n > bytes_max as u64) {
        return ReadAhead::Prefix(Bytes::new());
    }
    let mut whole = BytesMut::new();
    let mut trailers = None;
    progress.wait.set_waits_for_client(progress.exchange_number);
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return ReadAhead::Broken };
        progress.wait.uploaded(progress.exchange_number, frame.data_ref().map_or(0, Bytes::len));
        progress.wait.set_waits_for_client(progress.exchange_number);
        match frame.into_data() {
            Ok(data) => {
                whole.extend_from_slice(&data);
                let has_room = room.as_mut().is_none_or(|room| room.take(data.len()));
                if whole.len() > bytes_max || !has_room {
                    return ReadAhead::Prefix(whole.freeze());
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    progress.wait.request_ended(progress.exchange_number);
    ReadAhead::Whole(whole.freeze(), trailers)
}
