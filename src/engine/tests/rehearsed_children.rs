//! Child runs in shadow and dark: what they know of legacy's reply, and what becomes of those that cannot be rehearsed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, legacy, refused, request};
use crate::exchange::{ArmRequest, Branch, BranchBelow, Reads, RecordedReads, RehearsedEvents, RunEvents};
use crate::flag::SkipReason;
use crate::limits::Limits;
use crate::names::{RunId, ServiceName};
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::{ChildEvent, DeclaredNames, Event, Mode, Plan};

/// A workflow that runs another one and answers with its output.
fn parent_plan(name: &str, child: &str) -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": name,
            "steps": { "sub": { "run": child, "input": "${request.body}" } },
            "respond": { "status": 201, "body": "${steps.sub.output}" },
        }),
        false,
    )
}

/// An engine with these workflows; the runs of the first one, `w`, have the runs of the others as descendants.
async fn tree(plans: &[&Arc<Plan>]) -> Harness {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/refused" => ServiceReply::Json(409, json!({})),
        "/down" => ServiceReply::Json(503, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let key = Some(Secret::new("k"));
    let store = Arc::new(MemoryStore::new());
    let harness = Harness::with_store(&step_service, plans[0].clone(), store, Limits::default(), key).await;
    harness.load_plans(&plans[1..]);
    harness
}

fn rehearsal(mode: Mode, reply: &Value) -> ArmRequest {
    ArmRequest { legacy: Some(legacy(201, reply)), ..request("w", mode, &json!({ "n": 1 })) }
}

/// The pair counts as failed, just as if a step of the parent called the service.
#[tokio::test]
async fn a_child_whose_service_is_not_available_is_not_compared_as_an_answer() {
    let step = json!({ "call": "GET ${services.world}/down", "retry": { "attempts": 1 } });
    let ok = json!({ "status": 200, "body": {} });
    let inner = checked_plan(&json!({ "workflow": "inner", "steps": { "a": step }, "respond": ok }), false);
    let harness = tree(&[&parent_plan("w", "middle"), &parent_plan("middle", "inner"), &inner]).await;
    for mode in [Mode::Rehearse, Mode::Dark] {
        let (problem, report) = refused(harness.send(rehearsal(mode, &json!({}))).await);
        assert_eq!((problem.status, problem.kind.as_str()), (503, "workflow-unavailable"), "{mode:?}");
        assert_eq!(report.unresolved, None);
    }
}

/// What the first event of each run contains of legacy's reply, as the store holds it, by workflow.
async fn stored_legacy(harness: &Harness) -> BTreeMap<String, Option<Value>> {
    let mut found = BTreeMap::new();
    for summary in harness.runs().await {
        let events = harness.events(summary.run_id).await;
        let Some(Event::RunStarted(started)) = events.first() else { panic!("{events:?}") };
        found.insert(started.workflow.as_str().to_owned(), started.legacy.as_deref().cloned());
    }
    found
}

#[tokio::test]
async fn a_rehearsed_child_reads_parts_of_legacy_s_reply_that_no_run_above_it_reads() {
    let inner = checked_plan(
        &json!({
            "workflow": "inner",
            "steps": {
                "charge": {
                    "call": "POST ${services.world}/charges",
                    "rehearse": { "id": "${legacy.body.payment_id}", "by": "${legacy.headers['x-by']}" },
                },
            },
            "respond": { "status": 200, "body": "${steps.charge.output.id}" },
        }),
        false,
    );
    let middle = checked_plan(
        &json!({
            "workflow": "middle",
            "steps": {
                "sub": { "run": "inner" },
                "other": { "run": "unread", "rehearse": {} },
                "mail": { "call": "POST ${services.world}/mails", "rehearse": "${legacy.status}" },
            },
            "respond": { "status": 200, "body": { "id": "${steps.sub.output}", "status": "${steps.mail.output}" } },
        }),
        false,
    );
    let unread = checked_plan(
        &json!({
            "workflow": "unread",
            "steps": { "a": { "call": "POST ${services.world}/a", "rehearse": "${legacy.body.secret}" } },
            "respond": { "status": 200 },
        }),
        false,
    );
    for mode in [Mode::Rehearse, Mode::Dark] {
        let harness = tree(&[&parent_plan("w", "middle"), &middle, &inner, &unread]).await;
        let reply = Arc::unwrap_or_clone(legacy(201, &json!({ "payment_id": "p1", "secret": "s" })));
        let mut headers = reply.headers().clone();
        headers.insert("x-by", "ann".parse().unwrap());
        let (body, latency) = (reply.body().clone(), std::time::Duration::ZERO);
        let reply = crate::compare::Observation::new(reply.status(), headers, body, latency, Vec::new());
        let request = ArmRequest { legacy: Some(Arc::new(reply)), ..rehearsal(mode, &Value::Null) };
        let (status, body, report) = answer(harness.send(request).await);
        assert_eq!((status, body), (201, json!({ "id": "p1", "status": 201 })), "{mode:?}");
        assert_eq!(report.unresolved, None);
        if mode == Mode::Dark {
            let of_inner = json!({ "body": { "payment_id": "p1" }, "headers": { "x-by": "ann" } });
            let mut of_middle = of_inner.clone();
            of_middle["status"] = json!(201);
            let expected = [("inner", of_inner), ("middle", of_middle.clone()), ("w", of_middle)];
            let expected = expected.map(|(workflow, seen)| (workflow.to_owned(), Some(seen)));
            assert_eq!(stored_legacy(&harness).await, expected.into(), "a run keeps only what its tree reads");
        }
        assert!(harness.step_service.seen().is_empty(), "shared steps are not sent");
    }
}

fn kinds(events: &RunEvents) -> Vec<&'static str> {
    events.first.iter().map(|(_, event)| event.kind()).collect()
}

