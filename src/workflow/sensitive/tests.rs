use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::workflow::{
    AnswerRecord, CheckpointEvent, Choice, ConflictEvent, ControlEvent, DeclaredNames, EndingEvent, Event, Failure,
    FailureKind, LockEvent, Payload, Plan, StepEvent, StepPart,
};

fn plan(yaml: &str) -> Plan {
    let source: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    let services = BTreeMap::from([(ServiceName::from("bank"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn shown(paths: &[SensitivePath]) -> Vec<String> {
    let mut all: Vec<String> = paths.iter().map(ToString::to_string).collect();
    all.sort();
    all.dedup();
    all
}

const PLAN: &str = r#"
workflow: w
input: { sensitive: [$.card.number, "$.buyers[*].name"], sensitive_headers: [X-Session] }
steps:
  token: { call: "POST ${services.bank}/tokens", sensitive: [$.access_token] }
  copy: { set: { whole: "${steps.token.output}", part: "${steps.token.output.expires}", card: "${request.body.card}" } }
  basic: { set: "${'Basic ' + steps.copy.output.whole.access_token.upperAscii()}" }
  length: { set: "${size(steps.basic.output)}" }
  plain: { set: "${steps.copy.output.part}" }
  each:
    for_each: ${request.body.buyers}
    call: POST ${services.bank}/buyers/${item.id}
    body: { name: "${item.name}", id: "${item.id}", n: 1 }
  use:
    call: POST ${services.bank}/uses?t=${steps.token.output.access_token}
    headers: { authorization: "${steps.basic.output}", x-plain: "${steps.plain.output}", x-s: "${request.headers['X-Session']}" }
    body: [1, { a: "${steps.length.output}" }, "${steps.plain.output}"]
    fallback: other
    undo: DELETE ${services.bank}/uses/${output.id}
  other: { fallback_only: true, call: "POST ${services.bank}/other", sensitive: [$.id] }
  after: { needs: [use], set: { id: "${steps.use.output.id}", total: "${steps.use.output.total}" } }
  sub: { run: below, input: { a: "${steps.basic.output}", b: 1 } }
  reads-sub: { set: "${steps.sub.output.x}" }
  ask: { checkpoint: { question: "Is ${steps.basic.output} right?" } }
respond:
  status: 200
  headers: { x-a: "${steps.basic.output}", x-b: "${steps.plain.output}" }
  body: { token: "${steps.copy.output.whole}", plain: "${steps.plain.output}", names: "${request.body.buyers}" }
"#;

#[test]
fn what_reads_a_sensitive_value_is_sensitive() {
    let plan = plan(PLAN);
    let taint = Taint::new(&plan, &SensitiveSources::default());
    let output = |step: &str| shown(&taint.steps[step].output);
    let (step, none) = (|step: &str| &taint.steps[step], Vec::<String>::new());
    assert_eq!(output("token"), ["$.access_token"]);
    assert_eq!(
        output("copy"),
        ["$.card.number", "$.whole.access_token"],
        "an expression that is only a path gives the parts at that path"
    );
    assert_eq!((output("basic"), output("length")), (vec!["$".to_owned()], vec!["$".to_owned()]));
    assert_eq!((output("plain"), step("plain").reads_sensitive), (none.clone(), false));
    assert_eq!(shown(&step("each").items), ["$.name"]);
    assert_eq!((step("each").call.url, shown(&step("each").call.body)), (false, vec!["$.name".to_owned()]));
    assert_eq!((output("each"), step("each").reads_sensitive), (none, true), "what a service answers is not computed");
    let used = &step("use").call;
    assert_eq!((used.url, shown(&used.body)), (true, vec!["$[1].a".to_owned()]));
    assert_eq!(used.headers, ["authorization", "x-s"]);
    assert_eq!(output("use"), ["$.id"], "its output may be that of its fallback");
    assert!(step("use").undo.url);
    assert_eq!(output("after"), ["$.id"]);
    assert_eq!(shown(&step("sub").input), ["$.a"]);
    assert!(step("ask").question && step("ask").hides_entered_values() && !step("plain").hides_entered_values());
    let first_event = [
        "$.legacy.headers.x-session",
        "$.request.body.buyers[*].name",
        "$.request.body.card.number",
        "$.request.headers.x-session",
        "$.request.raw",
    ];
    assert_eq!(shown(&taint.first_event), first_event);
    let answer = ["$.body.names[*].name", "$.body.token.access_token", "$.headers.x-a"];
    assert_eq!(shown(&taint.respond[0]), answer);
}

#[test]
fn sensitive_values_that_a_run_gets_from_others_are_followed_like_declared_ones() {
    let plan = plan(
        r#"
workflow: w
steps:
  one: { set: "${request.body.a}" }
  two: { set: "${request.body.b}" }
  sub: { run: below }
  three: { set: { x: "${steps.sub.output.x}", y: "${steps.sub.output.y}" } }
respond: { status: 200, body: { b: "${steps.two.output}" } }
"#,
    );
    let mut sources = SensitiveSources::default();
    assert!(
        !sources.is_active() && Taint::new(&plan, &sources).steps.values().all(|step| !step.hides_entered_values())
    );
    sources.first_event.insert(SensitivePath::parse("$.request.body.b").unwrap());
    sources.outputs.insert("sub".into(), [SensitivePath::parse("$.x").unwrap()].into());
    let taint = Taint::new(&plan, &sources);
    let output = |step: &str| shown(&taint.steps[step].output);
    assert_eq!((output("one").len(), output("two"), output("three")), (0, vec!["$".into()], vec!["$.x".into()]));
    assert_eq!(shown(&taint.respond[0]), ["$.body.b"]);
}

#[test]
fn an_output_that_a_person_gives_is_sensitive_as_a_whole_where_the_step_reads_or_gives_something_sensitive() {
    let plan = plan(PLAN);
    let resolved = |step: &str, part: StepPart| {
        let choice = Choice::Take { output: std::sync::Arc::new(json!({ "typed": 1 })) };
        let by = "ann".to_owned();
        Event::Conflict(ConflictEvent::Resolved { step: step.into(), item: None, part, choice, by, reason: None })
    };
    let mut sources = SensitiveSources::default();
    assert!(sources.learn(&resolved("each", StepPart::Do)) && sources.learn(&resolved("plain", StepPart::Do)));
    assert!(!sources.learn(&resolved("use", StepPart::Undo)), "an undo gives no output");
    let taint = Taint::new(&plan, &sources);
    let is_whole = |taint: &Taint, step: &str| taint.steps[step].output.contains(&SensitivePath::whole());
    assert!(is_whole(&taint, "each") && !is_whole(&taint, "plain") && !is_whole(&taint, "use"));
    let typed = |step: &str| {
        let parts = parts(&taint, &resolved(step, StepPart::Do), &BTreeMap::new());
        shown(&parts.into_iter().map(|part| part.at).collect::<Vec<_>>())
    };
    for step in ["each", "ask", "other"] {
        assert_eq!(typed(step), ["$.choice.take.output", "$.reason"], "{step}");
    }
    assert_eq!(typed("plain"), Vec::<String>::new());
    // A step that reads such an output is sensitive, too.
    sources.learn(&resolved("token", StepPart::Do));
    let taint = Taint::new(&plan, &sources);
    assert!(is_whole(&taint, "token") && is_whole(&taint, "plain"));
}

#[test]
fn legacy_s_reply_is_sensitive_where_a_sensitive_output_is_rehearsed_from_it() {
    let plan = plan(
        r#"
workflow: w
steps:
  token:
    call: POST ${services.bank}/tokens
    sensitive: [$.token]
    rehearse: { token: "${legacy.body.token}", n: "${legacy.body.n}" }
respond: { status: 200 }
"#,
    );
    let taint = Taint::new(&plan, &SensitiveSources::default());
    assert_eq!(shown(&taint.first_event), ["$.legacy.body.token"]);
}

#[test]
fn the_name_of_a_lock_that_is_computed_from_a_sensitive_value_is_sensitive() {
    let source = json!({
        "workflow": "w",
        "input": { "sensitive": ["$.card"] },
        "steps": {
            "a": { "call": "POST ${services.bank}/a", "lock": { "key": "card:${request.body.card}" } },
            "b": { "call": "POST ${services.bank}/b", "lock": { "key": "card:${request.body.plain}" } },
        },
        "respond": { "status": 200 },
    });
    let services = BTreeMap::from([(ServiceName::from("bank"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:?}"));
    let taint = Taint::new(&plan, &SensitiveSources::default());
    let found = |event: LockEvent| parts(&taint, &Event::Lock(event), &BTreeMap::new()).len();
    let queued = |step: &str| LockEvent::Queued { step: step.into(), item: None, name: "card:1".into() };
    let left = |step: &str| LockEvent::Left { step: step.into(), item: Some(1), name: "card:1".into() };
    assert_eq!((found(queued("a")), found(left("a")), found(queued("b")), found(left("b"))), (1, 1, 0, 0));
    let cancelled = |by: &str| {
        let reason = Some("the lock `card:1` is held".to_owned());
        let event =
            Event::Control(ControlEvent::CancelRequested { by: by.into(), compensate: true, reason, automatic: true });
        parts(&taint, &event, &BTreeMap::new()).len()
    };
    assert_eq!((cancelled("`a`"), cancelled("`b`"), cancelled("ann")), (1, 0, 0));
    let ended = |by: &str| {
        let reason = Some("the lock `card:1` is held".to_owned());
        let event = Event::Ending(EndingEvent::Cancelled { by: by.into(), reason, unread: false });
        parts(&taint, &event, &BTreeMap::new()).len()
    };
    assert_eq!((ended("`a`"), ended("`b`"), ended("ann")), (1, 0, 0));
    let replaced = |step: &str| {
        let failure = Failure::of_step(FailureKind::Unavailable, &step.into(), None, "the lock `card:1` is held");
        let event = StepEvent::FallbackTaken { step: step.into(), item: None, by: "c".into(), failure };
        parts(&taint, &Event::Step(event), &BTreeMap::new()).len()
    };
    assert_eq!((replaced("a"), replaced("b")), (1, 0));
}

/// A run that is not real fails as its child did, with a message that quotes the child.
#[test]
fn the_failure_of_a_child_s_service_quotes_the_child_and_that_of_an_own_service_quotes_nothing() {
    let plan = plan(PLAN);
    let taint = Taint::new(&plan, &SensitiveSources::default());
    for kind in [FailureKind::Unavailable, FailureKind::TimedOut, FailureKind::Broken, FailureKind::Schema] {
        let quotes = |step: &str| quotes::failure_quotes(&taint, &Failure::of_step(kind, &step.into(), None, "x"));
        assert_eq!((quotes("sub"), quotes("use")), (true, false), "{kind:?}");
    }
}

/// What a rerun takes over of a `for_each` is a list, and its items may have been done by their fallbacks.
#[test]
fn what_a_rerun_takes_over_of_items_is_sensitive_where_their_own_events_are() {
    let plan = plan(
        r#"
workflow: w
input: { sensitive: ["$.cards[*].cvv"], sensitive_headers: [X-Session] }
steps:
  login:
    for_each: ${request.body.cards}
    failures: collect
    call: POST ${services.bank}/sessions
    body: { cvv: "${item.cvv}" }
    fallback: other
  other: { fallback_only: true, call: "POST ${services.bank}/other", body: { id: "${item.id}" } }
respond: { status: 200 }
"#,
    );
    let taint = Taint::new(&plan, &SensitiveSources::default());
    let taken = |step: &str| {
        let taken = json!({
            "step": step,
            "origin": crate::names::RunId(uuid::Uuid::from_u128(1)),
            "skipped": false,
            "fields": {
                "output": [{}, null],
                "headers": [{ "x-session": "s-1", "x-plain": "p" }, null],
                "errors": [{ "index": 1, "status": 400, "message": "quotes" }],
            },
            "done": [{ "item": 0, "value": { "id": "i", "cvv": 123 }, "status": 200, "output": {} }],
        });
        Event::Step(StepEvent::ResultTaken(Box::new(serde_json::from_value(taken).unwrap())))
    };
    let found = |step: &str| {
        let event = taken(step);
        let written = serde_json::to_value(&event).unwrap();
        let content = written.as_object().unwrap().values().next().unwrap();
        let mut texts = BTreeSet::new();
        let parts = parts(&taint, &event, &BTreeMap::new());
        parts.iter().for_each(|part| part.at.texts(content, &mut |text| texts.extend([text])));
        texts.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(found("login"), ["123", "quotes", "s-1"]);
    assert_eq!(found("other"), ["123", "s-1"]);
    let mut known = BTreeSet::new();
    plan.sensitive_values().collect(&taken("login"), &BTreeMap::new(), &mut known);
    assert_eq!(known, BTreeSet::from(["s-1".to_owned()]));
}

/// Whoever reviews the items can tell them apart.
#[test]
fn a_review_hides_only_the_sensitive_parts_of_each_item() {
    let plan = plan(
        r#"
workflow: w
input: { sensitive: ["$.cards[*].cvv", $.pin] }
steps:
  body: { for_each: "${request.body.cards}", call: "POST ${services.bank}/a", body: { pin: "${request.body.pin}", n: "${item.n}" } }
  items: { for_each: "${request.body.cards}", call: "POST ${services.bank}/b" }
  whole: { for_each: "${request.body.cards}", call: "POST ${services.bank}/c", body: "${size(item.cvv)}" }
  input: { for_each: "${request.body.cards}", run: below, input: { card: "${item}", n: 1 } }
  list: { call: "POST ${services.bank}/d", body: { cards: "${request.body.cards}" } }
respond: { status: 200 }
"#,
    );
    let taint = Taint::new(&plan, &SensitiveSources::default());
    let found = |step: &str, value: Value| {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let asked = json!({ "checkpoint": "c", "step": step, "kind": "review", "risk": "high", "question": "Which?", "who": [],
            "items": [{ "index": 0, "what": "POST", "value": value }], "at": at, "until": null, "on_timeout": "reject" });
        let event = Event::Checkpoint(CheckpointEvent::Opened(serde_json::from_value(asked).unwrap()));
        let parts = parts(&taint, &event, &BTreeMap::new());
        parts.iter().map(|part| part.at.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found("body", json!({ "pin": 1234, "n": 1 })), ["$.items[0].value.pin"]);
    assert_eq!(found("items", json!({ "n": 1, "cvv": 123 })), ["$.items[0].value.cvv"]);
    assert_eq!(found("whole", json!(3)), ["$.items[0].value"]);
    assert_eq!(found("input", json!({ "card": { "cvv": 123 }, "n": 1 })), ["$.items[0].value.card.cvv"]);
    assert_eq!(
        found("list", json!({ "n": 1, "cvv": 123 })),
        ["$.items[0].value"],
        "which list of the body is not known"
    );
    assert_eq!(found("body", json!("…")), ["$.items[0].value"], "shortened");
}

/// Texts are hidden by their origin: these are too short to be found by value.
#[test]
fn texts_that_are_made_from_sensitive_values_are_shown_as_stars() {
    let source = json!({
        "workflow": "w",
        "input": { "sensitive": ["$.pin"] },
        "steps": {
            "a": { "call": "POST ${services.bank}/${request.body.pin}", "lock": { "key": "${request.body.pin}" } },
            "b": { "call": "POST ${services.bank}/b", "lock": { "key": "l" } },
        },
        "respond": { "status": 200 },
    });
    let services = BTreeMap::from([(ServiceName::from("bank"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:?}"));
    let texts = ShownTexts::of_taint(Taint::new(&plan, &SensitiveSources::default()));
    let failure = |step: &str| Failure::of_step(FailureKind::Expression, &step.into(), None, "7");
    let cancelled = |by: &str| Failure::of_run(FailureKind::Cancelled, format!("{by} cancelled it: 7"));
    assert_eq!((&*texts.failure(&failure("a")), &*texts.failure(&failure("b"))), ("`a` (expression): ***", "7"));
    assert_eq!(&*texts.failure(&cancelled("`a`")), "`a` cancelled it: ***");
    assert_eq!(&*texts.failure(&cancelled("ann")), "ann cancelled it: 7");
    let url = |step: &str| texts.url(&step.into(), StepPart::Do, "u/7").into_owned();
    assert_eq!((url("a"), url("b")), ("***".to_owned(), "u/7".to_owned()));
}

const REDACTED: &str = r#"
workflow: w
input: { sensitive: [$.card, $.unread], sensitive_headers: [X-Session] }
steps:
  use: { call: "POST ${services.bank}/uses", body: "${request.body.card}" }
respond:
  - when: ${input_error != null}
    status: 422
    headers: { x-last: "${'last ' + request.body.card}", x-plain: plain }
    body: { last: "${'last ' + request.body.card}" }
  - { status: 200 }
"#;

/// A run keeps of the request what its plan reads; the request has more.
#[test]
fn all_that_is_declared_in_a_request_is_redacted_where_the_run_never_began() {
    let plan = plan(REDACTED);
    let body = json!({ "card": "CARD-4111-2222", "unread": 8_765_432, "note": "see CARD-4111-2222" });
    let headers = [("x-session", "session-77"), ("x-other", "other-99")];
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
    let redaction = Redaction::of_refused(&plan, None, None).unwrap().with_request(&headers, &body);
    let text = redaction.text("CARD-4111-2222, 8765432, session-77, other-99, CARD-4111…");
    assert_eq!(text, "***, ***, ***, other-99, ***…");
    let mut shown = body.clone();
    redaction.request_body(&mut shown);
    assert_eq!(shown, json!({ "card": "***", "unread": "***", "note": "see ***" }));
    let mut answer = json!({ "echo": 8_765_432, "n": 7 });
    redaction.answer_body(&mut answer);
    assert_eq!(answer, json!({ "echo": "***", "n": 7 }));
    // If a body cannot be read, it is not known which of its parts are sensitive.
    let unreadable = redaction.with_request(&headers, &json!("{\"card\": \"CARD-1\",}"));
    let mut answer = json!({ "echo": "CARD-1", "n": 7, "ok": true });
    unreadable.answer_body(&mut answer);
    assert_eq!(
        (answer, unreadable.text("CARD-1")),
        (json!({ "echo": "***", "n": "***", "ok": true }), "***".to_owned())
    );
    let nothing = self::plan("workflow: w\nsteps:\n  a: { set: 1 }\nrespond: { status: 200 }\n");
    assert!(Redaction::of_refused(&nothing, None, None).is_none());
}

#[test]
fn differences_at_sensitive_headers_and_parts_of_the_answer_are_hidden() {
    let plan = plan(REDACTED);
    let paths = Taint::new(&plan, &SensitiveSources::default()).respond[0].clone();
    assert_eq!(shown(&paths), ["$.body.last", "$.headers.x-last"]);
    let answer = AnswerRecord {
        sensitive: paths,
        ..AnswerRecord::new(
            422,
            vec![("X-Last".into(), "last CARD-4111".into()), ("x-plain".into(), "plain-plain".into())],
            Payload::Empty,
        )
    };
    let redaction = Redaction::of_refused(&plan, None, Some(&answer)).unwrap();
    let hidden =
        ["headers.x-last", "headers.X-Session", "$.last", "$.last.deep", "$", "text", "intents.use.body", "$.a…"]
            .into_iter()
            .chain(["effects.use.body.card", "effects.bank POST /cards", "effects.a, effects.b"]);
    for path in hidden {
        assert!(redaction.hides_difference_at(path), "{path}");
    }
    for path in ["headers.x-plain", "headers.x-las", "$.other", "$.items[*].n", "status", "assert ${a == b}"] {
        assert!(!redaction.hides_difference_at(path), "{path}");
    }
    assert_eq!(redaction.text("quoted: last CARD-4111; plain-plain"), "quoted: ***; plain-plain");
}
