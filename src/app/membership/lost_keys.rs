//! Processes that have ended, or hang, without leaving the store the retry keys that legacy took there.
//!
//! Always true: a process deregisters only after the store has its keys; the keys of one that was killed are in its
//! file, until a process takes the file over. In between the engine would perform a retry of what legacy performed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Membership, NAMED_MAX};
use crate::clock;
use crate::store::{GoneProcess, KeyFileRecord, LivingProcess, ProcessRecord, StoreError};

impl Membership {
    /// Looks for lost keys if a process has gone since the last look, or if keys were lost at the last look. As long as
    /// keys are lost, the gate to `live` is shut.
    pub(super) async fn look_for_lost_keys(&self) {
        let exchanges = {
            let seen = self.seen();
            if seen.knows_lost_keys && seen.lost_keys.is_none() && !seen.has_lost_process_that_needs_no_lease {
                return;
            }
            *self.exchanges.borrow()
        };
        let gone = self.gone().await;
        let obeys = |process: &GoneProcess| obeys_terms(process.record.as_ref(), process.term);
        let has_lost_process_that_needs_no_lease = !gone.as_ref().is_ok_and(|gone| gone.iter().all(obeys));
        let found = self.find_lost_keys_of(gone).await.err();
        let mut seen = self.seen();
        seen.has_lost_process_that_needs_no_lease = has_lost_process_that_needs_no_lease;
        if seen.lost_keys.is_some() && found.is_none() {
            self.may_open_gates.store(true, Ordering::Release);
        }
        seen.lost_keys = found;
        // Another exchange may have found that a process has gone meanwhile.
        seen.knows_lost_keys = exchanges == *self.exchanges.borrow();
    }

    /// Whether the engine of every other process, also of one that hangs, takes keys only while the process has its
    /// lease.
    pub(super) fn other_engines_need_lease(&self) -> bool {
        let seen = self.seen();
        let obeys = |other: &LivingProcess| obeys_terms(other.record.as_ref(), other.term);
        seen.others.iter().all(obeys) && !seen.has_lost_process_that_needs_no_lease
    }

    /// The processes that have ended, or hang, without deregistering, within the retry window.
    async fn gone(&self) -> Result<Vec<GoneProcess>, StoreError> {
        let gone = self.store.gone_processes().await?;
        Ok(gone.into_iter().filter(|process| process.gone_for < self.retry_window).collect())
    }

    /// See [`OtherProcesses::check_lost_keys`](crate::ladder::OtherProcesses::check_lost_keys).
    pub(super) async fn find_lost_keys(&self) -> Result<(), String> {
        self.find_lost_keys_of(self.gone().await).await
    }

    async fn find_lost_keys_of(&self, gone: Result<Vec<GoneProcess>, StoreError>) -> Result<(), String> {
        let unknown = |error: StoreError| format!("it is not known which processes have ended: {error}");
        let gone = gone.map_err(unknown)?;
        if gone.is_empty() {
            return Ok(());
        }
        let listed = self.store.key_files().await.map_err(unknown)?;
        let in_use: BTreeSet<Uuid> = {
            let seen = self.seen();
            let others = seen.others.iter().filter_map(|other| other.record.as_ref()?.key_file);
            let own = self.claims.get().map_or(self.own.load().key_file, |claims| claims.key_file());
            others.chain(own).collect()
        };
        let sentence = |process: &GoneProcess| lost_keys_of(process, &listed, &in_use, self.retry_window);
        let sentences: Vec<String> = gone.iter().filter_map(sentence).take(NAMED_MAX).collect();
        if sentences.is_empty() { Ok(()) } else { Err(sentences.join("; ")) }
    }
}

/// Whether the engine of a process takes keys only while it has its lease. A process without a record has told nothing
/// yet, and has begun no run, or is of a version that tells nothing: then its lease has no term.
fn obeys_terms(record: Option<&ProcessRecord>, term: i64) -> bool {
    record.map_or(term != 0, |record| record.obeys_terms)
}

/// Why keys of a process that has not deregistered may be lost, as a sentence; `None` if another process has taken over
/// its file, or all keys of the file are stored.
///
/// A process without a record has ended before it told the others anything, or its last heartbeat reached the store
/// after it had deregistered. Its file may then be any listed file that no process uses. A file is listed before the
/// first heartbeat of its process, and is taken off the list once its keys are stored.
fn lost_keys_of(
    process: &GoneProcess,
    listed: &[KeyFileRecord],
    in_use: &BTreeSet<Uuid>,
    retry_window: Duration,
) -> Option<String> {
    let of_process = match &process.record {
        Some(record) => record.key_file,
        None => Some(listed.iter().map(|file| file.id).find(|id| !in_use.contains(id))?),
    };
    let file = listed.iter().find(|file| Some(file.id) == of_process);
    if of_process.is_some_and(|id| in_use.contains(&id) || file.is_none()) {
        return None;
    }
    let name = process.record.as_ref().map_or_else(|| process.name.clone(), ProcessRecord::name);
    let left = SignedDuration::try_from(retry_window.saturating_sub(process.gone_for)).unwrap_or(SignedDuration::MAX);
    let until = clock::now().saturating_add(left).unwrap_or(Timestamp::MAX);
    let remedy = match file {
        Some(KeyFileRecord { path, host, .. }) => {
            format!("start a process on {host} that takes over its file of retry keys {path}")
        }
        None => "it does not say where its file of retry keys is".to_owned(),
    };
    Some(format!(
        "{name} shares the store and has ended, or hangs, without deregistering: legacy may have served requests there \
         whose retry keys the store does not have, and the engine would perform their retries a second time until \
         {until:.0} ({remedy})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file of a process that was killed is taken over under its id, or is off the list once its keys are stored.
    #[test]
    fn keys_are_lost_until_a_process_has_the_file() {
        let file = |id: u128| KeyFileRecord {
            id: Uuid::from_u128(id),
            path: format!("/keys/{id}"),
            host: "a".to_owned(),
            location: String::new(),
            all_stored: false,
            unread: None,
        };
        let gone = |key_file: Option<u128>| GoneProcess {
            name: "process 7 on a".to_owned(),
            gone_for: Duration::from_secs(60),
            term: 1,
            record: Some(ProcessRecord { key_file: key_file.map(Uuid::from_u128), ..ProcessRecord::default() }),
        };
        let window = Duration::from_secs(3_600);
        let lost = |key_file, in_use: &[u128]| {
            let in_use = in_use.iter().map(|id| Uuid::from_u128(*id)).collect();
            lost_keys_of(&gone(key_file), &[file(1)], &in_use, window)
        };
        assert!(lost(Some(1), &[2]).is_some_and(|why| why.contains("/keys/1")));
        assert_eq!(lost(Some(1), &[1]), None, "another process has it");
        assert_eq!(lost(Some(3), &[]), None, "its keys are stored");
        assert!(lost(None, &[]).is_some(), "its version does not say which it has");
        let without_record = GoneProcess { record: None, ..gone(None) };
        let lost = |listed: &[KeyFileRecord], in_use: &[u128]| {
            let in_use = in_use.iter().map(|id| Uuid::from_u128(*id)).collect();
            lost_keys_of(&without_record, listed, &in_use, window)
        };
        assert!(lost(&[file(1), file(2)], &[1]).is_some_and(|why| why.contains("/keys/2")), "it may be its own");
        assert_eq!(lost(&[file(1)], &[1]), None);
        assert_eq!(lost(&[], &[]), None, "it ended before it served, or its keys are stored");
    }
}
