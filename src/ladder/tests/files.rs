//! Declarations in files, with and without flips.

use super::*;
use crate::ladder::leaving_only::removed_in_only;
use crate::ladder::positions::Positions;

/// The files with these states, and with `force` at these routes.
pub(super) fn forcing(states: &[(&str, State)], routes: &[&str]) -> DeclaredFiles {
    let force = |files, id: &&str| edited(files, id, |route| route.force = Some("we know".into()));
    routes.iter().fold(files(states), force)
}

#[tokio::test]
async fn without_a_flip_a_file_counts_up_to_shadow() {
    let declared = [("bare", State::Live), ("plain", State::Shadow), ("follow", State::Only)];
    let mut fixture = Fixture::open(files(&declared)).await;
    for _ in 0..3 {
        assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Gate));
        assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Unproven));
        assert_eq!(fixture.state("follow"), effective(State::Shadow, EffectiveReason::Gate));
        let status = fixture.status("bare");
        assert_eq!((status.requested, status.declared, status.forced), (State::Live, State::Live, None));
        assert!(status.refused.iter().any(|why| why.contains("force: { reason")), "{:?}", status.refused);
        assert_eq!(fixture.flips().await, 0);
        fixture.ladder.reload(files(&declared), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Gate));
        fixture = fixture.restart(files(&declared)).await;
    }
    // The refused declaration has no effect later either.
    fixture = fixture.restart(files(&[("bare", State::Dark)])).await;
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Gate));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
}

#[tokio::test]
async fn by_force_a_file_counts_without_a_flip_and_is_unproven() {
    let declared = forcing(&[("bare", State::Live), ("plain", State::Only)], &["bare", "plain"]);
    let fixture = Fixture::open(declared.clone()).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Unproven));
    assert_eq!(fixture.state("plain"), effective(State::Only, EffectiveReason::Unproven));
    assert_eq!((fixture.status("bare").forced.as_deref(), fixture.flips().await), (Some("we know"), 0));
    let fixture = fixture.restart(declared).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Unproven));

    let done = fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert!(done.changed && done.flip.forced, "a flip to the state that the file forced is a flip too");
    assert_eq!(fixture.status("bare").forced.as_deref(), Some("a drill"));
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    let lowered = edited(files(&[("bare", State::Live)]), "plain", |route| route.force = Some("back".into()));
    fixture.ladder.reload(lowered, || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested), "it has a flip now");
    assert_eq!(fixture.state("plain").state, State::Off, "and the file of the other has changed");
}

#[tokio::test]
async fn by_force_a_new_file_puts_no_creator_above_its_followers() {
    let declared = || forcing(&[("create", State::Live), ("follow", State::Live)], &["create"]);
    let mut fixture = Fixture::open(declared()).await;
    for _ in 0..2 {
        assert_eq!(fixture.state("create"), effective(State::Shadow, EffectiveReason::Gate));
        let why = fixture.status("create").refused;
        assert_eq!(why, ["`create` cannot go above its followers, they go first: `follow` is `shadow`"]);
        fixture.ladder.reload(declared(), || {}).await.unwrap();
        fixture = fixture.restart(declared()).await;
    }
    fixture.flip("follow", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(declared(), || {}).await.unwrap();
    assert_eq!(fixture.state("create"), effective(State::Live, EffectiveReason::Unproven));
    fixture.flip("follow", to(State::Shadow)).await.unwrap();
    let fixture = fixture.restart(declared()).await;
    assert_eq!(fixture.state("create"), effective(State::Live, EffectiveReason::Unproven));
}

#[tokio::test]
async fn only_a_change_of_the_file_is_a_flip() {
    let fixture = Fixture::open(files(&[("plain", State::Off)])).await;
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    fixture.ladder.reload(files(&[("plain", State::Off)]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain").state, State::Shadow, "the file says what it said before");
    let fixture = fixture.restart(files(&[("plain", State::Off)])).await;
    assert_eq!(fixture.state("plain").state, State::Shadow, "also over a restart");

    fixture.ladder.reload(files(&[("plain", State::Shadow)]), || {}).await.unwrap();
    assert_eq!(fixture.flips().await, 1, "the file now declares what is in force already");
    fixture.ladder.reload(files(&[("plain", State::Off)]), || {}).await.unwrap();
    let last = fixture.status("plain").last.unwrap();
    assert_eq!((last.by.as_str(), last.from.as_str(), last.to.as_str()), ("file", "shadow", "off"));
    assert_eq!(fixture.state("plain").state, State::Off);

    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    let fixture = fixture.restart(files(&[("plain", State::Off)])).await;
    assert_eq!(fixture.state("plain").state, State::Shadow, "the last flip wins");
}

#[tokio::test]
async fn files_whose_move_the_gate_refuses_are_loaded_and_the_route_keeps_its_state() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    let declared = files(&[("plain", State::Live), ("bare", State::Dark)]);
    fixture.ladder.reload(declared.clone(), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Gate));
    let status = fixture.status("plain");
    assert_eq!((status.requested, status.declared), (State::Live, State::Live));
    assert!(status.refused[0].contains("one rung at a time"), "{:?}", status.refused);
    assert_eq!(fixture.flips().await, 1);

    // It is still requested after a restart, and dropped when the file takes it back.
    let fixture = fixture.restart(declared.clone()).await;
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Requested));
    assert!(fixture.status("plain").refused.is_empty());

    // A flip ends it, also over a restart.
    fixture.ladder.reload(declared.clone(), || {}).await.unwrap();
    assert!(fixture.flip("plain", to(State::Shadow)).await.unwrap().changed);
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Requested));
    fixture.ladder.reload(declared.clone(), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Requested));
    let fixture = fixture.restart(declared).await;
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Requested));
}

