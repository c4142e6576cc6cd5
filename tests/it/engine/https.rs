//! Services that are called over https: by steps, and by messages to webhooks.

use serde_json::json;

use super::{EngineTest, id};
use crate::support::certificates::{Authority, Subject};
use crate::support::tls_front::TlsFront;
use crate::support::{Metrics, until};

/// A workflow with one call.
fn calls(name: &str, service: &str) -> String {
    format!(
        "workflow: {name}
steps:
  charge:
    call: POST ${{services.{service}}}/charges
    retry: {{ attempts: 1 }}
respond: {{ status: 200, body: '${{steps.charge.output}}' }}
"
    )
}

const ASKS: &str = "
workflow: asks
notify: ${services.secure}/hooks
steps:
  ask: { checkpoint: { question: Go on? } }
respond: { status: 200, body: done }
";

#[tokio::test(flavor = "multi_thread")]
async fn steps_and_webhooks_reach_a_service_whose_certificate_the_ca_file_verifies() {
    let (issuer, other) = (Authority::new("Test"), Authority::new("Other"));
    let issued = issuer.issue(&Subject { names: &["127.0.0.1"], ..Subject::default() });
    let front = TlsFront::start(&issued).await;
    let service =
        |name: &str, tls: &str| format!("  {name}: {{ urls: [\"https://{}\"], tls: {{ {tls} }} }}\n", front.address());
    let services = [
        service("secure", "ca: ca.pem"),
        service("distrusted", "ca: other.pem"),
        service("misnamed", "ca: ca.pem, server_name: bank.test"),
    ];
    let workflows = [calls("pays", "secure"), calls("distrusts", "distrusted"), calls("misnames", "misnamed")];
    let workflows: Vec<&str> = workflows.iter().map(String::as_str).chain([ASKS]).collect();
    let test = EngineTest::with_settings(&services.concat(), &workflows, |flags| {
        flags.write("ca.pem", &issuer.pem());
        flags.write("other.pem", &other.pem());
    })
    .await;
    front.lead_to(&test.step_service.url());

    let data = test.run("pays", json!({})).await;
    assert_eq!(data["status"], "completed", "{data}");
    let seen = test.step_service.seen("POST /charges");
    let host = seen[0].headers.get("host").and_then(|host| host.to_str().ok());
    assert_eq!((seen.len(), host), (1, Some(&*front.address().to_string())));

    let run = test.start_run("asks", json!({})).await;
    test.wait_for_calls("POST /hooks", 1).await;
    assert_eq!(test.step_service.seen("POST /hooks")[0].json()["run_id"], id(&run));

    for (workflow, service, reason) in [("distrusts", "distrusted", "certificate"), ("misnames", "misnamed", "name")] {
        let run = test.start_run(workflow, json!({})).await;
        until("the failure", || async {
            let text = test.pointsman.get(&format!("{run}/events")).await.to_string();
            text.contains("the TLS handshake failed").then_some(())
        })
        .await;
        let labels = [("service", service), ("reason", reason)];
        let is_counted = |metrics: &Metrics| metrics.sum("pointsman_service_handshake_failures_total", &labels) >= 1.0;
        test.pointsman.until_metric("the handshake is counted", is_counted).await;
    }
    assert_eq!(test.step_service.count("POST /charges"), 1, "nothing was sent to a service that is not verified");
    test.finish().await;
}
