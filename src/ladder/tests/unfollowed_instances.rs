//! Files that would leave instances of the engine without a route that follows them up: they are refused.

use std::sync::atomic::Ordering::SeqCst;

use super::failing_store::SlowListing;
use super::files::stored;
use super::*;
use crate::expression::Expression;
use crate::flag::Cohort;
use crate::ladder::leaving_only::removed_in_only;
use crate::names::JobId;

#[tokio::test]
async fn a_start_is_refused_as_a_reload_is() {
    let fixture = Fixture::open(files(&[])).await;
    let store = &fixture.store;
    for id in ["create", "follow"] {
        let mut files_without = files(&[]);
        files_without.routes.retain(|route| route.id.as_str() != id);
        let sentences = fixture.unfollowed(&files_without).await.unwrap();
        let refused = open_ladder(files_without, store, &fixture.evidence).await.err().unwrap().to_string();
        assert!(
            refused.contains(&format!("`{id}` no longer follows them up")) && sentences == [refused],
            "{sentences:?}"
        );
    }
    open_ladder(files(&[]), store, &fixture.evidence).await.unwrap();
}

/// The requests by which instances of the engine are followed up.
#[tokio::test]
async fn requests_for_instances_of_the_engine_stay_with_their_followers() {
    let fixture = Fixture::open(files(&[])).await;
    let parse = |text: &str| text.parse::<RouteMatch>().unwrap();
    let matching = |text: &str| edited(files(&[]), "follow", |route| route.matches = parse(text));
    let with_route = |mut files: DeclaredFiles, id: &str, text: &str, edit: &dyn Fn(&mut Route)| {
        let follow = files.routes.iter().find(|route| route.id.as_str() == "follow").unwrap();
        let mut route = Route { id: id.into(), matches: parse(text), ..(**follow).clone() };
        edit(&mut route);
        files.routes.push(Arc::new(route));
        files
    };
    let without_workflow = |route: &mut Route| (route.workflow, route.instance) = (None, None);
    let with_plain_route = |text: &str| with_route(files(&[]), "added", text, &without_workflow);
    let without_instance = |route: &mut Route| route.instance = None;
    let by_order_parameter = |route: &mut Route| {
        route.instance = Some(Instance::Follows {
            creator: "create".into(),
            key: crate::flag::InstanceKeySource::Path("order".into()),
        });
    };
    let refused = [
        (matching("GET /bills/{id}"), "by which `follow` followed them up"),
        (matching("GET shop.test/orders/{id}"), "by which `follow` followed them up"),
        (matching("POST /orders/{id}"), "by which `follow` followed them up"),
        (matching("GET /orders/{id}/{x}"), "by which `follow` followed them up"),
        (edited(matching("GET /{id}/{order}"), "follow", |_| {}), "by which `follow` followed them up"),
        (with_plain_route("GET shop.test/orders/{id}"), "Give it the workflow"),
        (with_plain_route("HEAD /orders/{id}"), "Give it the workflow"),
        (with_route(files(&[]), "added", "GET shop.test/orders/{id}", &without_instance), "Give it the workflow"),
        (with_plain_route("GET /orders/17"), "the engine owns the instance `17` of `create`"),
        (with_plain_route("GET shop.test/orders/17"), "the engine owns the instance `17` of `create`"),
    ];
    for (files, part) in refused {
        let sentences = fixture.unfollowed(&files).await.unwrap();
        assert!(sentences.len() == 1 && sentences[0].contains(part), "{part}: {sentences:?}");
        let refused = open_ladder(files, &fixture.store, &fixture.evidence).await.err().unwrap().to_string();
        assert_eq!(sentences, [refused]);
    }
    let accepted = [
        matching("GET /orders/{order}"),
        with_route(matching("GET /bills/{id}"), "old", "GET /orders/{id}", &|_| {}),
        with_route(files(&[]), "other", "GET shop.test/orders/{id}", &|_| {}),
        with_route(matching("GET /{kind}/{id}"), "other", "GET /orders/{order}", &by_order_parameter),
        with_plain_route("GET /orders/export"),
        with_plain_route("GET /{kind}/{id}"),
        with_plain_route("POST /orders/{id}"),
        with_plain_route("GET /orders/{id}/items"),
    ];
    for files in accepted {
        let edited = edited(files, "follow", |route| {
            if let Some(name) =
                ["id", "order"].into_iter().find(|name| route.matches.path.contains(&format!("{{{name}}}")))
            {
                route.instance = Some(Instance::Follows {
                    creator: "create".into(),
                    key: crate::flag::InstanceKeySource::Path(name.into()),
                });
            }
        });
        let matches: Vec<_> = edited.routes.iter().map(|route| route.matches.to_string()).collect();
        assert_eq!(fixture.unfollowed(&edited).await.unwrap(), Vec::<String>::new(), "{matches:?}");
    }
    // A route that was in the files before goes on getting its requests: the instance `17` was made after it.
    let store = Arc::default();
    let ladder = open_ladder(with_plain_route("GET /orders/17"), &store, &fixture.evidence).await.unwrap();
    assert_eq!(
        unfollowed_in(&ladder, &store, &with_plain_route("GET /orders/17")).await.unwrap(),
        Vec::<String>::new()
    );
    open_ladder(with_plain_route("GET /orders/17"), &store, &fixture.evidence).await.unwrap();
}

