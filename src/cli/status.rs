//! `status`: the state of the process and of every route, one row each.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use super::args::{Globals, Server};
use super::client::{CallError, Client};
use super::format::{
    COLUMNS_MAX, Formatter, TableCell, Tone, count, counted, duration_text, escape_control, fitted, plain, why,
};
use super::output::{Output, Printed, print, report_error};
use super::{auto, candidates, evidence, gates, guard};
use crate::admin::types::{CohortAheadRow, InstancesRow, RouteRow, RunStatus, Status};
use crate::flag::{Arm, EffectiveReason, Freeze, State};

/// For how many seconds a restart of a route's evidence is shown.
const RESTART_SHOWN_S: i64 = 86_400;

/// Each warning about the files is shown only if that is asked for (`warnings`): they stay the same until the files are
/// changed, which shows them (`check`, `reload`, the log), and would hide what is new in a text that is read often.
pub(crate) fn show(client: &Client, warnings: bool, format: Formatter) -> Result<Output, CallError> {
    let (status, json) = client.get::<Status>("/api/v2/status")?;
    Ok(Output { text: text(&status, warnings, format), json, is_ok: true })
}

/// Refreshes until it is interrupted or the server cannot be reached.
pub(crate) fn watch(globals: &Globals, server: &Server, warnings: bool, format: Formatter) -> ExitCode {
    loop {
        match Client::new(server).and_then(|client| show(&client, warnings, format)) {
            Ok(done) => {
                let clear = if format.0 { "\u{1b}[2J\u{1b}[H" } else { "" };
                match print(&format!("{clear}{}", done.text), globals.color) {
                    Printed::Done => {}
                    ended @ (Printed::Closed | Printed::Failed) => return ended.exit_code(0),
                }
            }
            Err(error) => return report_error(globals, error),
        }
        std::thread::park_timeout(Duration::from_secs(2));
    }
}

