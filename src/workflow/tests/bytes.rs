//! Bytes as values; JSON that only looks like such a value stays JSON.

use super::harness::plan;
use super::*;
use crate::workflow::{
    AnswerEvent, AnswerRecord, BytesMark, CheckpointEvent, DivergenceKind, Parent, Payload, replay_with,
};

const ECHO: &str = "
workflow: w
steps:
  echo: { call: 'POST ${services.stock}/echo', body: '${request.body}' }
  pass: { set: '${steps.echo.output}' }
respond: { status: 200, body: '${steps.pass.output}' }
";

/// Any JSON; some of its member names are those with which the engine represents bytes.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9+/=]{0,12}".prop_map(Value::from),
    ];
    let name =
        prop_oneof![Just("$bytes"), Just("content_type"), Just("$mark"), Just("$stream"), Just("a"), Just("$sealed")];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Returns what the service received, and what the caller gets if the service answers with `answered`.
fn echo(plan: &Plan, sent: &Value, answered: &Value, marked: bool) -> (Payload, Payload) {
    let mut harness = Harness::started_with(plan, |started| {
        (started.request, started.bytes_marked) = (Arc::new(json!({ "body": sent })), marked);
    });
    harness.settle();
    let got = harness.run.attempt(&"echo".into(), None, crate::workflow::StepPart::Do).unwrap().request.body.clone();
    harness.call("echo", ok(answered.clone()));
    (got, harness.run.answer().unwrap().body.clone())
}

proptest! {
    #[test]
    fn json_that_is_echoed_stays_json(value in values()) {
        let text = Payload::Text(value.to_string());
        prop_assert_eq!(echo(&plan(ECHO), &value, &value, true), (text.clone(), text));
    }
}

/// In events, bytes are a map with two members, but they are no `object` to a schema.
#[test]
fn bytes_fit_no_schema() {
    let schema = "output: { schema: { type: object } }";
    let plan = plan(&ECHO.replace("body: '${request.body}' }", &format!("body: '${{request.body}}', {schema} }}")));
    for (replied, expected) in [
        (BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png")), RunStatus::Failed),
        (json!({ "content_type": "image/png" }), RunStatus::Completed),
    ] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("echo", ok(replied));
        assert_eq!(harness.status(), expected, "{:?}", harness.run.note());
    }
}

#[test]
fn bytes_are_passed_on_as_bytes_also_in_runs_of_earlier_versions() {
    let plan = plan(ECHO);
    let marked = BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"));
    let bytes = Payload::of(&[1, 2, 255]);
    assert_eq!(echo(&plan, &marked, &marked, true), (bytes.clone(), bytes.clone()));
    let old = json!({ "$bytes": "AQL/", "content_type": "image/png" });
    assert_eq!(echo(&plan, &old, &old, false), (bytes.clone(), bytes));
    let started = started(&plan, Mode::Real, json!({}));
    let mut stored = serde_json::to_value(&started).unwrap();
    stored.as_object_mut().unwrap().remove("bytes_marked");
    assert!(
        !serde_json::from_value::<RunStarted>(stored).unwrap().bytes_marked,
        "an event of an earlier version has no `bytes_marked`"
    );
}

#[test]
fn an_answer_with_bytes_within_another_value_fails_the_run() {
    let plan = plan(
        "
workflow: w
steps: { a: { call: 'GET ${services.stock}/a' } }
respond: { status: 200, body: { f: '${steps.a.output}' } }
",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("a", ok(BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"))));
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Expression));
}

/// `STEP` uses the bytes that `a` answers with in another way than as a whole body.
const WITHIN: &str = "
workflow: w
steps:
  a: { call: 'GET ${services.stock}/a' }
  b: { needs: [a], STEP }
respond: { status: 200, body: done }
";

/// Returns the message of the conflict that the step `b` ends in if `a` answers with this value.
fn conflict_over(step: &str, answered: Value) -> Option<String> {
    let plan = plan(&WITHIN.replace("STEP", step));
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("a", ok(answered));
    harness.perform_due();
    harness.run.conflict().map(|conflict| {
        assert_eq!(conflict.kind, crate::workflow::ConflictKind::Expression, "{conflict:?}");
        conflict.message.clone()
    })
}