fn without_family() -> DeclaredFiles {
    let mut files = files(&[]);
    files.routes.retain(|route| !["create", "follow"].contains(&route.id.as_str()));
    files
}

/// The run may create an instance that nobody would follow up.
#[tokio::test]
async fn files_that_remove_a_family_are_refused_while_a_run_of_it_is_open() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.owns_none.store(true, SeqCst);
    fixture.begin_run("create", Some("create")).await;
    let refused = fixture.ladder.reload(without_family(), || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("the engine has an open run that may create an instance of"), "{refused}");
    let at_start = open_ladder(without_family(), &fixture.store, &fixture.evidence).await.err().unwrap();
    assert_eq!(at_start.to_string(), refused.to_string());
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
}

/// A person can look at the run, or wait until it is repaired.
#[tokio::test]
async fn the_refusal_names_a_run_that_cannot_be_read() {
    let fixture = Fixture::open(files(&[])).await;
    let refusal = async || {
        let refused = fixture.ladder.reload(without_family(), || panic!("it is not recorded")).await;
        refused.unwrap_err().to_string()
    };
    let make_unreadable = |run: RunId| *fixture.store.unreadable.lock().unwrap() = Some(run);
    let rerun = fixture.begin(|started| (started.route, started.job) = (None, Some(JobId(uuid::Uuid::now_v7())))).await;
    assert!(!refusal().await.contains("cannot be read"));
    make_unreadable(rerun);
    let refused = refusal().await;
    assert!(refused.contains(&format!("the events of the open rerun {rerun} cannot be read")), "{refused}");
    let run = fixture.begin_run("create", Some("create")).await;
    make_unreadable(run);
    let refused = refusal().await;
    assert!(refused.contains(&format!("the events of run {run} cannot be read")), "{refused}");
    fixture.store.owns_none.store(true, SeqCst);
    let refused = refusal().await;
    assert!(refused.contains(&format!("the events of run {run} cannot be read")), "{refused}");
    let another = fixture.begin_run("create", Some("create")).await;
    let refused = refusal().await;
    assert!(!refused.contains("cannot be read"), "{another} counts: {refused}");
}

/// Neither at a reload nor at a start.
#[tokio::test]
async fn a_run_that_creates_no_instance_of_a_family_does_not_keep_the_family() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.owns_none.store(true, SeqCst);
    fixture.begin_run("plain", None).await;
    fixture.begin_run("create", None).await;
    fixture.begin_run("other", Some("other")).await;
    open_ladder(files(&[]), &fixture.store, &fixture.evidence).await.unwrap();
    fixture.ladder.reload(without_family(), || {}).await.unwrap();
    open_ladder(without_family(), &fixture.store, &fixture.evidence).await.unwrap();
}