/// The child that a run began, as its events name it.
fn child_begun(events: &RunEvents) -> Option<RunId> {
    events.first.iter().find_map(|(_, event)| match event {
        Event::Child(ChildEvent::Started { child, .. }) => Some(*child),
        _ => None,
    })
}

#[tokio::test]
async fn a_rehearsal_hands_over_the_events_of_all_runs_below_it() {
    let inner = checked_plan(
        &json!({
            "workflow": "inner",
            "steps": { "a": { "call": "POST ${services.world}/a", "rehearse": { "id": 7 } } },
            "respond": { "status": 200, "body": "${steps.a.output.id}" },
        }),
        false,
    );
    let harness = tree(&[&parent_plan("w", "middle"), &parent_plan("middle", "inner"), &inner]).await;
    let (status, body, report) = answer(harness.send(rehearsal(Mode::Rehearse, &json!({}))).await);
    assert_eq!((status, body), (201, json!(7)));
    let RehearsedEvents { own, children, children_not_kept } = report.events;
    let [middle, inner] = children.as_slice() else { panic!("{children:?}") };
    assert_eq!(children_not_kept, 0);
    assert_eq!((child_begun(&own), child_begun(&middle.events)), (Some(middle.run), Some(inner.run)));
    for events in [&own, &middle.events, &inner.events] {
        let kinds = kinds(events);
        assert_eq!((kinds.first(), kinds.last()), (Some(&"run_started"), Some(&"completed")), "{kinds:?}");
        assert_eq!(events.not_kept, 0);
    }
    assert!(kinds(&inner.events).contains(&"step_finished"), "{inner:?}");

    // The runs of a dark request, with their events, are in the store.
    let (_, _, report) = answer(harness.send(rehearsal(Mode::Dark, &json!({}))).await);
    assert!(report.events.own.first.is_empty() && report.events.children.is_empty(), "{:?}", report.events);
}

/// In `dark` too, where nothing else is asked of the runs below.
#[tokio::test]
async fn the_branch_of_a_run_below_is_reported_under_step_names_from_the_top_on() {
    let step = |n: u64| json!({ "if": format!("${{request.body.n == {n}}}"), "call": "GET ${services.world}/x" });
    let ok = json!({ "status": 200, "body": {} });
    let steps = json!({ "gift": step(1), "insure": step(2) });
    let inner = checked_plan(&json!({ "workflow": "inner", "steps": steps, "respond": ok }), false);
    for mode in [Mode::Rehearse, Mode::Dark] {
        let harness = tree(&[&parent_plan("w", "middle"), &parent_plan("middle", "inner"), &inner]).await;
        let (status, _, report) = answer(harness.send(rehearsal(mode, &json!({}))).await);
        assert_eq!((status, report.lacks_intents), (201, false), "{mode:?}");
        let (taken, not_taken) = (vec!["sub/sub/gift".into()], vec!["sub/sub/insure".into()]);
        let branch_below = BranchBelow { run_by: "sub/sub".into(), taken, not_taken };
        assert_eq!(report.branch, Branch { below: vec![branch_below], ..Branch::default() }, "{mode:?}");
    }
}

