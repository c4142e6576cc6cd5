//! Calls by legacy that are in no compared pair hold the gate to `live`: those that come after `egress.window`, and
//! those of no known request, also if no request is under way when they are made.

use http::Method;
use serde_json::json;

use crate::effects::Shop;
use crate::support::process::output_text;
use crate::support::raw_connection::RawConnection;
use crate::support::until;

/// What the refusals say.
const LATE: &str = "after `egress.window` was over";
const OF_NOBODY: &str = "belong to no known request and may be for requests of this route";
const TOO_FEW: &str = "more compared pair";

/// A shop whose route is in `dark` and has all pairs that the gate to `live` asks for.
async fn shop_in_dark() -> Shop {
    let shop = Shop::start("").await;
    for (rung, first) in [("shadow", 0), ("dark", 20)] {
        for number in first..first + 20 {
            shop.order("right", number).await;
        }
        until("the pairs", async || (shop.evidence().await[format!("{rung}_pairs")] == 20).then_some(())).await;
        if rung == "shadow" {
            let flipped = shop.pointsman.cli(&["flip", "orders", "dark"]).await;
            assert!(flipped.status.success(), "{}", output_text(&flipped));
        }
    }
    shop
}

/// Waits until these calls are part of the evidence, by the member of the API.
async fn wait_for_calls(shop: &Shop, member: &str, to: &[&str]) {
    until(&format!("{member}: {to:?}"), async || {
        let view = shop.pointsman.get("/api/v2/routes/orders/egress").await;
        let listed = view[member].as_array().expect("a list");
        to.iter().all(|to| listed.contains(&json!(to))).then_some(())
    })
    .await;
}

/// Tries to flip to `live`, which is refused.
async fn refusal(shop: &Shop) -> String {
    let refused = shop.pointsman.cli(&["flip", "orders", "live"]).await;
    assert!(!refused.status.success(), "{}", output_text(&refused));
    output_text(&refused)
}

/// Legacy gives points some time after its answer, and the workflow knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn late_calls_hold_the_gate_over_restarts_and_changes_of_the_window_until_the_rules_name_them() {
    let mut shop = shop_in_dark().await;
    let headers = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let url = format!("{}/orders", shop.pointsman.url());
    let body = json!({ "ref": "late", "kind": "right", "amount": 12 });
    shop.client.json(Method::POST, &url, &headers, &body).await.expect("a reply");
    until("the pair", async || (shop.evidence().await["dark_pairs"] == 21).then_some(())).await;
    let points = format!("http://{}/bank/points", shop.pointsman.egress.expect("it is listening"));
    shop.client.json(Method::POST, &points, &headers, &json!({})).await.expect("the bank's reply");
    wait_for_calls(&shop, "late_to", &["POST bank/points"]).await;
    let refused = refusal(&shop).await;
    assert!(
        refused.contains(LATE) && refused.contains("(`POST bank/points`)") && !refused.contains(TOO_FEW),
        "{refused}"
    );

    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
    shop.start_again().await;
    assert!(refusal(&shop).await.contains(LATE));
    shop.pointsman.kill().await;
    shop.start_again().await;
    let refused = refusal(&shop).await;
    assert!(refused.contains(LATE) && !refused.contains(TOO_FEW), "{refused}");

    // Under another window other calls belong to a pair, so the pairs are counted from zero. Those from before go on
    // with the calls that they lack.
    let set_window = async |from: &str, to: &str| {
        shop.flags.edit("pointsman.yaml", |text| text.replace(from, to));
        let reloaded = shop.cli(&["reload"]).await;
        assert!(!reloaded.contains("error"), "{reloaded}");
        refusal(&shop).await
    };
    let wider = set_window("window: 300ms", "window: 301ms").await;
    assert!(wider.contains(TOO_FEW) && !wider.contains(LATE), "{wider}");
    let before = set_window("window: 301ms", "window: 300ms").await;
    assert!(before.contains(LATE) && !before.contains(TOO_FEW), "{before}");

    shop.reload_with(", compare: { ignore_calls: [POST bank/points] }").await;
    let flipped = shop.pointsman.cli(&["flip", "orders", "live"]).await;
    assert!(flipped.status.success(), "{}", output_text(&flipped));
}

/// A kill before the evidence was written loses the pairs rather than the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_right_after_a_call_opens_no_gate() {
    let mut shop = shop_in_dark().await;
    let mails = format!("http://{}/bank/mails/17", shop.pointsman.egress.expect("it is listening"));
    shop.client.json(Method::POST, &mails, &[], &json!({})).await.expect("the bank's reply");
    wait_for_calls(&shop, "of_no_request_to", &["POST bank/mails/*"]).await;
    shop.pointsman.kill().await;
    shop.start_again().await;
    let refused = refusal(&shop).await;
    assert!(refused.contains(OF_NOBODY) || refused.contains(TOO_FEW), "{refused}");
}

/// Legacy sends its mails from a queue, without a trace, when all pairs have long been compared.
#[tokio::test(flavor = "multi_thread")]
async fn calls_and_tunnels_of_nobody_hold_the_gate_although_no_pair_was_under_way() {
    let mut shop = shop_in_dark().await;
    let egress = shop.pointsman.egress.expect("it is listening");
    for number in 0..3 {
        let mails = format!("http://{egress}/bank/mails/{number}");
        shop.client.json(Method::POST, &mails, &[], &json!({})).await.expect("the bank's reply");
    }
    let bank = shop.bank.address();
    let connect = format!("CONNECT {bank} HTTP/1.1\r\nhost: {bank}\r\n\r\n");
    let opened = RawConnection::connect(egress).await.send(&connect).await.read_until("\r\n\r\n").await;
    assert!(opened.starts_with("HTTP/1.1 200"), "{opened}");
    wait_for_calls(&shop, "of_no_request_to", &["POST bank/mails/*", "CONNECT bank"]).await;
    let refused = refusal(&shop).await;
    let named = refused.contains("`POST bank/mails/*`") && refused.contains("`CONNECT bank`");
    assert!(refused.contains(OF_NOBODY) && named && !refused.contains(TOO_FEW), "{refused}");
    assert!(shop.cli(&["egress", "orders"]).await.contains("calls or tunnels of no known request went to"));

    shop.reload_with(", compare: { ignore_calls: [POST bank/mails/*] }").await;
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
    shop.start_again().await;
    let refused = refusal(&shop).await;
    assert!(refused.contains("(`CONNECT bank`)"), "the rules do not name the tunnel: {refused}");
    shop.reload_with(", compare: { ignore_calls: [POST bank/mails/*, CONNECT bank] }").await;
    let flipped = shop.pointsman.cli(&["flip", "orders", "live"]).await;
    assert!(flipped.status.success(), "{}", output_text(&flipped));
}

/// The bank takes it for `/refunds`.
#[tokio::test(flavor = "multi_thread")]
async fn no_rule_names_a_call_to_a_path_with_dot_segments() {
    let shop = shop_in_dark().await;
    shop.reload_with(", compare: { ignore_calls: [bank] }").await;
    let egress = shop.pointsman.egress.expect("it is listening");
    let call = "POST /bank/mails/%2e%2e/refunds HTTP/1.1\r\nhost: egress\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(RawConnection::connect(egress).await.send(call).await.reply().await.status, 200);
    wait_for_calls(&shop, "of_no_request_to", &["POST bank/mails/../refunds"]).await;
    let refused = refusal(&shop).await;
    assert!(refused.contains("(`POST bank/mails/../refunds`)"), "{refused}");
}
