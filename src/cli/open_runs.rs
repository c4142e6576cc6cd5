//! `check --against-open-runs`: the open runs that the files being checked could not have produced.
//!
//! Always true: nothing is changed. Such a run continues with the plan that it was started with.
//! What its plan may still need and the files do not have is named: the run would pause there.

use std::path::Path;

use serde_json::json;

use super::args::Server;
use super::check;
use super::client::CallError;
use super::format::{Formatter, Tone, escape_control};
use super::output::Output;
use super::replay::{RunSource, divergence_table, files_refused};
use crate::app::{Against, Compared};

pub(crate) fn check(
    dir: &Path,
    no_secrets: bool,
    store: Option<&str>,
    server: &Server,
    format: Formatter,
) -> Result<Output, CallError> {
    let checked = check::check(dir, no_secrets, format);
    if !checked.is_ok {
        return Ok(checked);
    }
    let source = RunSource::new(store, server)?;
    let against = Against::read(dir, None, source.secret()?).map_err(|failed| files_refused(&failed, format))?;
    let open = source.open_runs()?;
    let (mut text, mut rows) = (checked.text, Vec::new());
    for run in &open {
        if against.holds(&run.workflow, &run.plan) {
            continue;
        }
        let events = source.events(&run.run_id)?;
        let misses = match against.misses(&events, &source.plan(run)?) {
            Ok(misses) => misses,
            Err(why) => vec![why],
        };
        let (why, found) = match against.run(&events) {
            Ok(Compared::SamePlan) => continue,
            Ok(Compared::Diverges(found)) if found.is_empty() && misses.is_empty() => continue,
            Ok(Compared::Diverges(found)) if found.is_empty() => ("they lack what it still needs", found),
            Ok(Compared::Diverges(found)) => ("they would have decided differently", found),
            Ok(Compared::Gone(_)) => ("they have no such workflow", Vec::new()),
            Err(_) => ("its events cannot be read by this version", Vec::new()),
        };
        text.push_str(&format!(
            "\n{} of {}: these files could not have produced it: {why}\n",
            format.tone(escape_control(&run.run_id), Tone::Strong),
            run.workflow
        ));
        for miss in &misses {
            let line = std::format!("  {miss}: with these files it pauses there\n");
            text.push_str(&format.tone(escape_control(&line), Tone::Warn));
        }
        if !found.is_empty() {
            text.push_str(&divergence_table(&found, format));
        }
        rows.push(
            json!({ "run_id": run.run_id, "workflow": run.workflow, "why": why, "misses": misses, "divergences": found }),
        );
    }
    let verdict = match rows.len() {
        0 => {
            format.tone(format!("{} open runs, all of which these files could have produced\n", open.len()), Tone::Good)
        }
        few => {
            let line = format!(
                "{few} of {} open runs could not have been produced by these files; they keep their plans\n",
                open.len()
            );
            format.tone(line, Tone::Warn)
        }
    };
    text.push_str(&format!("\n{verdict}"));
    let mut json = checked.json;
    json["open_runs"] = json!({ "looked_at": open.len(), "others": rows });
    Ok(Output { text, json, is_ok: rows.is_empty() })
}
