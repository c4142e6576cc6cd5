//! `adopt`: has the engine adopt instances of legacy, shows how far that is, and records decisions about unknown ones.

use std::io::IsTerminal as _;
use std::time::Duration;

use jiff::Timestamp;

use super::args::{AdoptArgs, Server};
use super::client::{CallError, Client, component};
use super::format::{Formatter, Tone, ago, count, escape_control, plain};
use super::output::Output;
use crate::admin::types::{AdoptRequest, AdoptionDecisionRequest, AdoptionRow, AdoptionState, AdoptionsView, BulkRow};
use crate::flag::Arm;

/// How often the progress is asked for.
const POLL_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn adopt(
    client: &Client,
    server: &Server,
    options: AdoptArgs,
    format: Formatter,
) -> Result<Output, CallError> {
    let AdoptArgs { route, all, id, legacy, engine, reason } = options;
    let path = format!("/api/v2/routes/{}/adoptions", component(&route));
    let by = server.caller_name();
    if let (true, [id], Some(reason)) = (legacy || engine, id.as_slice(), reason) {
        let owner = if legacy { Arm::Legacy } else { Arm::Engine };
        let request = AdoptionDecisionRequest { id: id.clone(), owner, reason, by };
        let (view, json) = client.post::<AdoptionsView>(&format!("{path}/decide"), &request)?;
        let line =
            format!("{} of {} is {}'s now\n", escape_control(id), format.tone(&route, Tone::Strong), owner.as_str());
        return Ok(Output { text: line + &text(&view, Timestamp::now(), format), json, is_ok: true });
    }
    let (mut view, mut json) = match all || !id.is_empty() {
        true => client.post::<AdoptionsView>(&path, &AdoptRequest { all, ids: id, by })?,
        false => client.get::<AdoptionsView>(&path)?,
    };
    let mut is_ok = true;
    if let Some(since) = view.bulk.as_ref().filter(|bulk| bulk.is_running).map(|bulk| bulk.since) {
        let shows = std::io::stderr().is_terminal();
        while view.bulk.as_ref().is_some_and(|bulk| bulk.is_running && bulk.since == since) {
            if let Some(bulk) = view.bulk.as_ref().filter(|_| shows) {
                eprint!("\r{}\x1b[K", progress(bulk));
            }
            std::thread::park_timeout(POLL_EVERY);
            (view, json) = client.get::<AdoptionsView>(&path)?;
        }
        if shows {
            eprintln!();
        }
        is_ok = view
            .bulk
            .as_ref()
            .is_some_and(|bulk| bulk.adopted + bulk.engines == bulk.found && bulk.ended_early.is_none());
    }
    Ok(Output { text: text(&view, Timestamp::now(), format), json, is_ok })
}

fn progress(bulk: &BulkRow) -> String {
    let done = bulk.adopted + bulk.engines + bulk.at_legacy + bulk.unknown + bulk.moving;
    format!(
        "{done} of {} so far: {} adopted, {} stayed legacy's, {} unknown",
        bulk.found, bulk.adopted, bulk.at_legacy, bulk.unknown
    )
}

pub(crate) fn text(view: &AdoptionsView, now: Timestamp, format: Formatter) -> String {
    let AdoptionsView { route, workflow, adopted, moving, unknown, given_back, bulk, instances } = view;
    let how = match workflow {
        Some(workflow) => format!("adopted by the workflow {workflow}"),
        None => "not adopted: there is no `instance.adopt`".to_owned(),
    };
    let mut out = format!("{}: instances of legacy are {how}\n\n", format.tone(route, Tone::Strong));
    let alarm = |number: u64, tone: Tone| if number == 0 { Tone::Plain } else { tone };
    let rows = vec![
        vec![plain("adopted"), (count(*adopted), Tone::Plain)],
        vec![plain("being moved"), (count(*moving), Tone::Plain)],
        vec![plain("tried, and legacy's"), (count(*given_back), alarm(*given_back, Tone::Warn))],
        vec![plain("unknown: a person decides"), (count(*unknown), alarm(*unknown, Tone::Bad))],
    ];
    out.push_str(&format.table(&["INSTANCES", "COUNT"], &[1], rows));
    if let Some(bulk) = bulk {
        let ended = match (bulk.is_running, &bulk.ended_early) {
            (true, _) => "goes on".to_owned(),
            (false, None) => "has ended".to_owned(),
            (false, Some(why)) => format!("ended early: {}", escape_control(why)),
        };
        out.push_str(&format!(
            "\nthe bulk that {} asked for {} {ended}: {}\n",
            escape_control(&bulk.by),
            ago(bulk.since, now),
            progress(bulk)
        ));
        for (id, why) in &bulk.reasons {
            out.push_str(&format!("  {}  {}\n", escape_control(id), escape_control(why)));
        }
    }
    if !instances.is_empty() {
        let row = |AdoptionRow { id, state, reason, run, by, at }: &AdoptionRow| {
            let tone = if *state == AdoptionState::Unknown { Tone::Bad } else { Tone::Plain };
            vec![
                plain(escape_control(id)),
                (state.as_str().to_owned(), tone),
                (ago(*at, now), Tone::Faint),
                plain(escape_control(by)),
                plain(run.to_string()),
                plain(escape_control(reason.as_deref().unwrap_or_default())),
            ]
        };
        let rows = instances.iter().map(row).collect();
        out.push('\n');
        out.push_str(&format.table(&["ID", "STATE", "SINCE", "BY", "RUN", "WHY"], &[], rows));
    }
    if *unknown > 0 {
        out.push_str(&format!(
            "\nask legacy, then decide: `pointsman adopt {route} --id ID --legacy --reason …`, or `--engine`\n"
        ));
    }
    out
}
