//! The commands that a run passes on to its child runs when it ends, is paused or goes on.
//!
//! Always true: where a run ends by itself, its children are cancelled automatically, which leaves their conflicts over
//! unknown outcomes open, because only a person can decide those; where a person cancels the run, its children are
//! cancelled as if the person had cancelled each of them. A run that is ending and paused pauses its children: they are
//! cancelled, and undo what they did, only when it is resumed.

use super::{ControlCommand, Run};
use crate::names::RunId;

/// The commands that child runs have to get, by which they end, pause or resume together with this run.
pub(super) fn commands_to_children(run: &Run) -> impl Iterator<Item = (RunId, ControlCommand)> + '_ {
    let command = |paused: bool| {
        if run.ending_conflict().is_some() {
            // A run that ends at a conflict undoes nothing, so its children undo nothing either.
            let reason = Some("the run that began it ends".into());
            return Some(ControlCommand::Cancel { compensate: false, reason, automatic: true });
        }
        if run.failing.is_some() && run.pause.is_none() {
            let compensate = run.cancel.as_ref().is_none_or(|cancel| cancel.compensate);
            let automatic = run.cancel.as_ref().is_none_or(|cancel| cancel.automatic);
            // The reason does not contain the run's failure, which may quote values that are sensitive in this run
            // only.
            let reason = Some("the run that began it ends".into());
            return Some(ControlCommand::Cancel { compensate, reason, automatic });
        }
        match (&run.pause, paused) {
            (Some(_), _) => Some(ControlCommand::Pause { reason: Some("the run that began it is paused".into()) }),
            (None, true) => Some(ControlCommand::Resume { reason: Some("the run that began it goes on".into()) }),
            (None, false) => None,
        }
    };
    run.interactions.children.values().filter_map(move |child| Some((child.run, command(child.paused)?)))
}
