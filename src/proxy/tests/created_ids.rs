//! Which id in a reply of legacy is the created instance's id.

use super::rig::{Origin, Rig, Setup, post};
use crate::flag::{Instance, Route, State};

/// The same holds for the engine: its instance is pinned under the first of several ids.
#[tokio::test]
async fn of_several_ids_in_a_reply_of_legacy_the_first_counts() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n\
                 [{\"id\":\"a-1\"},{\"id\":\"a-2\"}]";
    let origin = Origin::always_answers(reply).await;
    let edit_route = |route: &mut Route| {
        route.instance = Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$[*].id").unwrap() });
    };
    let rig = Rig::new(&origin, Setup { edit_route, state: State::Shadow, ..Setup::default() }).await;
    assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 200);
    let created = rig.fakes.until("the id", |fakes| fakes.created.lock().unwrap().pop()).await;
    assert_eq!(&*created.id, "a-1");
}

#[tokio::test]
async fn a_redirect_of_legacy_creates_an_instance_and_an_error_does_not() {
    for (status, creates) in [("303 See Other", true), ("400 Bad Request", false)] {
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{{\"id\":\"r-1\"}}"
        );
        let origin = Origin::script(move |mut wire, _| {
            let reply = reply.clone();
            async move {
                wire.message(true).await;
                wire.send(&reply).await;
            }
        })
        .await;
        let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
        rig.ask(&post("/orders", "{}")).await;
        // The reply is offered for comparison after it was searched for the id.
        rig.fakes.outcome().await;
        let created: Vec<_> = rig.fakes.created.lock().unwrap().iter().map(|key| key.id.to_string()).collect();
        assert_eq!(created, if creates { vec!["r-1"] } else { vec![] }, "{status}");
    }
}
