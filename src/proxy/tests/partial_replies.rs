//! Legacy closes its connection within the head of an answer: legacy has received the request, so it is not sent again.

use super::rig::{OK, Origin, Rig, Setup, get};
use crate::flag::Service;

const PARTS: [&str; 4] =
    ["H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n"];

/// Answers requests for `/first`; for others sends a part of an answer and closes the connection.
async fn breaking(part: &'static str) -> Origin {
    Origin::script(move |mut wire, seen| async move {
        while let Some(request) = wire.message(true).await {
            let is_first = request.line().contains("/first");
            seen.lock().unwrap().push(request);
            wire.send(if is_first { OK } else { part }).await;
            if !is_first {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_request_on_an_idle_connection_is_not_repeated_after_a_part_of_an_answer() {
    for part in PARTS {
        for method in ["DELETE", "PUT", "GET"] {
            let origin = breaking(part).await;
            let rig = Rig::new(&origin, Setup::default()).await;
            let mut client = rig.connect().await;
            assert_eq!(client.ask(&get("/first")).await.status(), 200);
            let refused = client.ask(&format!("{method} /second HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
            assert_eq!(refused.status(), 502, "{method}, {part:?}");
            assert!(refused.text().contains("legacy-closed"), "{}", refused.text());
            let second = origin.requests().iter().filter(|request| request.line().contains("/second")).count();
            assert_eq!((second, *origin.connections.lock().unwrap()), (1, 1), "{method}, {part:?}");
        }
    }
}

#[tokio::test]
async fn a_safe_request_does_not_go_to_another_address_after_a_part_of_an_answer() {
    for part in PARTS {
        let (origin, broken) = (Origin::always_answers(OK).await, breaking(part).await);
        let urls = [origin.address, broken.address].map(|address| format!("http://{address}").parse().unwrap());
        let service = Service { eject: None, ..Service::at("shop", urls) };
        let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
        let mut failed = 0;
        for _ in 0..20 {
            failed += usize::from(rig.ask(&get("/second")).await.status() == 502);
        }
        assert_eq!(failed, broken.requests().len(), "{part:?}: each that it got has failed");
        assert_eq!(origin.requests().len() + failed, 20);
    }
}
