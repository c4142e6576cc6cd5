//! Replies are cut where people are shown them: no part of a secret or of a sensitive value is left before the cut.

use bytes::Bytes;
use serde_json::json;

use super::EngineTest;
use super::sealed::is_in_store;
use crate::support::FlagsDir;
use crate::support::step_service::ScriptedReply;

const SECRET: &str = "bank-Key-7c1f-22d0-9931";
const MEMO: &str = "memo-4711-of-a-caller-0123456789";

const CUTS: &str = "
workflow: cuts
input: { sensitive: [$.memo] }
steps:
  use:
    call: POST ${services.works}/uses
    headers: { authorization: 'Bearer ${secrets.bank}' }
    body: { memo: '${request.body.memo}' }
    on_failure: pause
respond: { status: 200 }
";

/// A text in which `cut` is two characters before the end of the quoted value.
fn quoting(value: &str, cut: usize) -> String {
    format!("{}{value} is wrong {}", "z".repeat(cut + 2 - value.len()), "y".repeat(300))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_across_the_cut_of_a_reply_is_neither_stored_nor_shown() {
    let settings = "store_key: { file: store.key }\nsecrets: { bank: { file: bank.secret } }\n";
    let files = |flags: &FlagsDir| {
        flags.write("store.key", &"0123456789abcdef".repeat(4));
        flags.write("bank.secret", SECRET);
    };
    let test = EngineTest::with_settings(settings, &[CUTS], files).await;
    let unreadable = |text: String| ScriptedReply::Bytes("application/json", Bytes::from(text));
    let refused = |text: String| ScriptedReply::RefuseWith(409, Vec::new(), json!({ "error": text }));
    for reply in [unreadable(quoting(SECRET, 200)), unreadable(quoting(MEMO, 200)), refused(quoting(MEMO, 400))] {
        test.step_service.script("POST /uses", reply.clone(), 1);
        let run = test.start_run("cuts", json!({ "memo": MEMO })).await;
        let data = test.wait_for_status(&run, "paused").await;
        let shown = format!("{data} {:?}", test.events(&run).await);
        assert!(shown.contains("zzzz") && shown.contains('…'), "the reply is shown: {shown}");
        for value in [&SECRET[..8], &MEMO[..8]] {
            assert!(!shown.contains(value), "{value} is shown after {reply:?}: {shown}");
            assert!(!is_in_store(&test, value), "{value} is in the store after {reply:?}");
        }
    }
    assert!(is_in_store(&test, "zzzz"), "this test reads the right files");
    test.finish().await;
}
