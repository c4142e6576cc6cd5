//! Routes that become one (`was`) and are separated again: ids of instances that they have in common, retry keys, and
//! why the joined route is as low as it is.

use super::captured_log::capture_log;
use super::*;

/// `create`, and another creator.
pub(super) fn two_creators() -> DeclaredFiles {
    let mut files = files(&[]);
    let mut other = (**files.routes.iter().find(|route| route.id.as_str() == "create").unwrap()).clone();
    (other.id, other.matches.path) = ("other".into(), "/others".into());
    files.routes.push(Arc::new(other));
    files
}

/// One creator in place of both.
pub(super) fn one_creator(id: &str, was: &[&str]) -> DeclaredFiles {
    let mut files = two_creators();
    files.routes.retain(|route| route.id.as_str() != "other");
    let files = edited(files, "create", |route| {
        (route.id, route.was) = (id.into(), was.iter().map(|id| RouteId::from(*id)).collect());
    });
    edited(files, "follow", |route| {
        let key = crate::flag::InstanceKeySource::Path("id".into());
        route.instance = Some(Instance::Follows { creator: id.into(), key });
    })
}

/// Why these files are refused, by a reload or by a start. Afterwards the earlier files are in force again.
pub(super) async fn refusal(
    fixture: Fixture,
    (earlier, next): (DeclaredFiles, DeclaredFiles),
    is_start: bool,
) -> (Fixture, String) {
    if !is_start {
        let refused = fixture.ladder.reload(next, || panic!("it is not recorded")).await.unwrap_err();
        return (fixture, refused.to_string());
    }
    let Fixture { store, evidence, ladder } = fixture;
    drop(ladder);
    let refused = open_with(next, &store, &evidence, vec![]).await.err().unwrap().to_string();
    let ladder = open_with(earlier, &store, &evidence, vec![]).await.unwrap();
    (Fixture { store, evidence, ladder }, refused)
}

#[tokio::test]
async fn creators_are_joined_only_by_a_new_force() {
    for (id, was) in [("new", &["create", "other"][..]), ("create", &["other"]), ("other", &["create"])] {
        let joined =
            |force: Option<&str>| edited(one_creator(id, was), id, |route| route.force = force.map(str::to_owned));
        for is_start in [false, true] {
            let mut fixture = Fixture::open(two_creators()).await;
            // Beside the engine's instances of `create`.
            fixture.begin_run("other", Some("other")).await;
            // A rename joins nothing.
            let renamed =
                edited(two_creators(), "other", |route| (route.id, route.was) = ("o".into(), vec!["other".into()]));
            fixture = fixture.next(renamed, is_start).await;
            fixture = fixture.next(two_creators(), is_start).await;

            let (mut fixture, refused) = refusal(fixture, (two_creators(), joined(None)), is_start).await;
            let sentence = format!("`{id}` joins several routes (`create`, `other`)");
            let way_out = format!("say so with `force: {{ reason: … }}` in the file of `{id}`");
            assert!(refused.contains(&sentence) && refused.contains(&way_out), "{refused}");

            let (log, _guard) = capture_log();
            fixture = fixture.next(joined(Some("one space")), is_start).await;
            // They are one route now, also without `force`.
            fixture.next(joined(None), is_start).await;
            let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            let said = "Its file says that they are from one space (`force`): one space";
            assert_eq!(log.matches(said).count(), 1, "{log}");
        }
    }
}

/// A reason that one of the routes had before was written for something else.
#[tokio::test]
async fn an_earlier_force_joins_no_creators() {
    let forced = |files: DeclaredFiles, id: &str| edited(files, id, |route| route.force = Some("a drill".into()));
    let fixture = Fixture::open(forced(two_creators(), "create")).await;
    fixture.begin_run("other", Some("other")).await;
    let joined = forced(one_creator("create", &["other"]), "create");
    let (_, refused) = refusal(fixture, (two_creators(), joined), false).await;
    assert!(refused.contains("with a reason that is new in this edit"), "{refused}");
}

