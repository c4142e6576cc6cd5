//! Whole sets of files are swapped under load, as Kubernetes swaps a mounted directory: each request sees one set.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use pointsman::demo::http::Client;
use serde_json::{Value, json};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{Pointsman, WAIT_MAX, until};

/// The number of swaps under load.
const SWAPS: usize = 12;

/// Writes a set. A request that sees two sets would be noticed: two services have the same names in both sets and other
/// addresses in each, and the answer would name both sets. The workflow is the same in both: a changed one would not
/// answer, because the route is in `only` (`candidate`).
fn write(base: &Path, dir: &str, legacy: &str, own: &str) {
    let dir = base.join(dir);
    for part in ["routes", "workflows"] {
        std::fs::create_dir_all(dir.join(part)).expect("a directory");
    }
    let write = |file: &str, text: String| std::fs::write(dir.join(file), text).expect("a written file");
    write("pointsman.yaml", format!("services:\n  shop: {legacy}\n  one: {own}\n  two: {own}\ndefault_legacy: shop\n"));
    write(
        "workflows/make.yaml",
        "workflow: make\nsteps:\n  one: { call: \"GET ${services.one}/own\" }\n  \
         two: { needs: [one], call: \"GET ${services.two}/own\" }\n\
         respond: { status: 200, body: { one: \"${steps.one.output.own}\", two: \"${steps.two.output.own}\" } }\n"
            .to_owned(),
    );
    write(
        "routes/things.yaml",
        "routes:\n- { id: things, match: { method: GET, path: /things }, legacy: shop, workflow: make, state: off }\n"
            .to_owned(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_sees_two_sets() {
    let legacy = Origin::start(OriginReply::Json(r#"{"one":"legacy"}"#)).await;
    let a = Origin::start(OriginReply::Json(r#"{"own":"a"}"#)).await;
    let b = Origin::start(OriginReply::Json(r#"{"own":"b"}"#)).await;
    let base = tempfile::tempdir().expect("a directory");
    write(base.path(), "..a", &legacy.url(), &a.url());
    write(base.path(), "..b", &legacy.url(), &b.url());
    let point_to = |name: &str| {
        symlink(name, base.path().join("..next")).expect("a link");
        std::fs::rename(base.path().join("..next"), base.path().join("..data")).expect("a renamed link");
    };
    point_to("..a");
    for part in ["pointsman.yaml", "routes", "workflows"] {
        symlink(format!("..data/{part}"), base.path().join(part)).expect("a link");
    }
    let other_dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(base.path(), other_dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    for state in ["shadow", "dark", "live", "only"] {
        let flipped = pointsman.cli(&["flip", "things", state, "--force", "--reason", "files are what matters"]).await;
        assert!(flipped.status.success(), "{}", output_text(&flipped));
    }
    let (client, url) = (Client::new(WAIT_MAX), format!("{}/things", pointsman.url()));
    let get = || async {
        let reply = client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
        assert_eq!(reply.status, 200, "{}", reply.json());
        let answer = reply.json();
        let whole = ["a", "b"].iter().any(|name| answer == json!({ "one": name, "two": name }));
        assert!(whole, "a mix of two sets: {answer}");
        answer["one"].clone()
    };
    let stopped = AtomicBool::new(false);
    let load = || async {
        let mut answers = 0;
        while !stopped.load(Ordering::SeqCst) {
            get().await;
            answers += 1;
        }
        answers
    };
    let swapping = async {
        for swap in 1..=SWAPS {
            let name = if swap % 2 == 0 { "a" } else { "b" };
            point_to(&format!("..{name}"));
            until("the other set to answer", || async { (get().await == name).then_some(()) }).await;
        }
        stopped.store(true, Ordering::SeqCst);
    };
    let (one, two, three, four, ()) = tokio::join!(load(), load(), load(), load(), swapping);
    eprintln!("{SWAPS} swaps under {} requests, 0 mixed", one + two + three + four);
    assert_eq!(pointsman.stop().await, Some(0));
}
