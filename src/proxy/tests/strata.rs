//! The kinds of requests that the evidence of a route keeps apart.

use super::rig::{OK, Origin, Rig, Setup};
use crate::expression::Template;
use crate::flag::{Percent, Route, Shares, State, StratumKey};
use crate::secret::{Detectors, RedactRules, TextHash};

const KEY: &str = "${request.headers[\"x-channel\"]}";

fn with_key(route: &mut Route) {
    route.promote.strata_by = Some(StratumKey::new(Template::parse_str(KEY).unwrap(), &TextHash::None));
}

fn order(channel: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nHost: shop\r\n{channel}Content-Length: 2\r\n\r\n{{}}")
}

#[tokio::test]
async fn a_value_with_a_secret_is_not_shown() {
    let origin = Origin::always_answers(OK).await;
    let edit_route = |route: &mut Route| {
        with_key(route);
        route.redact = RedactRules::new([], Vec::new(), Detectors { email: true });
    };
    let rig = Rig::new(&origin, Setup { state: State::Shadow, edit_route, ..Setup::default() }).await;
    for value in ["4111111111111111", "Bearer sk12345secret9", "jane@example.com", "web"] {
        assert_eq!(rig.ask(&order(&format!("X-Channel: {value}\r\n"))).await.status(), 200);
    }
    let all = |fakes: &super::rig::Fakes| Some(fakes.strata.lock().unwrap().clone()).filter(|all| all.len() == 4);
    let mut found: Vec<_> = rig.fakes.until("four tickets", all).await.into_iter().flatten().collect();
    found.sort();
    let redacted = "POST 2xx (redacted)";
    assert_eq!(found, ["POST 2xx \"web\"", redacted, redacted, redacted]);
}

#[tokio::test]
async fn the_value_of_strata_by_is_part_of_the_requests_stratum() {
    let origin = Origin::always_answers(OK).await;
    for (state, edit_route) in [
        (State::Shadow, with_key as fn(&mut Route)),
        (State::Dark, with_key),
        (State::Shadow, |route| {
            with_key(route);
            route.shares = Shares { shadow: Percent::NONE, ..Shares::default() };
        }),
    ] {
        let rig = Rig::new(&origin, Setup { state, edit_route, ..Setup::default() }).await;
        for channel in ["X-Channel: web\r\n", "X-Channel: \"x\"\r\n", "X-Channel:\r\n", ""] {
            assert_eq!(rig.ask(&order(channel)).await.status(), 200);
        }
        let all = |fakes: &super::rig::Fakes| Some(fakes.strata.lock().unwrap().clone()).filter(|all| all.len() == 4);
        let mut found: Vec<_> = rig.fakes.until("four tickets", all).await.into_iter().flatten().collect();
        found.sort();
        // Neither an empty value nor an error is one.
        assert_eq!(found, ["POST 2xx", "POST 2xx", "POST 2xx \"\\\"x\\\"\"", "POST 2xx \"web\""], "{state}");
    }
}
