//! Tells which events of a history cannot be checked because the values that decided them may be sealed.

use super::taint::Taint;
use crate::secret::SEALED;
use crate::workflow::{Event, Plan, Run};

/// Whether an event was decided by values that its history may hold only sealed: the event itself holds a sealed value,
/// whose ciphertext differs at each occurrence, or an expression read a sensitive value.
pub(in crate::workflow) fn reads_sealed(run: &Run, plan: &Plan, event: &Event) -> bool {
    let Some(taint) = Taint::of(plan, run) else { return false };
    let is_sealed = || serde_json::to_string(event).is_ok_and(|written| written.contains(SEALED[0]));
    is_sealed()
        || match event {
            Event::Answer(_) => taint.is_read_by_answer(),
            event => event.subject().is_some_and(|(step, _)| taint.is_read_by(step)),
        }
}
