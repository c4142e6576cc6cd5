//! Several processes with one row of evidence, without a database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::basis::EvidenceBasis;
use super::counters::Counters;
use super::fingerprints::{self, PairsByKind};
use super::process_share::GuardCounts;
use super::stored::StoredEvidence;
use super::{MATCH, RULES};
use crate::clock;
use crate::names::WorkerId;
use crate::store::EvidenceVersion;

/// One row, which is replaced as in a store that processes share.
#[derive(Default)]
pub(super) struct Row {
    text: Option<String>,
    version: u64,
}

impl Row {
    pub(super) fn read(&self) -> Option<(Counters, EvidenceVersion)> {
        let stored: StoredEvidence = serde_json::from_str(self.text.as_deref()?).unwrap();
        Some((Counters::restored(stored), self.version_now()))
    }

    fn version_now(&self) -> EvidenceVersion {
        EvidenceVersion(self.version.to_le_bytes().to_vec())
    }

    fn replace(&mut self, stored: &StoredEvidence, instead_of: Option<&EvidenceVersion>) -> bool {
        let fits = match &self.text {
            None => instead_of.is_none(),
            Some(_) => instead_of == Some(&self.version_now()),
        };
        if fits {
            self.text = Some(serde_json::to_string(stored).unwrap());
            self.version += 1;
        }
        fits
    }
}

pub(super) struct Process {
    pub(super) id: WorkerId,
    pub(super) counters: Counters,
    /// Which of the sets of files it has: an argument of [`basis`].
    pub(super) files: usize,
}

impl Process {
    pub(super) fn start(row: &Row, id: u128, files: usize) -> Self {
        let mut process = Self { id: WorkerId(Uuid::from_u128(id)), counters: Counters::default(), files };
        process.counters.shared = Some(Box::default());
        process.pull(row);
        process.set_files(files);
        process
    }

    pub(super) fn set_files(&mut self, files: usize) {
        self.files = files;
        let basis = basis(files);
        self.counters.edit(move |counters| counters.set_basis(0, &basis, Timestamp::UNIX_EPOCH));
    }

    pub(super) fn pull(&mut self, row: &Row) {
        let known = self.counters.shared.as_ref().and_then(|shared| shared.version().cloned());
        if let Some((counters, version)) = row.read().filter(|(_, version)| Some(version) != known.as_ref()) {
            self.counters.merge_row(counters, version, self.id);
        }
    }

    /// Writes the row. `outcome`: what becomes of the write.
    pub(super) fn flush(&mut self, row: &mut Row, outcome: WriteOutcome) {
        self.write(row, outcome, false);
    }

    /// Ends the process in order. `outcome`: what becomes of its last write, which is then tried again.
    pub(super) fn leave(&mut self, row: &mut Row, outcome: WriteOutcome) {
        for outcome in [outcome, WriteOutcome::Done] {
            self.write(row, outcome, true);
        }
    }

    fn write(&mut self, row: &mut Row, outcome: WriteOutcome, is_leaving: bool) {
        self.pull(row);
        let written = self.counters.prepare_write(self.id, ("p", GuardCounts::default()), is_leaving);
        let Some((stored, instead_of)) = written else { return };
        let is_done = outcome != WriteOutcome::Fails && row.replace(&stored, instead_of.as_ref());
        match is_done && outcome == WriteOutcome::Done {
            true => self.counters.confirm_write(row.version_now()),
            false => self.counters.dirty = true,
        }
    }

    /// Settles the share of a process that counts as ended.
    pub(super) fn settle(&mut self, of: WorkerId) {
        let Some(write) = self.counters.processes.get(&of).map(|share| share.write) else { return };
        let now = clock::now();
        self.counters.edit(move |counters| counters.settle_share((of, write), &[], now));
    }

    pub(super) fn count(&mut self, differs: bool, fingerprint: &str) {
        let evidence = &mut self.counters.evidence;
        evidence.shadow_pairs += 1;
        match differs {
            true => {
                evidence.mismatched += 1;
                let kind = PairsByKind::one(false, Some("GET 2xx"));
                fingerprints::count(&mut evidence.seen, fingerprint, &kind, Timestamp::UNIX_EPOCH);
            }
            false => evidence.matched += 1,
        }
        let stratum = evidence.all.strata.entry("GET 2xx".into()).or_default();
        (stratum.served, stratum.compared) = (stratum.served + 1, stratum.compared + 1);
        stratum.mismatched += u64::from(differs);
        self.counters.dirty = true;
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum WriteOutcome {
    Done,
    ReplyLost,
    Fails,
}

/// Three sets of files, in turn.
pub(super) fn basis(files: usize) -> EvidenceBasis {
    let parts = [(MATCH, "/orders"), (RULES, ["1", "2", "3"][files % 3])];
    let parts = parts.map(|(name, hash)| (name.to_owned(), hash.to_owned()));
    EvidenceBasis { hash: format!("files {}", files % 3), parts: parts.into(), ..EvidenceBasis::default() }
}

/// How many pairs the evidence of each basis has, and how many of them differ.
pub(super) fn by_basis(counters: &Counters) -> BTreeMap<String, [u64; 2]> {
    let now = counters.basis.iter().map(|basis| (basis.clone(), &counters.evidence));
    let kept = counters.kept.iter().map(|kept| (kept.basis.clone(), &kept.evidence));
    let counts = now.chain(kept).map(|(basis, of)| (basis, [of.shadow_pairs, of.mismatched]));
    counts.filter(|(_, counts)| *counts != [0, 0]).collect()
}
