//! What new files change of a route, and which part of the change the gate has accepted.

use super::joined::JoinedRoutes;
use super::positions::RoutePosition;
use super::separated::SeparatedRoute;
use crate::flag::State;
use crate::store::FileState;

/// What new files change of one route, beside its declaration.
#[derive(Default)]
pub(super) struct FileEdit {
    /// Whether its file has `force`, and the files before had none for it.
    pub gets_force: bool,
    /// The routes that become this one.
    pub joined: Option<JoinedRoutes>,
    /// Whether its `force` overrides no gate, because other processes have other files in force, and this reading of
    /// the files is not a reload.
    pub ignores_force: bool,
    /// Set if the route was a part of a joined route before.
    pub separated: Option<SeparatedRoute>,
}

/// The `force` of a file, with its reason.
#[derive(Clone, Copy)]
pub(super) struct FileForce<'a> {
    pub reason: &'a String,
    /// Whether it overrides the gates of a move up. It always serves as the acknowledgement of a move down.
    pub overrides_gates: bool,
}

/// The part of a declaration that the caller stores after a move, so that a later edit which reverts it counts as an
/// edit:
///
/// - if the gate refused nothing: the whole declaration;
/// - if it refused some shares: the declaration with the stored shares in place of the refused ones;
/// - `None`, so that nothing is stored, if it refused something and either no declaration was stored before, or this
///   part would be the whole declaration.
pub(super) fn accepted_part(stored: Option<FileState>, now: FileState, moved: &RoutePosition) -> Option<FileState> {
    if moved.refused.is_empty() {
        return Some(now);
    }
    let (before, accepted) = (stored?.shares, moved.inputs.shares);
    let refused = State::ALL.into_iter().filter(|rung| accepted.of(*rung) != now.shares.of(*rung));
    let shares = refused.fold(now.shares, |shares, rung| shares.with(rung, before.of(rung)));
    Some(FileState { shares, ..now }).filter(|accepted| *accepted != now)
}

/// What an edit of the file requests of a route with a flip. If only shares were edited, the route keeps the requested
/// state and the shares that were not edited, because the file says nothing new about these.
pub(super) fn requested_by_edit(position: &RoutePosition, stored: FileState, now: FileState) -> FileState {
    if stored.state != now.state {
        return now;
    }
    let edited = State::ALL.into_iter().filter(|rung| stored.shares.of(*rung) != now.shares.of(*rung));
    let shares = edited.fold(position.inputs.shares, |shares, rung| shares.with(rung, now.shares.of(rung)));
    FileState { state: position.inputs.requested, shares }
}
