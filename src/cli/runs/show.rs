//! `runs show`, `explain`: a run as a person reads it, with the very commands that move it on.

use jiff::Timestamp;
use serde_json::json;

use super::{path, tone, took};
use crate::admin::types::{
    EventRow, ExplanationView, OpenConflict, Orchestration, Part, PendingCheckpoint, RunData, RunStatus, StepRow,
    UndoRow, UndoState,
};
use crate::cli::Done;
use crate::cli::client::{CallError, Client};
use crate::cli::paint::{Field, Paint, Tone, harmless, lasting, plain};

/// How much of one event's content, or of a value, is shown in its line.
const CHARS_MAX: usize = 160;

pub(crate) fn show(client: &Client, run: &str, paint: Paint) -> Result<Done, CallError> {
    let (envelope, mut json) = client.get::<Orchestration>(&path(run, ""))?;
    // The trail of this very run: a job may have another newest one a moment later.
    let (events, trail) = client.get::<Vec<EventRow>>(&path(&envelope.data.run_id, "/events"))?;
    if let Some(json) = json.as_object_mut() {
        json.insert("events".to_owned(), trail);
    }
    Ok(Done { text: text(&envelope.data, &events, Timestamp::now(), paint), json, fine: true })
}

/// A run in full.
pub(crate) fn text(data: &RunData, events: &[EventRow], now: Timestamp, paint: Paint) -> String {
    let mut out = head(data, now, paint);
    out.push('\n');
    let header = ["STEP", "STATUS", "EFFECT", "ATTEMPTS", "TOOK", "NOTE"];
    out.push_str(&paint.table(&header, &[3, 4], data.steps.iter().map(|row| step(row, data.status, now)).collect()));
    for conflict in &data.conflicts {
        out.push('\n');
        out.push_str(&self::conflict(conflict, data, paint));
    }
    for checkpoint in &data.checkpoints {
        out.push('\n');
        out.push_str(&self::checkpoint(checkpoint, data, paint));
    }
    if !data.undone.is_empty() {
        out.push('\n');
        out.push_str(&paint.table(
            &["DONE BEFORE", "UNDONE", "WHY NOT"],
            &[],
            data.undone.iter().map(undone).collect(),
        ));
    }
    if !data.output.is_null() {
        out.push_str(&format!("\n{} {}\n", paint.tone("output", Tone::Strong), short(&data.output.to_string())));
    }
    if !events.is_empty() {
        out.push('\n');
        let rows = events.iter().map(|event| self::event(event, data.run.started)).collect();
        out.push_str(&paint.table(&["#", "AFTER", "EVENT", ""], &[0, 1], rows));
        let shown = match data.run.seq.saturating_sub(events.len() as u64) {
            0 => String::new(),
            more => format!("{more} more; "),
        };
        let whole = format!("\n{shown}in full: pointsman runs events {}\n", harmless(&data.run_id));
        out.push_str(&paint.tone(whole, Tone::Faint));
    }
    out
}

fn head(data: &RunData, now: Timestamp, paint: Paint) -> String {
    let run = &data.run;
    let took = took(run.started, run.updated, data.status, now);
    let by = match (&run.route, &run.parent, &run.started_by) {
        (Some(route), _, _) => format!(", for {route}"),
        (None, Some(parent), _) => format!(", for {}", harmless(parent)),
        (None, None, Some(by)) => format!(", by {}", harmless(by)),
        (None, None, None) => String::new(),
    };
    let mut out = format!(
        "{}  {}  {took} of {} in {} mode{by}\n",
        paint.tone(harmless(&run.id), Tone::Strong),
        paint.tone(data.status.as_str(), tone(data.status)),
        run.workflow,
        run.mode.as_str(),
    );
    let again = run.rerun_of.as_ref().map_or(String::new(), |of| format!("  again after {}", harmless(of)));
    out.push_str(
        &paint.tone(
            format!("{}  {}  started {}{again}\n", harmless(&data.job_id), data.plan_id, run.started),
            Tone::Faint,
        ),
    );
    if let Some(note) = &run.note {
        out.push_str(&format!("{}\n", paint.tone(harmless(note), tone(data.status))));
    }
    out
}

