//! How long each wait of a client connection and of an exchange may last.
//!
//! Always true: the limits of an exchange are those of its route, else those of its service, else those of the files'
//! `limits:`.

use std::time::Duration;

use super::monotonic::NEVER;
use super::rate::MinRates;
use crate::flag::{RelaySettings, TotalTimeout};
use crate::limits::Limits;

/// The limits of one exchange, in microseconds; a service or a route may have its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExchangeLimits {
    /// From the request's last byte to the reply's first byte.
    pub first_byte: u64,
    /// A pause within a body, either way.
    pub body: u64,
    /// The whole exchange.
    pub total: u64,
}

impl ExchangeLimits {
    pub(super) fn new(limits: &Limits, relay: &RelaySettings) -> Self {
        let or = |own: Option<Duration>, ms: u64| micros(own.unwrap_or(Limits::ms(ms)));
        Self {
            first_byte: or(relay.first_byte, limits.first_byte_ms),
            body: or(relay.idle, limits.body_idle_ms),
            total: match relay.total {
                Some(TotalTimeout::Off) => NEVER,
                Some(TotalTimeout::After(time)) => micros(time),
                None if limits.total_ms == 0 => NEVER,
                None => micros(Limits::ms(limits.total_ms)),
            },
        }
    }
    /// Returns these limits with another longest pause within a body, if one is given.
    pub(super) fn with_idle(self, idle: Option<Duration>) -> Self {
        Self { body: idle.map_or(self.body, micros), ..self }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER).max(1)
}

/// The limits of the phases, in microseconds.
#[derive(Clone, Debug)]
pub(super) struct WaitLimits {
    pub(super) idle: u64,
    /// How long a connection is idle before it is parked; [`NEVER`] if it is not.
    pub(super) park: u64,
    pub(super) head: u64,
    /// The limits of an exchange whose service and route have no limits of their own.
    pub(super) exchange: ExchangeLimits,
    pub(super) half_close: u64,
    pub(super) linger: u64,
    /// While a successor accepts: how long an idle client may send one more request.
    pub(super) succession_idle: u64,
    /// While the process stops or hands over: how long the rest of a head may take beyond the time of idle clients.
    pub(super) drain_head: u64,
    /// `None` where there is no minimum.
    pub(super) rates: Option<MinRates>,
    /// The longest time for which the timer is armed: the shortest of the limits for idle, head, first byte, body and
    /// total and the window of the rates, so that it fires in time also for such a wait that begins after it was armed.
    /// The other limits, and those of services and routes, begin in the connection's own task, which then arms the
    /// timer anew.
    pub(super) check_every: u64,
}

impl WaitLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        let micros = |ms: u64| micros(Limits::ms(ms));
        let exchange = ExchangeLimits::new(limits, &RelaySettings::default());
        let ExchangeLimits { first_byte, body, total } = exchange;
        let (idle, head) = (micros(limits.client_idle_ms), micros(limits.head_read_ms));
        let rates = MinRates::new(limits);
        let window = rates.as_ref().map_or(NEVER, MinRates::window);
        Self {
            idle,
            park: if limits.client_park_ms == 0 { NEVER } else { micros(limits.client_park_ms) },
            head,
            exchange,
            half_close: micros(limits.client_half_close_ms),
            linger: micros(limits.linger_ms),
            succession_idle: micros(limits.succession_idle_ms),
            drain_head: micros(limits.drain_head_ms),
            check_every: idle.min(head).min(first_byte).min(body).min(total).min(window),
            rates,
        }
    }
}
