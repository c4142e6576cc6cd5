//! `services`: breakers, calls in flight and rates of the services, then each of their addresses and names.

use jiff::Timestamp;

use super::client::{CallError, Client};
use super::format::{Formatter, TableCell, Tone, ago, count, duration_text, plain};
use super::output::Output;
use crate::admin::types::{AddressRow, AddressStateName, BreakerStateName, EjectionReasonName, LookupRow, ServiceRow};

pub(crate) fn show(client: &Client, format: Formatter) -> Result<Output, CallError> {
    let (services, json) = client.get::<Vec<ServiceRow>>("/api/v2/services")?;
    Ok(Output { text: text(&services, Timestamp::now(), format), json, is_ok: true })
}

pub(crate) fn text(services: &[ServiceRow], now: Timestamp, format: Formatter) -> String {
    let header = ["SERVICE", "BREAKER", "SINCE", "NEXT PROBE", "FAILED", "IN FLIGHT", "SHADOW/DARK", "WAITING", "RATE"];
    let mut text = format.table(&header, &[4, 5, 6, 7], services.iter().map(|service| row(service, now)).collect());
    let addresses = services.iter().flat_map(|service| service.addresses.iter().map(move |address| (service, address)));
    let rows: Vec<_> = addresses.map(|(service, address)| address_row(service, address, now)).collect();
    if !rows.is_empty() {
        let header =
            ["SERVICE", "ADDRESS", "STATE", "WEIGHT", "SHARE", "IN FLIGHT", "SHADOW/DARK", "LAST FAILURE", "URL"];
        text.push('\n');
        text.push_str(&format.table(&header, &[3, 4, 5, 6], rows));
    }
    let lookups = services.iter().flat_map(|service| service.lookups.iter().map(move |lookup| (service, lookup)));
    let rows: Vec<_> = lookups.map(|(service, lookup)| lookup_row(service, lookup, now)).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&format.table(&["SERVICE", "NAME", "LOOKED UP", "RESULT"], &[], rows));
    }
    text
}

fn address_row(service: &ServiceRow, address: &AddressRow, now: Timestamp) -> Vec<TableCell> {
    let AddressRow {
        address,
        url,
        state,
        ejected_until,
        ejected_because,
        weight,
        share_percent,
        in_flight,
        secondary_in_flight,
        last_failure,
    } = address;
    let state = match (state, ejected_until) {
        (AddressStateName::Available, _) => plain("available"),
        (AddressStateName::Unhealthy, _) => ("unhealthy".to_owned(), Tone::Bad),
        (AddressStateName::Ejected, until) => {
            let why = match ejected_because {
                Some(EjectionReasonName::NoConnection) => ": no connection",
                Some(EjectionReasonName::NoAnswer) => ": no answer",
                None => "",
            };
            let left = until.map(|until| until.duration_since(now).as_secs_f64()).filter(|left| *left > 0.0);
            let tried = left.map_or_else(|| "now".to_owned(), |left| format!("in {}", duration_text(left)));
            (format!("ejected{why}, tried {tried}"), Tone::Bad)
        }
    };
    let failure = last_failure.as_ref();
    let failure = failure.map_or_else(|| "-".to_owned(), |last| format!("{}: {}", ago(last.at, now), last.why));
    vec![
        (service.name.to_string(), Tone::Strong),
        plain(address),
        state,
        plain(weight),
        plain(format!("{share_percent} %")),
        plain(count(*in_flight)),
        plain(count(*secondary_in_flight)),
        plain(failure),
        plain(url),
    ]
}

fn lookup_row(service: &ServiceRow, lookup: &LookupRow, now: Timestamp) -> Vec<TableCell> {
    let LookupRow { name, at, failure } = lookup;
    let result = match (at, failure) {
        (None, _) => plain("-"),
        (Some(_), None) => ("found".to_owned(), Tone::Good),
        (Some(_), Some(why)) if service.addresses.is_empty() => (format!("failed: {why}"), Tone::Bad),
        (Some(_), Some(why)) => (format!("failed, earlier addresses are kept: {why}"), Tone::Bad),
    };
    let at = at.map_or_else(|| "not yet".to_owned(), |at| ago(at, now));
    vec![(service.name.to_string(), Tone::Strong), plain(name), plain(at), result]
}

fn row(service: &ServiceRow, now: Timestamp) -> Vec<TableCell> {
    let ServiceRow {
        name,
        urls: _,
        addresses: _,
        lookups: _,
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
            let (state, tone) = match breaker.state {
                BreakerStateName::Closed => ("closed".to_owned(), Tone::Good),
                BreakerStateName::HalfOpen => ("half-open".to_owned(), Tone::Warn),
                BreakerStateName::Open => ("open".to_owned(), Tone::Bad),
            };
            let elsewhere = if tone == Tone::Bad { Tone::Bad } else { Tone::Warn };
            let state = match breaker.open_in.len() {
                0 => (state, tone),
                1 => (format!("{state}, open in 1 other process"), elsewhere),
                others => (format!("{state}, open in {others} other processes"), elsewhere),
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
