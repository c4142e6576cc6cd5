//! `reload`: has the running process read its files again, and shows the result.

use super::args::Server;
use super::client::{CallError, Client};
use super::evidence;
use super::format::{Formatter, Tone, escape_control, why};
use super::output::Output;
use crate::admin::types::{
    CandidateOfRoute, FileProblem, FlipRow, LimitedRoute, MovedRoute, ReloadRequest, ReloadResponse, RestartedRoute,
};
use crate::flag::State;

pub(crate) fn reload(client: &Client, server: &Server, format: Formatter) -> Result<Output, CallError> {
    let request = ReloadRequest { by: server.caller_name() };
    let (done, json) = client.post::<ReloadResponse>("/api/v2/reload", &request)?;
    Ok(Output { text: outcome(&done, format), json, is_ok: true })
}

/// What a reading of the files came to.
fn outcome(done: &ReloadResponse, format: Formatter) -> String {
    let mut text = if done.changed {
        format.tone("the files are in force\n", Tone::Good)
    } else {
        let seconds = done.in_force_s;
        format!("unchanged: these files have been in force for {seconds:.0} s; secrets and key files were read again\n")
    };
    done.flips.iter().for_each(|flip| text.push_str(&flipped(flip, format)));
    done.moved.iter().for_each(|moved| text.push_str(&moved_without_flip(moved, format)));
    done.limited.iter().for_each(|route| text.push_str(&limited(route, format)));
    for RestartedRoute { route, restart } in &done.evidence_restarted {
        let route = format.tone(route, Tone::Strong);
        text.push_str(&format!("{route}: its evidence is {}\n", evidence::restarted(restart)));
    }
    done.candidates.iter().for_each(|candidate| text.push_str(&candidate_of_files(candidate, format)));
    for changed in &done.changed_since_evidence {
        text.push_str(&format!("{} {}\n", format.tone("warning:", Tone::Warn), escape_control(&changed.reason)));
    }
    for warning in &done.warnings {
        text.push_str(&format!("{} {}\n", format.tone("warning:", Tone::Warn), escape_control(&line(warning))));
    }
    if !done.needs_restart.is_empty() {
        let keys = escape_control(&done.needs_restart.join(", "));
        text.push_str(&format.tone(format!("changed, and takes effect only after a restart: {keys}\n"), Tone::Warn));
    }
    text
}

fn flipped(flip: &FlipRow, format: Formatter) -> String {
    let route = flip.route.as_ref().map_or("(kill switch)", |route| route.as_str());
    let to = flip.to.parse::<State>();
    let share = match (&to, flip.shares) {
        (Ok(state @ (State::Shadow | State::Dark | State::Live)), Some(shares)) => format!(" at {}", shares.of(*state)),
        _ => String::new(),
    };
    let forced = if flip.forced { format.tone(" (forced)", Tone::Warn) } else { String::new() };
    format!(
        "{} {} -> {}{share}, by {}{forced}\n",
        format.tone(escape_control(route), Tone::Strong),
        escape_control(&flip.from),
        format.tone(escape_control(&flip.to), to.map_or(Tone::Plain, Tone::of)),
        escape_control(&flip.by),
    )
}

fn candidate_of_files(CandidateOfRoute { route, percent }: &CandidateOfRoute, format: Formatter) -> String {
    let route = format.tone(route, Tone::Strong);
    let answers = match percent {
        0.0 => "answers nobody yet".to_owned(),
        percent => format!("answers {percent} % of new requests"),
    };
    format!(
        "{route}: the workflow of the files is a candidate and {answers}; the one that was in force before still is \
         (`pointsman evidence {route} --candidate` says what is missing; `pointsman help candidates`)\n"
    )
}

fn moved_without_flip(MovedRoute { route, from, effective }: &MovedRoute, format: Formatter) -> String {
    let to = effective.state;
    let (route, to) = (format.tone(route, Tone::Strong), format.tone(to, Tone::of(to)));
    format!("{route} {from} -> {to}, without a flip ({})\n", why(effective.why))
}

fn limited(LimitedRoute { route, declared, state, reasons }: &LimitedRoute, format: Formatter) -> String {
    let (route, declared) = (format.tone(route, Tone::Strong), format.tone(declared, Tone::of(*declared)));
    let state = format.tone(state, Tone::of(*state));
    let mut text = format!("{route} is {state}, not what a flip or its file asks for (its file says {declared}):\n");
    reasons.iter().for_each(|reason| text.push_str(&format!("  - {}\n", escape_control(reason))));
    text
}

/// `flags/routes/orders.yaml:7:5: … (…)`.
fn line(problem: &FileProblem) -> String {
    let FileProblem { severity: _, file, line, column, message, hint } = problem;
    let position = match (line, column) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        _ => file.clone(),
    };
    let hint = hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
    format!("{position}: {message}{hint}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_that_changed_without_a_flip_and_changes_in_live_are_shown() {
        let done = json!({
            "changed": false, "in_force_s": 7.0, "generation": 3, "flips": [], "held": [], "warnings": [],
            "needs_restart": [],
            "moved": [{ "route": "a", "from": "dark", "effective": { "state": "live", "why": "requested" } }],
            "evidence_restarted": [{ "route": "c", "restart": {
                "at": "2026-01-02T03:04:05Z", "changed": ["`compare:`"], "pairs_before": 1
            } }],
            "candidates": [{ "route": "d", "percent": 0.0 }, { "route": "e", "percent": 5.0 }],
            "changed_since_evidence": [{ "route": "b", "reason": "`b` is in `live`, and its workflow was changed" }],
        });
        let text = outcome(&serde_json::from_value(done).unwrap(), Formatter(false));
        assert!(text.contains("unchanged: these files have been in force for 7 s"), "{text}");
        assert!(text.contains("\na dark -> live, without a flip (as requested)\n"), "{text}");
        assert!(
            text.contains("\nd: the workflow of the files is a candidate and answers nobody yet; the one"),
            "{text}"
        );
        assert!(
            text.contains("\ne: the workflow of the files is a candidate and answers 5 % of new requests"),
            "{text}"
        );
        let restarted =
            "\nc: its evidence is counted from zero since 2026-01-02T03:04:05Z (1 pair before): `compare:` changed\n";
        assert!(text.contains(restarted), "{text}");
        assert!(text.contains("\nwarning: `b` is in `live`, and its workflow was changed\n"), "{text}");
    }
}
