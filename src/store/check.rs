//! Checks whether the content of a store is consistent.
//!
//! Always true: a check changes nothing; each finding names the run, if it concerns one, what is wrong and what to do.
//! Reading the rows is left to each store.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::record_log::{CheckedRow, UnreadableRow};
use super::summary::decode_summary;
use super::{ChainHead, FlipRecord, RecordEntry, RunSnapshot, StoreError};
use crate::names::{PlanId, RunId};
use crate::secret::{SEALED, STARS};
use crate::workflow::{Event, FOLD, Run, RunSummary, fold};

/// Findings beyond this number are only counted.
const LISTED_MAX: usize = 10_000;

/// One inconsistency.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreFinding {
    /// The run that the finding concerns, if it concerns one.
    pub run: Option<RunId>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StoreChecked {
    /// Runs that were read.
    pub runs: u64,
    /// Of those, runs of which only the summary is kept.
    pub purged: u64,
    /// Events that were read.
    pub events: u64,
    /// Large values that are stored apart from their events.
    pub payloads: u64,
    /// The inconsistencies.
    pub findings: Vec<StoreFinding>,
    /// The number of findings that are not in the list, because it is full.
    pub unlisted: u64,
}

impl StoreChecked {
    pub(super) fn add_finding(&mut self, run: Option<RunId>, what: impl Into<String>, todo: &str) {
        if self.findings.len() < LISTED_MAX {
            self.findings.push(StoreFinding { run, what: what.into(), todo: todo.to_owned() });
        } else {
            self.unlisted += 1;
        }
    }
}

pub(super) const RESTORE: &str = "restore a backup, or keep the store for a repair; this check changed nothing";
pub(super) const HARMLESS: &str = "nothing depends on it; report it to the maintainers";
const NEWER: &str = "start the newer pointsman that wrote it";
const REPORT_SUMMARY: &str = "the events are right and listings are wrong; report it to the maintainers";

/// Why this binary cannot read the events of a store; `None` if it can. `noted` is the newest event version that a
/// binary has recorded as the one that it writes; `found` is an event of a newer version than this binary reads: its
/// run, seq and version.
pub(super) fn newer_events_problem(noted: Option<u16>, found: Option<(Option<RunId>, i64, i64)>) -> Option<String> {
    let supported = Event::VERSION;
    let reads = format!("this binary reads them up to version {supported}: a newer pointsman wrote the store");
    match (noted, found) {
        (_, Some((run, seq, version))) => {
            let run = run.map(|run| format!(" of {run}")).unwrap_or_default();
            Some(format!("events of version {version} (such as event {seq}{run}), {reads}"))
        }
        (Some(noted), None) if noted > supported => Some(format!("events of version {noted}, {reads}")),
        (_, None) => None,
    }
}

/// What to do about a flip, or what is kept of a route, that cannot be read.
const NO_START: &str = "no process starts on this store: restore a backup; this check changed nothing";

/// Checks a row of the flips.
pub(super) fn check_flip(row: CheckedRow<FlipRecord>, checked: &mut StoreChecked) {
    if let Err(UnreadableRow { number, why }) = row {
        checked.add_finding(None, format!("flip {number} in the store cannot be read: {why}"), NO_START);
    }
}

/// Checks the record.
pub(super) struct RecordCheck {
    /// What the store noted as the newest entry before the entries were read.
    head: Option<Result<ChainHead, StoreError>>,
    has_head: bool,
    are_readable: bool,
    /// The number of the last entry that was noted as the newest when it was added.
    noted: Option<u64>,
}

impl RecordCheck {
    /// Begins a check; `head` is the value of the row [`CHAIN_HEAD`](super::record_log::CHAIN_HEAD).
    pub(super) fn new(head: Option<&[u8]>) -> Self {
        Self { head: head.map(ChainHead::read), has_head: false, are_readable: true, noted: None }
    }

    /// Checks a row.
    pub(super) fn entry(&mut self, row: CheckedRow<RecordEntry>, checked: &mut StoreChecked) {
        match row {
            Ok(entry) => {
                self.has_head |= self.head.as_ref() == Some(&Ok(ChainHead::of(&entry)));
                self.noted = entry.is_noted.then_some(entry.number).or(self.noted);
            }
            Err(UnreadableRow { number, why }) => {
                self.are_readable = false;
                checked.add_finding(None, format!("entry {number} of the record cannot be read: {why}"), RESTORE);
            }
        }
    }

    /// All rows were checked.
    pub(super) fn end(self, checked: &mut StoreChecked) {
        match self.head {
            Some(Ok(ChainHead { number, hash })) if self.are_readable && !self.has_head => {
                let what = format!(
                    "entry {number} of the record, which the store notes as its newest (hash {hash}), is missing or \
                     another one: entries were removed or written anew"
                );
                checked.add_finding(None, what, RESTORE);
            }
            Some(Err(error)) => checked.add_finding(None, error.0, RESTORE),
            None => {
                let what = self.noted.map(|number| {
                    format!(
                        "the store has lost its note of the record's newest entry, and had one when entry {number} was \
                         added: entries may have been removed"
                    )
                });
                what.into_iter().for_each(|what| checked.add_finding(None, what, RESTORE));
            }
            Some(Ok(_)) => {}
        }
    }
}

