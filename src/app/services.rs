//! Converts the engine's view of services to the API's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::admin::types::{
    AddressFailureRow, AddressRow, AddressStateName, BreakerRow, BreakerStateName, EjectionReasonName, LookupRow,
    ServiceRow,
};
use crate::clock;
use crate::engine::{BreakerState, BreakerView, Engine, ServiceView};
use crate::transport::{AddressView, AddressesView, EjectedView, EjectionReason, FailureView, LookupView};

/// Every service, by name.
pub(super) fn rows(engine: &Engine) -> Vec<ServiceRow> {
    let now = clock::now();
    engine.services().into_iter().map(|view| row(view, now)).collect()
}

fn row(view: ServiceView, now: Timestamp) -> ServiceRow {
    let ServiceView {
        name,
        urls,
        addresses: AddressesView { addresses, lookups },
        breaker,
        in_flight,
        calls_max,
        secondary_in_flight,
        secondary_calls_max,
        waiting,
        rate,
        burst,
    } = view;
    let breaker = breaker.map(|BreakerView { state, since, next_probe, calls, failed, open_in }| {
        let state = match state {
            BreakerState::Closed => BreakerStateName::Closed,
            BreakerState::HalfOpen => BreakerStateName::HalfOpen,
            BreakerState::Open => BreakerStateName::Open,
        };
        BreakerRow { state, since, next_probe, calls, failed, open_in }
    });
    ServiceRow {
        addresses: addresses.into_iter().map(|address| address_row(address, &urls, now)).collect(),
        lookups: lookups.into_iter().map(|lookup| lookup_row(lookup, now)).collect(),
        name,
        urls,
        breaker,
        in_flight,
        calls_max,
        secondary_in_flight,
        secondary_calls_max,
        waiting,
        rate,
        burst,
    }
}

fn address_row(view: AddressView, urls: &[String], now: Timestamp) -> AddressRow {
    let AddressView {
        socket,
        url,
        weight,
        share_percent,
        in_flight,
        secondary_in_flight,
        ejected,
        is_unhealthy,
        last_failure,
    } = view;
    let (ejected_until, ejected_because) = ejected
        .map(|EjectedView { tried_in, reason }| {
            let reason = match reason {
                EjectionReason::NoConnection => EjectionReasonName::NoConnection,
                EjectionReason::NoAnswer => EjectionReasonName::NoAnswer,
            };
            (now.checked_add(signed(tried_in)).unwrap_or(Timestamp::MAX), reason)
        })
        .unzip();
    let state = match (ejected_until.is_some(), is_unhealthy) {
        (true, _) => AddressStateName::Ejected,
        (false, true) => AddressStateName::Unhealthy,
        (false, false) => AddressStateName::Available,
    };
    AddressRow {
        address: socket.to_string(),
        url: urls.get(url).cloned().unwrap_or_default(),
        state,
        ejected_until,
        ejected_because,
        weight,
        share_percent,
        in_flight,
        secondary_in_flight,
        last_failure: last_failure.map(|FailureView { age, why }| AddressFailureRow { at: before(now, age), why }),
    }
}

fn lookup_row(view: LookupView, now: Timestamp) -> LookupRow {
    let LookupView { name, age, failure } = view;
    LookupRow { name, at: age.map(|age| before(now, age)), failure }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    now.checked_sub(signed(age)).unwrap_or(Timestamp::MIN)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}
