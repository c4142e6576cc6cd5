//! A renamed route with `was:` keeps its instances, the arms of its retries, its evidence and flips, and what keeps its
//! gate shut.

use http::{Method, StatusCode};
use pointsman::demo::http::Reply;
use serde_json::{Value, json};

use crate::legacy_keys::wait_until_unnoted_ids_are_written;
use crate::support::seed::report_violations;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, id, some_order};
use crate::support::until;

const ORDERS: &str = "routes/orders.yaml";

/// The ids of the family's routes: creator, reader, canceller.
type Names = [&'static str; 3];

const FIRST: Names = ["orders.create", "orders.get", "orders.cancel"];
const SECOND: Names = ["orders.make", "orders.read", "orders.undo"];
const THIRD: Names = ["sales.create", "sales.read", "sales.undo"];

/// The family with these ids, and those that it had before, the newest first.
fn family(text: &str, names: Names, was: &[Names]) -> String {
    let mut text = text.replace("follows: orders.create", &format!("follows: {}", names[0]));
    for (n, name) in names.iter().enumerate() {
        let was: Vec<&str> = was.iter().map(|names| names[n]).collect();
        let was = if was.is_empty() { String::new() } else { format!("\n    was: [{}]", was.join(", ")) };
        text = text.replace(&format!("- id: {}\n", FIRST[n]), &format!("- id: {name}{was}\n"));
    }
    text
}

/// Changes the files, and waits until they are in force.
async fn reload(system: &TestSystem, text: &str) {
    let generation = || async { system.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    system.flags.write(ORDERS, text);
    // Another set may be swapped in before that of these files.
    let ids: Vec<&str> =
        text.lines().filter_map(|line| line.trim_start().strip_prefix("- id: ")?.split_whitespace().next()).collect();
    assert!(!ids.is_empty());
    until("the files to be in force", || async {
        let known = async |id: &&str| {
            let path = format!("/api/v2/routes/{id}");
            system.pointsman.api(Method::GET, &path, Value::Null).await.status == StatusCode::OK
        };
        let mut all = generation().await > before;
        for id in &ids {
            all = all && known(id).await;
        }
        all.then_some(())
    })
    .await;
}

/// Moves the family to a state by hand, a rung at a time, followers first on the way up.
async fn move_to(system: &TestSystem, names: Names, to: &str) {
    const RUNGS: [&str; 5] = ["off", "shadow", "dark", "live", "only"];
    let rank = |state: &str| RUNGS.iter().position(|rung| *rung == state).expect("a state");
    for rung in &RUNGS[..=rank(to)] {
        for route in [names[1], names[2], names[0]] {
            let row = system.pointsman.get(&format!("/api/v2/routes/{route}")).await;
            if rank(row["row"]["requested"].as_str().expect("a state")) < rank(rung) {
                system.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
            }
        }
    }
    for route in names {
        system.flip(route, to, &["--reason", "the test steps back"]).await.expect("down is open");
    }
}

async fn send_keyed(system: &TestSystem, key: &str, number: u64) -> Reply {
    let headers = [("idempotency-key", key)];
    let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()))
}

fn charges(system: &TestSystem) -> u64 {
    system.world.ledger().balance().total("charge")
}

