//! Collects the sensitive values of a run while its events are applied to it.
//!
//! Always true: a run without a collector does not know which of its values are sensitive, so everything in it counts
//! as sensitive: forgetting the collector shows too little, never too much. A collector is no part of the run's state,
//! which the events alone give: it is neither stored nor compared. What is collected is decided in
//! [`super::knowledge`].

use std::fmt;
use std::sync::Arc;

use super::known::KnownValues;
use crate::workflow::Event;

/// Collects the sensitive values that the events of one run tell.
pub(super) trait Collector: Send + Sync {
    /// Adds what an event tells.
    fn learn(&mut self, event: &Event);
    /// The values collected by now.
    fn known(&self) -> &Arc<KnownValues>;
    /// What another run of the same plan knows after these events, which are its first ones.
    fn known_after(&self, events: &[Event]) -> Arc<KnownValues>;
    /// A copy.
    fn boxed(&self) -> Box<dyn Collector>;
}

/// The collector of a run, once it has one.
#[derive(Default)]
pub(in crate::workflow) struct CollectorOfRun(pub(super) Option<Box<dyn Collector>>);

impl CollectorOfRun {
    /// Adds what an event tells.
    pub fn learn(&mut self, event: &Event) {
        if let Some(collector) = &mut self.0 {
            collector.learn(event);
        }
    }
    /// The sensitive values that the run knows; everything where it has no collector.
    pub fn known_values(&self) -> Arc<KnownValues> {
        self.0.as_ref().map_or_else(|| Arc::new(KnownValues::everything()), |collector| collector.known().clone())
    }
}

impl Clone for CollectorOfRun {
    fn clone(&self) -> Self {
        Self(self.0.as_ref().map(|collector| collector.boxed()))
    }
}

impl PartialEq for CollectorOfRun {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for CollectorOfRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CollectorOfRun") // without the values, which must not be shown
    }
}
