//! Files that rename a route back, without `was`: it keeps what was stored under the id that it had meanwhile.

use super::held::elsewhere;
use super::held_cohorts::{rung_of_staff, with_staff};
use super::*;
use crate::ladder::unlisted_ids::with_unlisted_ids;
use crate::store::{DeclaredState, FlipRecord};

/// The route `bare` under another id.
fn renamed(files: DeclaredFiles) -> DeclaredFiles {
    edited(files, "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]))
}

impl Fixture {
    /// Puts files in force by a reload, or by a restart.
    pub(super) async fn next(self, files: DeclaredFiles, restarts: bool) -> Self {
        if restarts {
            return self.restart(files).await;
        }
        self.ladder.reload(files, || {}).await.unwrap();
        self
    }
}

#[tokio::test]
async fn a_route_keeps_the_flip_from_before_the_rename() {
    for restarts in [false, true] {
        for state in [State::Live, State::Only] {
            let mut fixture = Fixture::open(files(&[])).await;
            fixture.flip("bare", forced(state)).await.unwrap();
            let flips = fixture.flips().await;
            for (files, id) in [(renamed(files(&[])), "new"), (files(&[]), "bare"), (renamed(files(&[])), "new")] {
                fixture = fixture.next(files, restarts).await;
                let expected = effective(state, EffectiveReason::Requested);
                assert_eq!(fixture.state(id), expected, "`{id}`, restarts: {restarts}: its keys were always recorded");
            }
            assert_eq!(fixture.flips().await, flips);
        }
    }
}

#[tokio::test]
async fn a_route_keeps_the_flip_that_was_made_under_an_unlisted_id() {
    for restarts in [false, true] {
        for (before, after) in [(State::Live, State::Off), (State::Off, State::Live), (State::Live, State::Only)] {
            for declared in [State::Off, State::Live] {
                let files = || files(&[("bare", declared)]);
                let mut fixture = Fixture::open(files()).await;
                fixture.flip("bare", forced(before)).await.unwrap();
                fixture = fixture.next(renamed(files()), restarts).await;
                fixture.flip("new", forced(after)).await.unwrap();
                // The flip is kept also when the store does not have the unlisted id any more, and when the route is
                // renamed again.
                for (files, id) in [(files(), "bare"), (files(), "bare"), (renamed(files()), "new")] {
                    fixture = fixture.next(files, restarts).await;
                    let why = format!("`{id}`, {before} {after}, declared {declared}, restarts: {restarts}");
                    assert_eq!(fixture.state(id), effective(after, EffectiveReason::Requested), "{why}");
                    let is_forced = after > State::Off;
                    assert_eq!(fixture.status(id).forced.is_some(), is_forced, "{why}");
                }
                assert_eq!(fixture.flips().await, 3, "it is recorded once more, under the id that it has now");
            }
        }
    }
}

/// The record of such a flip does not name the gate that was overridden.
#[tokio::test]
async fn a_flip_by_force_that_an_older_version_recorded_stays_forced() {
    let fixture = Fixture::open(files(&[])).await;
    let fixture = fixture.restart(renamed(files(&[]))).await;
    fixture.flip("new", forced(State::Live)).await.unwrap();
    let flip = fixture.store.flips(None, 1).await.unwrap().remove(0);
    let forced_at = flip.overridden.as_ref().and_then(|overridden| overridden.forced_at);
    let older = FlipRecord { number: 0, overridden: None, at: forced_at.unwrap(), ..flip };
    assert!(older.forced);
    fixture.store.put(vec![older], None).await;
    let mut fixture = fixture;
    for _ in 0..2 {
        fixture = fixture.restart(files(&[])).await;
        assert_eq!(fixture.status("bare").forced.as_deref(), Some("a drill"));
        let overridden = fixture.status("bare").last.unwrap().overridden.unwrap();
        assert_eq!((overridden.from, overridden.forced_at), (State::Off, forced_at));
    }
}

/// The flip is recorded once more while the route is held, and that does not end the hold.
#[tokio::test]
async fn a_route_that_is_renamed_back_and_gets_another_match_is_held() {
    let fixture = Fixture::open(files(&[])).await;
    let fixture = fixture.restart(renamed(files(&[]))).await;
    fixture.flip("new", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    assert_eq!((fixture.state("bare"), fixture.flips().await), (effective(State::Dark, EffectiveReason::Gate), 2));
    assert_eq!(fixture.status("bare").requested, State::Live);
    assert!(fixture.status("bare").refused.iter().any(|why| why.contains("held at `dark`")));
    let fixture = fixture.restart(elsewhere()).await;
    assert_eq!((fixture.state("bare"), fixture.flips().await), (effective(State::Dark, EffectiveReason::Gate), 2));
}

/// `bare` and `plain` are merged into `new`, and then split again. `bare` has a flip to `live` from before that.
#[tokio::test]
async fn after_a_merge_is_undone_only_the_route_with_the_oldest_id_returns_to_live() {
    for restarts in [false, true] {
        for (lowered, declared, expected) in [
            (true, State::Live, effective(State::Off, EffectiveReason::Requested)),
            (false, State::Live, effective(State::Dark, EffectiveReason::Requested)),
            (true, State::Off, effective(State::Off, EffectiveReason::Requested)),
        ] {
            // These routes count as read-only, so that no route is held because of retries, which would do no harm.
            let reads = ["bare".into(), "plain".into(), "new".into()];
            let states = [("bare", declared), ("plain", declared)];
            let files = || DeclaredFiles { read_only: reads.clone().into(), ..files(&states) };
            let mut merged = edited(files(), "plain", |route| {
                (route.id, route.was) = ("new".into(), vec!["bare".into(), "plain".into()]);
            });
            merged.routes.retain(|route| route.id.as_str() != "bare");
            let fixture = Fixture::open(files()).await;
            for route in ["bare", "plain"] {
                fixture.flip(route, forced(State::Live)).await.unwrap();
            }
            let mut fixture = fixture.next(merged, restarts).await;
            assert_eq!(fixture.state("new"), effective(State::Live, EffectiveReason::Requested));
            let of_plain = if lowered { State::Off } else { State::Live };
            if lowered {
                fixture.flip("new", to(State::Off)).await.unwrap();
            }
            let case = format!("restarts: {restarts}, lowered: {lowered}, declared: {declared}");
            for _ in 0..3 {
                fixture = fixture.next(files(), restarts).await;
                assert_eq!(fixture.state("plain"), effective(of_plain, EffectiveReason::Requested), "{case}");
                assert_eq!(fixture.state("bare").state, expected.state, "{case}");
                let last = fixture.status("bare").last.unwrap();
                assert_eq!((last.by.as_str(), last.to.as_str()), ("file", expected.state.as_str()), "{case}");
            }
        }
    }
}

/// The declaration that counts is the one under the id that is not listed any more.
#[tokio::test]
async fn only_a_changed_declaration_moves_a_route_that_is_renamed_back() {
    for restarts in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        let fixture = fixture.next(renamed(files(&[("bare", State::Shadow)])), restarts).await;
        assert_eq!(fixture.state("new").state, State::Shadow);
        fixture.flip("new", forced(State::Live)).await.unwrap();
        let fixture = fixture.next(files(&[]), restarts).await;
        assert_eq!(
            fixture.state("bare"),
            effective(State::Off, EffectiveReason::Requested),
            "the file has changed to `off`"
        );
    }
}

/// The reason was written before the edit that holds the cohort.
#[tokio::test]
async fn a_held_cohort_of_a_route_that_is_renamed_back_stays_held() {
    for restarts in [false, true] {
        let mut fixture = Fixture::open(with_staff(files(&[]), "our own people")).await;
        let elsewhere = || with_staff(elsewhere(), "our own people");
        for (files, id) in [(elsewhere(), "bare"), (renamed(elsewhere()), "new"), (elsewhere(), "bare")] {
            fixture = fixture.next(files, restarts).await;
            assert_eq!(rung_of_staff(&fixture, id), State::Dark, "`{id}`, restarts: {restarts}");
        }
    }
}

/// The creator and its follower, which are renamed by themselves or together.
#[tokio::test]
async fn a_family_that_is_renamed_back_follows_up_its_instances() {
    let rename = |mut files: DeclaredFiles, id: &str, next: &str| {
        files = edited(files, id, |route| (route.id, route.was) = (next.into(), vec![id.into()]));
        if id == "create" {
            files = edited(files, "follow", |route| {
                route.instance = Some(Instance::Follows {
                    creator: next.into(),
                    key: crate::flag::InstanceKeySource::Path("id".into()),
                });
            });
        }
        files
    };
    let both = |files: DeclaredFiles| rename(rename(files, "create", "make"), "follow", "read");
    for renamed in [rename(files(&[]), "create", "make"), rename(files(&[]), "follow", "read"), both(files(&[]))] {
        for restarts in [false, true] {
            let fixture = Fixture::open(files(&[])).await;
            let mut fixture = fixture.next(renamed.clone(), restarts).await;
            fixture.begin_run("make", Some("create")).await;
            for _ in 0..3 {
                fixture = fixture.next(files(&[]), restarts).await;
            }
        }
    }
}

#[test]
fn the_oldest_id_tells_to_which_route_a_stored_row_belongs() {
    let routes = files(&[]).routes;
    let row = |id: &str, oldest: &str| {
        let route = Route { id: oldest.into(), ..Route::clone(&routes[4]) };
        let present = Some(crate::flag::RetryScope::of(&route));
        let retry = Some(crate::store::RetryScopes { present, ..Default::default() });
        DeclaredState {
            route: id.into(),
            file: None,
            retry,
            follows: None,
            live: None,
            in_force: None,
            evidence_from: None,
            forced: None,
            promote: None,
            is_absent: false,
            earlier_ids: Vec::new(),
        }
    };
    let ids = |routes: &[Arc<Route>], rows: &[DeclaredState]| {
        let routes = with_unlisted_ids(rows, routes);
        let bare = routes.iter().find(|route| route.id.as_str() == "bare").unwrap();
        assert_eq!(bare.ids().count(), bare.ids().collect::<std::collections::BTreeSet<_>>().len(), "each once");
        (bare.ids().skip(1).map(|id| id.as_str().to_owned()).collect::<Vec<_>>(), bare.first_id().as_str().to_owned())
    };
    let expected =
        |unlisted: &[&str], oldest: &str| (unlisted.iter().map(|id| (*id).to_owned()).collect(), oldest.to_owned());
    assert_eq!(ids(&routes, &[row("new", "bare")]), expected(&["new"], "bare"));
    assert_eq!(ids(&routes, &[row("new", "other"), row("bare", "bare")]), expected(&[], "bare"));
    assert_eq!(ids(&routes, &[row("plain", "bare")]), expected(&[], "bare"), "it is in the files");
    let older = edited(files(&[]), "bare", |route| route.was = vec!["older".into()]).routes;
    assert_eq!(ids(&older, &[row("new", "older")]), expected(&["new", "older"], "older"));
    assert_eq!(ids(&older, &[row("new", "bare")]), expected(&["new", "older"], "older"));
}
