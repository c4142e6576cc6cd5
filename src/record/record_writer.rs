//! Adds entries to the record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::basis_entry;
use super::chain::hash_of;
use super::chain_end::ChainEnd;
use super::pending_entry::PendingEntry;
use crate::clock;
use crate::evidence::{BasisChange, RejudgedOutcome, RouteEvidence};
use crate::flag::{Arm, Percent};
use crate::names::RouteId;
use crate::store::{RecordEntry, RepeatedFailures, StoreError, StoreHandle, route_of_candidate};

/// How often flips without an entry are looked for while nothing happens in this process: another process that shares
/// the store may have ended before it added the entry of its flip.
const INTERVAL: Duration = Duration::from_secs(60);
/// The pause before the next attempt after the store did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many flips are read at a time.
const FLIPS_AT_A_TIME: usize = 64;
/// How many entries that are not flips wait for the store; beyond that the oldest is dropped, with a log line.
const WAITING_MAX: usize = 1_024;

/// Adds entries to the record, in the background.
pub struct RecordWriter {
    store: StoreHandle,
    waiting: Mutex<VecDeque<PendingEntry>>,
    /// The last refused move of each route, and of each route's candidate (`true`), until a move of it is accepted.
    last_refused: Mutex<BTreeMap<(RouteId, bool), RefusedMove>>,
    /// By kind and route: the source of the last entry that was made from what files put in force without a flip.
    last_by_file: Mutex<BTreeMap<(&'static str, RouteId), String>>,
    /// Notified when an entry begins to wait.
    added: Notify,
    /// The number of the lost head that was logged last; 0 if none was.
    logged_lost_head: AtomicU64,
    /// Held while entries are written, so that one task writes at a time.
    writing: tokio::sync::Mutex<()>,
}

/// The value of `by` for moves that a file requests.
pub const BY_FILE: &str = "file";

/// A move that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMove {
    /// The plan of the route's candidate, if it was to be moved; `None` where the route was.
    pub candidate: Option<String>,
    /// The requested state, or the requested stage of the candidate.
    pub to: String,
    /// The requested share, if one was.
    pub percent: Option<Percent>,
    /// Who asked for it.
    pub by: String,
    /// The reason that was given.
    pub reason: Option<String>,
}

