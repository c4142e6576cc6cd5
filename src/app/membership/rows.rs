//! The processes as people and Prometheus see them.

use std::time::Duration;

use super::{Membership, compare, display_name};
use crate::admin::types::{FilesComparison, ProcessRow};
use crate::clock::Moment;
use crate::store::ProcessRecord;

impl Membership {
    pub(super) fn publish(&self) {
        let rows = self.rows();
        for files in FilesComparison::ALL {
            let number = rows.iter().filter(|row| row.files == files).count();
            metrics::gauge!("pointsman_processes", "files" => files.as_str()).set(number as f64);
        }
        let newest_flip = self.seen().newest_flip;
        let behind = rows.iter().filter(|row| row.newest_flip.is_none_or(|newest| newest < newest_flip));
        let behind = behind.filter(|_| self.store.is_shared());
        metrics::gauge!("pointsman_processes_behind").set(behind.count() as f64);
        // A store of one process has no claims.
        if self.claims.get().is_none() {
            metrics::gauge!("pointsman_routes_claimed").set(0.0);
        }
        let known = self.claims.get().is_none_or(|claims| claims.knows_keys_of_other_engines());
        metrics::gauge!("pointsman_keys_of_others_known").set(f64::from(u8::from(known)));
    }

    /// Every process: this one first, the others in the order of their starts.
    pub(in crate::app) fn rows(&self) -> Vec<ProcessRow> {
        let (own, seen) = (self.own.load(), self.seen());
        let this = row(&own, own.name(), FilesComparison::Same, seen.lease_ends.map(Moment::left));
        let others = seen.others.iter().map(|process| {
            let files = compare(process, &own.edition);
            let record = process.record.clone().unwrap_or_default();
            row(&record, display_name(process), files, Some(process.lease_left))
        });
        std::iter::once(ProcessRow { is_this: true, ..this }).chain(others).collect()
    }
}

fn row(record: &ProcessRecord, name: String, files: FilesComparison, lease_left: Option<Duration>) -> ProcessRow {
    let is_known = files != FilesComparison::Unknown;
    ProcessRow {
        name,
        is_this: false,
        host: record.host.clone(),
        pid: record.pid,
        version: record.version.clone(),
        started: is_known.then_some(record.started),
        listen: record.listen.clone(),
        admin: record.admin.clone(),
        edition: record.edition.clone(),
        files,
        newest_flip: record.flips,
        clock_ahead_ms: record.clock_ahead_ms,
        lease_left_ms: lease_left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    }
}
