//! Collects the sensitive values of a run while its events are applied to it.
//!
//! Always true: a run without a collector does not know which of its values are sensitive, so everything in it counts
//! as sensitive: forgetting the collector shows too little, never too much. A collector is not part of the run's state,
//! which follows from the events alone: it is neither stored nor compared. [`super::knowledge`] decides what is
//! collected.

use std::fmt;
use std::sync::Arc;

use super::known::KnownValues;
use crate::workflow::Event;

/// Collects the sensitive values in the events of one run.
pub(super) trait Collector: Send + Sync {
    /// Adds the sensitive values in an event.
    fn learn(&mut self, event: &Event);
    /// The values collected so far.
    fn known(&self) -> &Arc<KnownValues>;
    /// Returns what another run of the same plan would know after these events, the first ones of that run.
    fn known_after(&self, events: &[Event]) -> Arc<KnownValues>;
    /// Returns a copy of the collector.
    fn boxed(&self) -> Box<dyn Collector>;
}

/// The collector of a run; `None` until the run is given its plan.
#[derive(Default)]
pub(in crate::workflow) struct CollectorOfRun(pub(super) Option<Box<dyn Collector>>);

impl CollectorOfRun {
    /// Adds the sensitive values in an event.
    pub fn learn(&mut self, event: &Event) {
        if let Some(collector) = &mut self.0 {
            collector.learn(event);
        }
    }
    /// The sensitive values that the run knows; everything if the run has no collector.
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
