//! `check --against-open-runs`: reports the open runs that do not fit the files being checked. A run does not fit if
//! its workflow is not in the files or would have decided differently, if its plan needs something that the files do
//! not have, or if a call of unknown outcome went to another URL of its service.
//!
//! Always true: nothing is changed. A reported run continues with the plan that it was started with; the output names
//! where it would pause. A run that cannot be read is reported with the reason, and the others are checked all the
//! same. The check ends within bounds ([`CheckBounds`]), and says if it left runs out.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::Server;
use super::check;
use super::client::CallError;
use super::format::{Formatter, Tone, counted, escape_control};
use super::output::Output;
use super::replay::{divergence_table, files_refused};
use super::run_source::{OpenRuns, ReadError, RunSource};
use crate::admin::replay::DivergenceRow;
use crate::app::{MovedCall, OpenRun, ReplayFiles, ReplayResult, StoredPlan};
use crate::limits::{CHECKED_RUN_EVENTS_MAX, CHECKED_RUNS_MAX, CHECKED_RUNS_SHOWN_MAX, CHECKED_RUNS_TIME_MAX};
use crate::names::PlanId;

/// How many plans are cached: most open runs of a workflow have one of a few plans.
const PLANS_MAX: usize = 64;

pub(crate) fn check(
    dir: &Path,
    no_secrets: bool,
    store: Option<&str>,
    server: &Server,
    format: Formatter,
) -> Result<Output, CallError> {
    let checked = check::check(dir, no_secrets, format);
    if !checked.is_ok {
        return Ok(checked);
    }
    let files = ReplayFiles::read(dir, None, None).map_err(|failed| files_refused(&failed, format))?;
    let source = RunSource::new(store, server, files.limits())?;
    let files = files.with_secret(source.secret()?);
    let found = check_runs(&source, &files, &CheckBounds::default())?;
    let mut json = checked.json;
    json["open_runs"] = found.json();
    let is_ok = found.reported == 0 && found.is_complete();
    Ok(Output { text: checked.text + &found.text(format), json, is_ok })
}

/// The bounds of one check.
pub(super) struct CheckBounds {
    pub runs: usize,
    pub events: u64,
    pub shown: usize,
    pub time: Duration,
}

impl Default for CheckBounds {
    fn default() -> Self {
        Self {
            runs: CHECKED_RUNS_MAX,
            events: CHECKED_RUN_EVENTS_MAX,
            shown: CHECKED_RUNS_SHOWN_MAX,
            time: CHECKED_RUNS_TIME_MAX,
        }
    }
}

/// A run that does not fit the files, or that cannot be read.
pub(super) struct ReportedRun {
    run: OpenRun,
    reasons: Reasons,
}

/// Why a run does not fit the files.
#[derive(Default)]
struct Reasons {
    why: String,
    /// What the run needs and the files do not have.
    misses: Vec<String>,
    /// Calls of unknown outcome whose services have other URLs in the files.
    moved: Vec<MovedCall>,
    /// Decisions that would have been different.
    divergences: Vec<DivergenceRow>,
}

/// The result of the check.
#[derive(Default)]
pub(super) struct OpenRunsReport {
    looked_at: usize,
    /// How many runs do not fit the files or cannot be read. The first of them are in `shown`.
    reported: usize,
    shown: Vec<ReportedRun>,
    /// Why older runs were left out; `None` if none were.
    left_out: Option<String>,
}

/// Checks the open runs, newest first.
pub(super) fn check_runs(
    source: &impl OpenRuns,
    files: &ReplayFiles,
    bounds: &CheckBounds,
) -> Result<OpenRunsReport, CallError> {
    let began = Instant::now();
    let mut found = OpenRunsReport::default();
    let mut plans = Plans::default();
    let mut before: Option<String> = None;
    loop {
        let (page, next) = source.page(before.as_deref())?;
        for run in page {
            if found.looked_at >= bounds.runs {
                found.left_out = Some(format!("the check looks at no more than {} runs", bounds.runs));
            } else if began.elapsed() >= bounds.time {
                found.left_out = Some(format!("the check took longer than {} s", bounds.time.as_secs()));
            }
            if found.left_out.is_some() {
                return Ok(found);
            }
            found.looked_at += 1;
            let reported = match check_run(source, files, &mut plans, &run, bounds.events) {
                Ok(None) => continue,
                Ok(Some(reasons)) => ReportedRun { run, reasons },
                Err(ReadError::Run(why)) => {
                    let why = format!("it is not known whether this run fits the files: {why}");
                    ReportedRun { run, reasons: Reasons { why, ..Reasons::default() } }
                }
                Err(ReadError::Source(error)) => return Err(error),
            };
            found.reported += 1;
            if found.shown.len() < bounds.shown {
                found.shown.push(reported);
            }
        }
        match next {
            Some(next) => before = Some(next),
            None => return Ok(found),
        }
    }
}

