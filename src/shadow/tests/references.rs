//! Replies that refer to another instance than legacy's do.

use super::*;

/// The orders of legacy, and their twins.
const ORDERS: [(&str, &str); 3] = [("l-17001", "e-52001"), ("l-17002", "e-52002"), ("l-17003", "e-52003")];

/// Creates three orders, of which the last refers to the first one in legacy's reply, and to the order with this number
/// in the engine's. Returns the paths and earlier pairings of the differences.
async fn differences_of_a_reference_to(
    order: usize,
    rules: Value,
    reply: fn(&str, &str) -> (HeaderMap, Value),
) -> Vec<(String, String)> {
    let referred = |n: usize, of_last: usize| if n == 2 { of_last } else { n };
    let number = Arc::new(Mutex::new(0..ORDERS.len()));
    let engine_reply = move |_: ArmRequest| {
        let n = number.lock().unwrap().next().unwrap();
        let (headers, body) = reply(ORDERS[n].1, ORDERS[referred(n, order)].1);
        let body = Bytes::from(body.to_string());
        let answer =
            ArmAnswer { status: StatusCode::CREATED, headers, body: body.into(), report: RunReport::default() };
        std::future::ready(ArmReply::Answer(answer))
    };
    let rig = TestShadow::new(engine(engine_reply), limits(), rules).await;
    for n in 0..ORDERS.len() {
        let (headers, body) = reply(ORDERS[n].0, ORDERS[referred(n, 0)].0);
        let request = answered(Mode::Dark, &Value::Null, 0);
        let body = Body::Whole(body.to_string().into());
        let legacy = Observation::new(StatusCode::CREATED, headers, body, Duration::ZERO, Vec::new());
        rig.offer(Answered { legacy: Arc::new(legacy), ..request });
        rig.settled(n as u64 + 1).await;
    }
    let samples = testing::samples(&rig.evidence, &rig.store, &id()).await;
    let found = samples.iter().flat_map(|sample| &sample.differences);
    found.map(|found| (found.path.clone(), found.contradicts[0].path.clone())).collect()
}

fn at(path: &str) -> [(String, String); 1] {
    [(path.to_owned(), "instance.id of an earlier pair".to_owned())]
}

#[tokio::test]
async fn a_header_that_names_the_twin_of_another_instance_is_a_difference() {
    let reply = |id: &str, parent: &str| {
        let mut headers = headers();
        headers.insert("x-parent", format!("/orders/{parent}").parse().unwrap());
        (headers, json!({ "id": id }))
    };
    let rules = || json!({ "ids": ["$.id", { "header.x-parent": "/orders/{id}" }] });
    assert_eq!(differences_of_a_reference_to(0, rules(), reply).await, []);
    assert_eq!(differences_of_a_reference_to(1, rules(), reply).await, at("headers.x-parent"));
}

#[tokio::test]
async fn a_wrong_reference_is_a_difference_beside_many_other_ids() {
    for lines in [10, 70] {
        let reply: fn(&str, &str) -> (HeaderMap, Value) = match lines {
            10 => |id: &str, parent: &str| with_lines(id, parent, 10),
            _ => |id: &str, parent: &str| with_lines(id, parent, 70),
        };
        let rules = || json!({ "ids": ["$.id", "$.lines[*].id", "$.parent"] });
        assert_eq!(differences_of_a_reference_to(0, rules(), reply).await, [], "{lines}");
        assert_eq!(differences_of_a_reference_to(1, rules(), reply).await, at("$.parent"), "{lines}");
    }
}

/// An order whose lines have ids that the arms draw.
fn with_lines(id: &str, parent: &str, count: usize) -> (HeaderMap, Value) {
    let lines: Vec<Value> = (0..count).map(|line| json!({ "id": format!("line-{line}-of-{id}") })).collect();
    (headers(), json!({ "id": id, "lines": lines, "parent": parent }))
}