/// The files with a second follower, which has no workflow.
fn with_bare_follower() -> DeclaredFiles {
    let mut files = files(&[]);
    let follow = files.routes.iter().find(|route| route.id.as_str() == "follow").unwrap();
    let matches = RouteMatch { method: Method::POST, path: "/orders/{id}/cancel".into(), host: None };
    files.routes.push(Arc::new(Route { id: "cancel".into(), matches, workflow: None, ..(**follow).clone() }));
    files
}

/// An older version took such files. Refusing them would stop every later reload.
#[tokio::test]
async fn a_follower_that_never_had_a_workflow_refuses_no_files_while_its_creator_is_in_only() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.flip(route, forced(State::Only)).await.unwrap();
    }
    let refused = fixture.ladder.reload(with_bare_follower(), || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("`cancel` follows up what `create` creates"), "it is new: {refused}");
    let fixture = fixture.restart(with_bare_follower()).await;
    for declared in [State::Off, State::Shadow] {
        let files = edited(with_bare_follower(), "plain", |route| route.declared = declared);
        fixture.ladder.reload(files, || {}).await.unwrap();
        assert_eq!(fixture.state("create"), effective(State::Only, EffectiveReason::Requested));
        assert_eq!(fixture.state("plain").state, declared);
    }
}

/// The next request may create an instance that legacy would be asked for.
#[tokio::test]
async fn a_creator_in_live_keeps_its_followers_before_it_has_an_instance() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.owns_none.store(true, SeqCst);
    for route in ["follow", "create"] {
        fixture.flip(route, forced(State::Live)).await.unwrap();
    }
    let without_workflow = || edited(files(&[]), "follow", |route| route.workflow = None);
    let mut without_follower = files(&[]);
    without_follower.routes.retain(|route| route.id.as_str() != "follow");
    for files in [without_workflow(), without_follower, without_family()] {
        let refused = fixture.ladder.reload(files, || panic!("it is not recorded")).await.unwrap_err().to_string();
        assert!(refused.contains("the engine may create one of `create` at any moment"), "{refused}");
    }
    let refused = fixture.ladder.reload(with_bare_follower(), || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("`cancel` follows up what `create` creates"), "{refused}");
    assert_eq!(fixture.state("create"), effective(State::Live, EffectiveReason::Requested));

    let fixture = fixture.restart(with_bare_follower()).await;
    for _ in 0..2 {
        assert_eq!(fixture.state("create"), effective(State::Dark, EffectiveReason::Gate));
        let why = fixture.status("create").refused.join("; ");
        assert!(why.contains("`create` cannot be in `live` until `cancel` has one"), "{why}");
        fixture.ladder.reload(with_bare_follower(), || {}).await.unwrap();
    }
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("create"), effective(State::Live, EffectiveReason::Requested));
    fixture.flip("create", to(State::Dark)).await.unwrap();
    fixture.ladder.reload(without_workflow(), || {}).await.unwrap();

    // A cohort may create one, too.
    let with_staff = |files: DeclaredFiles| {
        let when = Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap();
        let staff = Cohort { name: "staff".into(), when, state: State::Live, force: Some("our own people".into()) };
        edited(files, "create", |route| route.cohorts = vec![staff])
    };
    fixture.ladder.reload(with_staff(files(&[])), || {}).await.unwrap();
    let refused = fixture.ladder.reload(with_staff(without_workflow()), || panic!("it is not recorded")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the engine may create one of `create` at any moment"), "{refused}");
}

