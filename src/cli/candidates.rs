//! `flip --candidate`: moves the candidate of a route; and how candidates are shown.

use std::time::Duration;

use super::args::Server;
use super::client::{CallError, Client, component};
use super::format::{Formatter, Tone, count, escape_control};
use super::output::Output;
use crate::admin::types::{CandidateRequest, CandidateResponse, CandidateRow, CandidateStage, RouteDetail, RouteRow};

/// Sent as the plan of the candidate where the route had none: no plan has this name, so that one that has appeared
/// since is not moved.
const NO_PLAN: &str = "none";

/// The pairs that are under way may take a while, and the store too.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The options of `flip --candidate`.
pub(crate) struct CandidateOptions {
    pub route: String,
    pub to: CandidateStage,
    pub percent: Option<f64>,
    /// The plan that is to be the candidate; `None`: the one that the server shows first.
    pub plan: Option<String>,
    pub reason: Option<String>,
    pub force: bool,
}

pub(crate) fn flip(
    client: &Client,
    server: &Server,
    options: CandidateOptions,
    format: Formatter,
) -> Result<Output, CallError> {
    let CandidateOptions { route, to, percent, plan, reason, force } = options;
    if route.ends_with(".*") {
        let hint = "`pointsman status` shows which routes have a candidate; name one of them".to_owned();
        return Err(CallError::Failed(format!("each candidate is moved by itself, not those of `{route}`"), hint));
    }
    let path = format!("/api/v2/routes/{}", component(&route));
    let plan = match plan {
        Some(plan) => plan,
        None => shown_plan(client.get::<RouteDetail>(&path)?.0.row.candidate.as_ref(), &route),
    };
    let request = CandidateRequest { to, percent, plan: Some(plan), reason, force, by: server.caller_name() };
    let what = "waiting for the candidate's pairs that are under way (up to 11 s)";
    let path = format!("{path}/candidate");
    let (done, json) = client.post_showing_wait::<CandidateResponse>(&path, &request, ANSWER_WITHIN, what)?;
    let CandidateResponse { route, candidate, in_force, before, share, forced } = &done;
    if in_force == before {
        let text = format!(
            "{}: the candidate {} answers {share} % of new requests{}, and {} the others\n",
            format.tone(route, Tone::Strong),
            format.tone(escape_control(candidate), Tone::Good),
            format.tone(if *forced { " (forced)" } else { "" }, Tone::Warn),
            escape_control(in_force),
        );
        return Ok(Output { text, json, is_ok: true });
    }
    let text = format!(
        "{}: the plan {} is in force{}, in place of {}\nruns that were begun keep the plan with which they began\n",
        format.tone(route, Tone::Strong),
        format.tone(escape_control(in_force), Tone::Good),
        format.tone(if *forced { " (forced)" } else { "" }, Tone::Warn),
        escape_control(before),
    );
    Ok(Output { text, json, is_ok: true })
}

/// Prints the present candidate and returns its plan. The request names this plan, so that a newer candidate that takes
/// its place meanwhile is not moved.
fn shown_plan(candidate: Option<&CandidateRow>, route: &str) -> String {
    let Some(CandidateRow { plan, pairs, mismatched, verdict, .. }) = candidate else { return NO_PLAN.to_owned() };
    eprintln!(
        "the candidate of {} is {}: {} pairs, {} differ; gate {}",
        escape_control(route),
        escape_control(plan),
        count(*pairs),
        count(*mismatched),
        verdict.as_str()
    );
    plan.clone()
}

/// The candidate of a route, as lines.
pub(crate) fn lines(route: &str, in_force: Option<&str>, candidate: &CandidateRow, format: Formatter) -> String {
    let CandidateRow {
        plan,
        stage: _,
        share,
        since,
        stopped_by_guard,
        pairs,
        mismatched,
        verdict,
        missing,
        conditions: _,
    } = candidate;
    let since = since.map(|since| format!(" (appeared or was moved last at {since:.0})")).unwrap_or_default();
    let share = match stopped_by_guard {
        Some(why) => format!(" The guard took its share of new requests away: {}.", escape_control(why)),
        None if *share > 0.0 => format!(" It answers {share} % of new requests."),
        None => String::new(),
    };
    let head = format!(
        "{route}: its changed workflow ({}) is a candidate{since}, and {} stays in force.{share} Rehearsed: {} pairs, {} \
         differ; gate {}\n",
        escape_control(plan),
        escape_control(in_force.unwrap_or("the plan before")),
        count(*pairs),
        count(*mismatched),
        verdict.as_str(),
    );
    let missing: String = missing.iter().map(|why| format!("  - {}\n", escape_control(why))).collect();
    let open = match missing.is_empty() {
        true => format!(
            "  its gate is open: pointsman flip {route} --candidate live --percent 5 --plan {plan}, or --candidate in-force\n",
            plan = escape_control(plan),
        ),
        false => missing,
    };
    format!("{}{open}", format.tone(head, Tone::Warn))
}

/// Why the plan in force of a route cannot be run, as a line.
pub(crate) fn trouble(route: &RouteRow, format: Formatter) -> Option<String> {
    let why = route.plan_trouble.as_ref()?;
    Some(format.tone(format!("{}: not run: {}\n", route.id, escape_control(why)), Tone::Bad))
}
