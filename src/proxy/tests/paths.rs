//! Spellings of paths under the conventions of legacy's framework, and OPTIONS.

use super::rig::{OK, Origin, Rig, Setup, engine_says, get};
use crate::flag::{Framework, PathConventions, Service, State};

/// A proxy in front of an origin that uses this framework.
async fn rig(origin: &Origin, state: State, framework: Framework) -> Rig {
    let url = format!("http://{}", origin.address).parse().unwrap();
    let service = Service { paths: PathConventions::of(framework), ..Service::at("shop", [url]) };
    Rig::new(origin, Setup { state, service: Some(service), ..Setup::default() }).await
}

fn options(path: &str) -> String {
    format!("OPTIONS {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
}

#[tokio::test]
async fn a_spelling_that_legacy_takes_for_a_route_goes_to_the_engine_in_only() {
    let origin = Origin::always_answers(OK).await;
    for (framework, spellings) in [
        (Framework::Express, &["/plain/", "/PLAIN", "/Plain/", "/%50lain"][..]),
        (Framework::Rails, &["/plain/", "/plain.json"]),
        (Framework::Spring, &["/plain/", "/plain.json", "/plain;v=1", "/x/..;/plain", "/plain.json;v/"]),
    ] {
        let rig = rig(&origin, State::Only, framework).await;
        for spelling in spellings {
            rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
            assert_eq!(rig.ask(&get(spelling)).await.status(), 201, "{framework:?} {spelling}");
        }
        assert_eq!(rig.fakes.asked.lock().unwrap().len(), spellings.len());
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_request_in_off_is_forwarded_in_the_spelling_of_the_template() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig(&origin, State::Off, Framework::Iis).await;
    for (sent, seen) in
        [("/PLAIN/?A=%41", "/plain?A=%41"), ("/ORDERS/aB", "/orders/aB"), ("/Other/", "/Other/"), ("/plain", "/plain")]
    {
        assert_eq!(rig.ask(&get(sent)).await.status(), 200, "{sent}");
        assert_eq!(origin.requests().last().unwrap().line(), format!("GET {seen} HTTP/1.1"));
    }
}

#[tokio::test]
async fn options_goes_to_the_legacy_of_the_paths_routes_unless_all_are_in_only() {
    let origin = Origin::always_answers(OK).await;
    for state in [State::Off, State::Shadow, State::Live] {
        let rig = Rig::new(&origin, Setup { state, ..Setup::default() }).await;
        assert_eq!(rig.ask(&options("/plain")).await.status(), 200, "{state}");
        assert!(rig.fakes.asked.lock().unwrap().is_empty() && rig.fakes.offered.lock().unwrap().is_empty());
    }
    let seen = origin.requests().len();
    let rig = Rig::new(&origin, Setup { state: State::Only, ..Setup::default() }).await;
    for (path, allowed) in [("/plain", "GET, HEAD, OPTIONS"), ("/x/../orders", "OPTIONS, POST")] {
        let mut client = rig.connect().await;
        client.send(options(path)).await;
        let reply = client.message(false).await.unwrap();
        assert_eq!((reply.status(), reply.field("allow")), (204, Some(allowed)), "{path}");
        assert_eq!(reply.field("x-pointsman-source"), Some("proxy"));
        // The connection is still usable.
        client.send(options("/plain")).await;
        assert_eq!(client.message(false).await.unwrap().status(), 204);
    }
    assert_eq!(origin.requests().len(), seen);
    assert_eq!(rig.ask(&options("/other")).await.status(), 200, "it has no route");
}

/// Express, Rails and other frameworks may perform the method that the field names.
#[tokio::test]
async fn a_post_that_stands_for_a_method_of_a_route_with_a_workflow_is_refused() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Only, ..Setup::default() }).await;
    let with = |method: &str, path: &str, field: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{field}\r\nContent-Length: 0\r\n\r\n")
    };
    for (method, path, field, status) in [
        ("POST", "/plain", "X-HTTP-Method-Override: GET", 400),
        ("POST", "/plain", "x_http_method_override: get", 400),
        ("POST", "/x/../plain", "X-Method-Override: HEAD", 400),
        ("POST", "/plain", "X-HTTP-Method: DELETE, GET", 400),
        ("POST", "/plain", "X-HTTP-Method-Override: DELETE", 200),
        ("POST", "/other", "X-HTTP-Method-Override: GET", 200),
        ("PUT", "/plain", "X-HTTP-Method-Override: GET", 200),
    ] {
        let seen = origin.requests().len();
        assert_eq!(rig.ask(&with(method, path, field)).await.status(), status, "{method} {path} {field}");
        assert_eq!(origin.requests().len(), seen + usize::from(status == 200), "{method} {path} {field}");
    }
    assert!(rig.fakes.asked.lock().unwrap().is_empty());
}
