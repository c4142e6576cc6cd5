//! `runs list`, `runs show`.

use jiff::Timestamp;

use super::Done;
use super::client::{CallError, Client, component, query};
use super::paint::{Field, Paint, Tone, ago, harmless, lasting, plain};
use crate::admin::types::{EventRow, RunDetail, RunList, RunRow, RunStatus, StepRow};

/// Which runs to list.
pub(crate) struct Filter {
    pub status: Option<String>,
    pub workflow: Option<String>,
    pub route: Option<String>,
    pub limit: usize,
    pub before: Option<String>,
}

/// How much of one event's content is shown in its line.
const EVENT_CHARS_MAX: usize = 160;

pub(crate) fn list(client: &Client, filter: Filter, paint: Paint) -> Result<Done, CallError> {
    let Filter { status, workflow, route, limit, before } = filter;
    let query = query(&[
        ("status", status),
        ("workflow", workflow),
        ("route", route),
        ("before", before),
        ("limit", Some(limit.to_string())),
    ]);
    let (list, json) = client.get::<RunList>(&format!("/api/v2/orchestrate/runs{query}"))?;
    if list.runs.is_empty() {
        return Ok(Done { text: "no run\n".to_owned(), json, fine: true });
    }
    let now = Timestamp::now();
    let header = ["RUN", "WORKFLOW", "MODE", "STATUS", "STARTED", "TOOK", "ROUTE", "NOTE"];
    let mut text = paint.table(&header, &[5], list.runs.iter().map(|run| row(run, now)).collect());
    if let Some(next) = &list.next {
        text.push_str(&paint.tone(format!("\nmore with --before {}\n", harmless(next)), Tone::Faint));
    }
    Ok(Done { text, json, fine: true })
}

fn tone(status: RunStatus) -> Tone {
    match status {
        RunStatus::Completed => Tone::Good,
        RunStatus::Failed => Tone::Bad,
        RunStatus::Paused | RunStatus::Compensating | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal => {
            Tone::Warn
        }
        RunStatus::Cancelled | RunStatus::Abandoned => Tone::Faint,
        RunStatus::Queued | RunStatus::Running => Tone::Low,
    }
}

fn took(run: &RunRow) -> String {
    lasting(run.updated.duration_since(run.started).as_secs_f64().max(0.0))
}

fn row(run: &RunRow, now: Timestamp) -> Vec<Field> {
    vec![
        (run.run_id.clone(), Tone::Strong),
        plain(&run.workflow),
        plain(run.mode.as_str()),
        (run.status.as_str().to_owned(), tone(run.status)),
        plain(ago(run.started, now)),
        plain(took(run)),
        plain(run.route.as_ref().map_or("-", |route| route.as_str())),
        plain(run.note.as_deref().unwrap_or("")),
    ]
}

pub(crate) fn show(client: &Client, run: &str, paint: Paint) -> Result<Done, CallError> {
    let (detail, json) = client.get::<RunDetail>(&format!("/api/v2/orchestrate/run/{}", component(run)))?;
    Ok(Done { text: text(&detail, paint), json, fine: true })
}

pub(crate) fn text(detail: &RunDetail, paint: Paint) -> String {
    let RunDetail { run, steps, events } = detail;
    let mut out = format!(
        "{}  {}  {} of {} in {} mode{}\n",
        paint.tone(harmless(&run.run_id), Tone::Strong),
        paint.tone(run.status.as_str(), tone(run.status)),
        took(run),
        run.workflow,
        run.mode.as_str(),
        run.route.as_ref().map_or(String::new(), |route| format!(", for {route}")),
    );
    out.push_str(&paint.tone(format!("{}  started {}\n", run.plan_id, run.started), Tone::Faint));
    if let Some(note) = &run.note {
        out.push_str(&format!("{}\n", paint.tone(harmless(note), tone(run.status))));
    }
    out.push('\n');
    let header = ["STEP", "STATUS", "EFFECT", "ATTEMPTS", "TOOK", "NOTE"];
    out.push_str(&paint.table(&header, &[3, 4], steps.iter().map(step).collect()));
    out.push('\n');
    let rows = events.iter().map(|event| self::event(event, run.started)).collect();
    out.push_str(&paint.table(&["#", "AFTER", "EVENT", ""], &[0, 1], rows));
    out
}

fn step(step: &StepRow) -> Vec<Field> {
    let tone = match step.status.as_str() {
        "done" => Tone::Good,
        "failed" | "unknown" => Tone::Bad,
        "running" => Tone::Low,
        "skipped" => Tone::Faint,
        _ => Tone::Plain,
    };
    let name = match step.item {
        Some(item) => format!("{}[{item}]", step.step),
        None => step.step.clone(),
    };
    vec![
        (name, Tone::Strong),
        (step.status.clone(), tone),
        plain(step.effect.as_deref().unwrap_or("-")),
        plain(step.attempts),
        plain(step.duration_ms.map_or("-".to_owned(), |ms| lasting(ms / 1e3))),
        plain(step.note.as_deref().unwrap_or("")),
    ]
}

fn event(event: &EventRow, started: Timestamp) -> Vec<Field> {
    // Externally tagged: the kind stands in a column of its own already.
    let content = event.event.get(&event.kind).unwrap_or(&event.event).to_string();
    let content = if content == "{}" { String::new() } else { content };
    let mut short: String = content.chars().take(EVENT_CHARS_MAX).collect();
    if short.len() < content.len() {
        short.push('…');
    }
    vec![
        plain(event.seq),
        plain(lasting(event.at.duration_since(started).as_secs_f64().max(0.0))),
        (event.kind.clone(), Tone::Strong),
        (short, Tone::Faint),
    ]
}
