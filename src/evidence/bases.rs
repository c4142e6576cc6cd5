//! Sets the basis of each route's evidence, and says in which evidence a request counts.

use super::Evidence;
use super::basis::EvidenceBasis;
use super::basis_change::{BasisChange, NextEvidence};
use super::generation::{EngineGeneration, EvidenceGeneration};
use crate::clock;
use crate::names::RouteId;

impl Evidence {
    /// Sets each route's basis. If it changed, the evidence starts from zero: requests that were decided by an earlier
    /// version of the files do not count. Call it once the new plans and rules are in force. Returns what changed.
    pub fn set_basis(&self, files_version: u64, bases: &[(RouteId, EvidenceBasis)]) -> Vec<(RouteId, BasisChange)> {
        let mut changes = Vec::new();
        self.set_basis_and_tell(files_version, bases, &mut |route, change| {
            changes.push((route.clone(), change.clone()));
        });
        changes
    }

    /// As [`Evidence::set_basis`]; tells of each change before anything that follows from it can happen, such as the
    /// end of judging pairs again. `tell` is called while the evidence of the route is locked.
    pub fn set_basis_and_tell(
        &self,
        files_version: u64,
        bases: &[(RouteId, EvidenceBasis)],
        tell: &mut dyn FnMut(&RouteId, &BasisChange),
    ) {
        for (route, basis) in bases {
            let shared = self.counters(route);
            let mut counters = shared.lock();
            let Some(change) = counters.set_basis(files_version, basis, clock::now()) else { continue };
            tell(route, &change);
            drop(counters);
            tracing::info!(
                %route, changed = change.changed,
                "the basis of the route's evidence changed: the evidence {}", change.next.as_str()
            );
            match change.next {
                NextEvidence::FromZero | NextEvidence::Earlier => self.pending().clear(route),
                NextEvidence::GoesOn => self.rejudging_signal.notify_one(),
            }
            self.restart_guard(route);
        }
    }

    /// Returns the generation of evidence in which a request counts that was decided by this version of the files and
    /// is offered now.
    pub fn generation(&self, route: &RouteId, files_version: u64) -> EvidenceGeneration {
        let shared = self.counters(route);
        let counters = shared.lock();
        EvidenceGeneration(counters.has_basis_of(files_version).then_some(counters.generation))
    }

    /// Returns the generation of the engine's behaviour that answers a request of the route which was decided by this
    /// version of the files.
    pub fn engine_generation(&self, route: &RouteId, files_version: u64) -> EngineGeneration {
        let shared = self.counters(route);
        let counters = shared.lock();
        EngineGeneration(counters.has_basis_of(files_version).then_some(counters.engine_generation))
    }
}