pub(crate) fn text(status: &Status, warnings: bool, format: Formatter) -> String {
    let mut out = String::new();
    let build = format!("pointsman {}", escape_control(&status.build.version));
    out.push_str(&format!(
        "{}  proxy on {}  flags {} old, flag set {}  {} in flight  shadow {} waiting, {} in flight\n",
        format.tone(build, Tone::Strong),
        escape_control(&status.listen),
        duration_text(status.flags.age_s),
        status.flags.generation,
        counted(status.runs_in_flight, "run"),
        count(status.shadow.queue_depth),
        count(status.shadow.in_flight),
    ));
    if let Some(egress) = &status.egress {
        let (listen, calls) = (escape_control(&egress.listen), count(egress.calls));
        out.push_str(&format!("egress on {listen}  {calls} calls by legacy\n"));
    }
    if status.stopping {
        let note = "STOPPING: what is in progress has up to `drain_ms` to finish, then the process ends\n";
        out.push_str(&format.tone(note, Tone::Warn));
    }
    out.push_str(&open_runs(status, format));
    match status.freeze {
        Freeze::No => {}
        Freeze::Instances => out
            .push_str(&format.tone("FROZEN: no new engine instances, except by routes in `only` (`pointsman freeze --off` ends it)\n", Tone::Bad)),
        Freeze::Effects => out.push_str(&format.tone(
            "FROZEN: no new engine instances, except by routes in `only`, and every private and shared step that has not \
             begun is held\n",
            Tone::Bad,
        )),
    }
    if status.freeze_unrecorded {
        let note = "the store has not recorded the freeze yet: a restart would end it\n";
        out.push_str(&format.tone(note, Tone::Bad));
    }
    if status.flips_unrecorded > 0 {
        let note = format!(
            "flips down that the store has not recorded yet: {}; if the process stops or is killed before that, these \
             routes return to the states that the store has\n",
            status.flips_unrecorded
        );
        out.push_str(&format.tone(note, Tone::Bad));
    }
    if !status.engine_healthy {
        let why = match (&status.store_trouble, &status.recovery_trouble) {
            (_, Some(why)) => {
                format!("the runs that the last process left are not resumed yet: {}", escape_control(why))
            }
            (Some(_), None) => "its store is in trouble".to_owned(),
            (None, None) => "its store accepts no writes, and reports no error".to_owned(),
        };
        out.push_str(&format.tone(format!("the engine takes no new runs: {why}\n"), Tone::Bad));
    }
    // A refused write, or a question that had no answer: the text of the trouble says which.
    if let Some(trouble) = &status.store_trouble {
        let unknown = if status.runs.is_none() { "; how many runs are open is not known" } else { "" };
        out.push_str(&format.tone(format!("the store: {}{unknown}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(trouble) = &status.clock_trouble {
        out.push_str(&format.tone(format!("clock: {}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(trouble) = &status.services_trouble {
        out.push_str(&format.tone(format!("services: {}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(trouble) = &status.retry_keys_trouble {
        out.push_str(&format.tone(format!("retry keys: {}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(trouble) = &status.adoption_trouble {
        out.push_str(&format.tone(format!("adoption: {}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(trouble) = &status.instances_trouble {
        out.push_str(&format.tone(format!("instances: {}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(trouble) = &status.processes_trouble {
        out.push_str(&format.tone(format!("processes: {}\n", escape_control(trouble)), Tone::Bad));
    }
    if let Some(succession) = &status.succession {
        out.push_str(&format!("succession: {}\n", escape_control(succession)));
    }
    for stuck in &status.stuck {
        let line = format!("stuck: {}: {}\n", escape_control(&stuck.run_id), escape_control(&stuck.why));
        out.push_str(&format.tone(line, Tone::Bad));
    }
    if status.stuck_more > 0 {
        let line = format!("stuck: and {} more (`pointsman runs list` names each)\n", count(status.stuck_more));
        out.push_str(&format.tone(line, Tone::Bad));
    }
    out.push('\n');
    if !status.routes.is_empty() {
        out.push_str(&table(&status.routes, format));
    }
    let gates = gates::lines(&status.routes, format);
    if !gates.is_empty() {
        out.push_str(&format!("\n{gates}"));
    }
    let guarded =
        status.routes.iter().filter_map(|route| Some(guard::line(route.id.as_str(), route.guard.as_ref()?, format)));
    let not_guarded = status.routes.iter().filter_map(|route| guard::not_counted(route, format));
    let guarded: String = guarded.chain(not_guarded).collect();
    if !guarded.is_empty() {
        out.push_str(&fitted(&format!("\n{guarded}")));
    }
    let growing = status.routes.iter();
    let growing: String =
        growing.filter_map(|route| Some(auto::line(route.id.as_str(), route.auto.as_ref()?, format))).collect();
    if !growing.is_empty() {
        out.push_str(&fitted(&format!("\n{growing}")));
    }
    let candidates = status.routes.iter().filter_map(|route| {
        Some(candidates::lines(route.id.as_str(), route.plan.as_deref(), route.candidate.as_ref()?, format))
    });
    let candidates: String = candidates.collect();
    if !candidates.is_empty() {
        out.push_str(&fitted(&format!("\n{candidates}")));
    }
    let troubles: String = status.routes.iter().filter_map(|route| candidates::trouble(route, format)).collect();
    if !troubles.is_empty() {
        out.push_str(&fitted(&format!("\n{troubles}")));
    }
    let instances: String = status.routes.iter().map(|route| instances(route, Timestamp::now())).collect();
    if !instances.is_empty() {
        out.push_str(&fitted(&format!("\n{instances}")));
    }
    let restarted = restarts(status, Timestamp::now()).concat();
    if !restarted.is_empty() {
        out.push_str(&fitted(&format!("\n{restarted}")));
    }
    let ahead: String = status.routes.iter().map(|route| cohorts_ahead(route, format)).collect();
    if !ahead.is_empty() {
        out.push_str(&fitted(&format!("\n{ahead}")));
    }
    for (route, why) in status.routes.iter().filter_map(|route| Some((&route.id, route.to_accept.as_ref()?))) {
        let line = format!("{}: {}", escape_control(route.as_str()), escape_control(why));
        out.push_str(&format!("\n{}\n", format.tone(line, Tone::Bad)));
    }
    let changed: Vec<&String> =
        status.routes.iter().filter_map(|route| route.changed_since_evidence.as_ref()).collect();
    for why in &changed {
        out.push_str(&format!("\n{} {}", format.tone("warning:", Tone::Warn), escape_control(why)));
    }
    if !changed.is_empty() {
        out.push('\n');
    }
    if let Some(error) = &status.flags.last_error {
        out.push_str(&format!(
            "\n{}\n{}\n",
            format.tone("the newest flag files are not in force; the last good set stays in force:", Tone::Bad),
            escape_control(error).trim_end()
        ));
    }
    if !status.flags.needs_restart.is_empty() {
        let keys = escape_control(&status.flags.needs_restart.join(", "));
        let line = format!("changed in the files, and takes effect only after a restart: {keys}\n");
        out.push_str(&format!("\n{}", format.tone(line, Tone::Warn)));
    }
    out.push_str(&warnings_of_files(&status.flags.warnings, warnings, format));
    out
}

/// The warnings about the files in force: each (`all`), or how many there are.
fn warnings_of_files(warnings: &[String], all: bool, format: Formatter) -> String {
    let label = format.tone("warning:", Tone::Warn);
    match warnings {
        [] => String::new(),
        _ if all => {
            let lines = warnings.iter().map(|warning| format!("\n{label} {}", escape_control(warning)));
            lines.collect::<String>() + "\n"
        }
        [_] => format!("\n{label} there is one about the files: `pointsman status --warnings` shows it\n"),
        many => {
            let number = count(many.len() as u64);
            format!("\n{label} there are {number} about the files: `pointsman status --warnings` shows them\n")
        }
    }
}

/// For a day: which routes' evidence was started from zero, one line each.
fn restarts(status: &Status, now: Timestamp) -> Vec<String> {
    let of_route = |route: &RouteRow| {
        let restart = route.evidence_restarted.as_ref()?;
        let is_new = now.duration_since(restart.at).as_secs() < RESTART_SHOWN_S;
        is_new.then(|| format!("{}: evidence {}\n", route.id, evidence::restarted(restart)))
    };
    status.routes.iter().filter_map(of_route).collect()
}

/// The instances of a family that are alive, one line; nothing if there never were any.
fn instances(route: &RouteRow, now: Timestamp) -> String {
    let of_arm = |row: &InstancesRow| {
        let arm = row.arm.as_str();
        let age = |at: Timestamp| duration_text(now.duration_since(at).as_secs_f64().max(0.0));
        let seen = if row.arm == Arm::Legacy && !row.is_listed { " of those that requests have shown" } else { "" };
        if let Some(drained) = row.drained {
            return format!("{arm} 0{seen}, drained for {}", age(drained));
        }
        let unknown = if row.has_unknown { " and others that are not recorded" } else { "" };
        let oldest = row.oldest.map_or_else(String::new, |oldest| format!(", the oldest for {}", age(oldest)));
        let marked = match row.twins_incomplete {
            0 => String::new(),
            number => format!(", {} without a complete twin", count(number)),
        };
        format!("{arm} {}{unknown}{oldest}{marked}", count(row.alive))
    };
    let arms: Vec<String> = route.instances.iter().map(of_arm).collect();
    match arms.is_empty() {
        true => String::new(),
        false => format!("{}: instances alive: {}\n", route.id, arms.join("; ")),
    }
}

/// The durable runs that have not ended, by status; nothing if there are none.
fn open_runs(status: &Status, format: Formatter) -> String {
    let runs = status.runs.iter().flatten().filter(|(_, number)| **number > 0);
    let counts: Vec<String> = runs.map(|(status, number)| format!("{} {}", count(*number), status.as_str())).collect();
    if counts.is_empty() {
        return String::new();
    }
    let has_paused =
        status.runs.as_ref().and_then(|runs| runs.get(&RunStatus::Paused)).is_some_and(|paused| *paused > 0);
    let (tone, hint) = match has_paused {
        true => (Tone::Warn, " (`pointsman runs list --status paused` lists the paused ones)"),
        false => (Tone::Plain, ""),
    };
    format.tone(format!("runs that have not ended: {}{hint}\n", counts.join(", ")), tone)
}

/// The cohorts of a route that are on a higher rung than the route, one line each.
fn cohorts_ahead(route: &RouteRow, format: Formatter) -> String {
    let lines = route.cohorts_ahead.iter().map(|CohortAheadRow { name, rung, forced }| {
        let (id, name) = (escape_control(route.id.as_str()), escape_control(name));
        let line = format!("{id}: its cohort `{name}` is in {rung}");
        match forced {
            Some(reason) => format.tone(format!("{line} by force: {}\n", escape_control(reason)), Tone::Warn),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// Why a route is not in the requested state, or what else is to be known about it.
fn reason(route: &RouteRow) -> (String, Tone) {
    let effective = route.effective;
    let reason = match effective.why {
        EffectiveReason::Requested | EffectiveReason::Unproven if route.changed_since_evidence.is_some() => {
            ("changed since its evidence".to_owned(), Tone::Warn)
        }
        EffectiveReason::Requested if route.forced.is_some() => ("forced, not yet proven".to_owned(), Tone::Warn),
        EffectiveReason::Requested => (String::new(), Tone::Plain),
        // `off` and `shadow` need no evidence, so "unproven" would mislead.
        EffectiveReason::Unproven if effective.state <= State::Shadow => ("from the file".to_owned(), Tone::Faint),
        EffectiveReason::Unproven => ("from the file, unproven".to_owned(), Tone::Faint),
        EffectiveReason::Gate | EffectiveReason::Guard | EffectiveReason::Health | EffectiveReason::Freeze => {
            (why(effective.why).to_owned(), Tone::Warn)
        }
    };
    match route.flip_unrecorded {
        true if reason.0.is_empty() => ("flip not recorded yet".to_owned(), Tone::Warn),
        true => (format!("{}; flip not recorded yet", reason.0), Tone::Warn),
        false => reason,
    }
}

/// One row for each route. If that is too wide, what a route matches is below its name, and its reason is broken.
fn table(routes: &[RouteRow], format: Formatter) -> String {
    const HEADER: [&str; 10] =
        ["ROUTE", "MATCHES", "REQUESTED", "EFFECTIVE", "WHY", "SHARE", "PAIRS", "MISMATCH", "REQUESTS", "OVERHEAD"];
    let mut rows: Vec<Vec<TableCell>> = routes.iter().map(row).collect();
    let plain = Formatter(false).table(&HEADER, &[5, 6, 7, 8, 9], rows.clone());
    if plain.lines().all(|line| line.chars().count() <= COLUMNS_MAX) {
        return format.table(&HEADER, &[5, 6, 7, 8, 9], rows);
    }
    for row in &mut rows {
        let (matches, _) = row.remove(1);
        if let Some((id, _)) = row.first_mut() {
            id.push_str(&format!("\n  {matches}"));
        }
    }
    let header: Vec<&str> = HEADER.into_iter().filter(|name| *name != "MATCHES").collect();
    format.table_with_broken(&header, &[4, 5, 6, 7, 8], rows, 3)
}

fn row(route: &RouteRow) -> Vec<TableCell> {
    let effective = route.effective;
    let lowered = effective.state < route.requested;
    let reason = reason(route);
    let share = match effective.state {
        State::Off | State::Only => plain("-"),
        state => plain(route.shares.of(state)),
    };
    let mismatch = match (route.pairs, route.mismatched) {
        (0, _) => plain("-"),
        (_, 0) => ("0".to_owned(), Tone::Good),
        (pairs, wrong) => {
            #[allow(clippy::cast_precision_loss)] // shown with two digits
            let percent = wrong as f64 * 100.0 / pairs as f64;
            (format!("{} ({percent:.2}%)", count(wrong)), Tone::Bad)
        }
    };
    vec![
        (route.id.to_string(), Tone::Strong),
        (route.matches.clone(), Tone::Faint),
        (route.requested.to_string(), Tone::of(route.requested)),
        (effective.state.to_string(), if lowered { Tone::Warn } else { Tone::of(effective.state) }),
        reason,
        share,
        if route.pairs == 0 { plain("-") } else { plain(count(route.pairs)) },
        mismatch,
        plain(count(route.requests)),
        match route.overhead_p50_us {
            Some(micros) => plain(duration_text(micros / 1e6)),
            None => plain("-"),
        },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_flip_that_is_not_recorded_is_shown_beside_the_reason_of_the_state() {
        let shown = |why: &str, flip_unrecorded: bool| {
            let row = json!({
                "id": "a", "matches": "GET /", "legacy": "shop", "workflow": "w", "follows": null,
                "requested": "live", "effective": { "state": "shadow", "why": why },
                "shares": { "shadow": 100.0, "dark": 100.0, "live": 100.0 }, "flip_unrecorded": flip_unrecorded,
                "pairs": 0, "mismatched": 0, "requests": 0, "overhead_p50_us": null,
            });
            reason(&serde_json::from_value(row).unwrap()).0
        };
        let frozen = shown("freeze", false);
        assert!(!frozen.is_empty());
        assert_eq!(shown("freeze", true), format!("{frozen}; flip not recorded yet"));
        assert_eq!(shown("requested", true), "flip not recorded yet");
    }
}
