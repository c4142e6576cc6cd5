//! The events of a rehearsal and of the runs below it, which are in no store: kept until the rehearsal is compared.
//!
//! Always true: at most [`REHEARSED_EVENTS_MAX`] events are kept of all these runs together, those of the rehearsal
//! itself first, and at most [`REHEARSED_CHILDREN_MAX`] runs below it; what is not kept is counted.

use std::sync::Arc;

use jiff::Timestamp;

use crate::names::RunId;
use crate::workflow::{Event, Redaction};

/// The most events of a rehearsal that are kept until it is compared, with those of all runs below it.
pub const REHEARSED_EVENTS_MAX: usize = 200;
/// The most runs below a rehearsal of which events are kept.
pub const REHEARSED_CHILDREN_MAX: usize = 50;

/// The first events of one run, with the sensitive values in clear.
#[derive(Clone, Debug, Default)]
pub struct RunEvents {
    /// The events, from the first one on.
    pub first: Vec<(Timestamp, Event)>,
    /// How many came after them.
    pub not_kept: u64,
}

/// The events of a run below a rehearsal.
#[derive(Clone, Debug)]
pub struct ChildEvents {
    /// The run.
    pub run: RunId,
    /// Its events.
    pub events: RunEvents,
    /// Replaces the run's own sensitive values where people are shown what it did; `None` if it has none.
    pub redaction: Option<Arc<Redaction>>,
}

/// The events of a rehearsal and of the runs below it.
#[derive(Clone, Debug, Default)]
pub struct RehearsedEvents {
    /// Those of the run itself.
    pub own: RunEvents,
    /// Those of the runs below it that have ended: its child runs in the order in which they ended, each followed by
    /// the runs below that child.
    pub children: Vec<ChildEvents>,
    /// How many more runs below it have ended.
    pub children_not_kept: u64,
}

impl RehearsedEvents {
    /// Adds an event of the run itself.
    pub fn push(&mut self, at: Timestamp, event: Event) {
        match self.own.first.len() < REHEARSED_EVENTS_MAX {
            true => self.own.first.push((at, event)),
            false => self.own.not_kept += 1,
        }
    }

    /// Adds a run that has ended, with the runs below that one.
    pub fn add_child(&mut self, run: RunId, below: Self, redaction: Option<Arc<Redaction>>) {
        let Self { own, children, children_not_kept } = below;
        self.children.push(ChildEvents { run, events: own, redaction });
        self.children.extend(children);
        self.children_not_kept += children_not_kept;
        self.truncate_to_bounds();
    }

    /// Drops and counts what the bounds leave no room for. The events of the run itself are kept first, then those of
    /// the runs below it in the order of `children`.
    pub fn truncate_to_bounds(&mut self) {
        let over = self.children.len().saturating_sub(REHEARSED_CHILDREN_MAX);
        self.children.truncate(REHEARSED_CHILDREN_MAX);
        self.children_not_kept += over as u64;
        let mut room = REHEARSED_EVENTS_MAX.saturating_sub(self.own.first.len());
        for ChildEvents { events: RunEvents { first, not_kept }, .. } in &mut self.children {
            *not_kept += first.len().saturating_sub(room) as u64;
            first.truncate(room);
            room -= first.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::EndingEvent;

    fn events(count: usize) -> RehearsedEvents {
        let mut events = RehearsedEvents::default();
        (0..count).for_each(|_| events.push(Timestamp::UNIX_EPOCH, Event::Ending(EndingEvent::Completed {})));
        events
    }

    fn run(n: usize) -> RunId {
        RunId(uuid::Uuid::from_u128(n as u128))
    }

    /// The kept events and the number of those that are not kept, of each run below.
    fn kept(events: &RehearsedEvents) -> Vec<(u128, usize, u64)> {
        let of = |child: &ChildEvents| (child.run.0.as_u128(), child.events.first.len(), child.events.not_kept);
        events.children.iter().map(of).collect()
    }

    #[test]
    fn the_events_of_a_run_come_before_those_of_the_runs_below_it_and_what_is_not_kept_is_counted() {
        let mut child = events(60);
        child.add_child(run(2), events(80), None);
        let mut parent = events(10);
        parent.add_child(run(1), child, None);
        parent.add_child(run(3), events(90), None);
        assert_eq!(kept(&parent), [(1, 60, 0), (2, 80, 0), (3, 50, 40)]);
        // The run itself goes on: it needs the room.
        (0..245).for_each(|_| parent.push(Timestamp::UNIX_EPOCH, Event::Ending(EndingEvent::Completed {})));
        parent.truncate_to_bounds();
        assert_eq!((parent.own.first.len(), parent.own.not_kept), (REHEARSED_EVENTS_MAX, 55));
        assert_eq!(kept(&parent), [(1, 0, 60), (2, 0, 80), (3, 0, 90)]);
    }

    #[test]
    fn at_most_the_bound_of_child_runs_is_kept() {
        let mut parent = events(1);
        for n in 0..REHEARSED_CHILDREN_MAX + 7 {
            parent.add_child(run(n), events(1), None);
        }
        assert_eq!((parent.children.len(), parent.children_not_kept), (REHEARSED_CHILDREN_MAX, 7));
        let mut above = events(1);
        above.add_child(run(99), parent, None);
        assert_eq!((above.children.len(), above.children_not_kept), (REHEARSED_CHILDREN_MAX, 8));
    }
}