fn step(step: &StepRow, status: RunStatus, now: Timestamp) -> Vec<Field> {
    let tone = match step.status.as_str() {
        "done" => Tone::Good,
        "failed" | "unknown" => Tone::Bad,
        "running" => Tone::Low,
        "skipped" | "not_run" | "pending" => Tone::Faint,
        _ => Tone::Plain,
    };
    let note = step.note.as_deref().unwrap_or_default();
    let note = match (step.items_ended, step.items) {
        (Some(ended), Some(items)) if note.is_empty() => format!("{ended} of {items} items"),
        (Some(ended), Some(items)) => format!("{ended} of {items} items: {note}"),
        _ => note.to_owned(),
    };
    #[allow(clippy::cast_precision_loss)] // shown with few digits
    let took = match step.started {
        // It takes time until it ends, whether or not anything happens to it.
        Some(started) if is_open(&step.status) => super::took(started, started, status, now),
        _ => step.duration_ms.map_or("-".to_owned(), |ms| lasting(ms as f64 / 1e3)),
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

/// Whether a step with this status goes on.
fn is_open(status: &str) -> bool {
    matches!(status, "running" | "retrying" | "conflict" | "undoing") || status.starts_with("waiting")
}

fn undone(row: &UndoRow) -> Vec<Field> {
    let UndoRow { step_id, item, state, why } = row;
    let tone = match state {
        UndoState::Undone | UndoState::Rehearsed => Tone::Good,
        UndoState::NotYet => Tone::Low,
        UndoState::Left => Tone::Warn,
    };
    let place = item.map_or(step_id.clone(), |item| format!("{step_id}[{item}]"));
    vec![(place, Tone::Strong), (word(state), tone), plain(why.as_deref().unwrap_or_default())]
}

/// A step (an item), and the run where that is another one than what is shown.
fn place(step: &str, item: Option<u32>, run: &str, data: &RunData) -> String {
    let place = item.map_or(step.to_owned(), |item| format!("{step}[{item}]"));
    if run == data.run_id { place } else { format!("{place} of {run}") }
}

/// A conflict, with the commands that resolve it.
fn conflict(conflict: &OpenConflict, data: &RunData, paint: Paint) -> String {
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
    let (run, place) = (harmless(run_id), place(step_id, *item, run_id, data));
    let mut out = format!(
        "{} {} ({}, attempt {attempt}): {}\n",
        paint.tone("conflict in", Tone::Bad),
        paint.tone(harmless(&place), Tone::Strong),
        word(kind),
        harmless(message)
    );
    if let Some(expected) = expected {
        out.push_str(&format!("  expected  {}\n", harmless(expected)));
    }
    if let Some(request) = request {
        let body = if request.body.is_null() { String::new() } else { format!(" {}", request.body) };
        out.push_str(&format!("  sent      {} {}{}\n", request.method, harmless(&request.url), short(&body)));
    }
    if let Some(key) = idempotency_key {
        out.push_str(&format!("  under     Idempotency-Key: {}\n", harmless(key)));
    }
    if status.is_some() || !response.is_null() {
        let status = status.map_or(String::new(), |status| format!("{status} "));
        let response = if response.is_null() { String::new() } else { response.to_string() };
        out.push_str(&format!("  came back {status}{}\n", short(&response)));
    }
    let item = item.map_or(String::new(), |item| format!(" --item {item}"));
    for choice in choices {
        let more = match choice.as_str() {
            "retry_with" => " --input JSON",
            "take" => " --output JSON",
            // It is being undone already: what may be ordered is to leave the rest as it is.
            "cancel" if *part == Part::Undo => " --no-undo",
            _ => "",
        };
        let choice = harmless(&choice.replace('_', "-"));
        out.push_str(&format!("  pointsman runs resolve {run} {} {choice}{item}{more}\n", harmless(step_id)));
    }
    out
}

/// A checkpoint, with the command that answers it.
fn checkpoint(checkpoint: &PendingCheckpoint, data: &RunData, paint: Paint) -> String {
    let PendingCheckpoint { id, step_id, item, kind, risk, question, schema, who, items, until, on_timeout, .. } =
        checkpoint;
    let (run, place) = (harmless(&checkpoint.run_id), place(step_id, *item, &checkpoint.run_id, data));
    let mut out = format!(
        "{} {} ({}, risk {}): {}\n",
        paint.tone("asked in", Tone::Warn),
        paint.tone(harmless(&place), Tone::Strong),
        word(kind),
        risk.as_str(),
        harmless(question)
    );
    if !who.is_empty() {
        out.push_str(&format!("  of        {}\n", harmless(&who.join(", "))));
    }
    if let Some(until) = until {
        out.push_str(&format!("  until     {until:.0}, then {}\n", word(on_timeout)));
    }
    if !schema.is_null() {
        out.push_str(&format!("  schema    {}\n", short(&schema.to_string())));
    }
    for item in items {
        out.push_str(&format!("  {:>4}  {}  {}\n", item.index, harmless(&item.what), short(&item.value.to_string())));
    }
    let how = match (word(kind).as_str(), items.is_empty()) {
        ("review", false) => "--approve 0,1 --strike 2".to_owned(),
        ("question", _) if !schema.is_null() => "--values JSON".to_owned(),
        _ => "--yes".to_owned(),
    };
    out.push_str(&format!("  pointsman runs answer {run} {} {how}\n", harmless(id)));
    out.push_str(&format!("  pointsman runs answer {run} {} --no\n", harmless(id)));
    out
}

/// A word of a closed set, as JSON has it.
fn word(word: &impl serde::Serialize) -> String {
    json!(word).as_str().unwrap_or_default().replace('_', " ")
}

fn event(event: &EventRow, started: Timestamp) -> Vec<Field> {
    // Externally tagged: the kind stands in a column of its own already.
    let content = event.event.get(&event.kind).unwrap_or(&event.event).to_string();
    let content = if content == "{}" { String::new() } else { content };
    vec![
        plain(event.seq),
        plain(lasting(event.at.duration_since(started).as_secs_f64().max(0.0))),
        (event.kind.clone(), Tone::Strong),
        (short(&content), Tone::Faint),
    ]
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    harmless(&short)
}

pub(crate) fn explain(client: &Client, run: &str, paint: Paint) -> Result<Done, CallError> {
    let (told, json) = client.get::<ExplanationView>(&path(run, "/explain"))?;
    let tone = if told.stuck { Tone::Bad } else { Tone::Plain };
    let mut text = format!("{}\n", paint.tone(harmless(&told.sentence), tone));
    // The sentence says one of them already.
    let others = told.waits.iter().filter(|wait| !told.sentence.contains(wait.as_str()));
    text.extend(others.map(|wait| format!("  - {}\n", harmless(wait))));
    Ok(Done { text, json, fine: !told.stuck })
}
