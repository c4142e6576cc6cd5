//! `runs show` and `explain`: a run for people, with the commands that answer and resolve what it waits for.

use jiff::Timestamp;
use serde_json::json;

use super::common::{elapsed, path, status_tone};
use crate::admin::types::{
    EventRow, ExplanationView, OpenConflict, Orchestration, PendingCheckpoint, RunData, RunStatus, RunVersion,
    StepPart, StepRow, UndoRow, UndoState,
};
use crate::cli::client::{CallError, Client};
use crate::cli::format::{Formatter, TableCell, Tone, duration_text, escape_control, plain, without_ciphertext};
use crate::cli::output::Output;

/// The most characters of one event's content, or of a value, that are shown in its line.
const CHARS_MAX: usize = 160;

pub(crate) fn show(client: &Client, run: &str, format: Formatter) -> Result<Output, CallError> {
    let (envelope, mut json) = client.get::<Orchestration>(&path(run, ""))?;
    // By the run's id: a job's newest run may be another one by now.
    let (events, trail) = match client.get::<Vec<EventRow>>(&path(&envelope.data.run_id, "/events")) {
        Ok(found) => found,
        // The events of a stuck run may be unreadable: the envelope says why.
        Err(_) if envelope.data.trouble.is_some() => (Vec::new(), serde_json::Value::Null),
        Err(error) => return Err(error),
    };
    if let Some(json) = json.as_object_mut() {
        json.insert("events".to_owned(), trail);
    }
    Ok(Output { text: text(&envelope.data, &events, Timestamp::now(), format), json, is_ok: true })
}

/// A run in full.
pub(crate) fn text(data: &RunData, events: &[EventRow], now: Timestamp, format: Formatter) -> String {
    let mut out = head(data, now, format);
    if let Some(trouble) = &data.trouble {
        let line = format!("trouble: {}\n", escape_control(trouble));
        out.push_str(&format.tone(line, Tone::Bad));
    }
    out.push('\n');
    let header = ["STEP", "STATUS", "EFFECT", "ATTEMPTS", "TOOK", "NOTE"];
    out.push_str(&format.table(&header, &[3, 4], data.steps.iter().map(|row| step(row, data.status, now)).collect()));
    for conflict in &data.conflicts {
        out.push('\n');
        out.push_str(&self::conflict(conflict, data, format));
    }
    for checkpoint in &data.checkpoints {
        out.push('\n');
        out.push_str(&self::checkpoint(checkpoint, data, format));
    }
    if !data.undone.is_empty() {
        out.push('\n');
        out.push_str(&format.table(
            &["EFFECT OF", "UNDO", "WHY NOT UNDONE"],
            &[],
            data.undone.iter().map(undone).collect(),
        ));
    }
    if !data.output.is_null() {
        out.push_str(&format!("\n{} {}\n", format.tone("output", Tone::Strong), short(&data.output.to_string())));
    }
    if !events.is_empty() {
        out.push('\n');
        let rows = events.iter().map(|event| self::event(event, data.run.started)).collect();
        out.push_str(&format.table(&["#", "AFTER", "EVENT", ""], &[0, 1], rows));
        let shown = match data.run.seq.saturating_sub(events.len() as u64) {
            0 => String::new(),
            more => format!("{more} more; "),
        };
        let whole = format!("\n{shown}in full: pointsman runs events {}\n", escape_control(&data.run_id));
        out.push_str(&format.tone(whole, Tone::Faint));
    }
    out
}

fn head(data: &RunData, now: Timestamp, format: Formatter) -> String {
    let run = &data.run;
    let took = elapsed(run.started, run.updated, data.status, now);
    let by = match (&run.route, &run.parent, &run.started_by) {
        (Some(route), _, _) => format!(", for {route}"),
        (None, Some(parent), _) => format!(", for {}", escape_control(parent)),
        (None, None, Some(by)) => format!(", by {}", escape_control(by)),
        (None, None, None) => String::new(),
    };
    let mut out = format!(
        "{}  {}  {took} of {} in {} mode{by}\n",
        format.tone(escape_control(&run.id), Tone::Strong),
        format.tone(data.status.as_str(), status_tone(data.status)),
        run.workflow,
        run.mode.as_str(),
    );
    let again = run.rerun_of.as_ref().map_or(String::new(), |of| format!("  rerun of {}", escape_control(of)));
    out.push_str(&format.tone(
        format!("{}  {}  started {}{again}\n", escape_control(&data.job_id), data.plan_id, run.started),
        Tone::Faint,
    ));
    if let Some(note) = &run.note {
        out.push_str(&format!("{}\n", format.tone(without_ciphertext(note), status_tone(data.status))));
    }
    out
}