/// The run's instance will be pinned under the oldest id, whatever the route was called when the run began.
#[tokio::test]
async fn an_earlier_id_that_is_left_out_stays_while_an_open_run_will_pin_under_it() {
    let was = |ids: &[&str]| {
        let was = ids.iter().map(|id| RouteId::from(*id)).collect();
        let files = edited(files(&[]), "create", |route| (route.id, route.was) = ("new".into(), was));
        edited(files, "follow", |route| {
            route.instance = Some(Instance::Follows {
                creator: "new".into(),
                key: crate::flag::InstanceKeySource::Path("id".into()),
            });
        })
    };
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.owns_none.store(true, SeqCst);
    fixture.ladder.reload(was(&["create"]), || {}).await.unwrap();
    fixture.ladder.reload(was(&["middle", "create"]), || {}).await.unwrap();
    fixture.begin_run("new", Some("create")).await;
    fixture.ladder.reload(was(&["middle"]), || {}).await.unwrap();
    open_ladder(was(&["middle"]), &fixture.store, &fixture.evidence).await.unwrap();
    fixture.ladder.reload(was(&[]), || {}).await.unwrap();
}

/// A flip does not wait for the search, least of all a flip down.
#[tokio::test]
async fn a_search_for_open_runs_delays_no_flip() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.store.owns_none.store(true, SeqCst);
    let slow = Arc::new(SlowListing::default());
    *fixture.store.slow_listing.lock().unwrap() = Some(slow.clone());
    let ladder = fixture.ladder.clone();
    let reload = tokio::spawn(async move { ladder.reload(without_family(), || {}).await });
    // The search is made before the files are put in force, and once more after that.
    for state in [State::Off, State::Shadow] {
        slow.begun.notified().await;
        fixture.flip("bare", to(state)).await.unwrap();
        assert_eq!(fixture.state("bare").state, state);
        slow.go_on.notify_one();
    }
    reload.await.unwrap().unwrap();
    assert!(fixture.ladder.flags().load().route(&"create".into()).is_none());
    assert_eq!(fixture.state("bare").state, State::Shadow);
}

/// The creator goes to `live` during the search, and may create an instance at any moment from then on.
#[tokio::test]
async fn a_flip_during_the_search_for_open_runs_counts() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.owns_none.store(true, SeqCst);
    let slow = Arc::new(SlowListing::default());
    *fixture.store.slow_listing.lock().unwrap() = Some(slow.clone());
    let ladder = fixture.ladder.clone();
    let reload = tokio::spawn(async move { ladder.reload(without_family(), || {}).await });
    slow.begun.notified().await;
    fixture.flip("follow", forced(State::Live)).await.unwrap();
    fixture.flip("create", forced(State::Live)).await.unwrap();
    slow.go_on.notify_one();
    slow.begun.notified().await;
    slow.go_on.notify_one();
    let refused = reload.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("the engine may create one of `create` at any moment"), "{refused}");
    assert_eq!(fixture.state("create").state, State::Live);
}

/// Such an instance comes, for example, from a rerun of a failed run of a family that was removed before.
#[tokio::test]
async fn instances_that_no_file_follows_up_stop_no_other_files() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.owns_none.store(true, SeqCst);
    fixture.ladder.reload(without_family(), || {}).await.unwrap();
    fixture.store.owns_none.store(false, SeqCst);
    let fixture = fixture.restart(without_family()).await;
    let changed = edited(without_family(), "plain", |route| route.declared = State::Shadow);
    fixture.ladder.reload(changed, || {}).await.unwrap();
    assert_eq!(fixture.state("plain").state, State::Shadow);
    // Once they are followed up again, they have to be.
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    fixture.ladder.reload(without_family(), || panic!("it is not recorded")).await.unwrap_err();
}

/// Legacy gets the requests of a route that was in `only`.
#[tokio::test]
async fn a_start_tells_which_route_in_only_has_lost_its_workflow() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let before = stored(&fixture).await;
    let fixture = fixture.restart(edited(files(&[]), "bare", |route| route.workflow = None)).await;
    let after = fixture.ladder.mover.in_force().inputs().positions;
    assert_eq!(removed_in_only(&before, &after).map(RouteId::as_str).collect::<Vec<_>>(), ["bare"]);
    assert_eq!(removed_in_only(&stored(&fixture).await, &after).count(), 0, "once");
}
