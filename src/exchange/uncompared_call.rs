//! Calls by legacy that may have changed something and are part of no compared pair.

use std::sync::Arc;

use jiff::Timestamp;

use super::request_effects::CallTarget;
use crate::names::RouteId;

/// Why a call is compared with nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UncomparedReason {
    /// It names a request whose `egress.window` was over.
    Late,
    /// It belongs to no known request, or what it does is not seen (a tunnel).
    NoKnownRequest,
}

/// Calls to one target that are compared with nothing, and that a request of one route may have caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncomparedCalls {
    /// The route.
    pub route: RouteId,
    /// Where they went; `None` if that is not known.
    pub to: Option<Arc<CallTarget>>,
    /// Why they are compared with nothing.
    pub reason: UncomparedReason,
    /// How many they are.
    pub calls: u64,
    /// When the first one ended.
    pub first: Timestamp,
}
