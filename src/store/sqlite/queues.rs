//! What a batch of appends changes in the queues of locks, all told.
//!
//! Always true: the changes of a batch, made one after the other, leave the same queues as first leaving and then
//! queueing what is given here, in this order.

use std::collections::HashMap;

use super::job::{Job, LockPlace};
use crate::names::RunId;
use crate::store::NewPin;

/// Of one place: the number and time of the asking that counts, and whether what stands there before goes.
type Change = (Option<(usize, i64)>, bool);

#[derive(Default)]
pub(super) struct Queues<'a> {
    pub(super) leaves: Vec<(RunId, &'a LockPlace)>,
    /// Each with when its run asked.
    pub(super) queues: Vec<(RunId, &'a LockPlace, i64)>,
}

impl<'a> Queues<'a> {
    pub(super) fn of(jobs: &[(&'a Job, &[NewPin])]) -> Self {
        let mut all = Self::default();
        if jobs.iter().all(|(job, _)| job.locks.is_empty()) {
            return all;
        }
        let mut places: HashMap<(RunId, &LockPlace), Change> = HashMap::new();
        let steps = jobs.iter().flat_map(|(job, _)| job.locks.iter().map(move |step| (*job, step)));
        for (number, (job, step)) in steps.enumerate() {
            let (asked, left) = places.entry((job.run_id, &step.place)).or_default();
            if step.queue {
                asked.get_or_insert((number, job.at()));
            } else {
                *asked = None;
                *left = true;
            }
        }
        let mut asked: Vec<_> = Vec::new();
        for ((run, place), (queued, left)) in places {
            if left {
                all.leaves.push((run, place));
            }
            if let Some((number, at)) = queued {
                asked.push((number, run, place, at));
            }
        }
        asked.sort_by_key(|(number, ..)| *number);
        all.queues = asked.into_iter().map(|(_, run, place, at)| (run, place, at)).collect();
        all
    }
}
