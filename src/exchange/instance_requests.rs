//! Requests of instances while legacy has them.
//!
//! The shadow executor runs the requests of one instance in the order in which legacy answered them. For that it must
//! know which requests of the instance legacy has at the same moment: their order is unknown. Always true: a request is
//! announced before legacy gets it and closed when nothing more comes of it, whether it was offered or not.

use std::fmt;
use std::sync::Arc;

use crate::flag::{Family, InstanceKey};

/// What a request does with instances. The parameters: whether the family and the key are owned, borrowed, or in the
/// form in which they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceAccess<F = Family, K = InstanceKey> {
    /// It may create an instance of this family. Legacy may know its id before the reply.
    Creates(F),
    /// It follows this instance up: it reads or changes it.
    FollowsUp(K),
}

/// The number of an announced request.
pub type RequestNumber = u64;

/// When legacy had a request, by the proxy's clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeAtLegacy {
    /// The number under which the request was announced.
    pub number: RequestNumber,
    /// The earliest time at which legacy may have had the request.
    pub began: u64,
    /// When the reply was complete. Before that, its last byte was not sent to the client.
    pub ended: u64,
}

/// Is told what becomes of an announced request. No method waits for the shadow executor.
pub trait AnnouncedRequestObserver: Send + Sync {
    /// Records when legacy's reply was complete.
    fn answered(&self, number: RequestNumber, at: u64);
    /// Records that legacy created this instance.
    fn created(&self, number: RequestNumber, key: InstanceKey);
    /// Closes the request: nothing more comes of it. If the request was not offered and `may_have_changed`, legacy may
    /// have changed the instance, and its twin lacks that change.
    fn close(&self, number: RequestNumber, may_have_changed: bool);
}

/// A request of an instance that legacy is about to get, has, or has answered. Dropping it closes the request.
pub struct OpenRequest {
    requests: Arc<dyn AnnouncedRequestObserver>,
    number: RequestNumber,
    began: u64,
    ended: Option<u64>,
    may_have_changed: bool,
}

impl OpenRequest {
    /// A request that was announced to `requests` under this number.
    pub fn new(requests: Arc<dyn AnnouncedRequestObserver>, number: RequestNumber, began: u64) -> Self {
        Self { requests, number, began, ended: None, may_have_changed: true }
    }
    /// Records that legacy's reply is complete. To be called before the client can have all of it.
    pub fn answered(&mut self, at: u64) {
        self.ended = Some(at);
        self.requests.answered(self.number, at);
    }
    /// Records that legacy created this instance.
    pub fn created(&self, key: InstanceKey) {
        self.requests.created(self.number, key);
    }
    /// Records that legacy certainly did nothing for the request.
    pub fn nothing_was_done(&mut self) {
        self.may_have_changed = false;
    }
    /// When legacy had the request; `None` while the reply is not complete.
    pub fn time(&self) -> Option<TimeAtLegacy> {
        Some(TimeAtLegacy { number: self.number, began: self.began, ended: self.ended? })
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.requests.close(self.number, self.may_have_changed);
    }
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenRequest({})", self.number)
    }
}
