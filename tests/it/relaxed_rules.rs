//! Rules that only allow more than those before, from outside: the evidence goes on, and what differed is judged again
//! by the samples that are kept; also over kill -9.

use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_line, output_text};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const WORKFLOW: &str = "workflow: create\nsteps:\n  a: { set: 1 }\nrespond: { status: 200, body: { note: engine, total: \
                        '${request.body.total}' } }\n";

/// A route whose engine answers with another note, and with the total of the request; legacy's is 7.
struct Orders {
    _legacy: Origin,
    flags: FlagsDir,
    pointsman: Pointsman,
    start: Start,
    _dir: TempDir,
}

impl Orders {
    async fn start() -> Self {
        Self::start_with("{}").await
    }

    async fn start_with(limits: &str) -> Self {
        let legacy = Origin::start(OriginReply::Json(r#"{"note":"legacy","total":7}"#)).await;
        let flags = FlagsDir::empty();
        let services = format!("services: {{ shop: {} }}\ndefault_legacy: shop\n", legacy.url());
        flags.write("pointsman.yaml", &format!("{services}limits: {limits}\n"));
        flags.write("workflows/create.yaml", WORKFLOW);
        ignore(&flags, "");
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { _legacy: legacy, flags, pointsman, start, _dir: dir }
    }

    async fn order(&self, total: u64) {
        let url = format!("{}/orders", self.pointsman.url());
        let client = Client::new(WAIT_MAX);
        let reply = client.json(Method::POST, &url, &[], &json!({ "total": total })).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::OK);
    }

    /// Waits until so many pairs are equal by a rule, and so many differ.
    async fn until_counts(&self, ignored: u64, mismatched: u64) {
        until("the counts", || async {
            let evidence = self.pointsman.get("/api/v2/routes/orders/evidence").await;
            (evidence["evidence"]["ignored"] == ignored && evidence["evidence"]["mismatched"] == mismatched)
                .then_some(())
        })
        .await;
    }

    /// The paths of the differences of each group of samples.
    async fn diffs(&self) -> Vec<Vec<String>> {
        let diffs = self.pointsman.get("/api/v2/routes/orders/diffs").await;
        let paths = |group: &Value| {
            let differences = group["differences"].as_array().expect("differences");
            differences.iter().map(|difference| difference["path"].as_str().expect("a path").to_owned()).collect()
        };
        let mut groups: Vec<Vec<String>> = diffs["groups"].as_array().expect("groups").iter().map(paths).collect();
        groups.sort();
        groups
    }
}

fn ignore(flags: &FlagsDir, paths: &str) {
    compare(flags, &format!("ignore: [{paths}]"));
}

fn compare(flags: &FlagsDir, rules: &str) {
    flags.write(
        "routes/orders.yaml",
        &format!(
            "routes:\n  - {{ id: orders, match: {{ method: POST, path: /orders }}, legacy: shop, workflow: create, \
             state: shadow, compare: {{ {rules} }} }}\n"
        ),
    );
}

/// The places are the same for all pairs of a group, the values are not: what a tolerance does to pairs of which no
/// sample is kept is not known.
#[tokio::test(flavor = "multi_thread")]
async fn an_added_tolerance_says_nothing_of_pairs_without_a_sample() {
    let orders = Orders::start().await;
    ignore(&orders.flags, "$.note");
    // Not by the watcher, after the first pair.
    orders.pointsman.cli(&["reload"]).await;
    // A total is far off, before as many as there are samples of are near.
    for (pairs, total) in (1..).zip([700, 8, 8, 8, 8]) {
        orders.order(total).await;
        orders.until_counts(0, pairs).await;
    }
    until("the samples", || async { (orders.diffs().await == [["$.total"]]).then_some(()) }).await;
    compare(&orders.flags, "ignore: [$.note], tolerance: { $.total: 1 }");
    orders.until_counts(0, 0).await;
    orders.order(8).await;
    orders.until_counts(1, 0).await;
    let shown = output_text(&orders.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains("starts from zero"), "{shown}");
}

/// Of these pairs one difference is listed, the same one. Whether more differs in those without a sample is not known.
#[tokio::test(flavor = "multi_thread")]
async fn an_added_ignore_says_nothing_of_pairs_without_a_sample_whose_list_of_differences_was_cut() {
    for totals in [[7, 7, 7, 8, 8, 8, 8, 8], [8, 8, 8, 8, 8, 7, 7, 7]] {
        let orders = Orders::start_with("{ compare_differences_max: 1 }").await;
        for (pairs, total) in (1..).zip(totals) {
            orders.order(total).await;
            orders.until_counts(0, pairs).await;
        }
        until("the samples", || async { (orders.diffs().await == [["$.note"], ["$.note"]]).then_some(()) }).await;
        ignore(&orders.flags, "$.note");
        orders.until_counts(0, 0).await;
        let shown = output_text(&orders.pointsman.cli(&["record", "show", "orders"]).await);
        assert!(shown.contains("starts from zero"), "{shown}");
    }
}

/// A pair that the new rules compare by nothing is not equal under them: had it come later, it would be skipped.
#[tokio::test(flavor = "multi_thread")]
async fn rules_that_compare_nothing_of_a_kept_pair_do_not_make_it_equal() {
    let orders = Orders::start().await;
    let rules = "status: class, headers: [x-none]";
    compare(&orders.flags, &format!("{rules}, ignore: [$.note]"));
    // Not by the watcher, after the first pair.
    orders.pointsman.cli(&["reload"]).await;
    for pairs in 1..=2 {
        orders.order(8).await;
        orders.until_counts(0, pairs).await;
    }
    until("the samples", || async { (orders.diffs().await == [["$.total"]]).then_some(()) }).await;
    compare(&orders.flags, &format!("{rules}, ignore: [$.note, $]"));
    orders.until_counts(0, 0).await;
    let shown = output_text(&orders.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains("starts from zero"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_ignore_judges_the_kept_samples_again() {
    let mut orders = Orders::start().await;
    for total in [7, 8, 7, 8, 7] {
        orders.order(total).await;
    }
    orders.until_counts(0, 5).await;
    until("the samples", || async { (orders.diffs().await.len() == 2).then_some(()) }).await;

    ignore(&orders.flags, "$.note");
    orders.until_counts(3, 2).await;
    assert_eq!(orders.diffs().await, [["$.total"]]);
    let shown = output_text(&orders.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains("3 are equal under the new rules, 2 differ"), "{shown}");

    orders.pointsman.kill().await;
    orders.pointsman = Pointsman::start(&orders.start).await;
    orders.order(8).await;
    orders.until_counts(3, 3).await;

    // Killed before the samples may have been judged: they are judged after the start. What was counted is stored by
    // then: a look at the samples writes it.
    orders.diffs().await;
    ignore(&orders.flags, "$.note, $.total");
    orders.pointsman.kill().await;
    orders.pointsman = Pointsman::start(&orders.start).await;
    orders.until_counts(6, 0).await;
    assert!(orders.diffs().await.is_empty());
    let evidence = orders.pointsman.get("/api/v2/routes/orders/evidence").await;
    assert_eq!(evidence["evidence"]["shadow_pairs"], 6);
    let gate = output_line(&orders.pointsman.cli(&["evidence", "orders"]).await);
    assert!(gate.contains("the rules or other settings were changed after a difference 2 times"), "{gate}");

    // Taken back: the evidence of then goes on.
    ignore(&orders.flags, "$.note");
    orders.until_counts(3, 3).await;
}