fn step(step: &StepRow, status: RunStatus, now: Timestamp) -> Vec<TableCell> {
    let tone = match step.status.as_str() {
        "done" => Tone::Good,
        "failed" | "unknown" => Tone::Bad,
        "running" => Tone::Info,
        "skipped" | "not_run" | "pending" => Tone::Faint,
        _ => Tone::Plain,
    };
    let note = without_ciphertext(step.note.as_deref().unwrap_or_default());
    let note = match (step.items_ended, step.items) {
        (Some(ended), Some(items)) if note.is_empty() => format!("{ended} of {items} items"),
        (Some(ended), Some(items)) => format!("{ended} of {items} items: {note}"),
        _ => note,
    };
    #[allow(clippy::cast_precision_loss)] // shown with few digits
    let took = match step.started {
        // An open step's duration counts up to now.
        Some(started) if is_open(&step.status) => elapsed(started, started, status, now),
        _ => step.duration_ms.map_or("-".to_owned(), |ms| duration_text(ms as f64 / 1e3)),
    };
    vec![
        (step.step_id.clone(), Tone::Strong),
        (step.status.clone(), tone),
        plain(step.effect.as_deref().unwrap_or("-")),
        plain(step.attempts),
        plain(took),
        plain(note),
    ]
}

/// Whether a step with this status has begun and not ended.
fn is_open(status: &str) -> bool {
    matches!(status, "running" | "retrying" | "conflict" | "undoing") || status.starts_with("waiting")
}

fn undone(row: &UndoRow) -> Vec<TableCell> {
    let UndoRow { step_id, item, state, why } = row;
    let tone = match state {
        UndoState::Undone | UndoState::Rehearsed => Tone::Good,
        UndoState::NotYet => Tone::Info,
        UndoState::NotUndone => Tone::Warn,
    };
    let place = item.map_or(step_id.clone(), |item| format!("{step_id}[{item}]"));
    vec![(place, Tone::Strong), (word(state), tone), plain(why.as_deref().unwrap_or_default())]
}

/// A step with its item, and its run where that is not the run that is shown.
fn place(step: &str, item: Option<u32>, run: &str, data: &RunData) -> String {
    let place = item.map_or(step.to_owned(), |item| format!("{step}[{item}]"));
    if run == data.run_id { place } else { format!("{place} of {run}") }
}

/// The open conflicts of a run, each with the commands that resolve it; empty if there are none.
pub(super) fn conflicts(data: &RunData, format: Formatter) -> String {
    data.conflicts.iter().map(|open| format!("\n{}", conflict(open, data, format))).collect()
}

/// A conflict, with the commands that resolve it.
fn conflict(conflict: &OpenConflict, data: &RunData, format: Formatter) -> String {
    let OpenConflict {
        kind,
        run_id,
        step_id,
        item,
        part,
        attempt,
        message,
        expected,
        status,
        request,
        idempotency_key,
        response,
        choices,
        ..
    } = conflict;
    let (run, place) = (escape_control(run_id), place(step_id, *item, run_id, data));
    let mut out = format!(
        "{} {} ({}, attempt {attempt}): {}\n",
        format.tone("conflict in", Tone::Bad),
        format.tone(escape_control(&place), Tone::Strong),
        word(kind),
        without_ciphertext(message)
    );
    if let Some(expected) = expected {
        out.push_str(&format!("  expected  {}\n", without_ciphertext(expected)));
    }
    if let Some(request) = request {
        let body = if request.body.is_null() { String::new() } else { format!(" {}", request.body) };
        out.push_str(&format!("  sent      {} {}{}\n", request.method, without_ciphertext(&request.url), short(&body)));
    }
    if let Some(key) = idempotency_key {
        out.push_str(&format!("  key       Idempotency-Key: {}\n", escape_control(key)));
    }
    if status.is_some() || !response.is_null() {
        let status = status.map_or(String::new(), |status| format!("{status} "));
        let response = if response.is_null() { String::new() } else { response.to_string() };
        out.push_str(&format!("  received  {status}{}\n", short(&response)));
    }
    let item = item.map_or(String::new(), |item| format!(" --item {item}"));
    let which = format!("{item} --attempt {attempt}");
    for choice in choices {
        let more = match choice.as_str() {
            "retry_with" => " --input JSON",
            "take" => " --output JSON",
            // An earlier version recorded `cancel` for a run that is being undone, where only a cancel without undo is
            // possible; this version records `cancel_without_undo`.
            "cancel" if *part == StepPart::Undo => " --no-undo",
            _ => "",
        };
        let choice = escape_control(&choice.replace('_', "-"));
        out.push_str(&format!("  pointsman runs resolve {run} {} {choice}{which}{more}\n", escape_control(step_id)));
    }
    out
}

