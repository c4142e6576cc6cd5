//! `egress`: the calls that legacy makes, and to which requests they were attributed.
//!
//! Always true: URLs were redacted by the process that saw them, and their control characters are escaped.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::client::{CallError, Client, component};
use super::format::{Formatter, TableCell, Tone, ago, count, escape_control, plain};
use super::output::Output;
use crate::admin::types::EgressView;

/// The share of attributed calls below which there is advice.
const ATTRIBUTED_ENOUGH: f64 = 0.95;

pub(crate) fn show(client: &Client, route: &str, format: Formatter) -> Result<Output, CallError> {
    let (view, json) = client.get::<EgressView>(&format!("/api/v2/routes/{}/egress", component(route)))?;
    Ok(Output { text: text(&view, Timestamp::now(), format), json, is_ok: true })
}

pub(crate) fn text(view: &EgressView, now: Timestamp, format: Formatter) -> String {
    let mut out = format!("{}\n\n", format.tone(&view.route, Tone::Strong));
    if !view.is_watched {
        out.push_str("legacy's calls are not watched: this process was started without `egress:` in pointsman.yaml\n");
        return out;
    }
    let number = |name: &str, number: u64, tone: Tone| -> Vec<TableCell> { vec![plain(name), (count(number), tone)] };
    let calls = &view.calls;
    let rows = vec![
        number("requests", view.requests, Tone::Plain),
        number("  ended, their window over", view.closed, Tone::Faint),
        number("  of these, without a call", view.without_call, Tone::Plain),
        number("calls by traceparent", calls.traceparent, Tone::Plain),
        number("calls by header", calls.header, Tone::Plain),
        number("calls by value", calls.value, Tone::Plain),
    ];
    out.push_str(&format.table(&["OF THIS ROUTE, SINCE THE START", "COUNT"], &[1], rows));
    out.push_str(&uncompared(view, format));
    let all = &view.all;
    let alarm = |number: u64| if number == 0 { Tone::Good } else { Tone::Warn };
    let rows = vec![
        number("attributed", all.attributed, Tone::Plain),
        number("for requests that are not compared", all.not_compared, Tone::Plain),
        number("ambiguous: several requests could have caused it", all.ambiguous, alarm(all.ambiguous)),
        number("of no watched request", all.unattributed, alarm(all.unattributed)),
        number("attributed, but not kept", all.not_kept, alarm(all.not_kept)),
        number("requests that were not watched for want of room", all.requests_left_out, alarm(all.requests_left_out)),
        number(
            "requests not compared, and not known for want of room",
            all.uncompared_requests_left_out,
            alarm(all.uncompared_requests_left_out),
        ),
    ];
    out.push('\n');
    out.push_str(&format.table(&["CALLS OF ALL ROUTES", "COUNT"], &[1], rows));
    let rule = view.correlate.as_deref().map_or_else(String::new, |rule| format!(" or {}", escape_control(rule)));
    match all.attributed_share {
        None => out.push_str("\nno call was counted yet that a compared request could have caused\n"),
        Some(share) => {
            let _ = writeln!(out, "\n{:.1} % of the calls were attributed, by traceparent{rule}", share * 100.0);
            if share < ATTRIBUTED_ENOUGH {
                let more = match view.correlate {
                    None => "name what tells the request: `egress: { correlate: … }`",
                    Some(_) => "let `egress: { correlate: … }` name something that each call and its request have",
                };
                let _ = writeln!(
                    out,
                    "have legacy hand on the header `traceparent` of the request with each call, or {more} (`pointsman help \
                     egress`)"
                );
            }
        }
    }
    out.push_str(&tunnels(view, now, format));
    if !view.unattributed.is_empty() {
        out.push_str("\nthe last calls without a request:\n");
    }
    for call in &view.unattributed {
        let _ = writeln!(
            out,
            "  {}  {} {}  {}",
            escape_control(&call.outcome),
            escape_control(&call.method),
            escape_control(&call.url),
            format.tone(ago(call.at, now), Tone::Faint),
        );
    }
    out
}

/// The calls that are part of no compared pair; empty if there are none.
fn uncompared(view: &EgressView, format: Formatter) -> String {
    let mut out = String::new();
    let mut tell = |calls: u64, to: &[String], what: &str, todo: &str| {
        if calls > 0 {
            let to = to.iter().map(|to| escape_control(to)).collect::<Vec<_>>().join(", ");
            let text = format!("{} {what} to {to}, which the workflow does not make: {todo}", count(calls));
            let _ = writeln!(out, "{}", format.tone(text, Tone::Bad));
        }
    };
    tell(view.late, &view.late_to, "calls after the window went", "raise `egress.window`");
    let todo = "name in `compare.ignore_calls` those that are never for this route";
    tell(view.of_no_request, &view.of_no_request_to, "calls or tunnels of no known request went", todo);
    if out.is_empty() {
        out
    } else {
        format!("\n{out}these are part of no compared pair, and hold the gate to `live` shut\n")
    }
}

/// The tunnels that legacy opened; empty if there are none.
fn tunnels(view: &EgressView, now: Timestamp, format: Formatter) -> String {
    if view.tunnels.is_empty() {
        return String::new();
    }
    let rows = view.tunnels.iter().map(|tunnel| {
        vec![
            plain(escape_control(&tunnel.to)),
            plain(tunnel.service.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
            plain(count(tunnel.opened)),
            plain(count(tunnel.open)),
            (ago(tunnel.last_opened, now), Tone::Faint),
        ]
    });
    let header = ["TUNNELS SINCE THE START, TO", "SERVICE", "OPENED", "OPEN NOW", "LAST"];
    let mut out = format!("\n{}", format.table(&header, &[2, 3], rows.collect()));
    if view.tunnels_to_others > 0 {
        let _ = writeln!(out, "and to hosts that are not listed: {}", count(view.tunnels_to_others));
    }
    let text = "what goes through a tunnel is not seen: it is in no count of calls, and compared with nothing. Have legacy \
                call the base URL of the egress listener in its place (`pointsman help egress`)";
    let _ = writeln!(out, "{}", format.tone(text, Tone::Warn));
    out
}
