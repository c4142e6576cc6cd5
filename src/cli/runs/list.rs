//! `runs list`.

use jiff::Timestamp;

use super::common::{elapsed, status_tone};
use crate::admin::types::{RunList, RunRow};
use crate::cli::args::ListArgs;
use crate::cli::client::{CallError, Client, query};
use crate::cli::format::{COLUMNS_MAX, Formatter, TableCell, Tone, ago, escape_control, plain, wrapped};
use crate::cli::output::Output;

pub(crate) fn list(client: &Client, list: ListArgs, format: Formatter) -> Result<Output, CallError> {
    let ListArgs { status, workflow, route, mode, job, parent, since, limit, before, server: _ } = list;
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
        return Ok(Output { text: "no run\n".to_owned(), json, is_ok: true });
    }
    let now = Timestamp::now();
    let mut text = table(&list.runs, now, format);
    if let Some(next) = &list.next {
        text.push_str(&format.tone(format!("\nmore with --before {}\n", escape_control(next)), Tone::Faint));
    }
    Ok(Output { text, json, is_ok: true })
}

/// A table of runs; if one of them has a parent, with a column for parents.
pub(crate) fn table(runs: &[RunRow], now: Timestamp, format: Formatter) -> String {
    let mut header = vec!["RUN", "WORKFLOW", "MODE", "STATUS", "STARTED", "TOOK", "ROUTE", "NOTE"];
    let mut rows: Vec<Vec<TableCell>> = runs.iter().map(|run| row(run, now)).collect();
    if runs.iter().any(|run| run.parent.is_some()) {
        header.insert(PARENT_COLUMN, "PARENT");
        for (row, run) in rows.iter_mut().zip(runs) {
            row.insert(PARENT_COLUMN, plain(run.parent.as_deref().unwrap_or("-")));
        }
    }
    let shown = Formatter(false).table(&header, &[5], rows.clone());
    if shown.lines().all(|line| line.chars().count() <= COLUMNS_MAX) {
        return format.table(&header, &[5], rows);
    }
    // Too wide: parent and note are in lines of their own below the row.
    let below = |row: &mut Vec<TableCell>, parent: Option<&str>| {
        let note = row.pop();
        row.truncate(PARENT_COLUMN);
        let parent = parent.map(|parent| wrapped(&format!("parent {parent}"), 4)).unwrap_or_default();
        let note = note.map(|(note, tone)| format.tone(wrapped(&note, 4), tone)).unwrap_or_default();
        parent + &note
    };
    let notes: Vec<String> = rows.iter_mut().zip(runs).map(|(row, run)| below(row, run.parent.as_deref())).collect();
    header.truncate(PARENT_COLUMN);
    let table = format.table(&header, &[5], rows);
    let mut lines = table.lines();
    let first = lines.next().map(|header| format!("{header}\n")).unwrap_or_default();
    first + &lines.zip(notes).map(|(line, note)| format!("{line}\n{note}")).collect::<String>()
}

/// The index of the column for parents: before the note.
const PARENT_COLUMN: usize = 7;

fn row(run: &RunRow, now: Timestamp) -> Vec<TableCell> {
    let note = match (&run.note, &run.checkpoint) {
        (Some(note), _) => note.clone(),
        (None, Some(checkpoint)) => format!("asks {} (risk {})", checkpoint.id, checkpoint.risk.as_str()),
        (None, None) => String::new(),
    };
    let note = run.trouble.as_ref().map_or((note, Tone::Plain), |why| (format!("stuck: {why}"), Tone::Bad));
    vec![
        (run.run_id.clone(), Tone::Strong),
        plain(&run.workflow),
        plain(run.mode.as_str()),
        (run.status.as_str().to_owned(), status_tone(run.status)),
        plain(ago(run.started, now)),
        plain(elapsed(run.started, run.updated, run.status, now)),
        plain(run.route.as_ref().map_or("-", |route| route.as_str())),
        (escape_control(&note.0), note.1),
    ]
}