/// A capture of the request needs them: its offline rehearsal answers the reads of the runs below from them.
#[tokio::test]
async fn the_reads_of_the_runs_below_are_recorded_with_those_of_the_run() {
    let step = json!({ "call": "GET ${services.world}/prices" });
    let ok = json!({ "status": 200, "body": {} });
    let inner = checked_plan(&json!({ "workflow": "inner", "steps": { "a": step }, "respond": ok }), false);
    for mode in [Mode::Rehearse, Mode::Dark] {
        let harness = tree(&[&parent_plan("w", "middle"), &parent_plan("middle", "inner"), &inner]).await;
        let recorded = Arc::new(RecordedReads::new(1 << 20));
        let reads: Arc<dyn Reads> = recorded.clone();
        let request = ArmRequest { reads: Some(reads), ..rehearsal(mode, &json!({})) };
        let (status, ..) = answer(harness.send(request).await);
        assert_eq!(status, 201, "{mode:?}");
        let recorded = recorded.all().expect("all fit");
        assert_eq!(recorded.len(), 1, "{mode:?}");
        assert!(recorded[0].asked.url.ends_with("/prices") && recorded[0].reply.is_some(), "{mode:?}");
    }
}

/// The run at the top, whose own workflow declares nothing, keeps the value for the child of its child.
#[tokio::test]
async fn what_a_child_declares_as_sensitive_is_sealed_in_the_runs_above_it_too() {
    let source = json!({
        "workflow": "inner",
        "steps": {
            "token": {
                "call": "POST ${services.world}/tokens",
                "sensitive": ["$.token"],
                "rehearse": { "token": "${legacy.body.token}", "n": "${legacy.body.n}" },
            },
        },
        "respond": { "status": 200, "body": "${steps.token.output.n}" },
    });
    let services = BTreeMap::from([(ServiceName::from("world"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let inner = Arc::new(Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:?}")));
    let harness = tree(&[&parent_plan("w", "middle"), &parent_plan("middle", "inner"), &inner]).await;
    let reply = json!({ "token": "tok-0123456789", "n": 5 });
    let (_, _, report) = answer(harness.send(rehearsal(Mode::Rehearse, &reply)).await);
    let [_, inner] = report.events.children.as_slice() else { panic!("{:?}", report.events.children) };
    let events: Vec<&Event> = inner.events.first.iter().map(|(_, event)| event).collect();
    let mut shown = serde_json::to_value(&events).unwrap();
    assert!(shown.to_string().contains("tok-0123456789"), "in clear until it is compared");
    inner.redaction.as_ref().expect("its plan declares a value").value(&mut shown);
    assert!(!shown.to_string().contains("tok-0123456789"), "{shown}");

    let (status, body, _) = answer(harness.send(rehearsal(Mode::Dark, &reply)).await);
    assert_eq!((status, body), (201, json!(5)));
    let stored = stored_legacy(&harness).await;
    assert_eq!(stored.len(), 3);
    for (workflow, seen) in stored {
        let body = &seen.unwrap_or_else(|| panic!("`{workflow}` has nothing of legacy's reply"))["body"];
        let token = body["token"].as_str().unwrap();
        assert!(token.starts_with("«sealed:"), "{workflow}: {token}");
        assert_eq!(body["n"], 5, "{workflow}");
    }
    for summary in harness.runs().await {
        let events = format!("{:?}", harness.events(summary.run_id).await);
        assert!(!events.contains("tok-0123456789"), "{events}");
    }
}

#[tokio::test]
async fn what_a_child_cannot_rehearse_is_skipped_with_the_reason_that_it_would_have_without_a_parent() {
    let unsent = json!({ "call": "POST ${services.world}/a" });
    let cases = [
        (json!({ "a": unsent, "b": { "set": "${steps.a.output.id}" } }), json!({}), SkipReason::UnresolvedEffect),
        (json!({ "a": unsent }), json!("${steps.a.output.id}"), SkipReason::UnresolvedEffect),
        (json!({ "a": { "checkpoint": { "question": "Shall it go?" } } }), json!({}), SkipReason::NeedsPerson),
        (json!({ "a": { "wait": { "signal": "go" } } }), json!({}), SkipReason::NeedsSignal),
        // A person would have to decide.
        (
            json!({ "a": { "call": "GET ${services.world}/refused", "on_conflict": "pause" } }),
            json!({}),
            SkipReason::WouldPause,
        ),
    ];
    for (steps, body, expected) in cases {
        let definition =
            |name: &str| json!({ "workflow": name, "steps": steps, "respond": { "status": 200, "body": body } });
        let inner = checked_plan(&definition("inner"), false);
        let own = checked_plan(&definition("w"), false);
        for mode in [Mode::Rehearse, Mode::Dark] {
            let (parent, top, middle) =
                (parent_plan("w", "inner"), parent_plan("w", "middle"), parent_plan("middle", "inner"));
            for plans in [vec![&own], vec![&parent, &inner], vec![&top, &middle, &inner]] {
                let harness = tree(&plans).await;
                let (problem, report) = refused(harness.send(rehearsal(mode, &json!({}))).await);
                let reason = report.unresolved.map(|(reason, _)| reason);
                assert_eq!(reason, Some(expected), "{mode:?}, {} runs, {steps}: {problem:?}", plans.len());
            }
        }
    }
}
