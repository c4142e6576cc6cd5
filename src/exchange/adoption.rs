//! Instances that are moved from legacy to the engine, as the proxy sees them.
//!
//! Always true: a request that is counted at legacy ([`RequestAtLegacy`]) was counted before its arm was decided, and
//! is counted until legacy's reply is complete; no instance is moved while legacy has a request about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::InstanceAccess;
use crate::flag::{AdoptRule, Family, InstanceKey};

/// The question whether legacy may get a request.
#[derive(Clone, Copy, Debug)]
pub struct LegacyAdmissionRequest<'a> {
    /// What the request does.
    pub access: InstanceAccess<&'a Family, &'a InstanceKey>,
    /// Whether its method is one that may change something.
    pub is_write: bool,
    /// How long legacy may go on with the request if its end is not seen.
    pub settles: Duration,
}

/// Whether legacy may get a request.
pub enum LegacyAdmission {
    /// Legacy may get it. The request counts as at legacy until the value is dropped; `None`: nobody counts it.
    AtLegacy(Option<RequestAtLegacy>),
    /// Its instance is being moved; the future resolves when the move has ended.
    Moving(BoxFuture<'static, ()>),
    /// This process does not know whether another one has moved the instance.
    Unknown,
}

/// Counts one request as in flight at legacy until it is dropped. If it was sent and its end was not seen, legacy
/// may go on with it: its instance is not moved for some time.
pub struct RequestAtLegacy {
    requests: Arc<dyn InFlightAtLegacyCounter>,
    number: u64,
    may_go_on: bool,
}

/// Counts the open requests that may change something and began while certain files were in force.
pub trait OpenWriteCounter: Send + Sync {
    /// Counts one of these requests as ended.
    fn end_one(&self);
}

/// Counts one request that may change something as open until it is dropped.
pub struct OpenWriteGuard(Arc<dyn OpenWriteCounter>);

impl OpenWriteGuard {
    /// A request that `writes` has counted.
    pub fn new(writes: Arc<dyn OpenWriteCounter>) -> Self {
        Self(writes)
    }
}

impl Drop for OpenWriteGuard {
    fn drop(&mut self) {
        self.0.end_one();
    }
}

/// Counts the requests that are in flight at legacy.
pub trait InFlightAtLegacyCounter: Send + Sync {
    /// Removes the request with this number. With `may_go_on`, legacy may still be performing it.
    fn leave(&self, number: u64, may_go_on: bool);
}

impl RequestAtLegacy {
    /// A request that `requests` counts under this number.
    pub fn new(requests: Arc<dyn InFlightAtLegacyCounter>, number: u64) -> Self {
        Self { requests, number, may_go_on: false }
    }
    /// Records that legacy is about to get the request.
    pub fn sent(&mut self) {
        self.may_go_on = true;
    }
    /// Records that legacy's reply is complete and shows that legacy has finished with the request.
    pub fn ended(&mut self) {
        self.may_go_on = false;
    }
}

impl Drop for RequestAtLegacy {
    fn drop(&mut self) {
        self.requests.leave(self.number, self.may_go_on);
    }
}

impl fmt::Debug for RequestAtLegacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestAtLegacy({})", self.number)
    }
}

/// Asks, on behalf of a write, for an instance to be moved.
#[derive(Clone, Debug)]
pub struct AdoptionRequest {
    /// The instance.
    pub key: InstanceKey,
    /// How instances of its family are moved.
    pub rule: Arc<AdoptRule>,
}

/// What became of an [`AdoptionRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptionAnswer {
    /// The instance is legacy's, and may be moved later: legacy answers.
    AtLegacy,
    /// The move has ended: the caller has to look up the owner of the instance.
    Settled,
    /// The instance is still being moved.
    Moving,
}

/// Moves instances.
pub trait Adopter: Send + Sync {
    /// See [`super::Affinity::adopt`].
    fn adopt(&self, request: AdoptionRequest) -> BoxFuture<'_, AdoptionAnswer>;
}
