//! Samples of pairs that differ.

use std::collections::BTreeSet;

use super::tables::Tables;
use crate::names::{RouteId, RunId};
use crate::store::SampleRecord;

impl Tables {
    pub(super) fn put_samples(&mut self, samples: Vec<SampleRecord>, per_fingerprint: usize, fingerprints: usize) {
        let routes: BTreeSet<RouteId> = samples.iter().map(|sample| sample.route.clone()).collect();
        for sample in samples {
            self.samples.retain(|stored| *stored != sample);
            self.samples.push(sample);
        }
        for route in routes {
            // The number of newer samples by fingerprint, the most recent fingerprint first.
            let mut newer: Vec<(String, usize)> = Vec::new();
            let mut keep = vec![true; self.samples.len()];
            for (index, sample) in self.samples.iter().enumerate().rev().filter(|(_, s)| s.route == route) {
                let known = newer.iter().position(|(fingerprint, _)| *fingerprint == sample.fingerprint);
                let place = known.unwrap_or(newer.len());
                if known.is_none() {
                    newer.push((sample.fingerprint.clone(), 0));
                }
                keep[index] = place < fingerprints && newer[place].1 < per_fingerprint;
                newer[place].1 += 1;
            }
            let mut keep = keep.into_iter();
            self.samples.retain(|_| keep.next().unwrap_or(true));
        }
    }

    pub(super) fn samples_of(&self, route: &RouteId, limit: usize) -> Vec<SampleRecord> {
        self.samples.iter().rev().filter(|sample| sample.route == *route).take(limit).cloned().collect()
    }

    pub(super) fn sample_of_run(&self, run: RunId) -> Option<SampleRecord> {
        self.samples.iter().rev().find(|sample| sample.rehearsed_runs().any(|kept| kept == run)).cloned()
    }
}