impl RecordWriter {
    /// For the record in this store.
    pub fn new(store: StoreHandle) -> Self {
        Self {
            store,
            waiting: Mutex::default(),
            last_refused: Mutex::default(),
            last_by_file: Mutex::default(),
            added: Notify::new(),
            logged_lost_head: AtomicU64::new(0),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Adds an entry for a change of the basis of the evidence of a route or of a candidate.
    pub fn basis_changed(&self, key: &RouteId, change: &BasisChange) {
        self.add_of_evidence(key, basis_entry::of_change(change));
    }

    /// Adds an entry for pairs that were judged again under rules that only allow more than those before. `rules`: the
    /// rules before and after, as JSON. `evidence_before`: the evidence before the pairs were judged again.
    pub fn rejudged(
        &self,
        key: &RouteId,
        outcome: RejudgedOutcome,
        rules: (String, String),
        evidence_before: &RouteEvidence,
    ) {
        self.add_of_evidence(key, basis_entry::of_rejudged(outcome, rules, evidence_before));
    }

    /// Adds an entry about the evidence of a route or of a candidate.
    fn add_of_evidence(&self, key: &RouteId, mut body: Value) {
        let route = route_of_candidate(key);
        body["of_candidate"] = route.is_some().into();
        self.add("basis", &route.unwrap_or_else(|| key.clone()), body);
    }

    /// Adds an entry for a move that was refused, with the evidence at that moment, unless it equals the last refused
    /// move of the route or of its candidate: repeated requests do not fill the store.
    pub fn move_refused(&self, route: &RouteId, refused: RefusedMove, reasons: &[String], evidence: Value) {
        let key = (route.clone(), refused.candidate.is_some());
        let body = json!({
            "candidate": refused.candidate,
            "to": refused.to,
            "percent": refused.percent.map(|percent| percent.to_string()),
            "by": refused.by,
            "reason": refused.reason,
            "why": reasons,
            "evidence": evidence,
        });
        let last = self.last_refused.lock().unwrap_or_else(PoisonError::into_inner).insert(key, refused.clone());
        if last != Some(refused) {
            self.add("refused", route, body);
        }
    }

    /// A move of the route, or of its candidate, was not refused: the next refusal gets an entry, also if it is the
    /// same as the last one.
    pub fn move_accepted(&self, route: &RouteId, of_candidate: bool) {
        self.last_refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&(route.clone(), of_candidate));
    }

    /// The file of a route requests nothing that is refused: a later refusal gets an entry.
    pub fn file_has_no_refused_move(&self, route: &RouteId) {
        let mut last = self.last_refused.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (route.clone(), false);
        if last.get(&key).is_some_and(|refused| refused.by == BY_FILE) {
            last.remove(&key);
        }
    }

    /// Adds an entry with this source for what files put in force without a flip, unless the record has one with this
    /// source: a state above `shadow` by `force` (`declared`), or a change of what the gates require (`promote`).
    pub fn changed_by_file(&self, kind: &'static str, route: &RouteId, source: String, body: Value) {
        let mut last = self.last_by_file.lock().unwrap_or_else(PoisonError::into_inner);
        if last.insert((kind, route.clone()), source.clone()).as_ref() != Some(&source) {
            self.add_from(source, kind, route, body);
        }
    }

    /// Adds an entry for a cohort of a route that moved to another rung; `body` says from where to where, and why. With
    /// a source: unless the record has one with this source.
    pub fn cohort_moved(&self, route: &RouteId, source: Option<String>, body: Value) {
        match source {
            Some(source) => self.add_from(source, "cohort", route, body),
            None => self.add("cohort", route, body),
        }
    }

    /// Adds an entry for the decision of a person about an instance whose adoption has an unknown outcome.
    pub fn instance_decided(&self, route: &RouteId, instance: &str, owner: Arm, by: &str, reason: &str) {
        let body = json!({ "instance": instance, "owner": owner.as_str(), "by": by, "reason": reason });
        self.add("instance", route, body);
    }

    /// Adds an entry for the start of the adoption of a family's instances: of all, or of those with these ids.
    pub fn adoption_started(&self, route: &RouteId, instances: Option<usize>, by: &str) {
        self.add("adoption", route, json!({ "instances": instances, "by": by }));
    }

    fn add(&self, kind: &'static str, route: &RouteId, body: Value) {
        self.add_from(format!("{kind} {}", uuid::Uuid::now_v7()), kind, route, body);
    }

    fn add_from(&self, source: String, kind: &'static str, route: &RouteId, body: Value) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
            tracing::warn!(
                "the store accepts no entries of the record, and too many wait: the oldest of them is dropped"
            );
        }
        waiting.push_back(PendingEntry { kind, route: Some(route.clone()), source, body });
        self.added.notify_one();
    }

    /// Adds entries for what happened, until the task is aborted. `newest_flip` changes with each flip of this process.
    pub async fn run(&self, mut newest_flip: watch::Receiver<u64>) {
        let failures = RepeatedFailures::default();
        loop {
            newest_flip.mark_unchanged();
            if let Err(error) = self.catch_up().await {
                if let Some(unlogged) = failures.count(&error.0) {
                    tracing::warn!(%error, unlogged, "entries of the record wait until the store accepts them");
                }
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.added.notified() => {}
                Ok(()) = newest_flip.changed() => {}
            }
        }
    }

