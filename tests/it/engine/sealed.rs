//! Sensitive values are not in clear in the store, and are still sent after a restart.

use serde_json::json;

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const TOKEN: &str = "tok-4711/secret value";

const USES: &str = "
workflow: uses
input: { sensitive: [$.card.number] }
steps:
  token: { call: 'POST ${services.works}/tokens', sensitive: [$.access_token] }
  use:
    needs: [token]
    call: POST ${services.works}/uses/${steps.token.output.access_token}
    headers: { x-token: 'Bearer ${steps.token.output.access_token}' }
    body: { token: '${steps.token.output.access_token}', card: '${request.body.card.number}' }
  go: { needs: [use], wait: { signal: go } }
  again:
    needs: [go]
    call: POST ${services.works}/agains
    body: { token: '${steps.token.output.access_token}', card: '${request.body.card.number}' }
respond: { status: 200, body: { token: '${steps.token.output.access_token}' } }
";

/// Whether a text is in any of the store's files.
fn is_in_store(test: &EngineTest, text: &str) -> bool {
    let files = std::fs::read_dir(test.dir.path()).expect("readable").flatten();
    let store = files.filter(|file| file.file_name().to_string_lossy().starts_with("pointsman.db"));
    store
        .map(|file| std::fs::read(file.path()).expect("readable"))
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_step_fetched_is_not_in_clear_in_the_store() {
    const KEY: &str = "store_key: { file: store.key }\n";
    let key = |flags: &crate::support::FlagsDir| flags.write("store.key", &"0123456789abcdef".repeat(4));
    let mut test = EngineTest::with_settings(KEY, &[USES], key).await;
    test.step_service
        .set_default("POST /tokens", ScriptedReply::Done(200, json!({ "access_token": TOKEN, "expires": 3600 })));
    let run = test.start_run("uses", json!({ "card": { "number": "4000-1234-5678-9010" } })).await;
    test.wait_for_status(&run, "waiting_signal").await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    let data = test.wait_for_status(&run, "completed").await;
    // Both went out as they are, before and after the restart.
    let (used, again) = (test.step_service.seen("POST /uses"), test.step_service.seen("POST /agains"));
    let body = json!({ "token": TOKEN, "card": "4000-1234-5678-9010" });
    assert_eq!((used[0].json(), again[0].json()), (body.clone(), body), "{data}");
    assert_eq!(used[0].headers["x-token"], format!("Bearer {TOKEN}").as_str());
    // Nobody who reads the run or the store sees them; the rest is as readable as ever.
    let shown = format!("{data} {}", serde_json::to_string(&test.events(&run).await).unwrap());
    for secret in [TOKEN, "tok-4711%2Fsecret", "4000-1234-5678-9010"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
        assert!(!is_in_store(&test, secret), "{secret} is in the store");
    }
    assert!(shown.contains("«sealed:") && shown.contains("3600"), "{shown}");
    assert!(is_in_store(&test, "expires"), "this test reads the right files");
    // Without a key nothing can be sealed, and the files are refused.
    test.flags.edit("pointsman.yaml", |text| text.replace(KEY, ""));
    let flags = test.flags.path().display().to_string();
    let (code, said) = test.cli_output(&["check", &flags]).await;
    assert_eq!((code, said.matches("there is no `store_key` to seal it with").count()), (Some(1), 2), "{said}");
    test.finish().await;
}
