//! `adopt`: has the engine adopt instances of legacy, shows how far that is, and records decisions about unknown ones.

use std::collections::BTreeMap;
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
/// How many ids are shown with one reason.
const IDS_SHOWN_MAX: usize = 10;

pub(crate) fn adopt(
    client: &Client,
    server: &Server,
    options: AdoptArgs,
    format: Formatter,
) -> Result<Output, CallError> {
    let AdoptArgs { route, all, id, legacy, engine, reason } = options;
    let path = format!("/api/v2/routes/{}/adoptions", component(&route));
    let by = server.caller_name();
    if legacy || engine {
        let owner = if legacy { Arm::Legacy } else { Arm::Engine };
        let decision = |id: String| AdoptionDecisionRequest {
            id,
            owner,
            reason: reason.clone().unwrap_or_default(),
            by: by.clone(),
        };
        return decide(client, &path, &route, id.into_iter().map(decision).collect(), format);
    }
    let (mut view, mut json) = client.get::<AdoptionsView>(&path)?;
    let goes_on = all && view.bulk.as_ref().is_some_and(|bulk| bulk.is_running);
    let is_asked_for = all || !id.is_empty();
    if goes_on {
        eprintln!("instances of {route} are being moved already: this shows how far that is");
    } else if is_asked_for {
        (view, json) = client.post::<AdoptionsView>(&path, &AdoptRequest { all, ids: id, by })?;
    }
    let mut is_ok = true;
    if let Some(since) = view.bulk.as_ref().filter(|bulk| bulk.is_running || is_asked_for).map(|bulk| bulk.since) {
        let shows = std::io::stderr().is_terminal();
        if !shows && view.bulk.as_ref().is_some_and(|bulk| bulk.is_running) {
            eprintln!("instances of {route} are being moved: this waits for the end");
        }
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

/// Records decisions, in order. The first refusal ends the command; its error lists what was decided before.
fn decide(
    client: &Client,
    path: &str,
    route: &str,
    decisions: Vec<AdoptionDecisionRequest>,
    format: Formatter,
) -> Result<Output, CallError> {
    let (mut lines, mut decided, mut last) = (String::new(), Vec::new(), None);
    for decision in &decisions {
        let AdoptionDecisionRequest { id, owner, .. } = decision;
        match client.post::<AdoptionsView>(&format!("{path}/decide"), decision) {
            Ok(done) => last = Some(done),
            Err(CallError::Refused(mut problem, value)) if !decided.is_empty() => {
                problem.detail = format!("{}; decided before: {}", problem.detail, decided.join(", "));
                return Err(CallError::Refused(problem, value));
            }
            Err(error) => return Err(error),
        }
        decided.push(id.clone());
        lines.push_str(&format!(
            "{} of {} is {}'s now\n",
            escape_control(id),
            format.tone(route, Tone::Strong),
            owner.as_str()
        ));
        if *owner == Arm::Engine {
            lines.push_str(
                "if its adoption run gave no answer, `instance.output` is null, and workflows that read it fail (`pointsman help \
                 adoption`)\n",
            );
        }
    }
    let (view, json) = match last {
        Some(done) => done,
        None => client.get::<AdoptionsView>(path)?,
    };
    Ok(Output { text: lines + &text(&view, Timestamp::now(), format), json, is_ok: true })
}

fn progress(bulk: &BulkRow) -> String {
    let done = bulk.adopted + bulk.engines + bulk.at_legacy + bulk.unknown + bulk.moving;
    let mut text = format!("{done} of {}: {} adopted", bulk.found, bulk.adopted);
    for (number, what) in [
        (bulk.engines, "made by the engine"),
        (bulk.at_legacy, "stayed legacy's"),
        (bulk.unknown, "unknown"),
        (bulk.moving, "still being moved"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    text
}

/// Why instances were not adopted, each reason once.
fn reasons(bulk: &BulkRow) -> String {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, why) in &bulk.reasons {
        by_reason.entry(why).or_default().push(id);
    }
    let line = |(why, ids): (&str, Vec<&str>)| {
        let more = ids.len().saturating_sub(IDS_SHOWN_MAX);
        let shown = ids.iter().take(IDS_SHOWN_MAX).map(|id| escape_control(id)).collect::<Vec<_>>().join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("  {}: {shown}{more}\n", escape_control(why))
    };
    by_reason.into_iter().map(line).collect()
}

pub(crate) fn text(view: &AdoptionsView, now: Timestamp, format: Formatter) -> String {
    let AdoptionsView { route, workflow, adopted, moving, unknown, given_back, bulk, instances } = view;
    let how = match workflow {
        Some(workflow) => format!("the workflow {workflow} adopts instances of legacy"),
        None => "there is no `instance.adopt` now: no more instances are adopted".to_owned(),
    };
    let mut out = format!("{}: {how}\n\n", format.tone(route, Tone::Strong));
    let alarm = |number: u64, tone: Tone| if number == 0 { Tone::Plain } else { tone };
    let rows = vec![
        vec![plain("adopted"), (count(*adopted), Tone::Plain)],
        vec![plain("being moved"), (count(*moving), Tone::Plain)],
        vec![plain("given back: legacy's"), (count(*given_back), alarm(*given_back, Tone::Warn))],
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
            "\nthe last bulk {ended}: {} (asked for {} by {})\n",
            progress(bulk),
            ago(bulk.since, now),
            escape_control(&bulk.by),
        ));
        out.push_str(&reasons(bulk));
    }
    if !instances.is_empty() {
        let row = |AdoptionRow { id, state, reason, run, by, at }: &AdoptionRow| {
            let tone = if *state == AdoptionState::Unknown { Tone::Bad } else { Tone::Plain };
            vec![
                plain(shown_id(id)),
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
            "\nunknown instances get 503. For each:\n\
             1. ask legacy whether it released the instance (`pointsman runs show RUN` says what its run did)\n\
             2. if the run is open, resolve it: `pointsman runs resolve RUN STEP take --output JSON` if legacy released it, or \
             `retry`; the instance follows what the run does\n\
             3. else `pointsman adopt {route} --id ID --legacy --reason …`, or `--engine`\n"
        ));
    }
    out
}

/// An id; in quotes where blanks at its ends would not be seen.
fn shown_id(id: &str) -> String {
    if id.trim() == id { escape_control(id) } else { format!("{id:?}") }
}