#[tokio::test]
async fn a_file_passes_the_gate_by_force() {
    let fixture = Fixture::open(files(&[])).await;
    let force = |reason: &str| {
        let reason = Some(reason.to_owned());
        edited(files(&[("bare", State::Live)]), "bare", |route| route.force = reason)
    };
    fixture.ladder.reload(files(&[("bare", State::Live)]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Gate));
    fixture.ladder.reload(force("we know"), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    let last = fixture.status("bare").last.unwrap();
    assert!(last.forced && last.by == "file" && last.reason.as_deref() == Some("we know"));
    fixture.ladder.reload(force("another word"), || {}).await.unwrap();
    assert_eq!(fixture.flips().await, 1);
}

#[tokio::test]
async fn files_raise_followers_before_their_creator() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.ladder.reload(files(&[("create", State::Shadow), ("follow", State::Shadow)]), || {}).await.unwrap();
    assert_eq!(fixture.state("create"), effective(State::Shadow, EffectiveReason::Requested));
    // The follower passes, the creator does not.
    fixture.ladder.reload(files(&[("create", State::Dark), ("follow", State::Dark)]), || {}).await.unwrap();
    assert_eq!(fixture.state("follow"), effective(State::Dark, EffectiveReason::Requested));
    assert_eq!(fixture.state("create"), effective(State::Shadow, EffectiveReason::Gate));
}

