//! The term of this process's lease in which it may begin runs that claim retry keys.
//!
//! Always true: such a run is committed only in the term that [`LeaseTerm::set`] named last, while the lease is not
//! over by the database's clock. Its transaction holds a lock on the process's row until it ends. Two wait for that
//! lock: the renewal of a lease that was over, which begins the next term, and those who read what the process has
//! committed (`wait_for_ended_leases`). So once the other processes have stopped to count this one, and have waited,
//! they find all retry keys that its engine has taken, and it takes no more of them before it has followed the others.

use std::sync::{Mutex, PoisonError};

use super::columns::column;
use super::session::Session;
use crate::names::WorkerId;
use crate::store::encoded::EncodedAppend;
use crate::store::write_error::WriteError;

/// The process and the term; no term of a lease is negative.
pub(super) type ProcessTerm = (WorkerId, i64);

/// In which term runs may be begun; `None`: in any, also without a lease.
#[derive(Default)]
pub(super) struct LeaseTerm(Mutex<Option<ProcessTerm>>);

impl LeaseTerm {
    /// With `None` no run may be begun.
    pub(super) fn set(&self, worker: WorkerId, term: Option<i64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((worker, term.unwrap_or(-1)));
    }

    /// The term in which these appends must be written, if any of them begins a run that claims a retry key.
    pub(super) fn required_by<'a>(&self, mut appends: impl Iterator<Item = &'a EncodedAppend>) -> Option<ProcessTerm> {
        let term = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        term.filter(|_| appends.any(begins_claimed_run))
    }
}

/// Whether an append begins a run that claims a retry key.
pub(super) fn begins_claimed_run(append: &EncodedAppend) -> bool {
    append.first == 1 && append.claim.is_some()
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
