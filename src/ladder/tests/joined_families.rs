//! Requests about instances of one creator that new files give to a follower of another one, and creators that become
//! one. The engine owns instances of `create`.

use super::joined::refusal;
use super::*;
use crate::flag::{Framework, InstanceKeySource, PathConventions};

/// What a route does, and whether it has a workflow.
#[derive(Clone, Copy)]
enum Role {
    Creates,
    CreatesAtLegacy,
    Follows(&'static str),
    FollowsAtLegacy(&'static str),
    Plain,
}

use Role::{Creates, CreatesAtLegacy, Follows, FollowsAtLegacy, Plain};

/// Its id, its `match`, and what it does.
type TestRoute = (&'static str, &'static str, Role);

fn of(routes: &[TestRoute]) -> DeclaredFiles {
    let template = files(&[]);
    let named = |id: &str| (**template.routes.iter().find(|route| route.id.as_str() == id).unwrap()).clone();
    let route = |(id, matches, role): &TestRoute| {
        let follows = |creator: &str| {
            let key = InstanceKeySource::Path("id".into());
            Route { instance: Some(Instance::Follows { creator: creator.into(), key }), ..named("follow") }
        };
        let route = match role {
            Creates => named("create"),
            CreatesAtLegacy => Route { workflow: None, ..named("create") },
            Follows(creator) => follows(creator),
            FollowsAtLegacy(creator) => Route { workflow: None, ..follows(creator) },
            Plain => named("list"),
        };
        Arc::new(Route { id: (*id).into(), matches: matches.parse().unwrap(), ..route })
    };
    DeclaredFiles { routes: routes.iter().map(route).collect(), ..template }
}

const CREATE: TestRoute = ("create", "POST /orders", Creates);
const B: TestRoute = ("b", "POST /b", Creates);
const CANCEL: TestRoute = ("a.cancel", "POST /v1/orders/{id}/cancel", Follows("create"));
const WIDE: TestRoute = ("a.cancel", "POST /{version}/orders/{id}/cancel", Follows("create"));
const B_CANCEL: TestRoute = ("b.cancel", "POST /v2/orders/{id}/cancel", Follows("b"));

/// Files, one after the other, of which the last are refused.
async fn is_refused(steps: &[DeclaredFiles], by: &str) -> String {
    let (last, accepted) = steps.split_last().unwrap();
    let mut texts = Vec::new();
    for is_start in [false, true] {
        let mut fixture = Fixture::open(accepted[0].clone()).await;
        for files in &accepted[1..] {
            fixture = fixture.next(files.clone(), is_start).await;
        }
        let before = accepted.last().unwrap().clone();
        let (fixture, text) = refusal(fixture, (before, last.clone()), is_start).await;
        let forced = edited(last.clone(), by, |route| route.force = Some("one space".into()));
        fixture.next(forced, is_start).await.next(last.clone(), is_start).await;
        texts.push(text);
    }
    assert_eq!(texts[0], texts[1]);
    texts.remove(0)
}

async fn are_accepted(steps: &[DeclaredFiles]) {
    for is_start in [false, true] {
        let mut fixture = Fixture::open(steps[0].clone()).await;
        for files in &steps[1..] {
            fixture = fixture.next(files.clone(), is_start).await;
        }
    }
}

#[tokio::test]
async fn a_follower_gets_no_requests_about_instances_of_another_creator() {
    let wide_b = ("b.cancel", "POST /{version}/orders/{id}/cancel", Follows("b"));
    let at_legacy = ("b.cancel", "POST /v2/orders/{id}/cancel", FollowsAtLegacy("b"));
    let moved = ("b.cancel", "POST /b/{id}/cancel", Follows("b"));
    let new = ("a.cancel2", "POST /v2/orders/{id}/cancel", Follows("create"));
    let plain = ("other", "POST /v2/orders/{id}/cancel", Plain);
    let wide_without = ("a.cancel", "POST /{version}/orders/{id}/cancel", FollowsAtLegacy("create"));
    let cases: [(&str, &[&[TestRoute]]); 7] = [
        ("a.cancel2", &[&[CREATE, B, CANCEL, wide_b], &[CREATE, B, CANCEL, wide_b, new]]),
        ("a.cancel", &[&[CREATE, B, CANCEL, at_legacy], &[CREATE, B, WIDE]]),
        ("a.cancel", &[&[CREATE, B, CANCEL, B_CANCEL], &[CREATE, CANCEL], &[CREATE, WIDE]]),
        ("a.cancel", &[&[CREATE, B, CANCEL, B_CANCEL], &[CREATE, B, CANCEL, moved], &[CREATE, B, WIDE, moved]]),
        // What won over the wide one leaves.
        ("a.cancel", &[&[CREATE, B, WIDE, B_CANCEL], &[CREATE, B, WIDE]]),
        ("a.cancel", &[&[CREATE, B, WIDE, B_CANCEL], &[CREATE, B, WIDE, plain], &[CREATE, B, WIDE]]),
        // The next edit may add a workflow.
        ("new", &[&[CREATE, B, CANCEL, B_CANCEL], &[CREATE, B, CANCEL, ("new", wide_without.1, wide_without.2)]]),
    ];
    for (at, (by, steps)) in cases.into_iter().enumerate() {
        let steps: Vec<DeclaredFiles> = steps.iter().map(|routes| of(routes)).collect();
        let text = is_refused(&steps, by).await;
        let sentence =
            format!("`{by}` follows up what `create` creates, and gets requests of `b.cancel` about instances of `b`");
        assert!(text.contains(&sentence), "{at}: {text}");
        let is_gone = !steps.last().unwrap().routes.iter().any(|route| route.id.as_str() == "b");
        let hint = "if `create` is that route under another id, add `was: [b]` to `create`";
        assert_eq!(text.contains(hint), is_gone, "{at}: {text}");
    }
}

#[tokio::test]
async fn a_route_that_left_earlier_is_joined_only_by_force() {
    let b = ("b", "POST /b", CreatesAtLegacy);
    let cancel = ("b.cancel", "POST /b/{id}/cancel", FollowsAtLegacy("b"));
    let joined = edited(of(&[CREATE, CANCEL]), "create", |route| route.was = vec!["b".into()]);
    let text = is_refused(&[of(&[CREATE, CANCEL, b, cancel]), of(&[CREATE, CANCEL]), joined], "create").await;
    assert!(text.contains("`create` joins several routes (`b`, `create`)"), "{text}");
}

#[tokio::test]
async fn files_are_not_refused_where_no_instance_is_in_danger() {
    let renamed = ("b2", "POST /b", Creates);
    let of_renamed = ("b.cancel", "POST /v2/orders/{id}/cancel", Follows("b2"));
    are_accepted(&[of(&[CREATE, B, CANCEL, B_CANCEL]), of(&[CREATE, renamed, CANCEL, of_renamed])]).await;

    let plain = ("p", "POST /p", Plain);
    let joined = edited(of(&[CREATE, CANCEL]), "create", |route| route.was = vec!["p".into()]);
    are_accepted(&[of(&[CREATE, CANCEL, plain]), joined]).await;

    let narrowed = ("a.cancel", "POST /v1/orders/{id}/cancel", Follows("create"));
    let wide_b = ("b.cancel", "POST /{version}/orders/{id}/cancel", Follows("b"));
    let narrowed_b = ("b.cancel", "POST /v3/orders/{id}/cancel", Follows("b"));
    are_accepted(&[of(&[CREATE, B, CANCEL, wide_b]), of(&[CREATE, B, CANCEL, narrowed_b])]).await;
    // The engine owns nothing of `b`.
    are_accepted(&[of(&[CREATE, B, narrowed, B_CANCEL]), of(&[CREATE, B, narrowed, wide_b])]).await;

    let spring = |mut files: DeclaredFiles| {
        let paths = PathConventions::of(Framework::Spring);
        for route in &mut files.routes {
            let route = Arc::make_mut(route);
            let legacy = Service { paths, ..(*route.legacy).clone() };
            route.legacy = Arc::new(legacy);
        }
        files
    };
    let overlapping = || of(&[CREATE, B, CANCEL, wide_b]);
    are_accepted(&[overlapping(), spring(overlapping())]).await;
}
