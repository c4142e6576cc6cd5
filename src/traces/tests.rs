use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;

const RUN: RunId = RunId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_002a));

fn settings(otlp: &str, sample: f64) -> TracesSettings {
    TracesSettings {
        otlp: otlp.parse().unwrap(),
        tls: None,
        headers: http::HeaderMap::from_iter([(http::header::AUTHORIZATION, "Bearer s3cret".parse().unwrap())]),
        sample,
        trust_sampled: TrustSampled::Peers,
        service_name: "shop-proxy".to_owned(),
    }
}

fn span(name: &str) -> Span {
    let mut attributes = Attributes::new();
    attributes.add("pointsman.arm", Some("legacy"));
    attributes.add(HTTP_STATUS, Some(200));
    attributes.add("absent", None::<&str>);
    attributes.add_server(Some(&"https://bank/charges".parse().unwrap()));
    Span {
        context: TraceContext { trace_id: 0xabc, span_id: 0xd, is_sampled: true },
        parent: Some(u64::MAX),
        name: name.to_owned(),
        kind: SpanKind::Client,
        start: "2026-11-24T10:00:00.000000001Z".parse().unwrap(),
        end: "2026-11-24T10:00:01Z".parse().unwrap(),
        attributes,
        error: Some("status 503".to_owned()),
    }
}

/// The parts of an exporter of at most `waiting_max` spans, with their metrics.
fn parts(otlp: &str, waiting_max: u64) -> (Traces, Exporter, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let limits = Limits { spans_waiting_max: waiting_max, ..Limits::default() };
    let (traces, exporter) = metrics::with_local_recorder(&recorder, || Traces::new(settings(otlp, 1.0), &limits));
    (traces, exporter, handle)
}

/// Exported spans, and those dropped because the queue was full and because they were not accepted.
fn counts(metrics: &PrometheusHandle) -> [u64; 3] {
    let text = metrics.render();
    let of = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).trim().parse().unwrap()
    };
    [
        of("pointsman_spans_exported_total"),
        of("pointsman_spans_dropped_total{reason=\"queue\"}"),
        of("pointsman_spans_dropped_total{reason=\"export\"}"),
    ]
}