#[test]
fn bytes_within_another_value_are_not_sent() {
    let bytes = || BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"));
    for step in [
        "call: 'POST ${services.stock}/b', body: { f: '${steps.a.output}' }",
        "call: 'POST ${services.stock}/b', body: { f: ['${steps.a.output}'] }",
        "fail: { status: 500, body: { f: '${steps.a.output}' } }",
    ] {
        let message = conflict_over(step, bytes()).unwrap_or_else(|| panic!("{step}: no conflict"));
        assert!(message.contains("cannot be a part of a body"), "{step}: {message}");
        let looks_like_bytes = json!({ "$bytes": "AQL/", "content_type": "image/png" });
        assert_eq!(conflict_over(step, looks_like_bytes), None, "{step}: JSON from a service is not taken for bytes");
    }
}

#[test]
fn bytes_within_the_input_of_a_child_and_in_its_answer_are_passed_on() {
    let bytes = BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"));
    assert_eq!(conflict_over("run: child, input: { f: '${steps.a.output}' }", bytes.clone()), None);
    let answering = plan(
        "
workflow: w
steps: { a: { call: 'GET ${services.stock}/a' } }
respond: { status: 200, body: { f: '${steps.a.output}' } }
",
    );
    let parent = Parent { run: RunId(uuid::Uuid::from_u128(9)), step: "kid".into(), item: None };
    let mut harness = Harness::started_with(&answering, |first| (first.route, first.parent) = (None, Some(parent)));
    harness.settle();
    harness.call("a", ok(bytes.clone()));
    assert_eq!(harness.run.answer().map(|answer| answer.body.value()), Some(json!({ "f": bytes })));
}

const SENDS_RAW: &str = "
workflow: w
steps: { send: { call: 'POST ${services.stock}/send', raw: '${request.raw}' } }
respond: { status: 200, body: done }
";

/// The body and the headers of the call that a run sends; `None` if it sends nothing.
type Sent = Option<(Vec<u8>, Vec<(String, String)>)>;

fn send_raw(input: &Value, change: impl FnOnce(&mut RunStarted)) -> Sent {
    let plan = plan(SENDS_RAW);
    let raw = BytesMark::new(&[7; 32]).value(input.to_string().as_bytes(), Some("application/json"));
    let mut harness = Harness::started_with(&plan, |first| {
        (first.route, first.request) = (None, Arc::new(json!({ "raw": raw })));
        change(first);
    });
    harness.settle();
    let sent = harness.run.attempt(&"send".into(), None, crate::workflow::StepPart::Do);
    sent.map(|sent| (sent.request.body.bytes(), sent.request.headers.clone()))
}

fn sent(body: &[u8], content_type: &str) -> Sent {
    Some((body.to_vec(), vec![("content-type".to_owned(), content_type.to_owned())]))
}

/// An earlier version recorded the input of a child as JSON even if it was bytes or contained bytes. For a rerun, that
/// version did not record whether the first run was a child.
#[test]
fn a_child_that_an_earlier_version_began_sends_its_bytes_and_never_their_json_form() {
    let bytes = BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"));
    let id = RunId(uuid::Uuid::from_u128(9));
    let child = |first: &mut RunStarted| first.parent = Some(Parent { run: id, step: "kid".into(), item: None });
    let rerun = |first: &mut RunStarted| first.rerun_of = Some(id);
    for begun_as in [&child as &dyn Fn(&mut RunStarted), &rerun] {
        assert_eq!(send_raw(&bytes, begun_as), sent(&[1, 2, 255], "image/png"));
        assert_eq!(send_raw(&json!({ "f": [bytes] }), begun_as), None);
        assert_eq!(send_raw(&json!([1]), begun_as), sent(b"[1]", "application/json"));
    }
}

