//! Files that no longer list an id that a route had earlier (`was`): what is stored under it stays with the route.

use super::held::{Unnoted, restart_with};
use super::*;
use crate::ladder::unlisted_ids::with_unlisted_ids;
use crate::limits::EARLIER_IDS_KEPT_MAX;
use crate::store::{DeclaredState, FlipRecord, GuardAction, GuardRecord, guard_key};

/// The route `bare` with this id and these earlier ones.
fn named(files: DeclaredFiles, id: &str, was: &[&str]) -> DeclaredFiles {
    let was = was.iter().map(|id| RouteId::from(*id)).collect();
    edited(files, "bare", |route| (route.id, route.was) = (id.into(), was))
}

/// `bare` in `live` by `force` in its file.
fn live_by_file() -> DeclaredFiles {
    edited(files(&[("bare", State::Live)]), "bare", |route| route.force = Some("we know".into()))
}

/// What follows the rename of `bare` to `b`, which lists it: each drops an id.
fn edits(files: impl Fn() -> DeclaredFiles) -> [(&'static str, Vec<DeclaredFiles>); 4] {
    [
        ("b", vec![named(files(), "b", &[])]),
        ("c", vec![named(files(), "c", &["b"])]),
        ("c", vec![named(files(), "c", &["b", "bare"]), named(files(), "c", &["bare"]), named(files(), "c", &[])]),
        ("b", vec![named(files(), "c", &["b"]), named(files(), "b", &[])]),
    ]
}

#[tokio::test]
async fn a_route_keeps_its_last_flip() {
    for restarts in [false, true] {
        for (id, steps) in edits(live_by_file) {
            for down in ["bare", "b"] {
                let mut fixture = Fixture::open(live_by_file()).await;
                if down == "bare" {
                    fixture.flip("bare", to(State::Off)).await.unwrap();
                }
                fixture = fixture.next(named(live_by_file(), "b", &["bare"]), restarts).await;
                if down == "b" {
                    fixture.flip("b", to(State::Off)).await.unwrap();
                }
                for files in &steps {
                    fixture = fixture.next(files.clone(), restarts).await;
                }
                let case = format!("`{id}` after {} edits, flipped as `{down}`, restarts: {restarts}", steps.len());
                assert_eq!(fixture.state(id), effective(State::Off, EffectiveReason::Requested), "{case}");
                let last = fixture.status(id).last.expect("a flip");
                assert_eq!(last.to, "off", "{case}");
                fixture = fixture.restart(steps.last().unwrap().clone()).await;
                assert_eq!(fixture.state(id).state, State::Off, "{case}");
            }
        }
    }
}

/// In `only` legacy is not called: a route that lost its state would change the arm.
#[tokio::test]
async fn a_route_in_only_stays_there() {
    for restarts in [false, true] {
        let mut fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Only)).await.unwrap();
        for files in [named(files(&[]), "b", &["bare"]), named(files(&[]), "c", &["b"]), named(files(&[]), "c", &[])] {
            fixture = fixture.next(files, restarts).await;
        }
        assert_eq!(fixture.state("c"), effective(State::Only, EffectiveReason::Requested), "restarts: {restarts}");
    }
}