/// Checks what is kept of a route.
pub(super) fn check_record<T>(record: Result<T, StoreError>, checked: &mut StoreChecked) {
    if let Err(error) = record {
        checked.add_finding(None, error.0, NO_START);
    }
}

/// Checks the store's secret.
pub(super) fn check_secret(secret: Option<&[u8]>, checked: &mut StoreChecked) {
    let what = match secret.map(<[u8]>::len) {
        Some(32) => return,
        Some(length) => format!("the store's secret has {length} bytes, not 32"),
        None => "the store's secret is gone: the next start makes another one, so that retried calls get other \
                 idempotency keys and callers fall into other shares"
            .to_owned(),
    };
    checked.add_finding(None, what, RESTORE);
}

/// The stored rows of one run.
pub(super) struct RunRows<'a> {
    pub(super) run: RunId,
    pub(super) summary: &'a [u8],
    /// The last seq according to the run's row.
    pub(super) seq: i64,
    /// When its last event happened, according to the run's row.
    pub(super) updated: Option<i64>,
    /// Whether only the run's summary is kept.
    pub(super) purged: bool,
    /// In the order of seqs.
    pub(super) events: Vec<EventRow>,
    /// Its snapshot, or why that cannot be read.
    pub(super) snapshot: Option<Result<RunSnapshot, StoreError>>,
}

/// One stored event.
pub(super) struct EventRow {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) version: u64,
    /// The event, or why it cannot be read.
    pub(super) event: Result<Event, String>,
}

/// Checks the rows of a run.
pub(super) fn check_run(rows: RunRows<'_>, plans: &BTreeSet<PlanId>, checked: &mut StoreChecked) {
    let RunRows { run, summary, seq, updated, purged, events, snapshot } = rows;
    checked.runs += 1;
    checked.purged += u64::from(purged);
    checked.events += events.len() as u64;
    let id = Some(run);
    let summary: Option<RunSummary> = match decode_summary(summary, seq, updated) {
        Ok(summary) => Some(summary),
        Err(error) => {
            checked.add_finding(id, format!("its summary cannot be read: {error}"), RESTORE);
            None
        }
    };
    let seq = seq.cast_unsigned();
    if let Some(summary) = &summary {
        if summary.run_id != run {
            checked.add_finding(id, format!("its row holds the summary of {}", summary.run_id), RESTORE);
        }
        if !summary.status.is_final() && !plans.contains(&summary.plan_id) {
            let what = format!("it is {} and its plan {} is missing", summary.status.as_str(), summary.plan_id);
            checked.add_finding(id, what, "it cannot continue: restore a backup that has the plan");
        }
    }
    if purged {
        return;
    }
    if let Some((expected, event)) = (1..).zip(&events).find(|(expected, event)| *expected != event.seq) {
        checked.add_finding(id, format!("event {} is stored where event {expected} should be", event.seq), RESTORE);
        return;
    }
    let readable = events.iter().all(|event| event.event.is_ok());
    if readable && events.len() as u64 != seq {
        checked.add_finding(id, format!("its row counts {seq} events, but there are {}", events.len()), RESTORE);
        return;
    }
    let last_at = events.last().map(|event| event.at);
    let mut decoded = Vec::with_capacity(events.len());
    for EventRow { seq, version, event, .. } in events {
        if version > u64::from(Event::VERSION) {
            let supported = Event::VERSION;
            let what = format!("event {seq} has version {version}, this binary reads them up to version {supported}");
            checked.add_finding(id, what, NEWER);
            return;
        }
        match event {
            Ok(event) => decoded.push(event),
            Err(why) => {
                checked.add_finding(id, format!("event {seq}: {why}"), RESTORE);
                return;
            }
        }
    }
    let folded = match fold(&decoded) {
        Ok(folded) => folded,
        Err(error) => {
            return checked.add_finding(id, format!("its events contradict each other: {error}"), RESTORE);
        }
    };
    if let Some(why) = snapshot.and_then(|snapshot| snapshot_problem(snapshot, &decoded)) {
        checked.add_finding(id, why, "nothing is lost: the run is read from its events and gets another snapshot");
    }
    if let (Some(summary), Some(at)) = (summary, last_at) {
        // Not compared: `wake` also depends on the plan, which is not read here.
        let mut expected = RunSummary { wake: summary.wake, ..folded.summary(at) };
        if folded.holds_sensitive() && are_notes_equal_but_for_hidden(&summary.note, &expected.note) {
            expected.note.clone_from(&summary.note);
        }
        if are_notes_equal_but_for_reasons(&summary.note, &expected.note) {
            expected.note.clone_from(&summary.note);
        }
        if summary != expected {
            let differences = describe_differences(&summary, &expected);
            checked.add_finding(id, format!("its summary contradicts its events: {differences}"), REPORT_SUMMARY);
        }
    }
}

