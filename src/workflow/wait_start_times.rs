//! When the waits of a run began.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::calls::StepItem;
use super::{ControlEvent, Event};
use crate::names::StepId;

/// The times at which waits began. The run's state does not hold them, so a separate fold of the events does.
#[derive(Clone, Debug, Default)]
pub struct WaitStartTimes {
    /// By step (item): the time of its last event.
    by_step: BTreeMap<StepItem, Timestamp>,
    /// When it was paused, while it is.
    pub(super) paused: Option<Timestamp>,
    /// The time of its last event.
    pub(super) last: Option<Timestamp>,
}

impl WaitStartTimes {
    /// Folds all events of a run.
    pub fn of<'a>(events: impl IntoIterator<Item = (Timestamp, &'a Event)>) -> Self {
        let mut since = Self::default();
        events.into_iter().for_each(|(at, event)| since.apply(at, event));
        since
    }
    /// Folds one more event.
    pub fn apply(&mut self, at: Timestamp, event: &Event) {
        if let Some((step, item)) = event.subject() {
            self.by_step.insert((step.clone(), item), at);
        }
        match event {
            Event::Control(ControlEvent::PauseRequested { .. }) => self.paused = Some(at),
            Event::Control(ControlEvent::Resumed { .. }) => self.paused = None,
            _ => {}
        }
        self.last = Some(at);
    }
    pub(super) fn at(&self, step: &StepId, item: Option<u32>) -> Option<Timestamp> {
        self.by_step.get(&(step.clone(), item)).copied()
    }
}