/// The oldest id decides which callers are in its share, and instances are stored under it.
#[tokio::test]
async fn the_oldest_id_stays_the_same() {
    for restarts in [false, true] {
        for (id, steps) in edits(|| files(&[])) {
            let mut fixture = Fixture::open(files(&[])).await.next(named(files(&[]), "b", &["bare"]), restarts).await;
            for files in steps {
                fixture = fixture.next(files, restarts).await;
                let flags = fixture.ladder.flags().load();
                let flag = flags.routes.iter().find(|flag| flag.route.ids().any(|id| id.as_str() == "bare"));
                assert_eq!(flag.expect("it is known").family.first_id().as_str(), "bare", "{id}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_guard_did_stays_with_the_route() {
    let route = RouteId::from("bare");
    let guard = GuardRecord {
        route: route.clone(),
        action: GuardAction::Lowered,
        limit: Some(State::Dark),
        condition: None,
        bad: 5,
        of: 5,
        runs: Vec::new(),
    };
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let flip = fixture.store.flips(None, 1).await.unwrap().remove(0);
    let action = FlipRecord {
        number: 0,
        route: Some(guard_key(&route)),
        to: "dark".into(),
        by: "guard".into(),
        guard: Some(guard),
        ..flip
    };
    fixture.store.put(vec![action], None).await;
    let mut fixture = fixture.restart(named(files(&[]), "b", &["bare"])).await;
    assert_eq!(fixture.state("b").state, State::Dark);
    for files in [named(files(&[]), "c", &["b"]), named(files(&[]), "c", &[])] {
        fixture = fixture.next(files, false).await;
        assert_eq!(fixture.state("c").state, State::Dark, "lowered by the guard");
    }
    // Another route gets the id under which that is stored.
    let other = || edited(named(files(&[]), "c", &[]), "plain", |route| route.id = "bare".into());
    let refused = fixture.ladder.reload(other(), || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(refused.contains("`c` would lose what its guard did"), "{refused}");
    fixture.restart(other()).await;
}

#[tokio::test]
async fn a_held_route_stays_held() {
    let unnoted = Arc::new(Unnoted::default());
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let ladder = open_with(files(&[]), &store, &evidence, vec![unnoted.clone()]).await.unwrap();
    let fixture = Fixture { store, evidence, ladder };
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    unnoted.serve("bare");
    let mut fixture = restart_with(&unnoted, named(files(&[]), "b", &["bare"]), fixture).await;
    assert_eq!(fixture.state("b").state, State::Dark);
    for files in [named(files(&[]), "c", &["b"]), named(files(&[]), "c", &[])] {
        fixture = fixture.next(files, false).await;
        assert!(fixture.status("c").refused.join("; ").contains("a key of `bare` was not noted"));
    }
    let other = edited(named(files(&[]), "c", &[]), "plain", |route| route.id = "bare".into());
    let refused = fixture.ladder.reload(other, || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(refused.contains("`c` would lose the hold"), "{refused}");
}

/// The edit that drops an id gives it to another route.
#[tokio::test]
async fn a_route_keeps_its_last_flip_if_another_one_gets_the_id() {
    for restarts in [false, true] {
        let fixture = Fixture::open(live_by_file()).await;
        fixture.flip("bare", to(State::Off)).await.unwrap();
        let mut fixture = fixture.next(named(live_by_file(), "b", &["bare"]), restarts).await;
        let other = edited(named(live_by_file(), "b", &[]), "plain", |route| {
            (route.id, route.workflow) = ("bare".into(), None);
        });
        for _ in 0..2 {
            fixture = fixture.next(other.clone(), restarts).await;
            assert_eq!(fixture.state("b"), effective(State::Off, EffectiveReason::Requested), "restarts: {restarts}");
        }
    }
}

/// It has passed none of the gates of the flips under that id.
#[tokio::test]
async fn a_route_that_gets_an_earlier_id_of_another_one_counts_as_new() {
    use State::{Dark, Live, Off, Only, Shadow};
    for (flipped, declared, expected) in [
        (Only, Off, Off),
        (Live, Off, Off),
        (Dark, Dark, Shadow),
        (Live, Dark, Shadow),
        (Only, Live, Shadow),
        (Off, Shadow, Shadow),
    ] {
        for is_dropped_before in [false, true] {
            let fixture = Fixture::open(files(&[])).await;
            fixture.flip("bare", forced(flipped)).await.unwrap();
            let mut fixture = fixture.restart(named(files(&[]), "b", &["bare"])).await;
            if is_dropped_before {
                fixture = fixture.restart(named(files(&[]), "b", &[])).await;
            }
            let files = named(files(&[("plain", declared)]), "b", &[]);
            let other = edited(files, "plain", |route| route.id = "bare".into());
            let refused = fixture.ladder.reload(other.clone(), || panic!("it is not recorded")).await;
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("retry keys of the requests of `b` are stored under it"), "{refused}");
            // A start is not refused.
            for _ in 0..3 {
                fixture = fixture.restart(other.clone()).await;
                let case = format!("{flipped}, {declared}, {is_dropped_before}");
                assert_eq!(fixture.state("bare").state, expected, "{case}");
                assert_eq!(fixture.state("b"), effective(flipped, EffectiveReason::Requested), "{case}");
            }
            let why = fixture.status("bare").last.unwrap().reason.unwrap_or_default();
            assert!(why.contains("its id was an earlier one of another route"), "{why}");
        }
    }
}

fn row(id: &str, oldest: &str, earlier_ids: &[&str]) -> DeclaredState {
    let route = Route { id: oldest.into(), ..Route::clone(&files(&[]).routes[4]) };
    let present = Some(crate::flag::RetryScope::of(&route));
    DeclaredState {
        route: id.into(),
        file: None,
        retry: Some(crate::store::RetryScopes { present, ..Default::default() }),
        follows: None,
        live: None,
        in_force: None,
        evidence_from: None,
        forced: None,
        promote: None,
        is_absent: false,
        earlier_ids: earlier_ids.iter().map(|id| RouteId::from(*id)).collect(),
    }
}

#[test]
fn stored_ids_tell_to_which_route_an_id_belongs_and_which_is_the_oldest() {
    let ids = |files: DeclaredFiles, rows: &[DeclaredState]| {
        let routes = with_unlisted_ids(rows, &files.routes);
        let route = routes.iter().find(|route| route.matches.path == "/bare").unwrap();
        let all: std::collections::BTreeSet<String> = route.ids().map(|id| id.to_string()).collect();
        (all.into_iter().collect::<Vec<_>>().join(" "), route.first_id().to_string())
    };
    let found = |all: &str, oldest: &str| (all.to_owned(), oldest.to_owned());
    let listing = |was: &[&str]| named(files(&[]), "c", was);
    assert_eq!(ids(listing(&[]), &[row("c", "a", &["b", "a"])]), found("a b c", "a"));
    assert_eq!(ids(listing(&["a"]), &[row("c", "a", &["b", "a"])]), found("a b c", "a"));
    assert_eq!(ids(listing(&["b"]), &[row("b", "a", &["a"])]), found("a b c", "a"));
    assert_eq!(ids(listing(&["a", "older"]), &[row("c", "a", &["b", "a"])]), found("a b c older", "older"));
    assert_eq!(ids(listing(&[]), &[row("new", "a", &["c", "a"])]), found("a c new", "a"), "renamed back");
    assert_eq!(ids(listing(&[]), &[row("c", "plain", &["b", "plain"])]), found("b c", "c"), "another route has it");
    // TwoProcesses routes become one: the oldest id of the one that is listed last is the oldest.
    let two = [row("a", "a0", &["a0"]), row("b", "b0", &["b0"])];
    assert_eq!(ids(listing(&["a", "b"]), &two), found("a a0 b b0 c", "b0"));
    // An older version stored only the oldest id.
    assert_eq!(ids(listing(&[]), &[row("c", "a", &[])]), found("a c", "a"));
    assert_eq!(ids(listing(&["b"]), &[row("c", "a", &[])]), found("a b c", "a"));
}

#[tokio::test]
async fn the_number_of_ids_is_bounded() {
    let mut fixture = Fixture::open(files(&[])).await;
    let mut last = "bare".to_owned();
    for n in 0..EARLIER_IDS_KEPT_MAX + 2 {
        let id = format!("r{n}");
        fixture = fixture.next(named(files(&[]), &id, &[&last]), false).await;
        last = id;
    }
    let rows = fixture.store.declared().await.unwrap();
    let ids = &rows.iter().find(|row| row.route.as_str() == last).unwrap().earlier_ids;
    assert_eq!((ids.len(), ids.last().unwrap().as_str()), (EARLIER_IDS_KEPT_MAX, "bare"));
}
