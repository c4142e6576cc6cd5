//! The term of this process's lease in which it may begin real runs.
//!
//! Always true: the first append of such a run is committed only in the term that [`LeaseTerm::set`] named last, while
//! the lease is not over by the database's clock. If it claims a retry key, its request was decided by a flag set that
//! was in force when the term was named, or by a newer one. Its transaction holds a lock on the process's row until it
//! ends. Two wait for that lock: the renewal of a lease that was over, which begins the next term, and those who read
//! what the process has committed (`wait_for_ended_leases`). So once the other processes no longer count this one, and
//! have waited, they find all retry keys that its engine has taken; and it takes no more of them, nor begins a run that
//! a freeze forbids, before it has caught up with the others: read what they recorded, and put it in force.

use std::sync::{Mutex, PoisonError};

use super::columns::column;
use super::session::Session;
use crate::names::WorkerId;
use crate::store::encoded::EncodedAppend;
use crate::store::write_error::WriteError;
use crate::workflow::Mode;

/// The process and the term; no term of a lease is negative.
pub(super) type ProcessTerm = (WorkerId, i64);

/// In which term runs may be begun; `None`: in any, also without a lease.
#[derive(Default)]
pub(super) struct LeaseTerm(Mutex<Option<RequiredTerm>>);

/// What the first appends of runs need.
#[derive(Clone, Copy)]
pub(super) struct RequiredTerm {
    pub term: ProcessTerm,
    /// The oldest flag set that may have decided their requests.
    oldest_set: u64,
}

impl LeaseTerm {
    /// With `None` no run may be begun. `newest_set` is the number of the flag set in force now.
    pub(super) fn set(&self, worker: WorkerId, term: Option<i64>, newest_set: u64) {
        let term = (worker, term.unwrap_or(-1));
        let mut required = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if required.is_none_or(|required| required.term != term) {
            *required = Some(RequiredTerm { term, oldest_set: newest_set });
        }
    }

    /// What these appends need, if any of them begins a real run.
    pub(super) fn required_by<'a>(&self, mut appends: impl Iterator<Item = &'a EncodedAppend>) -> Option<RequiredTerm> {
        let required = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        required.filter(|_| appends.any(begins_run))
    }
}

impl RequiredTerm {
    /// Whether the request of an append was decided before this process had caught up with the others in this term.
    pub(super) fn is_too_late_for(&self, append: &EncodedAppend) -> bool {
        append.claim.and_then(|claim| claim.decided_in).is_some_and(|set| set < self.oldest_set)
    }
}

/// Whether an append begins a real run. The owner of a run begins its child runs, also while the lease is over: it is
/// the owner until another process takes the run.
pub(super) fn begins_run(append: &EncodedAppend) -> bool {
    let is_real = append.run.mode == Mode::Real.as_str() && append.run.parent.is_none();
    append.first == 1 && (append.claim.is_some() || is_real)
}

impl Session {
    /// Whether the lease of the process is in this term and not over; if so, its row is locked until the transaction of
    /// this session ends.
    pub(super) async fn is_in_term(&mut self, (worker, term): ProcessTerm) -> Result<bool, WriteError> {
        let query = sqlx::query("SELECT is_in_term($1, $2)").bind(worker.0.as_bytes().as_slice()).bind(term);
        let rows = self.query(query).await?;
        Ok(rows.first().map(|row| column(row, 0)).transpose()?.unwrap_or(false))
    }
}