    /// Adds an entry for each flip that has none, and for whatever else waits.
    ///
    /// # Errors
    /// The store does not answer. Nothing is lost: the next call goes on.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().await;
        let mut newest = self.end_of_chain().await?;
        loop {
            let after = newest.as_ref().map_or(0, |entry| entry.flips);
            let flips = self.store.flips_after(after, FLIPS_AT_A_TIME).await?;
            if flips.is_empty() {
                break;
            }
            for flip in flips {
                newest = self.put(newest, flip.number, PendingEntry::of_flip(&flip)).await?;
                if newest.as_ref().is_none_or(|entry| entry.flips != flip.number) {
                    // Another process added entries meanwhile.
                    break;
                }
            }
        }
        while let Some(next) = self.first_waiting() {
            let (flips, before) = newest.as_ref().map_or((0, 0), |entry| (entry.flips, entry.number));
            let source = next.source.clone();
            newest = self.put(newest, flips, next).await?;
            let (is_newest, number) =
                newest.as_ref().map_or((false, 0), |entry| (entry.source == source, entry.number));
            // If nothing was added, the entry is there already: the store's reply to an earlier try was lost. If
            // another entry was added, another process was faster, and this one is tried again.
            if is_newest || number == before {
                self.remove_waiting(&source);
            }
        }
        if let Some(newest) = newest {
            metrics::gauge!("pointsman_record_entries").set(newest.number as f64);
        }
        Ok(())
    }

    fn first_waiting(&self) -> Option<PendingEntry> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    /// Removes an entry, unless it was dropped for want of room meanwhile.
    fn remove_waiting(&self, source: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|waiting| waiting.source != source);
    }

    /// The end of the chain; logs once that entries are gone.
    async fn end_of_chain(&self) -> Result<Option<ChainEnd>, StoreError> {
        let end = ChainEnd::read(&self.store).await?;
        if let Some(ChainEnd { number, lost_head: Some(head), .. }) = &end
            && self.logged_lost_head.swap(head.number, Ordering::Relaxed) != head.number
        {
            tracing::error!(
                entry = head.number,
                hash = head.hash,
                next_entry = number + 1,
                "the newest entry of the record is not the one that the store notes as the newest, or that note is \
                 gone: entries were removed or rewritten outside of pointsman; `pointsman record verify` names the \
                 first bad one"
            );
        }
        Ok(end)
    }

    /// Appends an entry after the newest one, and returns the newest entry afterwards: another one, if another process
    /// was faster. `flips`: the number of the newest flip that the record has once it has this entry.
    async fn put(
        &self,
        newest: Option<ChainEnd>,
        flips: u64,
        PendingEntry { kind, route, source, body }: PendingEntry,
    ) -> Result<Option<ChainEnd>, StoreError> {
        let (number, previous) = newest.map_or((0, String::new()), |newest| (newest.number, newest.hash));
        let mut entry = RecordEntry {
            number: number + 1,
            at: clock::now(),
            kind: kind.to_owned(),
            route,
            source,
            flips,
            body,
            previous,
            is_noted: true,
            hash: String::new(),
        };
        entry.hash = hash_of(&entry);
        self.store.put_record_entry(entry).await?;
        self.end_of_chain().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::evidence::NextEvidence;
    use crate::record::ChainCheck;
    use crate::store::MemoryStore;

    fn change() -> BasisChange {
        BasisChange {
            changed: "`compare:`".into(),
            parts: Vec::new(),
            evidence_before: RouteEvidence::default(),
            next: NextEvidence::FromZero,
            pairs_before: 9,
            mismatched_before: 1,
        }
    }

    #[tokio::test]
    async fn a_refused_move_that_is_asked_for_again_and_again_has_one_entry_until_a_move_passes() {
        let store: StoreHandle = Arc::new(MemoryStore::new());
        let recorder = RecordWriter::new(store.clone());
        let route = RouteId::from("orders");
        let refuse = |by: &str, candidate: Option<&str>, why: &str| {
            let (to, by, candidate) = ("live".to_owned(), by.to_owned(), candidate.map(str::to_owned));
            let asked = RefusedMove { candidate, to, percent: None, by, reason: None };
            recorder.move_refused(&route, asked, &[why.to_owned()], json!({ "shadow_pairs": 1 }));
        };
        for _ in 0..3 {
            refuse("ann", None, "needs 9 more pairs");
        }
        refuse("bob", None, "needs 8 more pairs");
        recorder.move_accepted(&route, true);
        refuse("bob", None, "not asked anew");
        recorder.move_accepted(&route, false);
        refuse("bob", None, "needs 7 more pairs");
        recorder.catch_up().await.unwrap();
        let mut entries = store.record_entries(0, 9).await.unwrap();
        for _ in 0..2 {
            refuse("bob", Some("plan_1"), "needs 6 more pairs");
        }
        refuse("bob", None, "not asked anew");
        recorder.catch_up().await.unwrap();
        let of_candidate = store.record_entries(3, 9).await.unwrap();
        let said: Vec<_> = of_candidate.iter().map(|entry| (&entry.body["candidate"], &entry.body["why"][0])).collect();
        assert_eq!(said, [(&json!("plan_1"), &json!("needs 6 more pairs"))], "that of the candidate is another move");
        assert!(entries.iter().all(|entry| entry.body["evidence"]["shadow_pairs"] == 1));
        entries.truncate(3);
        let shown = entries.iter().map(|entry| (entry.body["by"].as_str().unwrap(), &entry.body["why"][0]));
        let (nine, eight, seven) =
            (json!("needs 9 more pairs"), json!("needs 8 more pairs"), json!("needs 7 more pairs"));
        assert_eq!(shown.collect::<Vec<_>>(), [("ann", &nine), ("bob", &eight), ("bob", &seven)]);
    }

    #[tokio::test]
    async fn a_file_that_was_mended_and_is_refused_again_has_a_second_entry() {
        let store: StoreHandle = Arc::new(MemoryStore::new());
        let recorder = RecordWriter::new(store.clone());
        let route = RouteId::from("orders");
        let refused = |by: &str| {
            let (to, by) = ("live".to_owned(), by.to_owned());
            let asked = RefusedMove { candidate: None, to, percent: None, by, reason: None };
            recorder.move_refused(&route, asked, &["needs 9 more pairs".to_owned()], Value::Null);
        };
        let count = async || {
            recorder.catch_up().await.unwrap();
            store.record_entries(0, 9).await.unwrap().len()
        };
        for _ in 0..3 {
            refused(BY_FILE);
        }
        assert_eq!(count().await, 1, "each reading of the same file");
        recorder.file_has_no_refused_move(&route);
        refused(BY_FILE);
        assert_eq!(count().await, 2, "it was mended in between");
        refused("ann");
        recorder.file_has_no_refused_move(&route);
        refused("ann");
        assert_eq!(count().await, 3, "a file says nothing of what a person asks for");
    }

    #[tokio::test]
    async fn an_entry_whose_reply_was_lost_is_not_added_again_although_others_follow_it() {
        let store: StoreHandle = Arc::new(MemoryStore::new());
        let (recorder, other) = (RecordWriter::new(store.clone()), RecordWriter::new(store.clone()));
        recorder.basis_changed(&"orders".into(), &change());
        let waiting = recorder.first_waiting().unwrap();
        let first = recorder.put(None, 0, waiting).await.unwrap();
        assert_eq!(first.map(|entry| entry.number), Some(1), "the store has it, and it still waits here");
        other.basis_changed(&"orders".into(), &change());
        other.catch_up().await.unwrap();
        recorder.basis_changed(&"carts".into(), &change());
        recorder.catch_up().await.unwrap();
        assert!(recorder.first_waiting().is_none());
        let entries = store.record_entries(0, 9).await.unwrap();
        let mut chain = ChainCheck::default();
        entries.iter().for_each(|entry| chain.next(entry).unwrap());
        assert_eq!((chain.number, entries[2].route.as_ref().map(RouteId::as_str)), (3, Some("carts")));
    }
}
