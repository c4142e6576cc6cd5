//! The body of an answer of the engine: known as a whole, or passed on while a service sends it.
//!
//! Always true: only the holder that takes a streamed body first reads it. A body that nobody takes is dropped with the
//! last handle, which closes its connection to the service (over HTTP/2, ends its stream). A streamed body is never
//! recorded.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use tower::BoxError;

use crate::names::ServiceName;

/// The body of an answer.
#[derive(Clone, Debug)]
pub enum AnswerBody {
    /// All of it.
    Whole(Bytes),
    /// It comes from a service.
    Streamed(StreamedBody),
}

impl AnswerBody {
    /// All of it, if that is known.
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Streamed(_) => None,
        }
    }
}

impl<B: Into<Bytes>> From<B> for AnswerBody {
    fn from(bytes: B) -> Self {
        Self::Whole(bytes.into())
    }
}

/// A handle to a reply whose body a service is still sending. All clones refer to the same reply.
#[derive(Clone, Default)]
pub struct StreamedBody(Arc<Mutex<Option<ServiceReply>>>);

impl StreamedBody {
    /// Makes a reply available, and drops an earlier one.
    pub fn set(&self, reply: ServiceReply) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
    }
    /// Takes the reply; `None` if it was taken before, or never came.
    pub fn take(&self) -> Option<ServiceReply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamedBody")
    }
}

/// A reply whose body a service is still sending.
pub struct ServiceReply {
    /// The service.
    pub service: ServiceName,
    /// The body. It reads from the service only when it is polled. An error means that the service cut it.
    pub body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    /// The fields of the reply that describe the body and its trailers: they are true only of these bytes.
    pub fields: HeaderMap,
    /// The longest pause that is allowed within the body, where the service's configuration sets one.
    pub idle: Option<Duration>,
}