/// Runs of versions that wrote no marks accept bytes without a mark, but only in the input of a child, which only the
/// engine writes.
#[test]
fn a_run_that_the_api_started_sends_json_that_only_looks_like_bytes_as_it_came() {
    let looks_like_bytes = json!({ "$bytes": "AQL/", "content_type": "image/png" });
    for marked in [true, false] {
        let by_api = send_raw(&looks_like_bytes, |first| first.bytes_marked = marked);
        assert_eq!(by_api, sent(looks_like_bytes.to_string().as_bytes(), "application/json"), "marked: {marked}");
    }
}

const ANSWERS_TEXT: &str = "
workflow: w
steps: { a: { set: 'TEXT' } }
respond: { status: 200, headers: { content-type: text/plain }, body: '${steps.a.output}' }
";

/// A run of this plan that has answered.
fn answering(plan: &Plan) -> Harness<'_> {
    let mut harness = Harness::of_api(plan);
    harness.settle();
    harness
}

#[test]
fn a_text_is_a_string_for_the_parent_whatever_it_reads_like_and_also_where_it_is_empty() {
    for text in ["", "7", "null", "a"] {
        let plan = plan(&ANSWERS_TEXT.replace("TEXT", text));
        let output = answering(&plan).run.answer().map(|answer| answer.output(BytesMark::new(&[7; 32])));
        assert_eq!(output, Some(json!(text)));
    }
}

#[test]
fn a_replay_accepts_the_answers_of_earlier_versions_which_recorded_nothing_about_how_a_body_was_made() {
    let same = plan(&ANSWERS_TEXT.replace("TEXT", "7"));
    let harness = answering(&same);
    let of_earlier_version = |event: &Event| match event {
        Event::Answer(AnswerEvent::Responded { answer, pin }) => {
            assert!(answer.is_plain_text);
            let answer = Arc::new(AnswerRecord { is_plain_text: false, ..(**answer).clone() });
            Event::Answer(AnswerEvent::Responded { answer, pin: pin.clone() })
        }
        event => event.clone(),
    };
    let events: Vec<_> = harness.events.iter().map(|event| (harness.now, of_earlier_version(event))).collect();
    let kinds = |plan: &Plan| {
        let found = replay_with(&events, plan, &harness.inputs).unwrap();
        found.into_iter().map(|found| found.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&same), []);
    let other = plan(&ANSWERS_TEXT.replace("TEXT", "7").replace("status: 200", "status: 201"));
    assert_eq!(kinds(&other), [DivergenceKind::Answer]);
}

/// The plan of a run that an earlier version began may read the parts of bytes, and send bytes within JSON.
#[test]
fn a_run_of_an_earlier_version_reads_and_sends_bytes_as_before() {
    let bytes = BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"));
    for step in
        ["set: '${steps.a.output.content_type}'", "call: 'POST ${services.stock}/b', body: { f: '${steps.a.output}' }"]
    {
        let plan = plan(&WITHIN.replace("STEP", step));
        let mut harness = Harness::started_with(&plan, |first| (first.route, first.bytes_opaque) = (None, false));
        harness.settle();
        harness.call("a", ok(bytes.clone()));
        harness.perform_due();
        assert!(harness.run.conflict().is_none(), "{step}: {:?}", harness.run.conflict());
    }
}

#[test]
fn expressions_pass_bytes_on_and_cannot_read_them() {
    let bytes = || BytesMark::new(&[7; 32]).value(&[1, 2, 255], Some("image/png"));
    for read in [
        "size(steps.a.output)",
        "keys(steps.a.output)",
        "steps.a.output[\"$bytes\"]",
        "steps.a.output.content_type",
        "steps.a.output[\"$\" + \"mark\"]",
        "[steps.a.output].map(x, x.content_type)",
        "steps.a.output.map(key, key)",
        "\"$mark\" in steps.a.output",
    ] {
        let step = format!("set: '${{{read}}}'");
        let message = conflict_over(&step, bytes()).unwrap_or_else(|| panic!("{read}: no conflict"));
        assert!(message.contains("bytes, which cannot be read") || message.contains("$mark"), "{read}: {message}");
        let members = json!({ "$bytes": "AQL/", "content_type": "image/png", "$mark": "x" });
        assert_eq!(conflict_over(&step, members), None, "{read}: JSON from a service is not taken for bytes");
    }
    for passed_on in ["[steps.a.output]", "{\"a\": steps.a.output}", "steps.a.output != null", "has(steps.a.output.x)"]
    {
        assert_eq!(conflict_over(&format!("set: '${{{passed_on}}}'"), bytes()), None, "{passed_on}");
    }
}

