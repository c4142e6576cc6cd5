//! HTTP/2 conformance of the real binary's listener: the cases of RFC 9113 and RFC 7541 as raw frames, one connection
//! each, while another connection has to be answered after every one of them.

mod case;
mod connection_frames;
mod flow_control;
mod generic;
mod hpack_cases;
mod messages;
mod preface_and_format;
mod stream_frames;
mod stream_states;

use http::Method;
use pointsman::demo::http::Client;
use serde_json::Value;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX};
use case::{Case, Kept};

/// The body of each of legacy's answers.
const BODY: &[u8] = b"twenty bytes exactly";
/// The limit of streams of a connection, low enough for a case to exceed it.
const STREAMS_MAX: u32 = 8;

fn cases() -> Vec<Case> {
    let groups = [
        generic::cases(),
        preface_and_format::cases(),
        stream_states::cases(),
        stream_frames::cases(),
        connection_frames::cases(),
        flow_control::cases(),
        messages::cases(),
        hpack_cases::cases(),
    ];
    groups.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_of_the_rfcs_has_an_allowed_outcome() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", BODY.len());
    let origin = Origin::start(OriginReply::Bytes([head.as_bytes(), BODY].concat())).await;
    let flags = FlagsDir::passthrough(&origin.url());
    flags.edit("pointsman.yaml", |text| {
        format!("{text}limits: {{ client_http2_streams_max: {STREAMS_MAX}, linger_ms: 300 }}\n")
    });
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let (other, url) = (Client::new(WAIT_MAX), format!("{}/other", pointsman.url()));
    let cases = cases();
    let (count, mut failures, mut kept) = (cases.len(), Vec::new(), Vec::new());
    for case in cases {
        let (name, is_kept, sees) = (case.name, case.is_kept_from_legacy(), case.legacy_sees);
        let before = origin.count();
        match case.run(pointsman.listen).await {
            Ok(how) => kept.push((name, how)),
            Err(why) => failures.push(format!("{name}: {why}")),
        }
        let reached = origin.seen().split_off(before);
        if is_kept && !reached.is_empty() {
            failures.push(format!("{name}: reached legacy: {:?}", reached[0].line));
        }
        if let Some((field, value)) = sees
            && reached.last().is_none_or(|request| request.header(field) != Some(value))
        {
            failures.push(format!("{name}: legacy did not get `{field}: {value}`: {reached:?}"));
        }
        let reply = other.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, BODY), "another connection, after {name}");
    }
    let metrics = pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_client_streams", &[]), 0.0, "every stream has ended");
    let less_specific = kept.iter().filter(|(_, how)| *how == Kept::LessSpecificCode).count();
    let whole = kept.iter().filter(|(_, how)| *how == Kept::WholeConnection).count();
    let deviations: Vec<_> = kept.iter().filter(|(_, how)| matches!(how, Kept::Deviates(_))).collect();
    println!("{count} cases of HTTP/2, {} failures, {} deviations: {deviations:?}", failures.len(), deviations.len());
    println!("{less_specific} end the connection with a less specific code, {whole} where a reset would do");
    assert!(failures.is_empty(), "{} of {count} cases:\n{}", failures.len(), failures.join("\n"));
    assert!(count >= 140, "{count} cases");
    assert_eq!(pointsman.stop().await, Some(0));
}