/// The acknowledgement that a flip asks for is `force` in the file.
#[tokio::test]
async fn files_need_an_acknowledgement_to_lower_a_route_from_only() {
    let refused = async |fixture: &Fixture, files| {
        let refused = fixture.ladder.reload(files, || panic!("it is not recorded")).await.unwrap_err().to_string();
        assert!(refused.contains("`bare` is in `only`, where legacy is not called at all"), "{refused}");
        assert_eq!(fixture.state("bare").state, State::Only);
        refused
    };
    let without = |id: &str| {
        let mut files = files(&[]);
        files.routes.retain(|route| route.id.as_str() != id);
        files
    };
    let by_file = Fixture::open(forcing(&[("bare", State::Only)], &["bare"])).await;
    let by_flip = Fixture::open(files(&[("bare", State::Shadow)])).await;
    by_flip.flip("bare", forced(State::Only)).await.unwrap();
    // The file alone had put it in `only`, by its `force`.
    refused(&by_file, files(&[("bare", State::Only)])).await;
    let renamed = |state| {
        edited(files(&[("bare", state)]), "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]))
    };
    refused(&by_file, renamed(State::Live)).await;
    // Another route takes its place, and keeps its own state.
    let merged = || edited(without("bare"), "plain", |route| route.was = vec!["bare".into()]);
    let sentence = refused(&by_flip, merged()).await;
    assert!(
        sentence.contains("would put `plain` in `off`") && sentence.contains("`pointsman flip bare off --yes`"),
        "{sentence}"
    );
    for fixture in [by_file, by_flip] {
        let flips = fixture.flips().await;
        for state in [State::Off, State::Live] {
            let sentence = refused(&fixture, files(&[("bare", state)])).await;
            assert!(
                sentence.contains(&format!("write `force: {{ reason: … }}` beside `state: {state}`")),
                "{sentence}"
            );
        }
        let sentence = refused(&fixture, without("bare")).await;
        assert!(sentence.contains("`pointsman flip bare off --yes`"), "{sentence}");
        refused(&fixture, edited(files(&[]), "bare", |route| route.workflow = None)).await;
        // Files that change other routes are not refused for it.
        fixture
            .ladder
            .reload(forcing(&[("bare", State::Only), ("plain", State::Shadow)], &["bare"]), || {})
            .await
            .unwrap();
        assert_eq!((fixture.state("bare").state, fixture.state("plain").state), (State::Only, State::Shadow));
        fixture.ladder.reload(forcing(&[], &["bare"]), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
        assert_eq!(fixture.flips().await, flips + 3, "of `bare`, and of `plain` up and down");
        fixture.ladder.reload(without("bare"), || {}).await.unwrap();
    }
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let by_force = edited(merged(), "plain", |route| route.force = Some("back to legacy".into()));
    fixture.ladder.reload(by_force, || {}).await.unwrap();
    assert_eq!(fixture.state("plain").state, State::Off);

    // Its last flip is stored under the id that it had before.
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    fixture.ladder.reload(renamed(State::Off), || {}).await.unwrap();
    let without_was = edited(renamed(State::Off), "new", |route| route.was.clear());
    fixture.ladder.reload(without_was, || {}).await.unwrap();
    assert_eq!(fixture.state("new"), effective(State::Only, EffectiveReason::Requested), "the store knows that id");
}

#[tokio::test]
async fn a_start_keeps_a_route_in_only_whose_file_lowers_it_without_an_acknowledgement() {
    let fixture = Fixture::open(files(&[("bare", State::Shadow)])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let fixture = fixture.restart(files(&[])).await.restart(files(&[])).await;
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
    let why = fixture.status("bare").refused.join("; ");
    assert!(why.contains("going down needs an acknowledgement"), "{why}");
    let fixture = fixture.restart(forcing(&[], &["bare"])).await;
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
    assert!(fixture.status("bare").refused.is_empty());
}

/// A start serves the other routes although the file of a route in `only` is gone; that is logged.
#[tokio::test]
async fn a_start_tells_which_route_in_only_has_left_the_files() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    let mut without = files(&[]);
    without.routes.retain(|route| !["bare", "plain"].contains(&route.id.as_str()));
    let before = stored(&fixture).await;
    let fixture = fixture.restart(without).await;
    let after = fixture.ladder.mover.in_force().inputs().positions;
    assert_eq!(removed_in_only(&before, &after).map(RouteId::as_str).collect::<Vec<_>>(), ["bare"]);
    // It is logged once, not at every later start.
    assert_eq!(removed_in_only(&stored(&fixture).await, &after).count(), 0);
}

pub(super) async fn stored(fixture: &Fixture) -> Positions {
    let (flips, rows) = (fixture.store.last_flips().await.unwrap(), fixture.store.declared().await.unwrap());
    Positions::from_store(&files(&[]), flips, rows)
}

#[tokio::test]
async fn routes_come_and_go() {
    let without = |mut files: DeclaredFiles| {
        files.routes.retain(|route| route.id.as_str() != "bare");
        files
    };
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(without(files(&[])), || {}).await.unwrap();
    assert!(fixture.ladder.flags().load().route(&"bare".into()).is_none());
    assert!(matches!(fixture.flip("bare", to(State::Off)).await, Err(FlipError::UnknownRoute(..))));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested), "as its file says");
}

/// A route that was put to `off` by hand leaves the files and is re-added.
#[tokio::test]
async fn only_an_edit_raises_a_re_added_route() {
    let declared = || forcing(&[("bare", State::Live), ("plain", State::Shadow)], &["bare"]);
    let without = || {
        let mut files = declared();
        files.routes.retain(|route| !["bare", "plain"].contains(&route.id.as_str()));
        files
    };
    for restarts in [false, true] {
        let mut fixture = Fixture::open(declared()).await;
        fixture.flip("bare", to(State::Off)).await.unwrap();
        let flips = fixture.flips().await;
        for files in [without(), declared()] {
            if restarts {
                fixture = fixture.restart(files).await;
            } else {
                fixture.ladder.reload(files, || {}).await.unwrap();
            }
        }
        assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested), "restarts: {restarts}");
        assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Unproven), "it has no flip");
        assert_eq!(fixture.flips().await, flips, "nobody moved it");
        // It leaves once more, and is re-added with another declaration, which is above its last flip.
        fixture.ladder.reload(without(), || {}).await.unwrap();
        fixture.ladder.reload(files(&[("bare", State::Shadow)]), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
        assert_eq!(fixture.flips().await, flips);
        // An edit while it is in the files is a flip by `file`.
        fixture.ladder.reload(files(&[]), || {}).await.unwrap();
        fixture.ladder.reload(files(&[("bare", State::Shadow)]), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Requested));
        assert_eq!(fixture.status("bare").last.unwrap().by, "file");
    }
}

