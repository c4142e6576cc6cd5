//! The README, step by step: its files and its commands, in front of a service.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use pointsman::demo::http::{Call, HandlerResult, Server, json as reply};
use serde_json::{Value, json};

use super::{Document, document, shown_file};
use crate::support::process::{BINARY, Start, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

/// The shop and the bank of the README: answers quotes, charges and orders, and counts orders and charges.
#[derive(Clone, Default)]
struct Shop {
    orders: Arc<AtomicU64>,
    charges: Arc<AtomicU64>,
}

impl Shop {
    async fn answer(self, call: Call) -> HandlerResult {
        let sent: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        // Nobody can pay for a thousand.
        let total = if sent["items"][0]["qty"] == 1000 { 6250.0 } else { 12.5 };
        let refused = |status, error: &str| Ok(reply(status, &json!({ "error": error })));
        let body = match call.path.as_str() {
            "/quotes" => json!({ "total": total }),
            "/charges" if sent["amount"] == 6250.0 => return refused(StatusCode::PAYMENT_REQUIRED, "no funds"),
            "/charges" => json!({ "id": format!("pay_{}", self.charges.fetch_add(1, Ordering::SeqCst) + 1) }),
            "/orders" if sent["items"].is_null() => return refused(StatusCode::BAD_REQUEST, "no items"),
            "/orders" if total > 1000.0 => return refused(StatusCode::PAYMENT_REQUIRED, "card declined"),
            "/orders" => {
                let id = self.orders.fetch_add(1, Ordering::SeqCst) + 1;
                let mut response =
                    reply(StatusCode::CREATED, &json!({ "id": id, "total": total, "payment_id": "pay_0" }));
                response.headers_mut().insert("location", format!("/orders/{id}").parse().expect("a header"));
                return Ok(response);
            }
            _ => return Ok(reply(StatusCode::NOT_FOUND, &Value::Null)),
        };
        Ok(reply(StatusCode::OK, &body))
    }
}

/// The commands of the block that contains this one, with the addresses of this test.
fn script(readme: &Document, marker: &str, addresses: &[(&str, String)]) -> String {
    let blocks = readme.blocks("sh");
    let block =
        blocks.iter().find(|block| block.contains(marker)).unwrap_or_else(|| panic!("no block with `{marker}`"));
    let lines = block.lines().filter(|line| !line.starts_with("pointsman serve") && !line.starts_with("cargo "));
    let mut script = lines.collect::<Vec<_>>().join("\n");
    for (shown, real) in addresses {
        script = script.replace(shown, real);
    }
    script
}

async fn shell(script: &str, dir: &std::path::Path, admin: &str) -> Output {
    let bin = std::path::Path::new(BINARY).parent().expect("a directory").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let run = tokio::process::Command::new("bash")
        .args(["-c", &format!("set -eu\n{script}\n")])
        .env("PATH", path)
        .env("POINTSMAN_ADMIN", admin)
        .env("NO_COLOR", "1")
        .current_dir(dir)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(WAIT_MAX, run).await.expect("in time").expect("bash starts")
}

async fn run_script(script: &str, dir: &std::path::Path, pointsman: &Pointsman) -> String {
    let output = shell(script, dir, &pointsman.admin_url()).await;
    assert!(output.status.success(), "{script}\n{}\n{}", output_text(&output), pointsman.log());
    output_text(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_the_readme_work_in_order() {
    let readme = document("README.md");
    let shop = Shop::default();
    let serving = shop.clone();
    let server = Server::start(LOCAL, move |call| serving.clone().answer(call)).await.expect("a port");
    let flags = FlagsDir::empty();
    let home = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(flags.path(), home.path().join("flags")).expect("a link");
    let mut files = readme.blocks("yaml").into_iter();
    let mut write = |count: usize| {
        for block in files.by_ref().take(count) {
            let name = shown_file(block).expect("a whole file");
            let block =
                block.replace("http://127.0.0.1:9000", &server.url()).replace("http://127.0.0.1:9102", &server.url());
            flags.write(name, &block);
        }
    };

    // In front of the service: two files and `check`. The test itself starts `serve`.
    write(2);
    let log = home.path().join("log");
    let store = format!("sqlite:{}", home.path().join("pointsman.db").display());
    let start = Start { flags: flags.path().to_owned(), store, log, env: Vec::new() };
    let mut pointsman = Pointsman::start(&start).await;
    let addresses = [("http://127.0.0.1:8080", pointsman.url()), ("http://127.0.0.1:8081", pointsman.admin_url())];
    let printed = run_script(&script(&readme, "pointsman check", &addresses), home.path(), &pointsman).await;
    assert!(printed.contains("(1 route, "), "{printed}");

    // The workflow, and its route.
    write(2);
    until("the route's workflow", || async {
        let route = pointsman.get("/api/v2/routes/orders.create").await;
        (route["row"]["workflow"] == "create-order").then_some(())
    })
    .await;
    let shadow = script(&readme, "flip orders.create shadow", &addresses);
    let printed = run_script(&shadow, home.path(), &pointsman).await;
    assert!(printed.contains("orders.create off -> shadow"), "{printed}");
    // And what legacy refuses.
    let order = shadow.lines().skip_while(|line| !line.starts_with("for ")).take(4).collect::<Vec<_>>().join("\n");
    let refused = |name: &str, from: &str, to: &str| {
        let order = order.replace("curl -sf", "curl -s").replace("seq 25", "seq 2").replace("order-$n", name);
        assert!(order.contains(from), "{order}");
        order.replace(from, to)
    };
    let declined = refused("declined-$n", r#""qty": 2"#, r#""qty": 1000"#);
    assert!(run_script(&declined, home.path(), &pointsman).await.contains("card declined"));
    let without_items = refused("empty-$n", r#"{"items": [{"sku": "tea", "qty": 2}]}"#, "{}");
    assert!(run_script(&without_items, home.path(), &pointsman).await.contains("no items"));
    wait_until_compared(&pointsman).await;
    let evidence = run_script("pointsman evidence orders.create", home.path(), &pointsman).await;
    assert!(evidence.contains("the gate to dark is open"), "{evidence}");
    let shown = pointsman.get("/api/v2/routes/orders.create/evidence").await;
    let refusals = &shown["evidence"]["strata"]["POST 4xx"];
    assert_eq!((&refusals["compared"], &refusals["mismatched"]), (&json!(4), &json!(0)), "{shown}");
    assert_eq!(shop.charges.load(Ordering::SeqCst), 0, "a rehearsed step sends nothing");

    let printed = run_script(&script(&readme, "flip orders.create dark", &addresses), home.path(), &pointsman).await;
    assert!(printed.contains("shadow -> dark"), "{printed}");

    // Up to `live` in the same way: the engine answers, and its charge is real.
    let orders: String =
        shadow.lines().skip_while(|line| !line.starts_with("for ")).take(4).collect::<Vec<_>>().join("\n");
    run_script(&orders.replace("order-$n", "dark-$n"), home.path(), &pointsman).await;
    wait_until_compared(&pointsman).await;
    let refused = shell("pointsman flip orders.create live", home.path(), &pointsman.admin_url()).await;
    let why = output_text(&refused);
    let missing: Vec<_> = why.lines().filter(|line| line.trim_start().starts_with("- ")).collect();
    assert!(missing.len() == 1 && missing[0].contains("retry keys are recorded since"), "{why}");
    run_script(&script(&readme, "flip orders.create live", &addresses), home.path(), &pointsman).await;
    let before = shop.orders.load(Ordering::SeqCst);
    let printed =
        run_script(&orders.replace("order-$n", "live-$n").replace("seq 25", "seq 1"), home.path(), &pointsman).await;
    assert!(printed.contains("pay_1"), "{printed}");
    assert_eq!((shop.orders.load(Ordering::SeqCst), shop.charges.load(Ordering::SeqCst)), (before, 1));

    let printed = run_script(&script(&readme, "flip orders.create off", &addresses), home.path(), &pointsman).await;
    assert!(printed.contains("live -> off") && printed.contains("the engine owns 1 instance"), "{printed}");
    assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());
}

/// Waits until everything that was offered for comparison has been compared.
async fn wait_until_compared(pointsman: &Pointsman) {
    pointsman
        .until_metric("all comparisons", |metrics| {
            metrics.sum("pointsman_shadow_queue_depth", &[]) + metrics.sum("pointsman_shadow_in_flight", &[]) == 0.0
                && metrics.unbalanced().is_empty()
        })
        .await;
}
