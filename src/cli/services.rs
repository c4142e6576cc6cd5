//! `services`: breakers, calls in flight and rates of the services that steps call.

use jiff::Timestamp;

use super::client::{CallError, Client};
use super::format::{Formatter, TableCell, Tone, ago, count, duration_text, plain};
use super::output::Output;
use crate::admin::types::{BreakerStateName, ServiceRow};

pub(crate) fn show(client: &Client, format: Formatter) -> Result<Output, CallError> {
    let (services, json) = client.get::<Vec<ServiceRow>>("/api/v2/services")?;
    Ok(Output { text: text(&services, Timestamp::now(), format), json, is_ok: true })
}

pub(crate) fn text(services: &[ServiceRow], now: Timestamp, format: Formatter) -> String {
    let header = ["SERVICE", "BREAKER", "SINCE", "NEXT PROBE", "FAILED", "IN FLIGHT", "SHADOW/DARK", "WAITING", "RATE"];
    format.table(&header, &[4, 5, 6, 7], services.iter().map(|service| row(service, now)).collect())
}

fn row(service: &ServiceRow, now: Timestamp) -> Vec<TableCell> {
    let ServiceRow {
        name,
        urls: _,
        breaker,
        in_flight,
        calls_max,
        secondary_in_flight,
        secondary_calls_max,
        waiting,
        rate,
        burst,
    } = service;
    let of = |now: u64, max: u64| plain(format!("{} of {}", count(now), count(max)));
    let [state, since, probe, failed] = match breaker {
        None => [("off".to_owned(), Tone::Faint), plain("-"), plain("-"), plain("-")],
        Some(breaker) => {
            let state = match breaker.state {
                BreakerStateName::Closed => ("closed".to_owned(), Tone::Good),
                BreakerStateName::HalfOpen => ("half-open".to_owned(), Tone::Warn),
                BreakerStateName::Open => ("open".to_owned(), Tone::Bad),
            };
            let probe = match breaker.next_probe.map(|at| at.duration_since(now).as_secs_f64()) {
                None => "-".to_owned(),
                Some(left) if left > 0.0 => format!("in {}", duration_text(left)),
                Some(_) => "the next call".to_owned(),
            };
            let failed = match breaker.calls {
                0 => plain("-"),
                calls => plain(format!("{} of {}", count(breaker.failed), count(calls))),
            };
            [state, plain(ago(breaker.since, now)), plain(probe), failed]
        }
    };
    let rate = match (rate, burst) {
        (Some(rate), Some(burst)) => format!("{rate}, burst {burst}"),
        (Some(rate), None) => rate.clone(),
        (None, _) => "-".to_owned(),
    };
    let waiting = (count(*waiting), if *waiting > 0 { Tone::Warn } else { Tone::Plain });
    let own = of(*in_flight, *calls_max);
    let secondary = of(*secondary_in_flight, *secondary_calls_max);
    vec![(name.to_string(), Tone::Strong), state, since, probe, failed, own, secondary, waiting, plain(rate)]
}
