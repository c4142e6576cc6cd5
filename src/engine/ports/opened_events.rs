//! Opens the sealed values in a run's events when they are read from the store.
//!
//! Always true: if another `store_key` sealed a run's values, [`OpenedEvents::no_sealed_value_opens`] says so, and they
//! are not taken for values in clear. In a run without sensitive values, text that only looks sealed is plain text.

use crate::engine::ports::event_sealer::may_be_sealed;
use crate::engine::ports::seal::Sealer;
use crate::engine::ports::sealed_values::{has_sealed_form, open_value};
use crate::names::RunId;
use crate::store::StoredEvent;
use crate::workflow::Event;

/// Events that were read from the store.
pub(in crate::engine) struct OpenedEvents {
    /// The events; in clear, unless `no_sealed_value_opens`.
    pub events: Vec<StoredEvent>,
    /// Something in the events of a run with sensitive values has the form of a sealed value, and nothing can be
    /// opened: the values were sealed with another key.
    pub no_sealed_value_opens: bool,
}

/// Opens sealed events.
pub(in crate::engine) fn open(sealer: &Sealer, run: RunId, events: Vec<StoredEvent>) -> OpenedEvents {
    if !may_be_sealed(&events) {
        return OpenedEvents { events, no_sealed_value_opens: false };
    }
    let mut any_opened = false;
    let open = |stored: StoredEvent| {
        let opened = if sealer.has_key() { opened(sealer, run, &stored) } else { None };
        any_opened |= opened.is_some();
        match opened {
            Some(event) => StoredEvent { event, ..stored },
            None => stored,
        }
    };
    let events: Vec<StoredEvent> = events.into_iter().map(open).collect();
    let is_sealed =
        |stored: &StoredEvent| serde_json::to_value(&stored.event).is_ok_and(|value| has_sealed_form(&value));
    let no_sealed_value_opens = !any_opened && events.iter().any(is_sealed);
    OpenedEvents { events, no_sealed_value_opens }
}

/// Why sealed values cannot be opened, and what to do.
pub(in crate::engine) fn why_none_opens(sealer: &Sealer) -> &'static str {
    match sealer.has_key() {
        true => {
            "its sealed values cannot be opened with this `store_key`: start the process with the key that sealed them"
        }
        false => "it has sealed values, and there is no `store_key`: start the process with the key that sealed them",
    }
}

/// The event with everything in it opened; `None` where nothing in it can be opened.
fn opened(sealer: &Sealer, run: RunId, stored: &StoredEvent) -> Option<Event> {
    let mut value = serde_json::to_value(&stored.event).ok()?;
    if !open_value(sealer, run, &mut value) {
        return None;
    }
    serde_json::from_value(value).ok()
}
