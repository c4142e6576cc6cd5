//! The text and the values of the one statement that writes a batch.
//!
//! Always true: a batch is one text, from BEGIN to COMMIT, because every awaited statement costs a hop to the
//! database's thread and back. Its row counts are rounded up to a few sizes, so that few texts are ever prepared; rows
//! that are not there are NULL and filtered out. No value stands in a text.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqlSafeStr, SqlStr};

use super::job::Job;
use crate::store::NewPin;
use crate::workflow::Event;

/// Row counts that statements are made for. More rows than the last are split.
const SIZES: [usize; 6] = [1, 4, 16, 64, 256, 512];

/// Texts that are kept, here and prepared by the connection; a steady load needs a few.
pub(super) const TEXTS_MAX: usize = 64;

/// How many rows of each kind, rounded up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    pins: usize,
    claims: usize,
    runs: usize,
    events: usize,
}

/// Makes the statements, and keeps their texts.
pub(super) struct Statements {
    window_ns: i64,
    texts: HashMap<Shape, Arc<str>>,
}

impl Statements {
    pub(super) fn new(window_ns: i64) -> Self {
        Self { window_ns, texts: HashMap::new() }
    }

    /// What writes these appends, all or none, and whether its text is worth keeping: one larger than any size is
    /// not.
    pub(super) fn write(&mut self, jobs: &[(&Job, &[NewPin])], now_ns: i64) -> (SqlStr, SqliteArguments, bool) {
        let pins = jobs.iter().map(|(_, pins)| pins.len()).sum();
        let claims = jobs.iter().filter(|(job, _)| job.claim.is_some()).count();
        let events = jobs.iter().map(|(job, _)| job.events.len()).sum();
        let shape = Shape { pins: round(pins), claims: round(claims), runs: round(jobs.len()), events: round(events) };
        let largest = SIZES[SIZES.len() - 1];
        let kept = [shape.pins, shape.claims, shape.runs, shape.events].iter().all(|rows| *rows <= largest);
        let window_ns = self.window_ns;
        if self.texts.len() >= TEXTS_MAX {
            self.texts.clear();
        }
        let text = match kept {
            true => self.texts.entry(shape).or_insert_with(|| text(shape, window_ns).into()).clone(),
            false => text(shape, window_ns).into(),
        };
        (AssertSqlSafe(text).into_sql_str(), values(jobs, shape, now_ns), kept)
    }
}

/// The next size; beyond the largest a multiple of it.
fn round(rows: usize) -> usize {
    let largest = SIZES[SIZES.len() - 1];
    match rows {
        0 => 0,
        rows => SIZES.into_iter().find(|size| rows <= *size).unwrap_or(rows.div_ceil(largest) * largest),
    }
}

/// `INSERT … SELECT …` over so many rows; a row whose first value is NULL is not there. Split, because the number of
/// values in one statement is bounded by the database.
fn insert(text: &mut String, into: &str, columns: usize, rows: usize, suffix: &str) {
    let largest = SIZES[SIZES.len() - 1];
    let mut left = rows;
    while left > 0 {
        let now = left.min(largest);
        left -= now;
        let names: Vec<String> = (1..=columns).map(|n| format!("column{n}")).collect();
        let row = format!("({})", vec!["?"; columns].join(","));
        let rows = vec![row.as_str(); now].join(",");
        let names = names.join(",");
        // Writing to a String does not fail.
        let _ = write!(text, "INSERT INTO {into} SELECT {names} FROM (VALUES {rows}) WHERE column1 IS NOT NULL");
        text.push_str(suffix);
        text.push_str(";\n");
    }
}

