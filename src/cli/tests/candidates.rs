//! `flip --candidate` moves the candidate that it has seen, and no other.

use super::*;
use crate::admin::types::CandidateStage;
use crate::cli::candidates::{self, CandidateOptions};
use crate::evidence::RouteEvidence;

/// Answers as many requests as there are bodies, each over a connection of its own, and returns the requests.
fn serve_each(bodies: Vec<Value>) -> (Server, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = format!("http://{}", listener.local_addr().expect("an address"));
    let served = std::thread::spawn(move || bodies.iter().map(|body| answer(&listener, body)).collect());
    (Server { admin, by: None, token_file: None }, served)
}

fn answer(listener: &TcpListener, body: &Value) -> String {
    let (mut stream, _) = listener.accept().expect("a client");
    let (mut request, mut chunk) = (Vec::new(), [0; 4_096]);
    let text = loop {
        let n = stream.read(&mut chunk).expect("readable");
        request.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, content)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if content.len() >= length.unwrap_or(0) {
            break text;
        }
    };
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
    stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).expect("writable");
    text
}

/// What the server says of a route with this candidate.
fn detail(candidate: Value) -> Value {
    let mut row = a_status()["routes"][0].clone();
    row["candidate"] = candidate;
    json!({
        "row": row, "declared": "live", "flip": null, "next": null, "horizon": [], "pins": {},
        "evidence": RouteEvidence::default(),
    })
}

/// The plan that `flip --candidate in-force` sends where the server shows this candidate.
fn sent(named: Option<&str>, shown: Value) -> Value {
    let moved = json!({
        "route": "a", "candidate": "plan_2", "in_force": "plan_2", "before": "plan_1", "share": 0.0, "forced": true,
    });
    let answers = if named.is_some() { vec![moved] } else { vec![detail(shown), moved] };
    let (server, served) = serve_each(answers);
    let client = Client::new(&server).expect("a client");
    let options = CandidateOptions {
        route: "a".to_owned(),
        to: CandidateStage::InForce,
        percent: None,
        plan: named.map(str::to_owned),
        reason: Some("a drill".to_owned()),
        force: true,
    };
    candidates::flip(&client, &server, options, Formatter(false)).expect("moved");
    let requests = served.join().expect("served");
    let (_, body) = requests.last().and_then(|request| request.split_once("\r\n\r\n")).expect("a request");
    read::<Value>(serde_json::from_str(body).expect("JSON"))["plan"].clone()
}

/// All calls of both plans are known: none has to be attributed.
#[test]
fn the_differences_of_a_candidate_do_not_end_with_how_calls_are_attributed() {
    let shown = |candidate: bool| {
        let mut diffs = some_diffs();
        diffs["groups"][0]["differences"][0]["kind"] = json!("effect_differs");
        let (server, served) = serve_each(vec![diffs]);
        let client = Client::new(&server).expect("a client");
        let text = diffs::show(&client, "a", 9, candidate, Formatter(false)).expect("shown").text;
        served.join().expect("served");
        text
    };
    assert!(shown(false).ends_with("and how: pointsman egress a\n"), "{}", shown(false));
    assert!(!shown(true).contains("pointsman egress"), "{}", shown(true));
}

#[test]
fn the_plan_that_was_shown_is_named_or_the_one_that_was_asked_for() {
    let candidate = json!({
        "plan": "plan_2", "stage": "shadow", "share": 0.0, "since": null, "pairs": 3, "mismatched": 1, "verdict": "fail",
        "missing": [], "conditions": [],
    });
    assert_eq!(sent(None, candidate), "plan_2");
    assert_eq!(sent(Some("plan_3"), Value::Null), "plan_3");
    assert_eq!(sent(None, Value::Null), "none", "one that has appeared since is not moved");
}
