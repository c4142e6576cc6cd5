//! `check --against-open-runs`: which runs that have not ended new files could not have produced.
//!
//! Always true: such a run goes on as it began, since a run keeps its plan; that is why this looks and changes nothing.

use std::path::Path;

use serde_json::json;

use super::args::Server;
use super::client::CallError;
use super::paint::{Paint, Tone, harmless};
use super::replay::{Source, otherwise, refused};
use super::{Done, files};
use crate::app::{Against, Compared};

pub(crate) fn check(
    dir: &Path,
    no_secrets: bool,
    store: Option<&str>,
    server: &Server,
    paint: Paint,
) -> Result<Done, CallError> {
    let checked = files::check(dir, no_secrets, paint);
    if !checked.fine {
        return Ok(checked);
    }
    let source = Source::new(store, server)?;
    let against = Against::read(dir, None, source.secret()?).map_err(|failed| refused(&failed, paint))?;
    let open = source.open_runs()?;
    let (mut text, mut rows) = (checked.text, Vec::new());
    for run in &open {
        if against.holds(&run.workflow, &run.plan) {
            continue;
        }
        let (why, found) = match source.events(&run.run_id).map(|events| against.run(&events))? {
            Ok(Compared::SamePlan) => continue,
            Ok(Compared::Diverges(found)) if found.is_empty() => continue,
            Ok(Compared::Diverges(found)) => ("they would have decided otherwise", found),
            Ok(Compared::Gone(_)) => ("they have no such workflow", Vec::new()),
            Err(_) => ("its events cannot be read by this version", Vec::new()),
        };
        text.push_str(&format!(
            "\n{} of {}: these files could not have produced it: {why}\n",
            paint.tone(harmless(&run.run_id), Tone::Strong),
            run.workflow
        ));
        if !found.is_empty() {
            text.push_str(&otherwise(&found, paint));
        }
        rows.push(json!({ "run_id": run.run_id, "workflow": run.workflow, "why": why, "otherwise": found }));
    }
    let verdict = match rows.len() {
        0 => {
            paint.tone(format!("{} open runs, all of which these files could have produced\n", open.len()), Tone::Good)
        }
        few => {
            let line = format!(
                "{few} of {} open runs could not have come of these files; they keep their plans\n",
                open.len()
            );
            paint.tone(line, Tone::Warn)
        }
    };
    text.push_str(&format!("\n{verdict}"));
    let mut json = checked.json;
    json["open_runs"] = json!({ "looked_at": open.len(), "others": rows });
    Ok(Done { text, json, fine: rows.is_empty() })
}