/// Whether two notes of a run with sensitive values can be the same text. In a summary such values are stars, in events
/// they are sealed, and a value that became sensitive later is hidden only in the summary.
fn are_notes_equal_but_for_hidden(stored: &Option<String>, expected: &Option<String>) -> bool {
    /// The text before the first hidden value, and the text after the last one.
    fn around_hidden(note: &str) -> Option<(&str, &str)> {
        let first = [STARS, SEALED[0]].into_iter().filter_map(|hidden| note.find(hidden)).min()?;
        let ends = [STARS, SEALED[1]].into_iter().filter_map(|hidden| Some(note.rfind(hidden)? + hidden.len()));
        Some((&note[..first], &note[ends.max()?..]))
    }
    let (Some(stored), Some(expected)) = (stored, expected) else { return stored == expected };
    match (around_hidden(stored), around_hidden(expected)) {
        (None, None) => stored == expected,
        (Some((head, tail)), None) => expected.starts_with(head) && expected.ends_with(tail),
        (None, Some((head, tail))) => stored.starts_with(head) && stored.ends_with(tail),
        (Some((head, tail)), Some((other_head, other_tail))) => {
            (head.starts_with(other_head) || other_head.starts_with(head))
                && (tail.ends_with(other_tail) || other_tail.ends_with(tail))
        }
    }
}

/// Whether two notes are equal but for what is in parentheses: older versions gave fewer reasons, and the note of a run
/// is written anew only when the run goes on.
fn are_notes_equal_but_for_reasons(stored: &Option<String>, expected: &Option<String>) -> bool {
    fn without_reasons(note: &str) -> String {
        let (mut text, mut depth) = (String::new(), 0_usize);
        for letter in note.chars() {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ if depth == 0 => text.push(letter),
                _ => {}
            }
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",")
    }
    let without = |note: &Option<String>| note.as_deref().map(without_reasons);
    stored.is_some() && without(stored) == without(expected)
}

/// Why a snapshot contradicts the run's events. Snapshots of other fold versions are not checked.
fn snapshot_problem(snapshot: Result<RunSnapshot, StoreError>, events: &[Event]) -> Option<String> {
    let RunSnapshot { seq, fold: fold_version, body, .. } = match snapshot {
        Ok(snapshot) if snapshot.fold == FOLD => snapshot,
        Ok(_) => return None,
        Err(error) => return Some(error.0),
    };
    let before = usize::try_from(seq.0).ok().and_then(|seq| events.get(..seq));
    match (Run::from_snapshot(&body), before.map(fold)) {
        (Err(why), _) => Some(why),
        (Ok(_), None) => Some(format!("its snapshot is of event {seq}, which is missing")),
        (Ok(decoded), Some(folded)) if folded.as_ref() == Ok(&decoded) => None,
        (Ok(_), Some(_)) => Some(format!("its snapshot of event {seq} (fold {fold_version}) contradicts its events")),
    }
}

fn describe_differences(stored: &RunSummary, expected: &RunSummary) -> String {
    let fields = |summary| serde_json::to_value(summary).unwrap_or_default();
    let (stored, expected) = (fields(stored), fields(expected));
    let names: BTreeSet<&String> =
        [&stored, &expected].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys).collect();
    let of = |fields: &Value, name: &str| fields.get(name).unwrap_or(&Value::Null).to_string();
    let differing = names.into_iter().filter(|name| stored.get(name.as_str()) != expected.get(name.as_str()));
    let differing = differing.map(|name| format!("{name} is {}, not {}", of(&stored, name), of(&expected, name)));
    differing.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_agree_where_they_differ_only_in_hidden_values() {
        let agree = |stored: &str, expected: &str| {
            are_notes_equal_but_for_hidden(&Some(stored.to_owned()), &Some(expected.to_owned()))
        };
        let sealed = "«sealed:eA==»";
        assert!(
            agree("***", sealed) && agree("no *** (2 conflicts are open)", "no «sealed:eA==» (2 conflicts are open)")
        );
        assert!(agree("no *** of ***", &format!("no {sealed} of 4111")), "the second value became sensitive later");
        assert!(agree("no *** here", "no 4111 here") && agree("no 17 here", &format!("no {sealed} here")));
        assert!(!agree("no *** here", &format!("no {sealed} there")) && !agree("yes ***", &format!("no {sealed}")));
        assert!(!agree("paused", "failed") && !are_notes_equal_but_for_hidden(&None, &Some(sealed.to_owned())));
    }

    #[test]
    fn reasons_in_the_note_of_a_run_are_not_compared() {
        let agree = |stored: &str, expected: &str| {
            are_notes_equal_but_for_reasons(&Some(stored.to_owned()), &Some(expected.to_owned()))
        };
        assert!(agree("not undone: `a`, `b`", "not undone: `a` (unknown: bob left it), `b`"));
        assert!(agree("not undone: `a`", "not undone: `a` (whether it was undone (by the DELETE) is unknown)"));
        assert!(!agree("not undone: `a`", "not undone: `b` (unknown)") && !agree("cancelled", "failed"));
        assert!(!are_notes_equal_but_for_reasons(&None, &None), "a run without a note is compared as it is");
    }
}
