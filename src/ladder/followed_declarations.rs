//! What the newer files of other processes declare for a route. This process knows it from the moves of those processes
//! that it has followed.
//!
//! Example: an edit sets `state: live`. The first process reads it, and makes the flip; the second one follows that
//! flip while it still has the earlier files. A person flips the route to `off`. When the second process reads the
//! edit, it makes no flip: what the edit declares has counted already.

use super::positions::Positions;
use crate::flag::Route;
use crate::names::RouteId;
use crate::store::{DeclaredState, FileState};

impl Positions {
    /// Notes the declaration of a route that another process has moved, as the store has it (`row`).
    pub fn note_followed_declaration(&mut self, route: &RouteId, row: Option<&DeclaredState>) {
        if let Some(file) = row.and_then(|row| row.file) {
            self.followed_declarations.insert(route.clone(), file);
        }
    }

    /// Whether the file of a route declares something new: something that no process has counted as an edit yet. If no
    /// declaration of the route is stored, the file declares something new if the route has a flip.
    ///
    /// Forgets the declaration that was noted for the route once this file says the same, or differs from the stored
    /// declaration.
    pub fn check_declaration_change(&mut self, route: &Route, has_flip: bool, now: FileState) -> bool {
        let stored = self.stored_declaration(route);
        let has_counted = route.ids().any(|id| self.followed_declarations.get(id) == Some(&now));
        let differs = stored.map_or(has_flip, |stored| stored != now);
        if differs || has_counted {
            self.followed_declarations.retain(|id, _| !route.ids().any(|own| own == id));
        }
        differs && !has_counted
    }
}
