//! How the reference is shown: by `pointsman help`, and by the API as text and as a page.

use http::Method;
use pointsman::docs::TOPICS;
use serde_json::Value;

use crate::support::process::{Start, cli, output_text};
use crate::support::{FlagsDir, Pointsman};

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_topics_and_shows_one() {
    let list = cli(&["help"], &[]).await;
    assert!(list.status.success(), "{}", output_text(&list));
    for topic in TOPICS {
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(text.contains(topic.name) && text.contains(topic.title()), "{text}");
        let shown = cli(&["help", topic.name], &[]).await;
        assert!(shown.status.success(), "{}", output_text(&shown));
        assert!(String::from_utf8_lossy(&shown.stdout).starts_with(&topic.text()), "{}", output_text(&shown));
    }
    let json = cli(&["help", "ladder", "--json"], &[]).await;
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON on stdout");
    assert_eq!(json["name"], "ladder");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_describes_commands_and_suggests_what_was_meant() {
    let command = cli(&["help", "runs", "start"], &[]).await;
    assert!(command.status.success() && output_text(&command).contains("--input"), "{}", output_text(&command));
    let both = cli(&["help", "services"], &[]).await;
    assert!(output_text(&both).contains("`pointsman services --help`"), "{}", output_text(&both));
    let unknown = cli(&["help", "lader"], &[]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        unknown.stdout.is_empty() && output_text(&unknown).contains("did you mean `pointsman help ladder`?"),
        "{}",
        output_text(&unknown)
    );
    let nothing = cli(&["help", "zebra"], &[]).await;
    assert_eq!(nothing.status.code(), Some(2), "{}", output_text(&nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_shows_the_reference_as_text_and_as_a_page() {
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let get = async |path: &str, accept: &str| {
        let reply = pointsman.api_with(Method::GET, path, &[("accept", accept)], Value::Null).await;
        let kind = reply.headers["content-type"].to_str().expect("text").to_owned();
        (reply.status.as_u16(), kind, String::from_utf8(reply.body.to_vec()).expect("text"))
    };
    let (status, kind, text) = get("/docs", "*/*").await;
    assert!(status == 200 && kind.starts_with("text/plain"), "{status} {kind}");
    assert!(TOPICS.iter().all(|topic| text.contains(&format!("/docs/{}", topic.name))), "{text}");
    for topic in TOPICS {
        let (status, kind, text) = get(&format!("/docs/{}", topic.name), "*/*").await;
        assert!(
            status == 200 && kind.starts_with("text/plain") && text == topic.text(),
            "{}: {status} {kind}",
            topic.name
        );
        let browser = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
        let (status, kind, page) = get(&format!("/docs/{}", topic.name), browser).await;
        assert!(status == 200 && kind.starts_with("text/html"), "{}: {status} {kind}", topic.name);
        assert!(page.starts_with("<!doctype html>") && page.contains("<a href=\"/docs/ladder\">"), "{page}");
    }
    let (status, kind, text) = get("/docs/lader", "*/*").await;
    assert!(status == 404 && kind == "application/problem+json" && text.contains("did you mean `ladder`?"), "{text}");
    let (_, _, index) = get("/", "*/*").await;
    assert!(index.contains("/docs/{topic}"), "{index}");
    assert_eq!(pointsman.stop().await, Some(0));
}