/// Requests about instances of `other` go to a follower of `create`, without any `was`.
#[tokio::test]
async fn a_follower_takes_over_no_requests_about_instances_of_another_creator() {
    const OTHER: &str = "follow.other";
    let follows = |route: &mut Route, creator: &str| {
        let key = crate::flag::InstanceKeySource::Path("id".into());
        route.instance = Some(Instance::Follows { creator: creator.into(), key });
    };
    let both = || {
        let mut files = two_creators();
        let mut follower = (**files.routes.iter().find(|route| route.id.as_str() == "follow").unwrap()).clone();
        (follower.id, follower.matches.path) = (OTHER.into(), "/others/{id}".into());
        follows(&mut follower, "other");
        files.routes.push(Arc::new(follower));
        files
    };
    let without = |mut files: DeclaredFiles, id: &str| {
        files.routes.retain(|route| route.id.as_str() != id);
        files
    };
    let wide = |route: &mut Route| route.matches.path = "/{kind}/{id}".into();
    let of_another_creator = || edited(both(), OTHER, |route| follows(route, "create"));
    let by_a_wider_match = || edited(without(both(), OTHER), "follow", wide);
    let cases: [(&dyn Fn() -> DeclaredFiles, &str); 2] = [(&of_another_creator, OTHER), (&by_a_wider_match, "follow")];
    for (taken, by) in cases {
        for is_start in [false, true] {
            let (fixture, refused) = refusal(Fixture::open(both()).await, (both(), taken()), is_start).await;
            let sentence = format!(
                "`{by}` follows up what `create` creates, and gets requests of `{OTHER}` about instances of `other`"
            );
            assert!(refused.contains(&sentence), "{refused}");
            let forced = edited(taken(), by, |route| route.force = Some("one space".into()));
            fixture.next(forced, is_start).await.next(taken(), is_start).await;
        }
    }
    // The wider match leaves these requests to the other follower, whose match is more specific.
    let fixture = Fixture::open(both()).await;
    fixture.next(edited(both(), "follow", wide), false).await;
}

#[tokio::test]
async fn a_creator_with_an_open_run_is_renamed_by_a_reload() {
    for force in [None, Some("a drill".to_owned())] {
        let fixture = Fixture::open(two_creators()).await;
        fixture.begin_run("other", Some("other")).await;
        let renamed = edited(two_creators(), "other", |route| {
            (route.id, route.was, route.force) = ("o".into(), vec!["other".into()], force.clone());
        });
        let (log, _guard) = capture_log();
        fixture.ladder.reload(renamed, || {}).await.unwrap();
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        assert!(!log.contains("joins several routes"), "{log}");
    }
}

/// `plain` and `bare` become one route with this id.
fn joined_as(id: &str) -> DeclaredFiles {
    let was = ["plain", "bare"].iter().filter(|was| **was != id).map(|id| RouteId::from(*id)).collect();
    let mut files = files(&[]);
    files.routes.retain(|route| route.id.as_str() != "plain");
    edited(files, "bare", |route| (route.id, route.was, route.key) = (id.into(), was, None))
}

/// The keys of the joined time are looked up for both, whatever the id of the joined route was.
#[tokio::test]
async fn routes_that_were_joined_are_separated_by_a_reload_as_by_a_start() {
    for restarts in [false, true] {
        for id in ["new", "plain", "bare"] {
            let mut fixture = Fixture::open(files(&[])).await;
            fixture = fixture.next(joined_as(id), restarts).await;
            // Again, as by another edit.
            fixture = fixture.next(joined_as(id), restarts).await;
            let (log, _guard) = capture_log();
            let sentence = "`bare` and `plain` were one route before";
            let logged = || String::from_utf8_lossy(&log.lock().unwrap()).matches(sentence).count();
            fixture = fixture.next(files(&[]), restarts).await;
            assert_eq!(logged(), 1, "joined as `{id}`, restarts: {restarts}");
            let text = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            assert!(!text.contains("Give the other route another id"), "{text}");
            fixture.next(files(&[]), restarts).await;
            assert_eq!(logged(), 1, "once");
        }
    }
}

/// The state of a joined route is not the lowest of theirs, but where it would be held.
#[tokio::test]
async fn the_flip_of_a_joined_route_that_is_held_says_so() {
    for restarts in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        for (route, percent) in [("plain", 10.0), ("bare", 100.0)] {
            for rung in [State::Dark, State::Live] {
                let percent = (rung == State::Live).then(|| Percent::new(percent).unwrap());
                fixture.flip(route, MoveRequest { percent, ..forced(rung) }).await.unwrap();
            }
        }
        let key = crate::expression::Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap();
        let joined = edited(joined_as("new"), "new", |route| {
            (route.key, route.matches.path) = (Some(key), "/all".into());
        });
        let fixture = fixture.next(joined, restarts).await;
        let flip = fixture.status("new").last.unwrap();
        assert_eq!((flip.from.as_str(), flip.to.as_str(), flip.by.as_str()), ("live", "dark", "file"));
        let reason = flip.reason.unwrap();
        let hold = "and it is at most in `dark`, because the route's retry keys are recorded since";
        assert!(reason.contains("it joins `plain` (`live`) and `bare` (`live`)") && reason.contains(hold), "{reason}");
    }
}
