//! Converts the engine's view of services to the API's.

use crate::admin::types::{BreakerRow, BreakerStateName, ServiceRow};
use crate::engine::{BreakerState, BreakerView, Engine, ServiceView};

/// Every service, by name.
pub(super) fn rows(engine: &Engine) -> Vec<ServiceRow> {
    engine.services().into_iter().map(row).collect()
}

fn row(view: ServiceView) -> ServiceRow {
    let ServiceView {
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
    } = view;
    let breaker = breaker.map(|BreakerView { state, since, next_probe, calls, failed }| {
        let state = match state {
            BreakerState::Closed => BreakerStateName::Closed,
            BreakerState::HalfOpen => BreakerStateName::HalfOpen,
            BreakerState::Open => BreakerStateName::Open,
        };
        BreakerRow { state, since, next_probe, calls, failed }
    });
    ServiceRow {
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
