use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::service_fn;

use super::*;
use crate::compare::{CompareWorld, Observation, RulesDraft};
use crate::evidence::{RouteEvidence, testing};
use crate::exchange::{ArmAnswer, Problem, RequestCopy, RunReport, Settle, Source};
use crate::flag::{FlagSet, Freeze, Instance, Match, Route, RouteFlag, Service, Shares, State};
use crate::names::RunId;
use crate::problem::{Problems, Site};

const PATIENCE: Duration = Duration::from_secs(20);

fn id() -> RouteId {
    RouteId::new("orders.create")
}

fn flags() -> (Arc<FlagSet>, Arc<RouteFlag>) {
    let shop = Arc::new(Service {
        name: "shop".into(),
        urls: vec![http::Uri::from_static("http://127.0.0.1:9")],
        keyed: false,
        connect: None,
        first_byte: None,
        calls_max: None,
    });
    let route = Route {
        id: id(),
        matches: Match { method: Method::POST, path: "/orders".into(), host: None },
        legacy: shop.clone(),
        workflow: Some("create-order".into()),
        declared: State::Shadow,
        force: None,
        shares: Shares::default(),
        key: None,
        cohorts: Vec::new(),
        instance: Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap() }),
        retry_key: None,
        caller: Vec::new(),
        deadline: None,
        replay_safe: false,
        strict_paths: false,
        guard: None,
        invariants: Vec::new(),
    };
    let none = BTreeMap::new();
    let set = FlagSet::new(1, vec![Arc::new(route)], &none, shop, BTreeMap::new(), Freeze::No, [7; 32]);
    let flag = set.route(&id()).unwrap().clone();
    (Arc::new(set), flag)
}

fn headers() -> HeaderMap {
    [(http::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect()
}

fn answered(mode: Mode, reply: &Value, padding: usize) -> Answered {
    let (flags, flag) = flags();
    let request = json!({"items": [1], "password": "hunter2", "padding": "x".repeat(padding)});
    Answered {
        flags,
        flag,
        mode,
        request: Arc::new(RequestCopy {
            method: Method::POST,
            path: "/orders".into(),
            query: Some("dry=1&token=hunter2".into()),
            params: Vec::new(),
            headers: headers(),
            body: Bytes::from(request.to_string()),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            received: SystemTime::UNIX_EPOCH,
        }),
        legacy: Arc::new(Observation::new(
            StatusCode::CREATED,
            headers(),
            Body::Whole(reply.to_string().into()),
            Duration::from_millis(1),
            Vec::new(),
        )),
        instance: None,
        retry_key: None,
    }
}

fn answer(reply: &Value, report: RunReport) -> ArmReply {
    let body = Bytes::from(reply.to_string());
    ArmReply::Answer(ArmAnswer { status: StatusCode::CREATED, headers: headers(), body, report })
}

fn engine<F, A>(ask: F) -> EngineArm
where
    F: Fn(ArmRequest) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ArmReply> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(move |request| {
        let reply = ask(request);
        async move { Ok(reply.await) }
    }))
}

struct House {
    shadow: Arc<Shadow>,
    evidence: Arc<Evidence>,
    store: Arc<crate::evidence::testing::Memory>,
}

