//! Overload, and draining.

use super::*;

#[tokio::test]
async fn a_queue_that_is_full_by_entries_or_by_bytes_skips_at_once() {
    for (limits, padding) in [
        (Limits { shadow_queue_entries_max: 8, shadow_in_flight_max: 1, ..limits() }, 0),
        (Limits { shadow_queue_bytes_max: 100_000, shadow_in_flight_max: 1, ..limits() }, 8_000),
    ] {
        let (arm, open) = gated();
        let rig = TestShadow::new(arm, limits, json!({})).await;
        let began = Instant::now();
        for _ in 0..200 {
            rig.offer(answered(Mode::Dark, &json!({"ok": true}), padding));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "offering does not wait");
        assert!(rig.shadow.load().queue_depth <= 9);
        if padding == 0 {
            assert!(!rig.shadow.has_room(&id()));
        }
        open.notify_one();
        let seen = rig.settled(200).await;
        let taken = seen.matched;
        // Three quarters of what the bound allows, and what runs.
        assert!((6..=9).contains(&taken), "{taken}");
        assert_eq!(seen.skipped.get("queue_full"), Some(&(200 - taken)));
        assert_eq!(seen.dark_without_twin, 200, "no durable run was made");
        assert!(rig.shadow.has_room(&id()));
        rig.shadow.drain(WAIT_MAX).await;
        assert_eq!(rig.shadow.load(), Load::default());
    }
}

#[tokio::test]
async fn draining_finishes_the_queue_and_accepts_no_more_entries() {
    let (arm, open) = gated();
    let rig = TestShadow::new(arm, limits(), json!({})).await;
    for _ in 0..100 {
        rig.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    }
    open.notify_one();
    rig.shadow.drain(WAIT_MAX).await;
    rig.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    let seen = rig.settled(101).await;
    assert_eq!((seen.matched, seen.skipped.get("shutting_down")), (100, Some(&1)));
}

#[tokio::test]
async fn draining_ends_at_its_time_limit_and_settles_the_rest() {
    let (arm, _never_opened) = gated();
    let limits = Limits { shadow_in_flight_max: 4, ..limits() };
    let rig = TestShadow::new(arm, limits, json!({})).await;
    for _ in 0..50 {
        rig.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    }
    rig.shadow.drain(Duration::from_millis(50)).await;
    let seen = rig.settled(50).await;
    assert_eq!(seen.skipped.get("shutting_down"), Some(&50));
}

