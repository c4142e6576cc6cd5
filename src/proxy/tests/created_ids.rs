//! Which id in a reply of legacy is that of the created instance.

use super::rig::{Origin, Rig, Setup, post};
use crate::flag::{Instance, Route, State};

/// The engine's instance is pinned under the first of several, too.
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
