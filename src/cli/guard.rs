//! `guard release`: ends what the guard of a route did.

use super::args::Server;
use super::client::{CallError, Client, component};
use super::format::{Formatter, Tone, escape_control, why};
use super::output::Output;
use crate::admin::types::{GuardReleaseRequest, GuardReleaseResponse, GuardRow, RouteRow};

pub(crate) fn release(
    client: &Client,
    server: &Server,
    route: &str,
    reason: String,
    force: bool,
    format: Formatter,
) -> Result<Output, CallError> {
    let request = GuardReleaseRequest { reason, force, by: server.caller_name() };
    let path = format!("/api/v2/routes/{}/guard/release", component(route));
    let (done, json) = client.post::<GuardReleaseResponse>(&path, &request)?;
    let GuardReleaseResponse { route, record, effective, still_shut } = &done;
    let mut text = format!(
        "{} released by {}: the state in force is {}{}\n",
        format.tone(route, Tone::Strong),
        escape_control(&record.by),
        format.tone(effective.state, Tone::of(effective.state)),
        match effective.why {
            crate::flag::EffectiveReason::Requested => String::new(),
            reason => format!(" ({})", why(reason)),
        },
    );
    for condition in still_shut {
        let line = format!("its gate would still require: {}\n", escape_control(condition));
        text.push_str(&format.tone(line, Tone::Warn));
    }
    Ok(Output { text, json, is_ok: true })
}

/// What the guard of a route cannot count, as one line.
pub(crate) fn not_counted(route: &RouteRow, format: Formatter) -> Option<String> {
    let what: Vec<_> = route.not_guarded.iter().map(|what| escape_control(what).to_string()).collect();
    let line = || {
        format!(
            "{}: the guard does not count {}: legacy's own rate is not known (`pointsman help guard`)\n",
            route.id,
            what.join(" and ")
        )
    };
    (!what.is_empty()).then(|| format.tone(line(), Tone::Warn))
}

/// What the guard of a route did, as one line.
pub(crate) fn line(route: &str, guard: &GuardRow, format: Formatter) -> String {
    let GuardRow { limit, at, reason, unrecorded, release, clean_pairs, clean_pairs_wanted, .. } = guard;
    let what = match limit {
        Some(limit) => format!("the guard keeps it at {limit}"),
        None => "the guard raised an alarm (a route in only is not lowered)".to_owned(),
    };
    let not_recorded = if *unrecorded { "; not recorded yet: a restart would lose it" } else { "" };
    let by_evidence = match release {
        crate::flag::GuardRelease::Evidence if limit.is_some() => {
            format!("; {clean_pairs} of {clean_pairs_wanted} clean pairs in a row release it")
        }
        _ => String::new(),
    };
    let line = format!(
        "{route}: {what} since {at:.0}: {}{by_evidence}{not_recorded} (`pointsman guard release {route} --reason …`)\n",
        escape_control(reason)
    );
    format.tone(line, Tone::Bad)
}
