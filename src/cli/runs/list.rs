//! `runs list`.

use jiff::Timestamp;

use super::{tone, took};
use crate::admin::types::{RunList, RunRow};
use crate::cli::Done;
use crate::cli::args::List;
use crate::cli::client::{CallError, Client, query};
use crate::cli::paint::{Field, Paint, Tone, ago, harmless, plain};

pub(crate) fn list(client: &Client, list: List, paint: Paint) -> Result<Done, CallError> {
    let List { status, workflow, route, mode, job, parent, since, limit, before, server: _ } = list;
    let query = query(&[
        ("status", status),
        ("workflow", workflow),
        ("route", route),
        ("mode", mode),
        ("job", job),
        ("parent", parent),
        ("since", since),
        ("before", before),
        ("limit", Some(limit.to_string())),
    ]);
    let (list, json) = client.get::<RunList>(&format!("/api/v2/orchestrate/runs{query}"))?;
    if list.runs.is_empty() {
        return Ok(Done { text: "no run\n".to_owned(), json, fine: true });
    }
    let now = Timestamp::now();
    let mut text = table(&list.runs, now, paint);
    if let Some(next) = &list.next {
        text.push_str(&paint.tone(format!("\nmore with --before {}\n", harmless(next)), Tone::Faint));
    }
    Ok(Done { text, json, fine: true })
}

/// Rows; whose parent is named only where one of them has any.
pub(crate) fn table(runs: &[RunRow], now: Timestamp, paint: Paint) -> String {
    let mut header = vec!["RUN", "WORKFLOW", "MODE", "STATUS", "STARTED", "TOOK", "ROUTE", "NOTE"];
    let mut rows: Vec<Vec<Field>> = runs.iter().map(|run| row(run, now)).collect();
    if runs.iter().any(|run| run.parent.is_some()) {
        header.insert(PARENT, "PARENT");
        for (row, run) in rows.iter_mut().zip(runs) {
            row.insert(PARENT, plain(run.parent.as_deref().unwrap_or("-")));
        }
    }
    paint.table(&header, &[5], rows)
}

/// The place of that column: before the note.
const PARENT: usize = 7;

fn row(run: &RunRow, now: Timestamp) -> Vec<Field> {
    let note = match (&run.note, &run.checkpoint) {
        (Some(note), _) => note.clone(),
        (None, Some(checkpoint)) => format!("asks {} (risk {})", checkpoint.id, checkpoint.risk.as_str()),
        (None, None) => String::new(),
    };
    vec![
        (run.run_id.clone(), Tone::Strong),
        plain(&run.workflow),
        plain(run.mode.as_str()),
        (run.status.as_str().to_owned(), tone(run.status)),
        plain(ago(run.started, now)),
        plain(took(run.started, run.updated, run.status, now)),
        plain(run.route.as_ref().map_or("-", |route| route.as_str())),
        plain(note),
    ]
}
