//! The text and the values of the one statement that writes a batch.
//!
//! Always true: a batch is one text, from BEGIN to COMMIT, because every awaited statement costs a hop to the
//! database's thread and back, or one statement where it is small. Its row counts are rounded up to a few sizes, so that few texts are ever prepared; rows
//! that are not there are NULL and filtered out. No value stands in a text.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

use super::codec::Part;
use super::going::Runs;
use super::job::{BirthRow, Job};
use super::queues::Queues;
use crate::names::RunId;
use crate::store::NewPin;
use crate::workflow::Event;

/// Row counts that statements are made for. More rows than the last are split.
const SIZES: [usize; 6] = [1, 4, 16, 64, 256, 512];
pub(super) const LARGEST: usize = SIZES[SIZES.len() - 1];

/// Texts that are kept, here and prepared by the connection; a steady load needs a few.
pub(super) const TEXTS_MAX: usize = 64;

/// How many rows of each kind, rounded up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    pins: usize,
    claims: usize,
    seldom: Seldom,
    going: usize,
    plain: usize,
    appends: usize,
}

/// Kinds of rows that most batches have none of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Seldom {
    settled: usize,
    leaves: usize,
    queues: usize,
    notices: usize,
    births: usize,
    payloads: usize,
    refs: usize,
}

/// Rows that most batches have none of.
#[derive(Default)]
struct Rows<'a> {
    /// An order's first answer stands.
    settled: Vec<&'a (Uuid, Vec<u8>)>,
    queues: Queues<'a>,
    notices: Vec<Vec<u8>>,
    births: Vec<&'a BirthRow>,
    payloads: Vec<&'a Part>,
    refs: Vec<(RunId, u64, &'a Part)>,
}