#[tokio::test]
async fn dropping_the_executor_settles_every_ticket() {
    let (arm, _never_opened) = gated();
    let rig = TestShadow::new(arm, Limits { shadow_in_flight_max: 4, ..limits() }, json!({})).await;
    for _ in 0..50 {
        rig.offer(answered(Mode::Rehearse, &json!({"ok": true}), 0));
    }
    let TestShadow { shadow, evidence, .. } = rig;
    drop(shadow);
    let all = async {
        while testing::sums(&evidence, &id()) != (50, 50) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, all).await.expect("every ticket is settled");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn shadow_threads_have_a_lower_priority() {
    let nice = Arc::new(Mutex::new(None));
    let seen = nice.clone();
    let arm = engine(move |_| {
        let seen = seen.clone();
        async move {
            *seen.lock().unwrap() = rustix::process::getpriority_process(None).ok();
            answer(&json!({}), RunReport::default())
        }
    });
    let rig = TestShadow::new(arm, limits(), json!({})).await;
    let here = rustix::process::getpriority_process(None).unwrap();
    rig.offer(answered(Mode::Rehearse, &json!({}), 0));
    rig.settled(1).await;
    assert_eq!(*nice.lock().unwrap(), Some((here + crate::priority::NICENESS).min(19)));
    assert_eq!(rustix::process::getpriority_process(None).unwrap(), here, "the priority of other threads is unchanged");
}

/// From a scrape: how many requests were offered, and the sum of all outcomes.
fn scraped(text: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    (sum("pointsman_offered_total{"), sum("pointsman_comparisons_total{"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offered_equals_the_sum_of_outcomes_at_every_scrape_under_load() {
    const EACH: u64 = 600;
    let reply = |request: ArmRequest| async move {
        match request.request.body.len() % 4 {
            // Panics without calling the panic hook, which would fill the log.
            0 => std::panic::resume_unwind(Box::new("on purpose")),
            1 => std::future::pending().await,
            2 => answer(&json!({"ok": false}), RunReport::default()),
            _ => answer(&json!({"ok": true}), RunReport::default()),
        }
    };
    let limits =
        Limits { shadow_queue_entries_max: 64, shadow_in_flight_max: 16, shadow_run_ms: 20, ..Limits::default() };
    let rig = Arc::new(TestShadow::new(engine(reply), limits, json!({})).await);
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let rig = rig.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let ticket = rig.shadow.open(OfferedRequest::new(id(), 0));
                    match (n + sender) % 6 {
                        0 => drop(ticket),
                        1 => ticket.skip(SkipReason::Streaming),
                        _ => rig.shadow.offer(ticket, answered(Mode::Rehearse, &json!({"ok": true}), n as usize % 9)),
                    }
                    if n % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    let evidence = rig.evidence.clone();
    let scraper = std::thread::spawn(move || {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (mut scrapes, end) = (0, Instant::now() + WAIT_MAX);
        metrics::with_local_recorder(&recorder, || {
            loop {
                let (offered, outcomes) = scraped(&evidence.scrape(|| handle.render()));
                assert_eq!(offered, outcomes);
                scrapes += 1;
                if offered == 4 * EACH || Instant::now() > end {
                    return (offered, scrapes);
                }
            }
        })
    });
    for sender in senders {
        sender.await.unwrap();
    }
    rig.shadow.drain(WAIT_MAX).await;
    let scraper = tokio::task::spawn_blocking(move || scraper.join()).await.unwrap();
    let (offered, scrapes) = scraper.expect("both sums are equal at every scrape");
    assert_eq!(offered, 4 * EACH, "after {scrapes} scrapes");
    rig.evidence.settle(&OfferedRequest::new(id(), 0), ComparisonOutcome::Matched);
    assert_eq!(testing::sums(&rig.evidence, &id()), (4 * EACH + 1, 4 * EACH + 1));
}

#[tokio::test]
async fn pairs_that_wait_for_calls_of_legacy_have_a_budget_of_their_own() {
    let limits = Limits { egress_waiting_bytes_max: 30_000, ..limits() };
    let arm = engine(|_| async { answer(&json!({"ok": true}), RunReport::default()) });
    let rig = TestShadow::new(arm, limits, json!({})).await;
    for _ in 0..10 {
        let effects = Some(RequestEffects::new(Duration::from_secs(3_600)));
        rig.offer(Answered { effects, ..answered(Mode::Rehearse, &json!({"ok": true}), 8_000) });
    }
    let skipped = || rig.evidence.of(&id()).skipped.get("effects_queue_full").copied().unwrap_or(0);
    let all_run = async {
        // The room of a request is free only after it has been counted.
        while rig.shadow.waiting.entries() + skipped() < 10 || rig.shadow.budget.used() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, all_run).await.expect("all are run");
    let waiting = rig.shadow.waiting.entries();
    assert!((1..=3).contains(&waiting), "{waiting}");
    assert!((8_000 * waiting..=30_000).contains(&rig.shadow.waiting.used()));
    assert_eq!(rig.shadow.budget.used(), 0, "requests that the engine has not run yet have all the room");
    rig.shadow.drain(WAIT_MAX).await;
    let seen = rig.settled(10).await;
    assert_eq!(seen.skipped.get("shutting_down"), Some(&waiting));
    assert_eq!((rig.shadow.waiting.entries(), rig.shadow.waiting.used()), (0, 0));
}