/// A checkpoint, with the command that answers it.
fn checkpoint(checkpoint: &PendingCheckpoint, data: &RunData, format: Formatter) -> String {
    let PendingCheckpoint { id, step_id, item, kind, risk, question, schema, who, items, until, on_timeout, .. } =
        checkpoint;
    let (run, place) = (escape_control(&checkpoint.run_id), place(step_id, *item, &checkpoint.run_id, data));
    let mut out = format!(
        "{} {} ({}, risk {}): {}\n",
        format.tone("asked in", Tone::Warn),
        format.tone(escape_control(&place), Tone::Strong),
        word(kind),
        risk.as_str(),
        without_ciphertext(question)
    );
    if !who.is_empty() {
        out.push_str(&format!("  who       {}\n", escape_control(&who.join(", "))));
    }
    if let Some(until) = until {
        out.push_str(&format!("  until     {until:.0}, then {}\n", word(on_timeout)));
    }
    if !schema.is_null() {
        out.push_str(&format!("  schema    {}\n", short(&schema.to_string())));
    }
    for item in items {
        out.push_str(&format!(
            "  {:>4}  {}  {}\n",
            item.index,
            without_ciphertext(&item.what),
            short(&item.value.to_string())
        ));
    }
    let how = match (word(kind).as_str(), items.is_empty()) {
        ("review", false) => "--approve 0,1 --strike 2".to_owned(),
        ("question", _) if !schema.is_null() => "--values JSON".to_owned(),
        _ => "--yes".to_owned(),
    };
    out.push_str(&format!("  pointsman runs answer {run} {} {how}\n", escape_control(id)));
    out.push_str(&format!("  pointsman runs answer {run} {} --no\n", escape_control(id)));
    out
}

/// An enum's name as JSON writes it, with spaces.
fn word(word: &impl serde::Serialize) -> String {
    json!(word).as_str().unwrap_or_default().replace('_', " ")
}

fn event(event: &EventRow, started: Timestamp) -> Vec<TableCell> {
    // Events are externally tagged; the kind has a column of its own.
    let content = event.event.get(&event.kind).unwrap_or(&event.event).to_string();
    let content = if content == "{}" { String::new() } else { content };
    vec![
        plain(event.seq),
        plain(duration_text(event.at.duration_since(started).as_secs_f64().max(0.0))),
        (event.kind.clone(), Tone::Strong),
        (short(&content), Tone::Faint),
    ]
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    escape_control(&short)
}

pub(crate) fn explain(client: &Client, run: &str, format: Formatter) -> Result<Output, CallError> {
    let (view, json) = client.get::<ExplanationView>(&path(run, "/explain"))?;
    let tone = if view.stuck { Tone::Bad } else { Tone::Plain };
    let mut text = format!("{}\n", format.tone(escape_control(&view.sentence), tone));
    if let (Some(version), Some(route)) = (view.version, &view.route) {
        let what = match version {
            RunVersion::InForce => "the plan in force of",
            RunVersion::Candidate => "the candidate of",
            RunVersion::Earlier => "an earlier version of",
        };
        text.push_str(&format!("its plan is {}: {what} {route}\n", escape_control(&view.plan_id)));
    }
    // Not repeated where the sentence contains it.
    let others = view.waits.iter().filter(|wait| !view.sentence.contains(wait.as_str()));
    text.extend(others.map(|wait| format!("  - {}\n", escape_control(wait))));
    if view.status == RunStatus::Paused {
        let (envelope, _) = client.get::<Orchestration>(&path(run, ""))?;
        text.push_str(&conflicts(&envelope.data, format));
    }
    Ok(Output { text, json, is_ok: !view.stuck })
}