fn text(shape: Shape, window_ns: i64) -> String {
    let Shape { pins, claims, runs, events } = shape;
    let mut text = String::from("BEGIN IMMEDIATE;\n");
    insert(&mut text, "pins (family, id, arm, run_id, at)", 5, pins, "");
    // A key that legacy noted, or that has run out, is taken; a run that takes its key again keeps the first time.
    let take = format!(
        " ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = excluded.run_id, request = excluded.request, \
         at = excluded.at WHERE retry_keys.run_id IS NOT excluded.run_id \
         OR retry_keys.at <= excluded.at - {window_ns}"
    );
    insert(&mut text, "retry_keys (key, arm, run_id, request, at)", 5, claims, &take);
    insert(
        &mut text,
        "runs (run_id, first, seq, ended, status, workflow, route, mode, summary)",
        9,
        runs,
        " ON CONFLICT (run_id) DO UPDATE SET first = excluded.first, seq = excluded.seq, ended = excluded.ended, \
         status = excluded.status, workflow = excluded.workflow, route = excluded.route, mode = excluded.mode, \
         summary = excluded.summary",
    );
    insert(&mut text, "events (run_id, seq, at, kind, version, batch, event)", 7, events, "");
    text.push_str("COMMIT");
    text
}

/// Values, in the order of the text. Only the last statement's missing rows may be left unbound.
fn values(jobs: &[(&Job, &[NewPin])], shape: Shape, now_ns: i64) -> SqliteArguments {
    let mut row = Row(SqliteArguments::default());
    let mut written = 0;
    for (job, pins) in jobs {
        for pin in *pins {
            row.text(pin.key.family.as_str());
            row.text(&pin.key.id);
            row.text(pin.arm.as_str());
            row.blob(job.run_id.0.as_bytes());
            row.int(job.at());
            written += 1;
        }
    }
    row.pad((shape.pins - written) * 5);
    written = 0;
    for (job, claim) in jobs.iter().filter_map(|(job, _)| job.claim.as_ref().map(|claim| (job, claim))) {
        row.blob(&claim.key.0);
        row.text(crate::flag::Arm::Engine.as_str());
        row.blob(job.run_id.0.as_bytes());
        row.blob(&claim.request);
        row.int(now_ns);
        written += 1;
    }
    row.pad((shape.claims - written) * 5);
    for (job, _) in jobs {
        row.blob(job.run_id.0.as_bytes());
        row.int(job.first.cast_signed());
        row.int(job.last().cast_signed());
        row.int(i64::from(job.run.ended));
        row.text(job.run.status);
        row.text(&job.run.workflow);
        row.maybe(job.run.route.as_deref());
        row.text(job.run.mode);
        row.blob(&job.run.summary);
    }
    row.pad((shape.runs - jobs.len()) * 9);
    for (job, _) in jobs {
        for (seq, event) in (job.first..).zip(&job.events) {
            row.blob(job.run_id.0.as_bytes());
            row.int(seq.cast_signed());
            row.int(event.at);
            row.text(event.kind);
            row.int(i64::from(Event::VERSION));
            row.blob(job.batch.as_bytes());
            row.blob(&event.event);
        }
    }
    row.0
}

/// Binds values one after the other.
pub(super) struct Row(pub(super) SqliteArguments);

// Encoding of these types cannot fail: the results are only there for types that can.
impl Row {
    pub(super) fn text(&mut self, value: &str) {
        let _ = self.0.add(value);
    }
    pub(super) fn blob(&mut self, value: &[u8]) {
        let _ = self.0.add(value);
    }
    pub(super) fn int(&mut self, value: i64) {
        let _ = self.0.add(value);
    }
    fn maybe(&mut self, value: Option<&str>) {
        let _ = self.0.add(value);
    }
    fn pad(&mut self, values: usize) {
        for _ in 0..values {
            let _ = self.0.add(None::<i64>);
        }
    }
}

/// The text of a look-up over so many rows of so many values, and how many values it binds: `{rows}` is replaced.
pub(super) fn lookup(template: &str, columns: usize, rows: usize) -> SqlStr {
    let row = format!("({})", vec!["?"; columns].join(","));
    let rows = vec![row.as_str(); round(rows)].join(",");
    AssertSqlSafe(template.replace("{rows}", &rows)).into_sql_str()
}

/// The most rows that one look-up takes.
pub(super) const LOOKUP_ROWS_MAX: usize = SIZES[SIZES.len() - 1];
