//! Which appends only carry their run forward?
//!
//! Always true: this is a memory of what was written, and never trusted alone. A run that is going was written as running
//! and open; of its next append that leaves it so, and changes nothing of it that listings show, only the place and the
//! time are written: half the work. The statement itself compares the stored row, and where that is otherwise by now the
//! batch fails whole and is written plainly. It forgets rather than grows.

use std::collections::{HashMap, HashSet};

use super::job::Job;
use super::summary::Listed;
use crate::names::RunId;
use crate::store::NewPin;
use crate::workflow::RunStatus;

/// Runs that are remembered; a run that was forgotten is written plainly once.
const RUNS_MAX: usize = 16_384;

/// Runs whose row says that they are going, each with what listings show of it.
#[derive(Default)]
pub(super) struct Going(HashMap<RunId, Listed>);

/// The rows of runs that a batch writes.
pub(super) struct Runs<'a> {
    /// At most one append of a run, and no more than were asked for.
    pub(super) going: Vec<&'a Job>,
    /// In their order.
    pub(super) plain: Vec<&'a Job>,
}

impl Going {
    /// Who goes which way. A batch with more than so many that are going is written plainly.
    pub(super) fn split<'a>(&self, jobs: &[(&'a Job, &[NewPin])], going_max: usize) -> Runs<'a> {
        let (mut seen, mut twice) = (HashSet::with_capacity(jobs.len()), HashSet::new());
        for (job, _) in jobs {
            if !seen.insert(job.run_id) {
                twice.insert(job.run_id);
            }
        }
        let jobs = || jobs.iter().map(|(job, _)| *job);
        let goes = |job: &&Job| {
            is_going(job)
                && job.append.pins.is_empty()
                && self.0.get(&job.run_id) == Some(&job.run.listed)
                && !twice.contains(&job.run_id)
        };
        let (going, plain): (Vec<_>, Vec<_>) = jobs().partition(goes);
        match going.len() > going_max {
            true => Runs { going: Vec::new(), plain: jobs().collect() },
            false => Runs { going, plain },
        }
    }

    /// It is on disk.
    pub(super) fn written(&mut self, job: &Job) {
        if !is_going(job) {
            self.0.remove(&job.run_id);
            return;
        }
        if self.0.len() >= RUNS_MAX {
            self.0.clear();
        }
        self.0.insert(job.run_id, job.run.listed.clone());
    }

    /// Something is not as it was remembered, or nobody knows.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Whether the row says afterwards that the run is going.
fn is_going(job: &Job) -> bool {
    job.run.status == RunStatus::Running.as_str() && job.run.turn.is_none() && !job.run.ended
}
