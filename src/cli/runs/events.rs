//! `runs events`: what happened to a run, every event in full.
//!
//! Always true: nothing is cut and nothing is left out between the first and the last line. The trail is read page by
//! page; when the server is gone on the way, nothing is shown.

use serde_json::Value;

use super::path;
use crate::admin::types::{EventRow, Orchestration};
use crate::cli::Done;
use crate::cli::args::EventsOf;
use crate::cli::client::{CallError, Client, query};
use crate::cli::paint::{Paint, Tone, harmless};

pub(crate) fn events(client: &Client, of: &EventsOf, paint: Paint) -> Result<Done, CallError> {
    let (rows, json) = read(client, of)?;
    let mut text: String = rows.iter().map(|row| line(row, paint)).collect();
    if text.is_empty() {
        text.push_str("no event\n");
    }
    Ok(Done { text, json, fine: true })
}

/// The trail, as far as it is asked for: a page may be shorter than that.
fn read(client: &Client, of: &EventsOf) -> Result<(Vec<EventRow>, Value), CallError> {
    let (mut rows, mut all, mut from) = (Vec::new(), Vec::new(), of.from);
    // A job's newest run may be another one before the next page.
    let run = match of.run.starts_with("job_") {
        true => client.get::<Orchestration>(&path(&of.run, ""))?.0.data.run_id,
        false => of.run.clone(),
    };
    loop {
        let left = of.limit.map(|limit| limit.saturating_sub(rows.len() as u64));
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

fn line(row: &EventRow, paint: Paint) -> String {
    // Externally tagged: the kind stands before it already.
    let content = row.event.get(&row.kind).unwrap_or(&row.event).to_string();
    let content = if content == "{}" { String::new() } else { format!("  {}", harmless(&content)) };
    let kind = paint.tone(format!("{:<20}", harmless(&row.kind)), Tone::Strong);
    format!("{:>5}  {:.3}  {kind}{content}\n", row.seq, row.at).replace(" \n", "\n")
}
