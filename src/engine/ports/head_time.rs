//! How long a call waits for the head of its reply, connecting included.

use std::time::Duration;

use tokio::time::Instant;

use super::service::{CallPermit, ServiceLimits};

/// How long a call waits for the head of its reply.
pub(super) struct HeadTime {
    pub deadline: Instant,
    pub within: Duration,
}

impl HeadTime {
    pub(super) fn new(service_limits: &ServiceLimits, permit: &CallPermit) -> Self {
        let first_byte = service_limits.first_byte_timeout();
        match first_byte.filter(|first_byte| Instant::now() + *first_byte < permit.deadline()) {
            Some(within) => Self { deadline: Instant::now() + within, within },
            None => Self { deadline: permit.deadline(), within: permit.time_allowed() },
        }
    }
    /// How long connecting may take.
    pub(super) fn connect(&self, service_limits: &ServiceLimits) -> Duration {
        self.within.min(service_limits.addresses().dialer().connect)
    }
}