impl<'a> Rows<'a> {
    fn of(jobs: &[(&'a Job, &[NewPin])]) -> Self {
        let mut rows = Rows { queues: Queues::of(jobs), ..Rows::default() };
        let (mut settled, mut hashes) = (HashSet::new(), HashSet::new());
        for (job, _) in jobs.iter().copied() {
            rows.settled.extend(job.settled.iter().filter(|(id, _)| settled.insert(*id)));
            // What was encoded once is encoded again.
            rows.notices.extend(job.append.notices.iter().filter_map(|notice| serde_json::to_vec(notice).ok()));
            rows.births.extend(&job.births);
            rows.refs.extend(job.parts.iter().map(|(seq, part)| (job.run_id, *seq, part)));
            rows.payloads.extend(job.parts.iter().map(|(_, part)| part).filter(|part| hashes.insert(part.hash)));
        }
        rows
    }

    fn shape(&self) -> Seldom {
        Seldom {
            settled: round(self.settled.len()),
            leaves: round(self.queues.leaves.len()),
            queues: round(self.queues.queues.len()),
            notices: round(self.notices.len()),
            births: round(self.births.len()),
            payloads: round(self.payloads.len()),
            refs: round(self.refs.len()),
        }
    }
}

impl Seldom {
    fn largest(self) -> usize {
        let Seldom { settled, leaves, queues, notices, births, payloads, refs } = self;
        [settled, leaves, queues, notices, births, payloads, refs].into_iter().fold(0, usize::max)
    }
}

/// Makes the statements, and keeps their texts.
pub(super) struct Statements {
    window_ns: i64,
    texts: HashMap<Shape, Arc<str>>,
    /// By the number of appends, from one.
    carried: [Arc<str>; CARRIED_MAX],
}

impl Statements {
    pub(super) fn new(window_ns: i64) -> Self {
        Self { window_ns, texts: HashMap::new(), carried: std::array::from_fn(|n| carried(n + 1).into()) }
    }

    /// What writes these appends, all or none, and whether its text is worth keeping: one larger than any size is
    /// not.
    pub(super) fn write(
        &mut self,
        jobs: &[(&Job, &[NewPin])],
        runs: &Runs,
        now_ns: i64,
    ) -> (SqlStr, SqliteArguments, bool) {
        let pins: usize = jobs.iter().map(|(_, pins)| pins.len()).sum();
        let claims = jobs.iter().filter(|(job, _)| job.claim.is_some()).count();
        let appends = jobs.len();
        let rows = Rows::of(jobs);
        let seldom = rows.shape();
        if runs.plain.is_empty() && pins + claims + seldom.largest() == 0 && appends <= self.carried.len() {
            return (
                AssertSqlSafe(self.carried[appends - 1].clone()).into_sql_str(),
                carried_values(&runs.going),
                true,
            );
        }
        let (going, plain) = (round(runs.going.len()), round(runs.plain.len()));
        let shape = Shape { pins: round(pins), claims: round(claims), seldom, going, plain, appends: round(appends) };
        let sizes = [shape.pins, shape.claims, seldom.largest(), going, plain, shape.appends];
        let kept = sizes.iter().all(|rows| *rows <= LARGEST);
        let window_ns = self.window_ns;
        if self.texts.len() >= TEXTS_MAX {
            self.texts.clear();
        }
        let text = match kept {
            true => self.texts.entry(shape).or_insert_with(|| text(shape, window_ns).into()).clone(),
            false => text(shape, window_ns).into(),
        };
        (AssertSqlSafe(text).into_sql_str(), values(jobs, runs, &rows, shape, now_ns), kept)
    }
}

/// The next size; beyond the largest a multiple of it.
pub(super) fn round(rows: usize) -> usize {
    match rows {
        0 => 0,
        rows => SIZES.into_iter().find(|size| rows <= *size).unwrap_or(rows.div_ceil(LARGEST) * LARGEST),
    }
}

/// `INSERT … SELECT …` over so many rows; a row whose first value is NULL is not there.
fn insert(text: &mut String, into: &str, columns: usize, rows: usize, suffix: &str) {
    let names: Vec<String> = (1..=columns).map(|n| format!("column{n}")).collect();
    let before = format!("INSERT INTO {into} SELECT {} FROM (VALUES ", names.join(","));
    over(text, &before, columns, rows, &format!(") WHERE column1 IS NOT NULL{suffix}"));
}

/// A statement over so many rows. Split, because the number of values in one statement is bounded by the database.
fn over(text: &mut String, before: &str, columns: usize, rows: usize, after: &str) {
    let mut left = rows;
    while left > 0 {
        let now = left.min(LARGEST);
        left -= now;
        let row = format!("({})", vec!["?"; columns].join(","));
        let rows = vec![row.as_str(); now].join(",");
        // Writing to a String does not fail.
        let _ = writeln!(text, "{before}{rows}{after};");
    }
}

const RUNS: &str = "runs (run_id, first, seq, ended, status, workflow, route, mode, summary, fence, owner, turn, updated, \
                    pinned, job, parent)";
const RUN_VALUES: usize = 16;
/// Whose job a run is, and who began it, never changes.
const GO_ON: &str = " ON CONFLICT (run_id) DO UPDATE SET first = excluded.first, seq = excluded.seq, \
                     ended = excluded.ended, status = excluded.status, workflow = excluded.workflow, \
                     route = excluded.route, mode = excluded.mode, summary = excluded.summary, owner = excluded.owner, \
                     turn = excluded.turn, updated = excluded.updated, pinned = max(runs.pinned, excluded.pinned)";

/// Runs that are going: of what is not written here, the row itself is asked. A row that is otherwise makes `seq` NULL,
/// one that is not there makes the count differ; either fails whole.
const CARRY: &str = "UPDATE runs SET first = given.column2, \
                     seq = CASE WHEN given.column2 = runs.seq + 1 AND runs.fence = given.column4 AND runs.ended = 0 \
                     AND runs.turn IS NULL AND runs.status = 'running' THEN given.column3 END, \
                     updated = given.column5, owner = given.column6 FROM (VALUES ";
const CARRY_VALUES: usize = 6;
const CARRIED: &str = "INSERT INTO meta (key, value) SELECT 'a run is not there', NULL WHERE changes() <> ?;\n";

fn text(shape: Shape, window_ns: i64) -> String {
    let Shape { pins, claims, seldom, going, plain, appends } = shape;
    let Seldom { settled, leaves, queues, notices, births, payloads, refs } = seldom;
    let mut text = String::from("BEGIN IMMEDIATE;\n");
    insert(&mut text, "pins (family, id, arm, run_id, at)", 5, pins, "");
    // A key that legacy noted, or that has run out, is taken; a run that takes its key again keeps the first time.
    let take = format!(
        " ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = excluded.run_id, request = excluded.request, \
         at = excluded.at WHERE retry_keys.run_id IS NOT excluded.run_id \
         OR retry_keys.at <= excluded.at - {window_ns}"
    );
    insert(&mut text, "retry_keys (key, arm, run_id, request, at)", 5, claims, &take);
    // Before the runs, whose end settles and frees what is left.
    let answer = ") AS given WHERE orders.id = given.column1 AND orders.answer IS NULL";
    over(&mut text, "UPDATE orders SET answer = given.column2 FROM (VALUES ", 2, settled, answer);
    over(&mut text, "DELETE FROM locks WHERE (run_id, name, step, item) IN (VALUES ", 4, leaves, ")");
    insert(&mut text, "locks (run_id, name, step, item, since)", 5, queues, " ON CONFLICT DO NOTHING");
    insert(&mut text, "notices (record)", 1, notices, "");
    // Before the runs: the first append of a run removes its row.
    insert(&mut text, "births (run_id, parent, at, record)", 4, births, " ON CONFLICT DO NOTHING");
    insert(&mut text, "payloads (hash, body)", 2, payloads, " ON CONFLICT DO NOTHING");
    insert(&mut text, "payload_refs (run_id, seq, path, hash)", 4, refs, "");
    over(&mut text, CARRY, CARRY_VALUES, going, ") AS given WHERE runs.run_id = given.column1");
    if going > 0 {
        text.push_str(CARRIED);
    }
    insert(&mut text, RUNS, RUN_VALUES, plain, GO_ON);
    insert(&mut text, "appends (run_id, first, last, at, version, batch, parts, events)", 8, appends, "");
    text.push_str("COMMIT");
    text
}

/// So many appends of runs that go on are one statement: fewer hops than a transaction of several.
const CARRIED_MAX: usize = 6;

fn carried(appends: usize) -> String {
    format!("INSERT INTO carried VALUES {}", vec!["(?,?,?,?,?,?,?,?,?,?,?)"; appends].join(","))
}

fn carried_values(going: &[&Job]) -> SqliteArguments {
    let mut row = Row(SqliteArguments::default());
    for job in going {
        row.append(job);
        row.int(job.fence.0.cast_signed());
        row.int(job.run.updated);
        row.maybe_blob(job.run.owner.map(|owner| owner.0));
    }
    row.0
}

/// Values, in the order of the text. Only the last statement's missing rows may be left unbound.
fn values(jobs: &[(&Job, &[NewPin])], runs: &Runs, rows: &Rows, shape: Shape, now_ns: i64) -> SqliteArguments {
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
    row.seldom(rows, shape.seldom);
    for job in &runs.going {
        row.blob(job.run_id.0.as_bytes());
        row.int(job.first.cast_signed());
        row.int(job.last().cast_signed());
        row.int(job.fence.0.cast_signed());
        row.int(job.run.updated);
        row.maybe_blob(job.run.owner.map(|owner| owner.0));
    }
    row.pad((shape.going - runs.going.len()) * CARRY_VALUES);
    if shape.going > 0 {
        row.int(i64::try_from(runs.going.len()).unwrap_or(i64::MAX));
    }
    for job in &runs.plain {
        row.blob(job.run_id.0.as_bytes());
        row.int(job.first.cast_signed());
        row.int(job.last().cast_signed());
        row.int(i64::from(job.run.ended));
        row.text(job.run.status);
        row.text(&job.run.workflow);
        row.maybe(job.run.route.as_deref());
        row.text(job.run.mode);
        row.blob(&job.summary());
        row.int(job.fence.0.cast_signed());
        row.maybe_blob(job.run.owner.map(|owner| owner.0));
        row.maybe_int(job.run.turn);
        row.int(job.run.updated);
        row.int(i64::from(!job.append.pins.is_empty()));
        row.maybe_blob(job.run.job.map(|job| job.0));
        row.maybe_blob(job.run.parent.map(|parent| parent.0));
    }
    row.pad((shape.plain - runs.plain.len()) * RUN_VALUES);
    jobs.iter().for_each(|(job, _)| row.append(job));
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
    fn maybe_int(&mut self, value: Option<i64>) {
        let _ = self.0.add(value);
    }
    fn maybe_blob(&mut self, value: Option<Uuid>) {
        let _ = self.0.add(value.as_ref().map(|value| value.as_bytes().as_slice()));
    }
    fn append(&mut self, job: &Job) {
        self.blob(job.run_id.0.as_bytes());
        self.int(job.first.cast_signed());
        self.int(job.last().cast_signed());
        self.int(job.latest());
        self.int(i64::from(Event::VERSION));
        self.blob(job.batch.as_bytes());
        self.int(i64::try_from(job.parts.len()).unwrap_or(i64::MAX));
        self.blob(&job.events);
    }
    fn seldom(&mut self, rows: &Rows, shape: Seldom) {
        for (id, answer) in &rows.settled {
            self.blob(id.as_bytes());
            self.blob(answer);
        }
        self.pad((shape.settled - rows.settled.len()) * 2);
        for (run, place) in &rows.queues.leaves {
            self.blob(run.0.as_bytes());
            self.text(&place.name);
            self.text(&place.step);
            self.int(place.item);
        }
        self.pad((shape.leaves - rows.queues.leaves.len()) * 4);
        for (run, place, since) in &rows.queues.queues {
            self.blob(run.0.as_bytes());
            self.text(&place.name);
            self.text(&place.step);
            self.int(place.item);
            self.int(*since);
        }
        self.pad((shape.queues - rows.queues.queues.len()) * 5);
        rows.notices.iter().for_each(|notice| self.blob(notice));
        self.pad(shape.notices - rows.notices.len());
        for birth in &rows.births {
            self.blob(birth.run.0.as_bytes());
            self.maybe_blob(birth.parent.map(|parent| parent.0));
            self.int(birth.at);
            self.blob(&birth.record);
        }
        self.pad((shape.births - rows.births.len()) * 4);
        for part in &rows.payloads {
            self.blob(&part.hash);
            self.blob(&part.body);
        }
        self.pad((shape.payloads - rows.payloads.len()) * 2);
        for (run, seq, part) in &rows.refs {
            self.blob(run.0.as_bytes());
            self.int(seq.cast_signed());
            self.text(&part.path);
            self.blob(&part.hash);
        }
        self.pad((shape.refs - rows.refs.len()) * 4);
    }
    fn pad(&mut self, values: usize) {
        for _ in 0..values {
            let _ = self.0.add(None::<i64>);
        }
    }
}

#[cfg(test)]
mod tests;