/// A collector that gives these answers, one after the other, and keeps what it was sent.
async fn collector(answers: &'static [&'static str]) -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/base/", listener.local_addr().unwrap());
    let received = Arc::<Mutex<Vec<(String, Value)>>>::default();
    let seen = received.clone();
    tokio::spawn(async move {
        let mut answers = answers.iter();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            loop {
                let (mut head, mut line) = (String::new(), String::new());
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                    head.push_str(&std::mem::take(&mut line).to_lowercase());
                }
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let Some(length) = length.and_then(|length| length.parse().ok()) else { break };
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                seen.lock().unwrap().push((head, serde_json::from_slice(&body).unwrap()));
                let answer = answers.next().expect("it was sent more often than expected");
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (base, received)
}

#[test]
fn spans_are_written_as_the_json_encoding_of_otlp() {
    let written =
        otlp::export_request("shop-proxy", &[span("legacy"), Span { parent: None, error: None, ..span("GET") }]);
    let written: Value = serde_json::from_slice(&written.unwrap()).unwrap();
    let resource = &written["resourceSpans"][0];
    let name = json!({ "key": "service.name", "value": { "stringValue": "shop-proxy" } });
    assert_eq!(resource["resource"]["attributes"][0], name);
    let spans = &resource["scopeSpans"][0]["spans"];
    let expected = json!({
        "traceId": "00000000000000000000000000000abc",
        "spanId": "000000000000000d",
        "parentSpanId": "ffffffffffffffff",
        "name": "legacy",
        "kind": 3,
        // 64-bit numbers are texts.
        "startTimeUnixNano": "1795514400000000001",
        "endTimeUnixNano": "1795514401000000000",
        "attributes": [
            { "key": "pointsman.arm", "value": { "stringValue": "legacy" } },
            { "key": "http.response.status_code", "value": { "intValue": "200" } },
            { "key": "server.address", "value": { "stringValue": "bank" } },
            { "key": "server.port", "value": { "intValue": "443" } },
        ],
        "status": { "code": 2, "message": "status 503" },
    });
    assert_eq!(spans[0], expected);
    assert_eq!(
        (spans[1].get("parentSpanId"), spans[1].get("status")),
        (None, None),
        "the first span of a trace, not failed"
    );
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let long = "ü".repeat(200);
    let Attribute::Text(text) = Attribute::from(&*long) else { panic!("a text") };
    assert_eq!(text, "ü".repeat(128));
}

#[test]
fn the_decision_of_a_trusted_caller_is_kept_and_other_traces_are_sampled_at_random() {
    let limits = Limits::default();
    for (sample, is_recorded) in [(0.0, false), (1.0, true)] {
        let (traces, _) = Traces::new(settings("http://c", sample), &limits);
        assert_eq!(traces.begin(None, false).is_sampled, is_recorded);
        assert_eq!(traces.of_run(RUN, None, None).0.is_sampled, is_recorded);
        for is_sampled in [false, true] {
            let caller = TraceContext { trace_id: 1, span_id: 2, is_sampled };
            let begun = traces.begin(Some(caller), true);
            assert_eq!((begun.trace_id, begun.is_sampled), (1, is_sampled));
            let begun = traces.begin(Some(caller), false);
            assert_eq!((begun.trace_id, begun.is_sampled), (1, is_recorded), "a stranger's flag decides nothing");
            assert_eq!(Traces::child(caller).is_sampled, is_sampled);
            assert_eq!(traces.of_run(RUN, Some(caller), None).0.is_sampled, is_sampled);
        }
    }
    let (half, _) = Traces::new(settings("http://c", 0.5), &limits);
    let drawn = (0..1_000).filter(|_| half.begin(None, true).is_sampled).count();
    assert!((300..700).contains(&drawn), "{drawn}");
}

#[test]
fn a_run_is_a_child_of_what_began_it() {
    let (traces, _) = Traces::new(settings("http://c", 1.0), &Limits::default());
    let own = 0x8000_0000_0000_002a;
    let caller = TraceContext { trace_id: 1, span_id: 2, is_sampled: true };
    let (context, parent) = traces.of_run(RUN, Some(caller), None);
    assert_eq!((context.trace_id, context.span_id, parent), (1, own, Some(2)));
    // A run that begins a trace names itself in its first event.
    let (first, parent) = traces.of_run(RUN, None, None);
    assert_eq!((first.trace_id, first.span_id, parent), (RUN.0.as_u128(), own, None));
    assert_eq!(traces.of_run(RUN, Some(first), None), (first, None));
    // The first event of a child run has the same `traceparent` as that of its parent run.
    let child = RunId(Uuid::from_u128(RUN.0.as_u128() + 1));
    let (context, parent) = traces.of_run(child, Some(caller), Some(RUN));
    assert_eq!((context.trace_id, context.span_id, parent), (1, own + 1, Some(own)));
}

#[tokio::test]
async fn a_full_queue_drops_spans_and_counts_them() {
    let (traces, _exporter, metrics) = parts("http://127.0.0.1:9", 2);
    (0..5).for_each(|_| traces.record(span("x")));
    let context = TraceContext { is_sampled: false, ..span("x").context };
    traces.record(Span { context, ..span("not recorded") });
    assert_eq!(counts(&metrics), [0, 3, 0]);
}

#[tokio::test]
async fn waiting_spans_are_sent_in_one_request_and_again_where_the_collector_asks_for_it() {
    let (base, received) = collector(&["503 Busy\r\nretry-after: 0", "429 Slow\r\nretry-after: 0", "200 OK"]).await;
    let (traces, exporter, metrics) = parts(&base, 100);
    (0..3).for_each(|n| traces.record(span(&n.to_string())));
    let sending = tokio::spawn(exporter.run());
    while counts(&metrics)[0] == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    traces.stop.cancel();
    sending.await.unwrap();
    assert_eq!(counts(&metrics), [3, 0, 0]);
    let received = received.lock().unwrap();
    let [(head, first), (_, second), (_, third)] = &received[..] else { panic!("{received:?}") };
    assert!(head.starts_with("post /base/v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("authorization: bearer s3cret\r\n"), "{head}");
    assert!(first == second && second == third, "the same batch");
    let spans = first["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.iter().map(|span| &span["name"]).collect::<Vec<_>>(), ["0", "1", "2"]);
}

#[tokio::test]
async fn a_batch_that_the_collector_refuses_is_not_sent_again() {
    let (base, received) = collector(&["400 Bad", "200 OK"]).await;
    let (traces, exporter, metrics) = parts(&base, 100);
    traces.record(span("refused"));
    let sending = tokio::spawn(exporter.run());
    while counts(&metrics)[2] == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    traces.record(span("accepted"));
    // What waits is sent before the exporter ends.
    traces.stop.cancel();
    sending.await.unwrap();
    traces.ended.cancelled().await;
    assert_eq!(counts(&metrics), [1, 0, 1]);
    assert_eq!(received.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_does_not_wait_long_for_a_collector_that_is_gone() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (traces, exporter, metrics) = parts(&format!("http://{gone}"), 1_000);
    (0..600).for_each(|_| traces.record(span("x")));
    let sending = tokio::spawn(exporter.run());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = tokio::time::Instant::now();
    traces.stop.cancel();
    sending.await.unwrap();
    assert!(began.elapsed() <= LAST_SPANS_WAIT_MAX, "{:?}", began.elapsed());
    assert_eq!(counts(&metrics), [0, 0, 600], "each is counted once");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_given_up_after_some_tries() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (traces, exporter, metrics) = parts(&format!("http://{gone}"), 1_000);
    traces.record(span("x"));
    let _sending = tokio::spawn(exporter.run());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&metrics), [0, 0, 1]);
}