const REVIEWED: &str = "
workflow: w
steps:
  a: { call: 'GET ${services.stock}/a' }
  b: { call: 'POST ${services.stock}/b', body: '${steps.a.output}', risk: high }
respond: { status: 200, body: done }
";

#[test]
fn people_are_shown_the_size_of_bytes_also_where_their_encoding_is_longer_than_what_is_shown_of_a_text() {
    let plan = plan(REVIEWED);
    for size in [3, 300, 3_000] {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        harness.call("a", ok(BytesMark::new(&[7; 32]).value(&vec![255; size], Some("image/png"))));
        harness.perform_due();
        let shown: Vec<_> = harness.run.open_checkpoints().flat_map(|asked| asked.items.clone()).collect();
        let mut shown: Vec<_> = shown.into_iter().map(|item| (*item.value).clone()).collect();
        shown.iter_mut().for_each(crate::workflow::describe_bytes); // as the API does
        assert_eq!(shown, [json!({ "bytes": size, "content_type": "image/png" })]);
    }
}

/// Earlier versions recorded the beginning of the base64 text instead of the size.
#[test]
fn a_replay_accepts_how_earlier_versions_showed_the_bytes_of_a_review() {
    let plan = plan(REVIEWED);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("a", ok(BytesMark::new(&[7; 32]).value(&[255; 300], Some("image/png"))));
    harness.perform_due();
    for (content_type, expected) in [("image/png", &[][..]), ("image/gif", &[DivergenceKind::Decision])] {
        let of_earlier_version = |event: &Event| match event {
            Event::Checkpoint(CheckpointEvent::Opened(asked)) => {
                let mut asked = asked.clone();
                let shown = json!({ "$bytes": "/////w…", "content_type": content_type, "$mark": "0123" });
                asked.items[0].value = Arc::new(shown);
                Event::Checkpoint(CheckpointEvent::Opened(asked))
            }
            event => event.clone(),
        };
        let events: Vec<_> = harness.events.iter().map(|event| (harness.now, of_earlier_version(event))).collect();
        let found = replay_with(&events, &plan, &harness.inputs).unwrap();
        assert_eq!(found.iter().map(|found| found.kind).collect::<Vec<_>>(), expected, "{found:?}");
    }
}

/// Such a body is not in the run; the answer's status and headers are.
#[test]
fn an_answer_whose_body_is_streamed_names_its_step() {
    let plan = plan(
        "
workflow: w
steps: { file: { call: 'GET ${services.stock}/f', stream: true } }
respond: { status: '${steps.file.status}', headers: { x-kind: a }, body: '${steps.file.output}' }
",
    );
    let mark = BytesMark::new(&[7; 32]);
    for (output, streamed_from) in [
        (mark.streamed(&StepId::new("file"), Some("image/png")), Some(StepId::new("file"))),
        (mark.value(b"", Some("image/png")), None),
    ] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("file", ok(output));
        let answer = harness.run.answer().expect("an answer");
        assert_eq!((answer.status, &answer.body, &answer.streamed_from), (200, &Payload::Empty, &streamed_from));
        let header = |name, value: &str| (String::from(name), value.to_owned());
        assert_eq!(answer.headers, [header("x-kind", "a"), header("content-type", "image/png")]);
    }
    // A value that only looks like a streamed body is JSON, and is sent as JSON.
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("file", ok(json!({ "$bytes": "", "$stream": "file", "content_type": null, "$mark": "0" })));
    let answer = harness.run.answer().expect("an answer");
    assert_eq!(answer.streamed_from, None);
    assert!(matches!(&answer.body, Payload::Text(text) if text.contains("$stream")), "{answer:?}");
}
