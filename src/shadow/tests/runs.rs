//! One run at a time.

use super::*;
use crate::compare::AwaitedIntents;
use crate::evidence::{EvidenceBasis, RULES};

#[tokio::test]
async fn equal_replies_match_and_a_redacted_sample_is_kept_of_others() {
    let reply = |request: ArmRequest| async move {
        assert!(request.creates.is_none() && !request.may_fall_back, "a rehearsal leaves nothing behind");
        let report = RunReport::default();
        answer(&json!({"id": 17, "total": 5, "card": "4111"}), report)
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(answered(Mode::Rehearse, &json!({"id": 17, "total": 5.0, "card": "4111"}), 0));
    rig.settled(1).await;
    rig.offer(answered(Mode::Rehearse, &json!({"id": 17, "total": 6, "card": "4222"}), 0));
    let seen = rig.settled(2).await;
    assert_eq!((seen.shadow_pairs, seen.matched, seen.mismatched), (2, 1, 1));
    let samples = testing::samples(&rig.evidence, &rig.store, &id()).await;
    assert_eq!(samples.len(), 1);
    let text = format!("{:?}", samples[0]);
    assert!(!text.contains("hunter2") && !text.contains("4111") && !text.contains("4222"), "{text}");
    assert!(samples[0].request.starts_with("POST /orders?dry=1&token=***\n"), "{text}");
    assert!(samples[0].legacy.starts_with("201\n{"), "{text}");
}

#[tokio::test]
async fn headers_that_no_rule_compares_are_counted() {
    let reply = |_: ArmRequest| async { answer(&json!({"id": 17}), RunReport::default()) };
    let rules = json!({ "headers": ["x-compared"], "ignore": ["header.x-ignored"] });
    let rig = TestShadow::new(engine(reply), limits(), rules).await;
    let with_headers = |differs: bool| {
        let request = answered(Mode::Rehearse, &json!({"id": 17}), 0);
        let mut headers = request.legacy.headers().clone();
        let more = ["set-cookie", "x-ignored"].into_iter().take(if differs { 2 } else { 0 });
        more.for_each(|name| assert!(!headers.append(name, "1".parse().unwrap())));
        let legacy = Observation::new(
            request.legacy.status(),
            headers,
            request.legacy.body().clone(),
            Duration::ZERO,
            Vec::new(),
        );
        Answered { legacy: Arc::new(legacy), ..request }
    };
    rig.offer(with_headers(true));
    rig.settled(1).await;
    rig.offer(with_headers(false));
    let seen = rig.settled(2).await;
    assert_eq!(seen.matched, 2);
    let found: Vec<_> =
        seen.uncompared_headers.names.iter().map(|(n, of)| (n.as_str(), of.pairs, of.differs)).collect();
    assert_eq!(found, [("content-type", 2, 0), ("set-cookie", 1, 1)]);
}

#[tokio::test]
async fn a_dark_request_with_a_durable_run_has_a_twin_and_counts_as_dark() {
    let reply = |request: ArmRequest| async move {
        assert_eq!(*request.creates.unwrap().0.id(), id());
        let run = Some(RunId("0190f5d3-0000-7000-8000-000000000000".parse().unwrap()));
        answer(&json!({"id": 17}), RunReport { run, ..RunReport::default() })
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(answered(Mode::Dark, &json!({"id": 17}), 0));
    let seen = rig.settled(1).await;
    assert_eq!((seen.dark_pairs, seen.dark_with_twin, seen.dark_without_twin), (1, 1, 0));
}

/// The engine answers each create with the same id.
#[tokio::test]
async fn an_id_that_the_engine_gave_to_another_instance_before_is_a_difference() {
    let reply = |_: ArmRequest| async {
        let run = Some(RunId("0190f5d3-0000-7000-8000-000000000000".parse().unwrap()));
        answer(&json!({"id": "e-52001"}), RunReport { run, ..RunReport::default() })
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({ "ids": ["$.id"] })).await;
    rig.offer(answered(Mode::Dark, &json!({"id": "l-17001"}), 0));
    rig.settled(1).await;
    rig.offer(answered(Mode::Dark, &json!({"id": "l-17001"}), 0));
    assert_eq!(rig.settled(2).await.mismatched, 0, "the same instance");
    rig.offer(answered(Mode::Dark, &json!({"id": "l-17002"}), 0));
    assert_eq!(rig.settled(3).await.mismatched, 1);
    let samples = testing::samples(&rig.evidence, &rig.store, &id()).await;
    let difference = &samples[0].differences[0];
    assert_eq!((&*difference.path, difference.kind.as_str()), ("$.id", "value"));
    let earlier = &difference.contradicts[0];
    assert_eq!((&*earlier.path, &*earlier.legacy, &*earlier.engine), ("instance.id", "\"l-17001\"", "\"e-52001\""));
    // What a rehearsal answers is kept by nobody.
    rig.offer(answered(Mode::Rehearse, &json!({"id": "l-17003"}), 0));
    assert_eq!(rig.settled(4).await.mismatched, 1);
}

/// Other rules find no other engine: an id that it gave out before they changed is still that instance's.
#[tokio::test]
async fn an_id_that_the_engine_gave_out_under_other_rules_is_a_difference_and_under_another_workflow_is_none() {
    let reply = |_: ArmRequest| async {
        let run = Some(RunId("0190f5d3-0000-7000-8000-000000000000".parse().unwrap()));
        answer(&json!({"id": "e-52001"}), RunReport { run, ..RunReport::default() })
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({ "ids": ["$.id"] })).await;
    let bases = [("1", "a", "l-17001", 0), ("1", "b", "l-17002", 1), ("2", "b", "l-17003", 0)];
    for (count, (workflow, rules, legacy, mismatched)) in (1..).zip(bases) {
        let parts = [("the workflow `w`", workflow), (RULES, rules)].map(|(name, hash)| (name.into(), hash.into()));
        let hash = format!("{workflow} {rules}");
        let basis = EvidenceBasis { hash, parts: parts.into(), ..EvidenceBasis::default() };
        rig.evidence.set_basis(0, &[(id(), basis)]);
        rig.offer(answered(Mode::Dark, &json!({ "id": legacy }), 0));
        assert_eq!(rig.settled(count).await.mismatched, mismatched, "{workflow} {rules}");
    }
}

/// The dark run has answered and goes on; its step `mail` has not ended.
#[tokio::test]
async fn a_reply_of_a_run_that_goes_on_is_compared_unless_a_condition_reads_what_is_to_come() {
    let of = |step: &str| AwaitedIntents::OfSteps([step.into()].into());
    for (condition, awaited, outcome) in [
        ("engine.body.id == legacy.body.id", AwaitedIntents::None, Ok(1)),
        ("intents.accept.body.n == 1", of("accept"), Ok(1)),
        ("has(intents.mail)", of("mail"), Err("run_goes_on")),
        ("size(intents) == 1", AwaitedIntents::All, Err("run_goes_on")),
    ] {
        let reply = move |request: ArmRequest| {
            assert_eq!(request.awaited_intents, awaited, "{condition}");
            let accepted = crate::compare::Intent {
                step: "accept".into(),
                item: None,
                method: Method::POST,
                url: "http://shop/accept".into(),
                headers: Vec::new(),
                body: json!({"n": 1}),
                service: None,
                bytes: None,
                taken_from: None,
            };
            let (intents, open_steps) = (vec![accepted], Some(vec!["mail".into()]));
            std::future::ready(answer(&json!({"id": 17}), RunReport { intents, open_steps, ..RunReport::default() }))
        };
        let rules = json!({ "assert": [format!("${{{condition}}}")] });
        let rig = TestShadow::new(engine(reply), limits(), rules).await;
        rig.offer(answered(Mode::Dark, &json!({"id": 17}), 0));
        let seen = rig.settled(1).await;
        match outcome {
            Ok(matched) => assert_eq!(seen.matched, matched, "{condition}: {seen:?}"),
            Err(reason) => assert_eq!(seen.skipped.get(reason), Some(&1), "{condition}: {seen:?}"),
        }
    }
}

#[tokio::test]
async fn a_refusal_by_a_service_is_compared_with_what_legacy_answered() {
    refusal_is_compared(502, "workflow-refused").await;
    // The service refused a step of a child run.
    refusal_is_compared(500, "workflow-child-failed").await;
}

async fn refusal_is_compared(status: u16, kind: &'static str) {
    let reply = move |_: ArmRequest| async move {
        let problem = ProblemDocument {
            status,
            kind: kind.into(),
            title: "t".into(),
            detail: "d".into(),
            source: Source::Workflow,
            run: None,
            retry_after_s: None,
            shared_step_begun: None,
        };
        ArmReply::Refused(problem, RunReport::default())
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(answered_with(StatusCode::NOT_FOUND, Mode::Rehearse, &json!({"error": "none"}), 0));
    let seen = rig.settled(1).await;
    assert_eq!((seen.mismatched, seen.failed.len()), (1, 0), "{kind}");
}

/// The engine refuses the input before it creates a run.
#[tokio::test]
async fn a_dark_request_that_both_arms_refuse_expects_no_twin() {
    let reply = |_: ArmRequest| async move {
        let body = Bytes::from_static(br#"{"error":"bad"}"#);
        let (status, report) = (StatusCode::UNPROCESSABLE_ENTITY, RunReport::default());
        ArmReply::Answer(ArmAnswer { status, headers: headers(), body: body.into(), report })
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(answered_with(StatusCode::UNPROCESSABLE_ENTITY, Mode::Dark, &json!({"error": "bad"}), 0));
    let seen = rig.settled(1).await;
    assert_eq!((seen.matched, seen.dark_with_twin, seen.dark_without_twin), (1, 0, 0));
    rig.offer(answered(Mode::Dark, &json!({"id": 17}), 0));
    let seen = rig.settled(2).await;
    assert_eq!((seen.mismatched, seen.dark_without_twin), (1, 1), "legacy created an instance");
}

#[tokio::test]
async fn whatever_the_engine_does_ends_in_one_outcome() {
    let turn = Arc::new(Mutex::new(0));
    let reply = move |_: ArmRequest| {
        let n = {
            let mut turn = turn.lock().unwrap();
            *turn += 1;
            *turn
        };
        async move {
            let problem = |status| ProblemDocument {
                status,
                kind: "k".into(),
                title: "t".into(),
                detail: "d".into(),
                source: Source::Workflow,
                run: None,
                retry_after_s: None,
                shared_step_begun: None,
            };
            let unresolved = Some((SkipReason::UnresolvedEffect, "charge".to_owned()));
            match n {
                1 => std::panic::resume_unwind(Box::new("on purpose")),
                2 => std::future::pending().await,
                3 => ArmReply::Refused(problem(503), RunReport::default()),
                4 => answer(&json!({}), RunReport { unresolved, ..RunReport::default() }),
                5 => ArmReply::Refused(problem(422), RunReport::default()),
                6 => ArmReply::Abandoned(crate::exchange::Abandoned { reason: "x", run: None }),
                _ => answer(&json!({"ok": true}), RunReport::default()),
            }
        }
    };
    let limits = Limits { shadow_run_ms: 100, ..limits() };
    let rig = TestShadow::new(engine(reply), limits, json!({})).await;
    for n in 1..=7 {
        rig.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
        rig.settled(n).await;
    }
    let seen = rig.evidence.of(&id());
    let failed = ["panic", "timeout", "unavailable", "abandoned"].map(|how| seen.failed.get(how).copied());
    assert_eq!(failed, [Some(1); 4], "{seen:?}");
    assert_eq!(seen.skipped.get("unresolved_effect"), Some(&1));
    assert_eq!((seen.matched, seen.mismatched), (1, 1), "a refusal of the workflow is what the caller would get");
}

/// The path of what is absent has a value of the request as a key.
#[tokio::test]
async fn why_a_run_could_not_go_on_quotes_no_secret_of_the_request() {
    let reply = |_| async {
        let why = "`charge`: `legacy.body[\"hunter2\"].id` is absent".to_owned();
        let unresolved = Some((SkipReason::UnresolvedEffect, why));
        answer(&json!({}), RunReport { unresolved, ..RunReport::default() })
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(answered(Mode::Rehearse, &json!({}), 0));
    let seen = rig.settled(1).await;
    let why: Vec<_> = seen.unresolved.keys().collect();
    assert_eq!(why, ["`charge`: `legacy.body[\"***\"].id` is absent"]);
}

#[tokio::test]
async fn an_assert_that_cannot_be_evaluated_is_a_mismatch_and_asserts_can_read_the_request() {
    let reply = |_| async { answer(&json!({}), RunReport::default()) };
    for (source, matches) in
        [("${request.body.items == [1] && request.query.dry == '1'}", true), ("${request.body.absent == 1}", false)]
    {
        let rig = TestShadow::new(engine(reply), limits(), json!({"assert": [source]})).await;
        rig.offer(answered(Mode::Rehearse, &json!({}), 0));
        assert_eq!(rig.settled(1).await.mismatched, u64::from(!matches), "{source}");
    }
}

#[tokio::test]
async fn a_request_is_run_by_the_files_that_decided_it() {
    let reply = |request: ArmRequest| async move {
        if request.files_version == 1 {
            return answer(&json!({"id": 17}), RunReport::default());
        }
        let problem = ProblemDocument {
            status: 503,
            kind: "files-changed".into(),
            title: "t".into(),
            detail: "d".into(),
            source: Source::Workflow,
            run: None,
            retry_after_s: None,
            shared_step_begun: None,
        };
        ArmReply::Refused(problem, RunReport::default())
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(by_version(1, answered(Mode::Rehearse, &json!({"id": 17}), 0)));
    assert_eq!(rig.settled(1).await.matched, 1);
    rig.offer(by_version(0, answered(Mode::Dark, &json!({"id": 17}), 0)));
    let seen = rig.settled(2).await;
    assert_eq!((seen.skipped.get("files_changed"), seen.dark_without_twin), (Some(&1), 1), "{seen:?}");

    // Files with another basis are in force. A request that was decided before is run, and is no evidence for them.
    rig.evidence.set_basis(1, &[(id(), "one".into())]);
    rig.evidence.set_basis(2, &[(id(), "two".into())]);
    rig.offer(by_version(1, answered(Mode::Rehearse, &json!({"id": 17}), 0)));
    rig.offer(by_version(1, answered(Mode::Rehearse, &json!({"id": 18}), 0)));
    assert_eq!(rig.settled(4).await.pairs(), 0);
    assert!(testing::samples(&rig.evidence, &rig.store, &id()).await.is_empty());
}

/// The request as decided by a version of the files.
fn by_version(files_version: u64, answered: Answered) -> Answered {
    let set = Arc::into_inner(answered.flags).expect("nobody else has it").with_files_version(files_version);
    Answered { flags: Arc::new(set), ..answered }
}
