//! The older entrance, and the listener for applications.

use http::{Request, StatusCode};
use serde_json::json;

use super::desk::started;
use super::door::{READER, RUNNER, tokens};
use super::runs::with_a_run;
use super::world::{World, get, post};
use crate::admin::serve::Peer;
use crate::store::tests::run_id;

const OLDER: &str = "/api/maestro/produce";

async fn ready() -> World {
    let world = with_a_run().await;
    *world.desk.start.lock().unwrap() = Some(Ok(started(run_id(1), true)));
    world
}

fn ask(peer: &str, fields: &[(&'static str, &str)]) -> Request<axum::body::Body> {
    let mut request = post(OLDER, &json!({ "workflow": "create-order" }));
    request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn the_older_entrance_does_the_same_and_says_that_it_goes() {
    let world = ready().await;
    let older = world.call(ask("127.0.0.1:1", &[])).await;
    assert_eq!((older.status, older.headers["deprecation"].to_str().unwrap()), (StatusCode::ACCEPTED, "@1795132800"));
    assert_eq!(older.headers["sunset"], "Fri, 31 Dec 2027 00:00:00 GMT");
    assert_eq!(older.headers["link"], "</api/v2/orchestrate/run>; rel=\"successor-version\"");
    let newer = world.call(post("/api/v2/orchestrate/run", &json!({ "workflow": "create-order" }))).await;
    assert_eq!(older.text, newer.text);
    assert!(!newer.headers.contains_key("deprecation"));
}

#[tokio::test]
async fn the_older_entrance_is_for_this_machine_and_for_the_service_token() {
    let mut world = ready().await;
    let status = async |world: &World, peer: &str, fields: &[(&'static str, &str)]| {
        let answer = world.call(ask(peer, fields)).await;
        assert!(answer.headers.contains_key("deprecation"), "refusals say it too");
        answer.status.as_u16()
    };
    assert_eq!(status(&world, "10.0.0.7:1", &[]).await, 403);
    assert_eq!(status(&world, "127.0.0.1:1", &[("x-forwarded-for", "10.0.0.7")]).await, 403, "somebody else's");
    assert_eq!(status(&world, "[::ffff:127.0.0.1]:1", &[]).await, 202);
    world.tokens = tokens();
    assert_eq!(status(&world, "127.0.0.1:1", &[]).await, 202);
    assert_eq!(status(&world, "10.0.0.7:1", &[("authorization", RUNNER)]).await, 202);
    assert_eq!(status(&world, "10.0.0.7:1", &[("authorization", READER)]).await, 403);
    assert_eq!(status(&world, "127.0.0.1:1", &[("authorization", "Bearer nonsense")]).await, 403);
    world.maestro = false;
    assert_eq!(status(&world, "127.0.0.1:1", &[]).await, 403);
}

#[tokio::test]
async fn applications_reach_runs_and_nothing_else() {
    let world = ready().await;
    for path in ["/metrics", "/api/v2/routes", "/api/v2/status", "/api/v2/flips"] {
        assert_eq!(world.application(get(path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let described = world.application(get("/openapi.json")).await.json();
    let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
    assert!(paths.iter().any(|path| *path == "/api/v2/orchestrate/run"), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("routes") || path.contains("freeze")), "{paths:?}");
    assert_eq!(world.application(get("/")).await.status, StatusCode::OK);
    assert_eq!(world.application(get("/nothing")).await.json()["hint"], "GET / lists what is here");
    let flip = post("/api/v2/routes/orders.create/flip", &json!({ "to": "shadow" }));
    assert_eq!(world.application(flip).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.application(get("/api/v2/orchestrate/runs")).await.status, StatusCode::OK);
    assert_eq!(world.application(ask("127.0.0.1:1", &[])).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn scopes_part_looking_starting_deciding_and_flipping() {
    let mut world = ready().await;
    world.tokens = tokens();
    let run = format!("/api/v2/orchestrate/run/{}", run_id(1));
    let may = async |token: &str, mut request: Request<axum::body::Body>| {
        request.headers_mut().insert("authorization", token.parse().unwrap());
        world.call(request).await.status != StatusCode::FORBIDDEN
    };
    let asks: [(&str, Request<axum::body::Body>); 5] = [
        ("read", get(&run)),
        ("run", post("/api/v2/orchestrate/run", &json!({ "workflow": "create-order" }))),
        ("run", post(&format!("{run}/signals/paid"), &json!({}))),
        ("decide", post(&format!("{run}/cancel"), &json!({}))),
        ("flip", post("/api/v2/freeze", &json!({ "on": true }))),
    ];
    for (scope, request) in asks {
        let (head, body) = request.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        let again = || Request::from_parts(head.clone(), axum::body::Body::from(body.clone()));
        assert_eq!(may(READER, again()).await, scope == "read", "{scope}");
        assert_eq!(may(RUNNER, again()).await, scope == "read" || scope == "run", "{scope}");
        assert_eq!(may(super::door::DECIDER, again()).await, scope == "decide", "{scope}");
    }
}