/// Why a run does not fit the files; `None` if it fits.
fn check_run(
    source: &impl OpenRuns,
    files: &ReplayFiles,
    plans: &mut Plans,
    run: &OpenRun,
    events_max: u64,
) -> Result<Option<Reasons>, ReadError> {
    let plan = plans.get(source, files, run)?;
    let events = source.events(run, events_max)?;
    let moved = files.moved(&events, &plan).map_err(events_unread)?;
    let misses = files.missing(&events, &plan).map_err(events_unread)?;
    let (why, divergences) = match files.replay(&events).map_err(events_unread)? {
        ReplayResult::WorkflowMissing(_) => ("the files have no workflow of this name", Vec::new()),
        ReplayResult::Diverges(found) if !found.is_empty() => {
            ("the workflow in the files would have decided differently", found)
        }
        ReplayResult::SamePlan | ReplayResult::Diverges(_) => match (misses.is_empty(), moved.is_empty()) {
            (true, true) => return Ok(None),
            (false, _) => ("the run still needs something that is not in the files", Vec::new()),
            (true, false) => {
                ("a call of unknown outcome went to a URL that its service no longer has in the files", Vec::new())
            }
        },
    };
    let why = format!("this run does not fit the files: {why}");
    Ok(Some(Reasons { why, misses, moved, divergences }))
}

fn events_unread(why: String) -> ReadError {
    ReadError::Run(format!("its events cannot be read by this version: {why}"))
}

/// A cache of the stored plans of runs.
#[derive(Default)]
struct Plans(HashMap<PlanId, Result<Rc<StoredPlan>, String>>);

impl Plans {
    fn get(&mut self, source: &impl OpenRuns, files: &ReplayFiles, run: &OpenRun) -> Result<Rc<StoredPlan>, ReadError> {
        if let Some(known) = self.0.get(&run.plan) {
            return known.clone().map_err(ReadError::Run);
        }
        let plan = files.stored_plan(&source.plan(run)?).map(Rc::new);
        if self.0.len() >= PLANS_MAX {
            self.0.clear();
        }
        self.0.insert(run.plan.clone(), plan.clone());
        plan.map_err(ReadError::Run)
    }
}

impl OpenRunsReport {
    fn is_complete(&self) -> bool {
        self.left_out.is_none()
    }
    pub(super) fn json(&self) -> Value {
        let row = |ReportedRun { run, reasons: Reasons { why, misses, moved, divergences } }: &ReportedRun| {
            json!({
                "run_id": run.run_id, "workflow": run.workflow, "why": why, "misses": misses, "moved": moved,
                "divergences": divergences,
            })
        };
        let reported: Vec<Value> = self.shown.iter().map(row).collect();
        let (left_out, unlisted) = (&self.left_out, self.reported - self.shown.len());
        json!({ "looked_at": self.looked_at, "left_out": left_out, "reported": reported, "reported_unlisted": unlisted })
    }
    pub(super) fn text(&self, format: Formatter) -> String {
        let mut text = String::new();
        for ReportedRun { run, reasons: Reasons { why, misses, moved, divergences } } in &self.shown {
            let id = format.tone(escape_control(&run.run_id), Tone::Strong);
            text.push_str(&format!("\n{id} of {}: {}\n", run.workflow, escape_control(why)));
            let moved = moved.iter().map(MovedCall::to_string);
            for place in misses.iter().cloned().chain(moved) {
                let line = format!(
                    "  {}: with these files in force the run will pause at this step\n",
                    escape_control(&place)
                );
                text.push_str(&format.tone(line, Tone::Warn));
            }
            if !divergences.is_empty() {
                text.push_str(&divergence_table(divergences, format));
            }
        }
        if self.reported > self.shown.len() {
            let line = format!("\nand {} more, which are not listed\n", self.reported - self.shown.len());
            text.push_str(&format.tone(line, Tone::Warn));
        }
        let verdict = match self.reported {
            0 => {
                let line = format!("{} looked at: all fit the files\n", counted(self.looked_at as u64, "open run"));
                format.tone(line, Tone::Good)
            }
            reported => {
                let line = format!(
                    "{} looked at: {reported} of them do not fit the files, or cannot be read. With these files in \
                     force they go on by the plans with which they were started\n",
                    counted(self.looked_at as u64, "open run")
                );
                format.tone(line, Tone::Warn)
            }
        };
        text.push_str(&format!("\n{verdict}"));
        if let Some(why) = &self.left_out {
            text.push_str(&format.tone(format!("older open runs were not looked at: {why}\n"), Tone::Warn));
        }
        text
    }
}
