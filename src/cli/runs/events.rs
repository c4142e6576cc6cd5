//! `runs events`: every event of a run in full.
//!
//! Always true: no line is cut and no event is left out between the first and the last. Events are read page by page;
//! when the server cannot be reached for one of the pages, nothing is shown.

use serde_json::Value;

use super::common::path;
use crate::admin::types::{EventRow, Orchestration};
use crate::cli::args::EventsArgs;
use crate::cli::client::{CallError, Client, query};
use crate::cli::format::{Formatter, Tone, escape_control};
use crate::cli::output::Output;

pub(crate) fn events(client: &Client, args: &EventsArgs, format: Formatter) -> Result<Output, CallError> {
    let (rows, json) = read(client, args)?;
    let mut text: String = rows.iter().map(|row| line(row, format)).collect();
    if text.is_empty() {
        text.push_str("no event\n");
    }
    Ok(Output { text, json, is_ok: true })
}

/// The requested events, page by page: the server may return fewer per page than requested.
fn read(client: &Client, args: &EventsArgs) -> Result<(Vec<EventRow>, Value), CallError> {
    let (mut rows, mut all, mut from) = (Vec::new(), Vec::new(), args.from);
    // A job's id is resolved once: its newest run may change between two pages.
    let run = match args.run.starts_with("job_") {
        true => client.get::<Orchestration>(&path(&args.run, ""))?.0.data.run_id,
        false => args.run.clone(),
    };
    loop {
        let left = args.limit.map(|limit| limit.saturating_sub(rows.len() as u64));
        if left == Some(0) {
            break;
        }
        let query = query(&[("from", Some(from.to_string())), ("limit", left.map(|left| left.to_string()))]);
        let (page, json) = client.get::<Vec<EventRow>>(&path(&run, &format!("/events{query}")))?;
        let Some(last) = page.last() else { break };
        from = last.seq + 1;
        rows.extend(page);
        if let Value::Array(page) = json {
            all.extend(page);
        }
    }
    Ok((rows, Value::Array(all)))
}

fn line(row: &EventRow, format: Formatter) -> String {
    // Events are externally tagged; the kind is printed before, so only the content is.
    let content = row.event.get(&row.kind).unwrap_or(&row.event).to_string();
    let content = if content == "{}" { String::new() } else { format!("  {}", escape_control(&content)) };
    let kind = format.tone(format!("{:<20}", escape_control(&row.kind)), Tone::Strong);
    format!("{:>5}  {:.3}  {kind}{content}\n", row.seq, row.at).replace(" \n", "\n")
}