/// What the routes have before a rename.
struct Before {
    /// An order that legacy made under a retry key, and the key.
    by_legacy: (Value, &'static str),
    /// An order that the engine made under a retry key, and the key.
    by_engine: (Value, &'static str),
    /// An order that legacy made and that has a twin in the engine.
    twin: Value,
    pairs: u64,
    flips: usize,
}

async fn pairs(system: &TestSystem, route: &str) -> u64 {
    let evidence = system.pointsman.get(&format!("/api/v2/routes/{route}/evidence")).await;
    evidence["evidence"]["dark_pairs"].as_u64().expect("a count")
}

async fn flips(system: &TestSystem, route: &str) -> usize {
    let flips = system.pointsman.get(&format!("/api/v2/flips?route={route}&limit=1000")).await;
    flips.as_array().expect("a list").len()
}

impl Before {
    async fn create(system: &TestSystem) -> Self {
        move_to(system, FIRST, "dark").await;
        let twin = system.order().await;
        let by_legacy = send_keyed(system, "legacy-took-it", 1).await.json();
        assert!(by_legacy["id"].is_number(), "{by_legacy}");
        system.wait_for_shadow_idle().await;
        move_to(system, FIRST, "live").await;
        let by_engine = send_keyed(system, "the-engine-took-it", 2).await.json();
        assert!(by_engine["id"].is_string(), "{by_engine}");
        move_to(system, FIRST, "off").await;
        system.wait_for_runs_to_end().await;
        let (pairs, flips) = (pairs(system, FIRST[0]).await, flips(system, FIRST[0]).await);
        assert!(pairs >= 2 && flips >= 4, "{pairs} {flips}");
        let (by_legacy, by_engine) = ((by_legacy, "legacy-took-it"), (by_engine, "the-engine-took-it"));
        Self { by_legacy, by_engine, twin, pairs, flips }
    }

    /// Checks that all of this is found under these ids, and follows up one more order of the engine.
    async fn check_found(&mut self, system: &TestSystem, names: Names, engine_owns: u64) {
        let [creator, reader, _] = names;
        let order = self.by_engine.0.clone();
        assert_eq!(
            system.read(&order).await["id"],
            order["id"],
            "{creator}: the engine answers, as legacy does not know the order"
        );
        let before = charges(system);
        for (order, key, number) in [(&self.by_legacy.0, self.by_legacy.1, 1), (&self.by_engine.0, self.by_engine.1, 2)]
        {
            for state in ["off", "live"] {
                move_to(system, names, state).await;
                let again = send_keyed(system, key, number).await;
                let (status, again) = (again.status, again.json());
                assert_eq!((status, &again["id"]), (StatusCode::CREATED, &order["id"]), "{creator}, {state}, {key}");
            }
        }
        assert_eq!(charges(system), before, "nothing is done again");

        assert_eq!(pairs(system, creator).await, self.pairs, "{creator}");
        assert!(flips(system, creator).await > self.flips, "{creator}");
        let detail = system.pointsman.get(&format!("/api/v2/routes/{creator}")).await;
        assert_eq!(detail["pins"]["engine"], engine_owns, "{detail}");
        let known = format!("the engine owns {engine_owns} instance");
        assert!(detail["horizon"].to_string().contains(&known), "{detail}");
        let owned = |metrics: &crate::support::Metrics, route| {
            metrics.sum("pointsman_pins", &[("route", route), ("arm", "engine")])
        };
        let metrics = system.pointsman.metrics().await;
        let all: f64 = [FIRST, SECOND, THIRD].iter().map(|names| owned(&metrics, names[0])).sum();
        assert_eq!((owned(&metrics, creator), all), (engine_owns as f64, engine_owns as f64));

        // The twin of legacy's order is found.
        move_to(system, names, "dark").await;
        let compared = |metrics: &crate::support::Metrics| {
            let of = |outcome| metrics.sum("pointsman_comparisons_total", &[("route", reader), ("outcome", outcome)]);
            of("matched") + of("ignored")
        };
        let before = compared(&system.pointsman.metrics().await);
        system.read(&self.twin).await;
        system.pointsman.until_metric("the pair", |metrics| compared(metrics) > before).await;

        move_to(system, names, "live").await;
        let more = system.order().await;
        assert!(more["id"].is_string(), "{more}");
        move_to(system, names, "off").await;
        assert_eq!(system.read(&more).await["id"], more["id"]);
        self.pairs = pairs(system, creator).await;
        self.flips = flips(system, creator).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_route_keeps_the_records_of_its_earlier_ids() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    let mut before = Before::create(&system).await;
    system.record_order(before.by_engine.0.clone());

    // Without `was:` no route would follow up the engine's instances: the files are refused.
    system.flags.write(ORDERS, &family(&good, SECOND, &[]));
    let error = until("the refusal", || async {
        system.pointsman.get("/api/v2/status").await["flags"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    let owned = "the engine owns instances of `orders.create` (1)";
    assert!(error.contains(owned) && error.contains("`was: [orders.get]`"), "{error}");

    reload(&system, &family(&good, SECOND, &[FIRST])).await;
    before.check_found(&system, SECOND, 1).await;
    system.kill().await;
    system.restart().await;
    before.check_found(&system, SECOND, 2).await;

    // A second rename, over a restart.
    system.kill().await;
    system.flags.write(ORDERS, &family(&good, THIRD, &[SECOND, FIRST]));
    system.restart().await;
    before.check_found(&system, THIRD, 3).await;
    // Back to the first ids: the oldest id of the route is another one now.
    reload(&system, &family(&good, FIRST, &[THIRD, SECOND])).await;
    before.check_found(&system, FIRST, 4).await;
    system.cancel(&before.by_engine.0).await;
    assert_eq!(id(&system.read(&before.by_engine.0).await), id(&before.by_engine.0));
    system.finish().await;
    report_violations("renames::a_renamed_route_keeps_the_records_of_its_earlier_ids", None, "3 renames, 2 kills", &[]);
}

/// Legacy served a request whose key could not be recorded: the gate to `live` stays shut under the new id, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_route_stays_shut_after_a_key_was_not_recorded() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    move_to(&system, FIRST, "dark").await;
    let refused_writes = Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    assert_eq!(send_keyed(&system, "unnoted", 1).await.status, StatusCode::CREATED);
    refused_writes.end().await;
    let check_shut = async |system: &TestSystem, names: Names| {
        for follower in &names[1..] {
            system.flip(follower, "live", &["--force", "--reason", "followers go first"]).await.expect("it is forced");
        }
        let to = format!("/api/v2/routes/{}/flip", names[0]);
        let reply = system.pointsman.api(Method::POST, &to, json!({ "to": "live" })).await;
        let why = reply.json().to_string();
        assert!(reply.status == StatusCode::CONFLICT && why.contains("could not be noted"), "{names:?}: {why}");
    };
    check_shut(&system, FIRST).await;
    reload(&system, &family(&good, SECOND, &[FIRST])).await;
    check_shut(&system, SECOND).await;
    wait_until_unnoted_ids_are_written(&system, 1).await;
    system.kill().await;
    system.flags.write(ORDERS, &family(&good, THIRD, &[SECOND, FIRST]));
    system.restart().await;
    check_shut(&system, THIRD).await;
    system.finish().await;
    report_violations(
        "renames::a_renamed_route_stays_shut_after_a_key_was_not_recorded",
        None,
        "1 order, 2 renames",
        &[],
    );
}

/// Legacy served a request under the new id, and its key could not be recorded. Then the files rename the route back.
/// Only the first of the processes started after that knows the new id; the gate has to stay shut in all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_renamed_back_stays_shut_after_a_key_was_not_recorded() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    reload(&system, &family(&good, SECOND, &[FIRST])).await;
    move_to(&system, SECOND, "dark").await;
    let refused_writes = Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    assert_eq!(send_keyed(&system, "unnoted", 1).await.status, StatusCode::CREATED);
    refused_writes.end().await;
    wait_until_unnoted_ids_are_written(&system, 2).await;
    for follower in &SECOND[1..] {
        system.flip(follower, "live", &["--force", "--reason", "followers go first"]).await.expect("it is forced");
    }
    system.flags.write(ORDERS, &good);
    for start in 1..=3 {
        system.kill().await;
        system.restart().await;
        let to = "/api/v2/routes/orders.create/flip";
        let reply = system.pointsman.api(Method::POST, to, json!({ "to": "live" })).await;
        let why = reply.json().to_string();
        assert!(reply.status == StatusCode::CONFLICT && why.contains("could not be noted"), "start {start}: {why}");
    }
    system.finish().await;
    report_violations(
        "renames::a_route_that_is_renamed_back_stays_shut_after_a_key_was_not_recorded",
        None,
        "1 order, 1 rename and back, 3 kills",
        &[],
    );
}

/// The files say `state: live` with `force:`, and a person flipped the family to `off`. Legacy serves an order whose
/// key cannot be noted. Then the family is renamed, and a later edit no longer lists the ids under which the flip and
/// the unnoted key are stored: the retry must not be performed by the engine.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_no_longer_listed_takes_no_flip_and_no_hold_with_it() {
    let live = |text: String| text.replacen("    state: off\n", "    state: live\n    force: { reason: a trial }\n", 3);
    let mut system = TestSystem::with(|flags| flags.edit(ORDERS, live)).await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    for route in FIRST {
        system.flip(route, "off", &["--reason", "not yet", "--acknowledge"]).await.expect("down is open");
    }
    let before = charges(&system);
    let refused_writes = Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    let by_legacy = send_keyed(&system, "unnoted", 1).await.json();
    refused_writes.end().await;
    assert!(by_legacy["id"].is_number(), "{by_legacy}");
    wait_until_unnoted_ids_are_written(&system, 1).await;
    for (names, was, restarts) in [(SECOND, &[FIRST][..], false), (SECOND, &[], false), (THIRD, &[SECOND], true)] {
        if restarts {
            system.kill().await;
            system.flags.write(ORDERS, &family(&good, names, was));
            system.restart().await;
        } else {
            reload(&system, &family(&good, names, was)).await;
        }
        for route in names {
            let shown = system.pointsman.get(&format!("/api/v2/routes/{route}")).await;
            assert_eq!(shown["row"]["effective"]["state"], "off", "{names:?}, {was:?}: {shown}");
        }
        let again = send_keyed(&system, "unnoted", 1).await.json();
        assert_eq!(again["id"], by_legacy["id"], "{names:?}, {was:?}: {again}");
    }
    assert_eq!(charges(&system), before + 1, "once");
    for follower in &THIRD[1..] {
        move_one_to_live(&system, follower).await;
    }
    for to in ["shadow", "dark"] {
        system.flip(THIRD[0], to, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
    }
    let to = format!("/api/v2/routes/{}/flip", THIRD[0]);
    let reply = system.pointsman.api(Method::POST, &to, json!({ "to": "live" })).await;
    let why = reply.json().to_string();
    assert!(reply.status == StatusCode::CONFLICT && why.contains("could not be noted"), "{why}");
    system.finish().await;
    report_violations(
        "renames::an_id_that_is_no_longer_listed_takes_no_flip_and_no_hold_with_it",
        None,
        "1 order, 3 edits, 1 kill",
        &[],
    );
}

async fn move_one_to_live(system: &TestSystem, route: &str) {
    for to in ["shadow", "dark", "live"] {
        system.flip(route, to, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
    }
}
