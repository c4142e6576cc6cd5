//! Messages to webhooks are distributed over the addresses of their service as calls of steps are, and both share what
//! is known of a dead address.

use serde_json::json;

use super::EngineTest;
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::until;

/// Calls `hooks`, and then opens a checkpoint, which sends a message to `hooks`.
const CALLS_AND_ASKS: &str = "
workflow: calls-and-asks
notify: ${services.hooks}/hooks
steps:
  look: { call: 'POST ${services.hooks}/looks', effect: read }
  ask: { needs: [look], checkpoint: { question: Go on? } }
respond: { status: 200, body: done }
";

const ASKS: &str = "
workflow: asks
notify: ${services.hooks}/hooks
steps:
  ask: { checkpoint: { question: Go on? } }
respond: { status: 200, body: done }
";

const HOOKS: &str = "POST /hooks";

async fn start_runs(test: &EngineTest, workflow: &str, count: usize) {
    for _ in 0..count {
        let run = test.start_run(workflow, json!({})).await;
        test.wait_for_events(&run, "checkpoint_opened", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_to_an_address_that_accepts_and_steps_avoid_the_dead_one_too() {
    // Dropped at the end, so that no other test gets the port.
    let closed = crate::support::closed_port();
    let dead = format!("http://{}", closed.local_addr().expect("an address"));
    let services = format!("  hooks: {{ urls: [\"{dead}\", WORKS], eject: {{ for: 300s }} }}");
    let test = EngineTest::with_settings(&services, &[ASKS, CALLS_AND_ASKS], |_| {}).await;
    start_runs(&test, "asks", 15).await;
    test.wait_for_calls(HOOKS, 15).await;
    start_runs(&test, "calls-and-asks", 15).await;
    test.wait_for_calls(HOOKS, 30).await;
    let metrics = test.pointsman.metrics().await;
    let sum = |name: &str| metrics.sum(name, &[("service", "hooks")]);
    assert_eq!(sum("pointsman_notice_failures_total"), 0.0, "{}", test.pointsman.log());
    // Without an ejection, each of the 45 requests goes to the dead address with a probability of at least a quarter.
    assert_eq!(sum("pointsman_service_connect_failures_total"), 1.0, "one state for messages and calls");
    assert_eq!(sum("pointsman_service_addresses_ejected"), 1.0);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_shared_among_the_addresses_and_an_answer_is_never_tried_elsewhere() {
    let other = StepService::start().await;
    let services = format!("  hooks: {{ urls: [WORKS, \"{}\"] }}", other.url());
    let test = EngineTest::with_settings(&services, &[ASKS], |_| {}).await;
    start_runs(&test, "asks", 40).await;
    until("every message", || async { (test.step_service.effects(HOOKS) + other.effects(HOOKS) >= 40).then_some(()) })
        .await;
    // The probability that none of 40 messages goes to a given address is 2^-40.
    assert!(test.step_service.count(HOOKS) > 0 && other.count(HOOKS) > 0);
    other.script(HOOKS, ScriptedReply::Refuse(503), 1);
    let before = other.count(HOOKS);
    let mut messages = 40;
    // Each message goes to the address that refuses with a probability of a half. It is sent again after a second.
    while other.count(HOOKS) == before {
        start_runs(&test, "asks", 1).await;
        messages += 1;
    }
    let delivered = || test.step_service.effects(HOOKS) + other.effects(HOOKS);
    until("the messages that follow", || async { (delivered() >= messages).then_some(()) }).await;
    let metrics = test.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_notice_failures_total", &[("service", "hooks")]), 1.0, "not tried elsewhere");
    test.finish().await;
}