impl House {
    async fn new(engine: EngineArm, limits: Limits, rules: Value) -> Self {
        let (evidence, store) = testing::evidence().await;
        let draft: RulesDraft = serde_json::from_value(rules).unwrap();
        let mut problems = Problems::default();
        let rules = Rules::check(&draft, &Site::file("r"), &CompareWorld::default(), &mut problems).unwrap();
        let rules = Arc::new(ArcSwap::from_pointee(BTreeMap::from([(id(), Arc::new(rules))])));
        let parts = ShadowParts { engine, evidence: evidence.clone(), rules, limits: Arc::new(limits) };
        Self { shadow: Shadow::start(parts).unwrap(), evidence, store }
    }
    fn offer(&self, answered: Answered) {
        self.shadow.offer(self.shadow.open(&id()), answered);
    }
    async fn settled(&self, count: u64) -> RouteEvidence {
        let all = async {
            while testing::sums(&self.evidence, &id()).0 < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("every ticket is settled in time");
        assert_eq!(testing::sums(&self.evidence, &id()), (count, count));
        self.evidence.of(&id())
    }
}

fn limits() -> Limits {
    Limits::default()
}

#[tokio::test]
async fn equal_replies_match_and_others_are_kept_redacted() {
    let reply = |request: ArmRequest| async move {
        assert!(request.creates.is_none() && !request.may_fall_back, "a rehearsal leaves nothing behind");
        let report = RunReport::default();
        answer(&json!({"id": 17, "total": 5, "card": "4111"}), report)
    };
    let house = House::new(engine(reply), limits(), json!({})).await;
    house.offer(answered(Mode::Rehearse, &json!({"id": 17, "total": 5.0, "card": "4111"}), 0));
    house.settled(1).await;
    house.offer(answered(Mode::Rehearse, &json!({"id": 17, "total": 6, "card": "4222"}), 0));
    let seen = house.settled(2).await;
    assert_eq!((seen.shadow_pairs, seen.matched, seen.mismatched), (2, 1, 1));
    let samples = testing::samples(&house.evidence, &house.store, &id()).await;
    assert_eq!(samples.len(), 1);
    let text = format!("{:?}", samples[0]);
    assert!(!text.contains("hunter2") && !text.contains("4111") && !text.contains("4222"), "{text}");
    assert!(samples[0].request.starts_with("POST /orders?dry=1&token=***\n"), "{text}");
    assert!(samples[0].legacy.starts_with("201\n{"), "{text}");
}

#[tokio::test]
async fn a_dark_run_has_a_twin_and_counts_as_dark() {
    let reply = |request: ArmRequest| async move {
        assert_eq!(request.creates.unwrap().0, id());
        let run = Some(RunId("0190f5d3-0000-7000-8000-000000000000".parse().unwrap()));
        answer(&json!({"id": 17}), RunReport { run, ..RunReport::default() })
    };
    let house = House::new(engine(reply), limits(), json!({})).await;
    house.offer(answered(Mode::Dark, &json!({"id": 17}), 0));
    let seen = house.settled(1).await;
    assert_eq!((seen.dark_pairs, seen.dark_with_twin, seen.dark_without_twin), (1, 1, 0));
}

#[tokio::test]
async fn whatever_the_engine_does_ends_in_one_outcome() {
    let turn = Arc::new(Mutex::new(0));
    let reply = move |_: ArmRequest| {
        let n = {
            let mut turn = turn.lock().unwrap();
            *turn += 1;
            *turn
        };
        async move {
            let problem = |status| Problem {
                status,
                kind: "k".into(),
                title: "t".into(),
                detail: "d".into(),
                source: Source::Workflow,
                run: None,
                retry_after_s: None,
                shared_step_begun: None,
            };
            let unresolved = Some((SkipReason::UnresolvedEffect, "charge".to_owned()));
            match n {
                1 => std::panic::resume_unwind(Box::new("on purpose")),
                2 => std::future::pending().await,
                3 => ArmReply::Refused(problem(503), RunReport::default()),
                4 => answer(&json!({}), RunReport { unresolved, ..RunReport::default() }),
                5 => ArmReply::Refused(problem(422), RunReport::default()),
                6 => ArmReply::Abandoned(crate::exchange::Abandoned { reason: "x", run: None }),
                _ => answer(&json!({"ok": true}), RunReport::default()),
            }
        }
    };
    let limits = Limits { shadow_run_ms: 100, ..limits() };
    let house = House::new(engine(reply), limits, json!({})).await;
    for n in 1..=7 {
        house.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
        house.settled(n).await;
    }
    let seen = house.evidence.of(&id());
    let failed = ["panic", "timeout", "unavailable", "abandoned"].map(|how| seen.failed.get(how).copied());
    assert_eq!(failed, [Some(1); 4], "{seen:?}");
    assert_eq!(seen.skipped.get("unresolved_effect"), Some(&1));
    assert_eq!((seen.matched, seen.mismatched), (1, 1), "a refusal of the workflow is what the caller would get");
}

#[tokio::test]
async fn an_assert_that_cannot_be_judged_is_a_mismatch_and_facts_are_there() {
    let reply = |_| async { answer(&json!({}), RunReport::default()) };
    for (source, matches) in
        [("${request.body.items == [1] && request.query.dry == '1'}", true), ("${request.body.absent == 1}", false)]
    {
        let house = House::new(engine(reply), limits(), json!({"assert": [source]})).await;
        house.offer(answered(Mode::Rehearse, &json!({}), 0));
        assert_eq!(house.settled(1).await.mismatched, u64::from(!matches), "{source}");
    }
}

/// An engine that answers only once the gate opens.
fn gated() -> (EngineArm, Arc<Notify>) {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let open = Arc::new(Notify::new());
    let (waits, opener) = (gate.clone(), open.clone());
    let arm = engine(move |_| {
        let gate = waits.clone();
        async move {
            let _open = gate.acquire().await;
            answer(&json!({"ok": true}), RunReport::default())
        }
    });
    tokio::spawn(async move {
        opener.notified().await;
        gate.add_permits(1 << 20);
    });
    (arm, open)
}

#[tokio::test]
async fn a_full_queue_skips_at_once_by_entries_and_by_bytes() {
    for (limits, padding) in [
        (Limits { shadow_queue_entries_max: 8, shadow_in_flight_max: 1, ..limits() }, 0),
        (Limits { shadow_queue_bytes_max: 100_000, shadow_in_flight_max: 1, ..limits() }, 8_000),
    ] {
        let (arm, open) = gated();
        let house = House::new(arm, limits, json!({})).await;
        let began = Instant::now();
        for _ in 0..200 {
            house.offer(answered(Mode::Dark, &json!({"ok": true}), padding));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "offering does not wait");
        assert!(house.shadow.load().queue_depth <= 9);
        if padding == 0 {
            assert!(!house.shadow.has_room());
        }
        open.notify_one();
        let seen = house.settled(200).await;
        let taken = seen.matched;
        assert!((8..=10).contains(&taken), "{taken}");
        assert_eq!(seen.skipped.get("queue_full"), Some(&(200 - taken)));
        assert_eq!(seen.dark_without_twin, 200, "no durable run was made");
        assert!(house.shadow.has_room());
        house.shadow.drain(PATIENCE).await;
        assert_eq!(house.shadow.load(), Load::default());
    }
}

#[tokio::test]
async fn draining_finishes_what_is_there_and_takes_nothing_more() {
    let (arm, open) = gated();
    let house = House::new(arm, limits(), json!({})).await;
    for _ in 0..100 {
        house.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    }
    open.notify_one();
    house.shadow.drain(PATIENCE).await;
    house.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    let seen = house.settled(101).await;
    assert_eq!((seen.matched, seen.skipped.get("shutting_down")), (100, Some(&1)));
}

#[tokio::test]
async fn draining_gives_up_in_time_and_settles_the_rest() {
    let (arm, _never) = gated();
    let limits = Limits { shadow_in_flight_max: 4, ..limits() };
    let house = House::new(arm, limits, json!({})).await;
    for _ in 0..50 {
        house.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    }
    house.shadow.drain(Duration::from_millis(50)).await;
    let seen = house.settled(50).await;
    assert_eq!(seen.skipped.get("shutting_down"), Some(&50));
}

#[tokio::test]
async fn dropping_it_settles_everything() {
    let (arm, _never) = gated();
    let house = House::new(arm, Limits { shadow_in_flight_max: 4, ..limits() }, json!({})).await;
    for _ in 0..50 {
        house.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    }
    let House { shadow, evidence, .. } = house;
    drop(shadow);
    let all = async {
        while testing::sums(&evidence, &id()) != (50, 50) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("every ticket is settled");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn its_threads_step_back() {
    let nice = Arc::new(Mutex::new(None));
    let seen = nice.clone();
    let arm = engine(move |_| {
        let seen = seen.clone();
        async move {
            *seen.lock().unwrap() = rustix::process::getpriority_process(None).ok();
            answer(&json!({}), RunReport::default())
        }
    });
    let house = House::new(arm, limits(), json!({})).await;
    let here = rustix::process::getpriority_process(None).unwrap();
    house.offer(answered(Mode::Rehearse, &json!({}), 0));
    house.settled(1).await;
    assert_eq!(*nice.lock().unwrap(), Some((here + NICER).min(19)));
    assert_eq!(rustix::process::getpriority_process(None).unwrap(), here, "and nobody else");
}

/// The numbers of a scrape: what was offered, and all outcomes.
fn scraped(text: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    (sum("pointsman_offered_total{"), sum("pointsman_comparisons_total{"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_holds_at_every_scrape_under_load() {
    const EACH: u64 = 600;
    let reply = |request: ArmRequest| async move {
        match request.request.body.len() % 4 {
            // A panic without the hook: it would fill the log.
            0 => std::panic::resume_unwind(Box::new("on purpose")),
            1 => std::future::pending().await,
            2 => answer(&json!({"ok": false}), RunReport::default()),
            _ => answer(&json!({"ok": true}), RunReport::default()),
        }
    };
    let limits =
        Limits { shadow_queue_entries_max: 64, shadow_in_flight_max: 16, shadow_run_ms: 20, ..Limits::default() };
    let house = Arc::new(House::new(engine(reply), limits, json!({})).await);
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let house = house.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let ticket = house.shadow.open(&id());
                    match (n + sender) % 6 {
                        0 => drop(ticket),
                        1 => ticket.skip(SkipReason::Streaming),
                        _ => house.shadow.offer(ticket, answered(Mode::Rehearse, &json!({"ok": true}), n as usize % 9)),
                    }
                    if n % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    let evidence = house.evidence.clone();
    let scraper = std::thread::spawn(move || {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (mut looks, end) = (0, Instant::now() + PATIENCE);
        metrics::with_local_recorder(&recorder, || {
            loop {
                evidence.publish();
                let (offered, outcomes) = scraped(&handle.render());
                assert_eq!(offered, outcomes);
                looks += 1;
                if offered == 4 * EACH || Instant::now() > end {
                    return (offered, looks);
                }
            }
        })
    });
    for sender in senders {
        sender.await.unwrap();
    }
    house.shadow.drain(PATIENCE).await;
    let scraper = tokio::task::spawn_blocking(move || scraper.join()).await.unwrap();
    let (offered, looks) = scraper.expect("the sum holds at every scrape");
    assert_eq!(offered, 4 * EACH, "after {looks} scrapes");
    house.evidence.settle(&id(), Outcome::Matched);
    assert_eq!(testing::sums(&house.evidence, &id()), (4 * EACH + 1, 4 * EACH + 1));
}