#[tokio::test]
async fn a_route_that_loses_its_workflow_is_off_until_it_has_one_again() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(edited(files(&[]), "bare", |route| route.workflow = None), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Gate));
    assert_eq!(fixture.status("bare").requested, State::Live);
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(
        fixture.state("bare"),
        effective(State::Dark, EffectiveReason::Gate),
        "legacy served requests without a record meanwhile, and retries of these may come"
    );
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
}

#[tokio::test]
async fn files_that_leave_instances_of_the_engine_unfollowed_are_reported() {
    let fixture = Fixture::open(files(&[])).await;
    assert_eq!(fixture.unfollowed(&files(&[])).await.unwrap(), Vec::<String>::new());
    let without = |id: &str| {
        let mut files = files(&[]);
        files.routes.retain(|route| route.id.as_str() != id);
        files
    };
    assert!(fixture.unfollowed(&without("plain")).await.unwrap().is_empty(), "`plain` has no instances");
    for id in ["create", "follow"] {
        let sentences = fixture.unfollowed(&without(id)).await.unwrap();
        assert!(
            sentences.len() == 1 && sentences[0].contains("instances of `create` (2)") && sentences[0].contains(id),
            "{sentences:?}"
        );
        let idle = edited(files(&[]), id, |route| route.workflow = None);
        assert_eq!(fixture.unfollowed(&idle).await.unwrap().len(), 1, "{id} without its workflow");
    }
}

/// Pins stay under the id that the creator had when they were made.
#[tokio::test]
async fn a_rename_with_was_leaves_no_instance_unfollowed() {
    let fixture = Fixture::open(files(&[])).await;
    let named = |creator: (&str, &[&str]), follower: (&str, &[&str])| {
        let was = |ids: &[&str]| ids.iter().map(|id| RouteId::from(*id)).collect();
        let mut files =
            edited(files(&[]), "create", |route| (route.id, route.was) = (creator.0.into(), was(creator.1)));
        files = edited(files, "follow", |route| (route.id, route.was) = (follower.0.into(), was(follower.1)));
        edited(files, follower.0, |route| {
            route.instance = Some(Instance::Follows {
                creator: creator.0.into(),
                key: crate::flag::InstanceKeySource::Path("id".into()),
            });
        })
    };
    let unfollowed = async |fixture: &Fixture, files: &DeclaredFiles| fixture.unfollowed(files).await.unwrap();
    let sentences_on_both = unfollowed(&fixture, &named(("make", &[]), ("read", &[]))).await;
    assert!(sentences_on_both.len() == 2 && sentences_on_both[0].contains("`was: [create]`"), "{sentences_on_both:?}");
    let sentences_on_one = unfollowed(&fixture, &named(("make", &["create"]), ("read", &[]))).await;
    assert!(sentences_on_one.len() == 1 && sentences_on_one[0].contains("`was: [follow]`"), "{sentences_on_one:?}");
    // A chain of renames; then the first id again; and an id under which nothing is stored.
    for (creator, follower) in [
        (("make", &["create"][..]), ("read", &["follow"][..])),
        (("new", &["make", "create"]), ("read", &["follow"])),
        (("create", &["new", "make"]), ("follow", &["read"])),
        (("create", &["new", "make", "older"]), ("follow", &["read"])),
    ] {
        let files = named(creator, follower);
        assert_eq!(unfollowed(&fixture, &files).await, Vec::<String>::new(), "{creator:?}");
        fixture.ladder.reload(files, || {}).await.unwrap();
        let horizon = fixture.ladder.horizon(&creator.0.into()).await.unwrap();
        assert!(horizon[0].contains("the engine owns 2 instances"), "{horizon:?}");
    }
    let dropped = unfollowed(&fixture, &named(("other", &["create"]), ("other.read", &["read"]))).await;
    assert!(dropped.len() == 1 && dropped[0].contains("`follow` no longer follows them up"), "{dropped:?}");
}

/// A rename and a move in one change of the files: the gate judges by the evidence under the earlier id.
#[tokio::test]
async fn a_route_is_renamed_and_moved_at_once() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    fixture.evidence.set_basis(0, &[("plain".into(), "one".into())]);
    fixture.record_engine_answers("plain");
    let mut next = edited(files(&[("plain", State::Only)]), "plain", |route| {
        (route.id, route.was) = ("new".into(), vec!["plain".into()]);
    });
    next.bases.insert("new".into(), "one".into());
    fixture.ladder.reload(next, || {}).await.unwrap();
    assert_eq!(fixture.state("new"), effective(State::Only, EffectiveReason::Requested));
}
