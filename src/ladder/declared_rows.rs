//! Merges what this process declares of routes with what other processes on the same store have declared.
//!
//! A three-way merge: `base` is what this process last read or recorded, `ours` is what it records now, `theirs` is
//! what the store has. A field that this process did not change keeps the value of the store, such as a plan that
//! another process has put in force.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::RouteId;
use crate::store::DeclaredState;

/// The rows to be stored: `theirs`, with each field replaced that changed from `base` to `ours`.
pub(super) fn merged(base: &[DeclaredState], ours: &[DeclaredState], theirs: &[DeclaredState]) -> Vec<DeclaredState> {
    let [base, ours, theirs] = [base, ours, theirs].map(by_route);
    let routes: BTreeSet<&RouteId> = ours.keys().chain(theirs.keys()).copied().collect();
    let row = |route: &RouteId| match (base.get(route), ours.get(route), theirs.get(route)) {
        (_, Some(ours), None) if base.get(route) != Some(ours) => Some(DeclaredState::clone(ours)),
        // Another process has removed what this one did not change.
        (_, Some(_), None) => None,
        (None, None, theirs) => theirs.map(|theirs| DeclaredState::clone(theirs)),
        // This process has removed it.
        (Some(_), None, _) => None,
        (base, Some(ours), Some(theirs)) => Some(merged_row(base.copied(), ours, theirs)),
    };
    routes.into_iter().filter_map(row).collect()
}

fn by_route(rows: &[DeclaredState]) -> BTreeMap<&RouteId, &DeclaredState> {
    rows.iter().map(|row| (&row.route, row)).collect()
}

fn merged_row(base: Option<&DeclaredState>, ours: &DeclaredState, theirs: &DeclaredState) -> DeclaredState {
    fn merge<T: Clone + PartialEq>(base: Option<&T>, ours: &T, theirs: &T) -> T {
        if base == Some(ours) { theirs.clone() } else { ours.clone() }
    }
    DeclaredState {
        route: ours.route.clone(),
        file: merge(base.map(|row| &row.file), &ours.file, &theirs.file),
        retry: merge(base.map(|row| &row.retry), &ours.retry, &theirs.retry),
        follows: merge(base.map(|row| &row.follows), &ours.follows, &theirs.follows),
        live: merge(base.map(|row| &row.live), &ours.live, &theirs.live),
        in_force: merge(base.map(|row| &row.in_force), &ours.in_force, &theirs.in_force),
        evidence_from: merge(base.map(|row| &row.evidence_from), &ours.evidence_from, &theirs.evidence_from),
        forced: merge(base.map(|row| &row.forced), &ours.forced, &theirs.forced),
        promote: merge(base.map(|row| &row.promote), &ours.promote, &theirs.promote),
        is_absent: merge(base.map(|row| &row.is_absent), &ours.is_absent, &theirs.is_absent),
        earlier_ids: merge(base.map(|row| &row.earlier_ids), &ours.earlier_ids, &theirs.earlier_ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{Shares, State};
    use crate::names::PlanSet;
    use crate::store::FileState;

    fn row(route: &str, state: State, plan: Option<&str>) -> DeclaredState {
        let set = |plan: &str| PlanSet { workflow: "w".into(), plans: [("w".into(), plan.into())].into() };
        DeclaredState {
            route: route.into(),
            file: Some(FileState { state, shares: Shares::default() }),
            retry: None,
            follows: None,
            live: None,
            in_force: plan.map(set),
            evidence_from: None,
            forced: None,
            promote: None,
            is_absent: false,
            earlier_ids: Vec::new(),
        }
    }

    #[test]
    fn what_this_process_did_not_change_stays_as_another_one_has_it() {
        let base = [row("a", State::Live, Some("one")), row("b", State::Off, None), row("gone", State::Off, None)];
        let theirs = [row("a", State::Live, Some("two")), row("b", State::Dark, None), row("new", State::Off, None)];
        let ours = |a: DeclaredState, b: DeclaredState| [a, b, row("gone", State::Off, None)];
        let found = merged(&base, &ours(base[0].clone(), base[1].clone()), &theirs);
        assert_eq!(found, theirs, "nothing was changed here");
        // Another field of the row was changed here.
        let found = merged(&base, &ours(row("a", State::Dark, Some("one")), base[1].clone()), &theirs);
        assert_eq!(found[0], row("a", State::Dark, Some("two")));
        // What was changed here holds: the plan was dropped, a route removed, a route added.
        let found = merged(&base, &[row("a", State::Live, None), row("own", State::Off, None)], &theirs);
        assert_eq!(found, [row("a", State::Live, None), row("new", State::Off, None), row("own", State::Off, None)]);
    }
}
