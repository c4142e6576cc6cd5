//! Files that would leave instances of the engine without a route that follows them up: they are refused.

use super::*;

#[tokio::test]
async fn a_start_is_refused_as_a_reload_is() {
    let fixture = Fixture::open(files(&[])).await;
    let store = &fixture.store;
    for id in ["create", "follow"] {
        let mut gone = files(&[]);
        gone.routes.retain(|route| route.id.as_str() != id);
        let told = fixture.orphans(&gone).await.unwrap();
        let refused = opened(gone, store, &fixture.evidence).await.err().unwrap().to_string();
        assert!(refused.contains(&format!("`{id}` no longer follows them up")) && told == [refused], "{told:?}");
    }
    opened(files(&[]), store, &fixture.evidence).await.unwrap();
}

/// The requests by which instances of the engine are followed up.
#[tokio::test]
async fn requests_for_instances_of_the_engine_stay_with_their_followers() {
    let fixture = Fixture::open(files(&[])).await;
    let parse = |text: &str| text.parse::<Match>().unwrap();
    let matching = |text: &str| edited(files(&[]), "follow", |route| route.matches = parse(text));
    let more = |mut files: Declared, id: &str, text: &str, edit: &dyn Fn(&mut Route)| {
        let follow = files.routes.iter().find(|route| route.id.as_str() == "follow").unwrap();
        let mut route = Route { id: id.into(), matches: parse(text), ..(**follow).clone() };
        edit(&mut route);
        files.routes.push(Arc::new(route));
        files
    };
    let plain = |route: &mut Route| (route.workflow, route.instance) = (None, None);
    let beside = |text: &str| more(files(&[]), "beside", text, &plain);
    let alone = |route: &mut Route| route.instance = None;
    let by_other = |route: &mut Route| {
        route.instance = Some(Instance::Follows { creator: "create".into(), param: "order".into() });
    };
    let refused = [
        (matching("GET /bills/{id}"), "by which `follow` followed them up"),
        (matching("GET shop.test/orders/{id}"), "by which `follow` followed them up"),
        (matching("POST /orders/{id}"), "by which `follow` followed them up"),
        (matching("GET /orders/{id}/{x}"), "by which `follow` followed them up"),
        (edited(matching("GET /{id}/{order}"), "follow", |_| {}), "by which `follow` followed them up"),
        (beside("GET shop.test/orders/{id}"), "Give it the workflow"),
        (beside("HEAD /orders/{id}"), "Give it the workflow"),
        (more(files(&[]), "beside", "GET shop.test/orders/{id}", &alone), "Give it the workflow"),
        (beside("GET /orders/17"), "the engine owns `17` of `create`"),
        (beside("GET shop.test/orders/17"), "the engine owns `17` of `create`"),
    ];
    for (files, says) in refused {
        let told = fixture.orphans(&files).await.unwrap();
        assert!(told.len() == 1 && told[0].contains(says), "{says}: {told:?}");
        let refused = opened(files, &fixture.store, &fixture.evidence).await.err().unwrap().to_string();
        assert_eq!(told, [refused]);
    }
    let accepted = [
        matching("GET /orders/{order}"),
        more(matching("GET /bills/{id}"), "old", "GET /orders/{id}", &|_| {}),
        more(files(&[]), "other", "GET shop.test/orders/{id}", &|_| {}),
        more(matching("GET /{kind}/{id}"), "other", "GET /orders/{order}", &by_other),
        beside("GET /orders/export"),
        beside("GET /{kind}/{id}"),
        beside("POST /orders/{id}"),
        beside("GET /orders/{id}/items"),
    ];
    for files in accepted {
        let edited = edited(files, "follow", |route| {
            if let Some(name) =
                ["id", "order"].into_iter().find(|name| route.matches.path.contains(&format!("{{{name}}}")))
            {
                route.instance = Some(Instance::Follows { creator: "create".into(), param: name.into() });
            }
        });
        let matches: Vec<_> = edited.routes.iter().map(|route| route.matches.to_string()).collect();
        assert_eq!(fixture.orphans(&edited).await.unwrap(), Vec::<String>::new(), "{matches:?}");
    }
    // A route that was in the files before goes on getting its requests: the instance `17` was made after it.
    let store = Arc::default();
    let ladder = opened(beside("GET /orders/17"), &store, &fixture.evidence).await.unwrap();
    assert_eq!(orphans_of(&ladder, &store, &beside("GET /orders/17")).await.unwrap(), Vec::<String>::new());
    opened(beside("GET /orders/17"), &store, &fixture.evidence).await.unwrap();
}
