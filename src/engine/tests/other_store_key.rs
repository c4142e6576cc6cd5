//! A process with another `store_key` than the one that sealed a run's values leaves the run as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, refused, request, start};
use crate::engine::CommandError;
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::{ControlCommand, DeclaredNames, Mode, Plan, RunStatus};

/// Sends a sensitive value by a call that may be repeated.
fn plan() -> Arc<Plan> {
    let source = json!({
        "workflow": "w",
        "input": { "sensitive": ["$.card"] },
        "steps": {
            "charge": { "call": "POST ${services.world}/charges", "body": {
                "card": "${request.body.card}", "note": "${request.body.note}" } },
        },
        "respond": { "status": 200, "body": { "card": "${request.body.card}" } },
    });
    let services = BTreeMap::from([(ServiceName::from("world"), true)]);
    let (secrets, limits) = (BTreeSet::new(), Limits::default());
    let known = DeclaredNames { services: &services, secrets: &secrets, has_store_key: true, limits: &limits };
    Arc::new(Plan::from_source(&source, &known).unwrap())
}

async fn harness() -> Harness {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let (store, key) = (Arc::new(MemoryStore::new()), Some(Secret::new("k")));
    Harness::with_store(&step_service, plan(), store, Limits::default(), key).await
}

fn keyed_request(body: &Value) -> ArmRequest {
    ArmRequest { retry_keys: Some(RetryKey([9; 32]).into()), ..request("w", Mode::Real, body) }
}

#[tokio::test]
async fn a_run_whose_sealed_values_cannot_be_opened_sends_nothing_until_the_key_is_back() {
    let mut harness = harness().await;
    let body = json!({ "card": "4111-1111-2222", "note": "n" });
    let arm = harness.engine.arm();
    let first = tokio::spawn(tower::ServiceExt::oneshot(arm, keyed_request(&body)));
    harness.step_service.wait_for_calls(1).await;
    let run = harness.runs().await[0].run_id;
    for other in [Some(Secret::new("other")), None] {
        harness.key = other;
        harness.crash().await;
        let recovered = harness.recover().await;
        assert_eq!((recovered.resumed, recovered.unreadable), (0, 1));
        assert_eq!(harness.step_service.seen().len(), 1, "nothing is sent");
        let result = harness.engine.give_command(run, ControlCommand::Pause { reason: None }, "ann".into()).await;
        let Err(CommandError::Unreadable(why)) = result else { panic!("{result:?}") };
        assert!(why.contains("sealed values") && why.contains("`store_key`"), "{why}");
        let explained = harness.engine.explain(run).await.unwrap();
        assert!(explained.stuck && explained.sentence.contains("the key that sealed them"), "{}", explained.sentence);
        let (problem, report) = refused(harness.send(keyed_request(&body)).await);
        assert_eq!((problem.status, report.run), (503, Some(run)), "{problem:?}");
    }
    drop(first);
    harness.key = Some(Secret::new("k"));
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 1);
    harness.step_service.wait_for_calls(2).await;
    harness.step_service.open_gate();
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
    let seen = harness.step_service.seen();
    assert_eq!(serde_json::from_slice::<Value>(&seen[0].body).unwrap(), body);
    assert_eq!(
        (seen[0].body.clone(), seen[0].header("idempotency-key")),
        (seen[1].body.clone(), seen[1].header("idempotency-key"))
    );
    assert_eq!(answer(harness.send(keyed_request(&body)).await).1, json!({ "card": "4111-1111-2222" }));
    // The answer of an ended run is not given sealed.
    harness.key = Some(Secret::new("other"));
    harness.crash().await;
    harness.recover().await;
    assert_eq!(refused(harness.send(keyed_request(&body)).await).0.status, 503);
}

/// Text of a caller that has the form of a sealed value stays text.
#[tokio::test]
async fn text_that_only_looks_sealed_makes_no_run_unreadable() {
    let looks_sealed = {
        let harness = harness().await;
        let run = start(&harness, json!({ "card": "4111-1111-2222" })).await.run;
        let stored = serde_json::to_string(&harness.events(run).await).unwrap();
        let from = stored.find("«sealed:").expect("the card is sealed");
        let to = from + stored[from..].find('»').expect("it is closed") + '»'.len_utf8();
        stored[from..to].to_owned()
    };
    let mut harness = harness().await;
    let run = start(&harness, json!({ "card": "", "note": looks_sealed })).await.run;
    harness.step_service.wait_for_calls(1).await;
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 1);
    harness.step_service.open_gate();
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
}
