//! Open circuit breakers: each process tells the others which of its breakers are open. The breakers of the same
//! services in the other processes take this as a hint.

use std::collections::{BTreeMap, BTreeSet};

use super::{Membership, display_name};
use crate::clock::Moment;
use crate::names::ServiceName;
use crate::store::ProcessRecord;

impl Membership {
    /// Tells the others whose breakers are open here.
    pub(in crate::app) fn tell_open_breakers(&self, open: BTreeSet<ServiceName>) {
        if self.own.load().open_breakers != open {
            self.own.rcu(|own| ProcessRecord { open_breakers: open.clone(), ..(**own).clone() });
            self.changed.notify_one();
        }
    }

    /// The services whose breakers are open in other processes, each with their names. Empty while this process does
    /// not have its lease, because what it knows of the others may be outdated.
    pub(in crate::app) fn open_breakers_elsewhere(&self) -> BTreeMap<ServiceName, Vec<String>> {
        let seen = self.seen();
        let mut open: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
        if seen.lease_ends.is_some_and(|ends| ends > Moment::now()) {
            for other in &seen.others {
                let services = other.record.iter().flat_map(|record| record.open_breakers.iter().cloned());
                services.for_each(|service| open.entry(service).or_default().push(display_name(other)));
            }
        }
        open
    }
}
