//! Requests of instances: their order, how long they wait, and what marks a twin.

use super::*;
use crate::compare::Intent;
use crate::exchange::{InstanceAccess, OpenRequest};
use crate::flag::{Family, InstanceId};
use crate::workflow::RecordedHeaders;

/// What the engine does with a request: answers with this report, after `go` was notified if it is given.
#[derive(Clone, Default)]
struct Script {
    go: Option<Arc<Notify>>,
    report: RunReport,
    is_refused: bool,
}

/// A shadow executor whose engine records the requests that it gets, by their query.
struct Rig {
    test: TestShadow,
    twins: Arc<TestTwins>,
    ran: Arc<Mutex<Vec<String>>>,
    scripts: Arc<Mutex<BTreeMap<String, Script>>>,
}

/// A request while legacy has it.
struct AtLegacy {
    name: &'static str,
    id: &'static str,
    mode: Mode,
    open: OpenRequest,
}

fn instance(id: &str) -> InstanceKey {
    InstanceKey { family: Family::from(super::id()), id: id.into() }
}

fn report(run: u128, status: RunStatus) -> RunReport {
    let pinned = Some(crate::flag::PinKey { family: id(), id: "17".into() });
    RunReport { run: Some(RunId(uuid::Uuid::from_u128(run))), status: Some(status), pinned, ..RunReport::default() }
}

/// What the engine reads, if somebody wants to know of it.
fn read_of_account() -> Intent {
    Intent {
        step: "look".into(),
        item: None,
        method: Method::GET,
        url: "http://bank/account".into(),
        headers: Vec::new(),
        body: Value::Null,
        service: Some("bank".into()),
        bytes: None,
        taken_from: None,
    }
}

impl Rig {
    async fn new(limits: Limits) -> Self {
        let (ran, scripts) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<BTreeMap<String, Script>>>::default());
        let (seen, script) = (ran.clone(), scripts.clone());
        let arm = engine(move |request| {
            let name = request.request.query.clone().unwrap_or_default();
            seen.lock().unwrap().push(name.clone());
            request.reads.iter().for_each(|reads| drop(reads.answer(&read_of_account(), &RecordedHeaders::All)));
            let script = script
                .lock()
                .unwrap()
                .get(&name)
                .cloned()
                .unwrap_or_else(|| Script { report: report(1, RunStatus::Completed), ..Script::default() });
            async move {
                if let Some(go) = script.go {
                    go.notified().await;
                }
                match script.is_refused {
                    true => {
                        let paused = Some((SkipReason::WouldPause, "paused".to_owned()));
                        let unresolved = script.report.unresolved.clone().or(paused);
                        ArmReply::Refused(problem(), RunReport { unresolved, ..script.report })
                    }
                    false => answer(&json!({"ok": true}), script.report),
                }
            }
        });
        let twins = Arc::<TestTwins>::default();
        let test = TestShadow::with_twins(arm, twins.clone(), limits, json!({})).await;
        Self { test, twins, ran, scripts }
    }
    fn script(&self, name: &str, script: Script) {
        self.scripts.lock().unwrap().insert(name.to_owned(), script);
    }
    /// The engine's run of this request does not answer before the returned value is notified.
    fn hold(&self, name: &str) -> Arc<Notify> {
        let go = Arc::<Notify>::default();
        self.script(name, Script { go: Some(go.clone()), report: report(1, RunStatus::Completed), is_refused: false });
        go
    }
    /// Legacy gets a request at this time. `is_write`: `None` if it creates the instance.
    fn begin(&self, name: &'static str, id: &'static str, is_write: Option<bool>, now: u64) -> AtLegacy {
        let access = match is_write {
            None => InstanceAccess::Creates(super::id().into()),
            Some(_) => InstanceAccess::FollowsUp(instance(id)),
        };
        let open = self.test.shadow.announce(access, is_write.unwrap_or(true), now).expect("it is announced");
        AtLegacy { name, id, mode: Mode::Dark, open }
    }
    /// Legacy has answered it at this time; it is offered.
    fn end(&self, request: AtLegacy, at: u64, creates: bool) {
        self.end_with(request, at, creates, |_| {});
    }
    /// As [`Rig::end`], after a change.
    fn end_with(&self, request: AtLegacy, at: u64, creates: bool, change: impl FnOnce(&mut Answered)) {
        let AtLegacy { name, id, mode, mut open } = request;
        open.answered(at);
        if creates {
            open.created(instance(id));
        }
        let mut answered = answered(mode, &json!({"ok": true}), 0);
        let request = RequestCopy { query: Some(name.to_owned()), ..RequestCopy::clone(&answered.request) };
        answered.request = Arc::new(request);
        answered.instance = (!creates).then(|| InstanceId { key: instance(id), run: None });
        answered.at_legacy = open.time();
        change(&mut answered);
        self.test.offer(answered);
    }
    fn create(&self, name: &'static str, id: &'static str, from: u64, to: u64) {
        self.end(self.begin(name, id, None, from), to, true);
    }
    fn read(&self, name: &'static str, id: &'static str, from: u64, to: u64) {
        self.end(self.begin(name, id, Some(false), from), to, false);
    }
    fn write(&self, name: &'static str, id: &'static str, from: u64, to: u64) {
        self.end(self.begin(name, id, Some(true), from), to, false);
    }
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let all = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(WAIT_MAX, all).await;
        assert!(waited.is_ok(), "{what}: {:?} {:?}", self.ran(), self.test.evidence.of(&id()));
    }
    fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap().clone()
    }
    fn held(&self) -> u64 {
        self.test.shadow.turn_memory.entries()
    }
    async fn skipped(&self, settled: u64) -> Vec<(String, u64)> {
        let seen = self.test.settled(settled).await;
        seen.skipped.iter().map(|(reason, count)| (reason.to_string(), *count)).collect()
    }
    fn marked(&self) -> Vec<String> {
        self.twins.marked.lock().unwrap().clone()
    }
}

fn problem() -> ProblemDocument {
    ProblemDocument {
        status: 503,
        kind: "paused".into(),
        title: String::new(),
        detail: String::new(),
        source: Source::Workflow,
        run: None,
        retry_after_s: None,
        shared_step_begun: None,
    }
}

#[tokio::test]
async fn follow_ups_wait_for_the_create_without_a_permit_and_run_in_the_order_of_legacys_answers() {
    let rig = Rig::new(Limits { shadow_in_flight_max: 1, ..limits() }).await;
    let create = rig.hold("create");
    rig.create("create", "17", 0, 10);
    // Offered in another order than answered: the first one's client took the reply late.
    let mut late = rig.begin("cancel", "17", Some(true), 20);
    late.open.answered(30);
    rig.read("look", "17", 40, 50);
    rig.end(late, 30, false);
    rig.until("the create is run", |rig| rig.ran() == ["create"]).await;
    create.notify_one();
    rig.until("all are run", |rig| rig.ran() == ["create", "cancel", "look"]).await;
    assert_eq!(rig.test.settled(3).await.matched, 3);
    assert_eq!((rig.held(), rig.marked().len()), (0, 0));
    rig.until("nothing is left", |rig| !rig.test.shadow.may_add_twins()).await;
}

#[tokio::test]
async fn a_waiting_follow_up_does_not_block_another_instance() {
    let rig = Rig::new(Limits { shadow_in_flight_max: 2, ..limits() }).await;
    let create = rig.hold("create");
    rig.create("create", "17", 0, 10);
    for _ in 0..5 {
        rig.read("look", "17", 20, 30);
    }
    rig.until("they wait, and the create is run", |rig| rig.held() == 5 && rig.ran() == ["create"]).await;
    rig.create("other", "18", 40, 50);
    rig.read("other look", "18", 60, 70);
    rig.until("the other instance is run", |rig| rig.ran() == ["create", "other", "other look"]).await;
    create.notify_one();
    assert_eq!(rig.test.settled(8).await.matched, 8);
}

#[tokio::test]
async fn a_follow_up_that_is_offered_before_its_create_waits_for_it() {
    let rig = Rig::new(limits()).await;
    let mut create = rig.begin("create", "17", None, 0);
    create.open.answered(10);
    rig.read("look", "17", 20, 30);
    rig.until("it waits", |rig| rig.held() == 1).await;
    rig.end(create, 10, true);
    assert_eq!(rig.test.settled(2).await.matched, 2);
    assert_eq!(rig.ran(), ["create", "look"]);
}

#[tokio::test]
async fn a_follow_up_waits_until_the_dark_run_has_ended_and_not_only_answered() {
    let rig = Rig::new(limits()).await;
    rig.script("create", Script { report: report(1, RunStatus::Running), ..Script::default() });
    rig.create("create", "17", 0, 10);
    rig.read("look", "17", 20, 30);
    assert_eq!(rig.test.settled(1).await.matched, 1, "the create is compared when it has answered");
    rig.until("the follow-up waits", |rig| rig.held() == 1).await;
    assert_eq!(rig.ran(), ["create"]);
    rig.twins.ended.notify_one();
    assert_eq!(rig.test.settled(2).await.matched, 2);
}

#[tokio::test]
async fn after_the_window_follow_ups_are_skipped_and_a_write_marks_the_twin() {
    let rig = Rig::new(Limits { followup_window_ms: 50, ..limits() }).await;
    rig.script("create", Script { report: report(1, RunStatus::Running), ..Script::default() });
    rig.create("create", "17", 0, 10);
    rig.read("look", "17", 20, 30);
    assert_eq!(rig.skipped(2).await, [("never_settled".to_owned(), 1)]);
    assert_eq!(rig.marked().len(), 0, "a read changes nothing");
    rig.write("cancel", "17", 40, 50);
    assert_eq!(rig.skipped(3).await, [("never_settled".to_owned(), 2)]);
    rig.read("look", "17", 60, 70);
    assert_eq!(rig.skipped(4).await, [("never_settled".to_owned(), 2), ("no_twin".to_owned(), 1)]);
    assert_eq!(rig.ran(), ["create"]);
    rig.twins.ended.notify_one();
    rig.until("the mark is stored when the run has ended", |rig| rig.marked() == ["17"]).await;
    rig.read("look", "17", 80, 90);
    assert_eq!(rig.skipped(5).await[1], ("no_twin".to_owned(), 2));
}

#[tokio::test]
async fn requests_that_legacy_had_at_the_same_time_are_not_compared_if_one_may_change_the_instance() {
    let rig = Rig::new(limits()).await;
    rig.create("create", "17", 0, 10);
    // Reads overlap: their order does not matter.
    let one = rig.begin("look", "17", Some(false), 20);
    rig.read("look", "17", 25, 30);
    rig.end(one, 40, false);
    assert_eq!(rig.test.settled(3).await.matched, 3);
    // Offered while the write is open, and after it is closed.
    let (before, cancel) = (rig.begin("look", "17", Some(false), 50), rig.begin("cancel", "17", Some(true), 55));
    rig.end(before, 60, false);
    let after = rig.begin("look", "17", Some(false), 65);
    rig.end(cancel, 70, false);
    rig.end(after, 80, false);
    let seen = rig.test.settled(6).await;
    assert_eq!((seen.matched, seen.skipped.get("overlapped")), (4, Some(&2)), "{seen:?}");
    assert_eq!(rig.ran()[3..], ["cancel"], "a write whose order to other writes is known is run");
    rig.read("look", "17", 90, 95);
    assert_eq!(rig.test.settled(7).await.matched, 5);
    // Two writes: the state after them is not known.
    let (one, two) = (rig.begin("cancel", "17", Some(true), 100), rig.begin("cancel", "17", Some(true), 105));
    rig.end(one, 110, false);
    rig.end(two, 120, false);
    rig.read("look", "17", 130, 140);
    let seen = rig.test.settled(10).await;
    assert_eq!((seen.skipped.get("overlapped"), seen.skipped.get("no_twin")), (Some(&4), Some(&1)), "{seen:?}");
    rig.until("the mark is stored", |rig| rig.marked() == ["17"]).await;
}

#[tokio::test]
async fn a_read_that_is_offered_after_a_later_write_is_not_compared() {
    let rig = Rig::new(limits()).await;
    rig.create("create", "17", 0, 10);
    let mut slow = rig.begin("look", "17", Some(false), 20);
    slow.open.answered(30);
    rig.write("cancel", "17", 40, 50);
    assert_eq!(rig.test.settled(2).await.matched, 2, "a write does not wait for a client that takes a reply slowly");
    rig.end(slow, 30, false);
    assert_eq!(rig.skipped(3).await, [("overlapped".to_owned(), 1)]);
}

#[tokio::test]
async fn a_request_that_overlaps_with_the_create_of_its_instance_is_not_compared() {
    let rig = Rig::new(limits()).await;
    let create = rig.begin("create", "17", None, 0);
    let look = rig.begin("look", "17", Some(false), 5);
    rig.end(create, 20, true);
    rig.end(look, 30, false);
    let seen = rig.test.settled(2).await;
    assert_eq!((seen.matched, seen.skipped.get("overlapped")), (1, Some(&1)), "{seen:?}");
}

/// The client knew the id before legacy had answered the create. The twin lacks the write.
#[tokio::test]
async fn a_write_that_is_offered_before_its_create_has_ended_marks_the_twin_and_does_not_wait() {
    let rig = Rig::new(limits()).await;
    let unresolved = Some((SkipReason::NoTwin, String::new()));
    let no_twin = Script { is_refused: true, report: RunReport { unresolved, ..RunReport::default() }, go: None };
    rig.script("cancel", no_twin.clone());
    // No create is under way: there is no twin to be marked.
    rig.write("cancel", "16", 0, 5);
    assert_eq!(rig.skipped(1).await, [("no_twin".to_owned(), 1)]);
    let (create, other) = (rig.begin("create", "17", None, 10), rig.begin("create", "18", None, 10));
    rig.write("cancel", "17", 15, 20);
    assert_eq!(rig.skipped(2).await, [("no_twin".to_owned(), 2)]);
    rig.until("the mark is stored", |rig| rig.marked() == ["17"]).await;
    rig.end(create, 30, true);
    rig.until("the mark is stored again, now that there is a pin", |rig| rig.marked() == ["17", "17"]).await;
    rig.read("look", "17", 40, 50);
    let seen = rig.test.settled(4).await;
    assert_eq!((seen.matched, seen.skipped.get("no_twin")), (1, Some(&3)), "{seen:?}");
    drop(other);
}

#[tokio::test]
async fn a_twin_that_lacks_a_write_is_marked() {
    let rig = Rig::new(limits()).await;
    for id in ["1", "2", "3", "4"] {
        rig.create("create", id, 0, 10);
    }
    assert_eq!(rig.test.settled(4).await.matched, 4);
    // Legacy certainly did nothing.
    rig.begin("cancel", "1", Some(true), 20).open.nothing_was_done();
    // Not offered: for example, the client went away.
    drop(rig.begin("cancel", "2", Some(true), 20));
    // The run fails.
    rig.script("refund", Script { is_refused: true, report: report(2, RunStatus::Failed), ..Script::default() });
    rig.write("refund", "3", 20, 30);
    assert_eq!(rig.skipped(5).await, [("would_pause".to_owned(), 1)]);
    // A rehearsal changes nothing.
    let rehearsed = rig.begin("cancel", "4", Some(true), 20);
    rig.end(AtLegacy { mode: Mode::Rehearse, ..rehearsed }, 30, false);
    assert_eq!(rig.test.settled(6).await.matched, 5);
    rig.until("the marks are stored", |rig| rig.marked().len() == 3).await;
    for id in ["1", "2", "3", "4"] {
        rig.read("look", id, 40, 50);
    }
    let seen = rig.test.settled(10).await;
    assert_eq!((seen.matched, seen.skipped.get("no_twin")), (6, Some(&3)), "{seen:?}");
}

#[tokio::test]
async fn marks_that_the_store_refuses_do_not_hold_up_a_stop() {
    let rig = Rig::new(limits()).await;
    rig.twins.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    let ids = ["1", "2", "3"];
    ids.iter().for_each(|id| rig.create("create", id, 0, 10));
    assert_eq!(rig.test.settled(3).await.matched, 3);
    ids.iter().for_each(|id| drop(rig.begin("cancel", id, Some(true), 20)));
    rig.until("a mark was refused", |rig| !rig.marked().is_empty()).await;
    let before = rig.marked().len();
    tokio::time::timeout(WAIT_MAX, rig.test.shadow.drain(Duration::from_millis(50))).await.expect("it ends");
    let last = rig.marked().split_off(before);
    assert!(ids.iter().all(|id| last.contains(&(*id).to_owned())), "each is tried once more: {last:?}");
}

/// Its run has done what it does, only not from what legacy read.
#[tokio::test]
async fn a_write_with_unknown_legacy_reads_is_skipped_and_marks_no_twin() {
    let rig = Rig::new(limits()).await;
    rig.create("create", "1", 0, 10);
    assert_eq!(rig.test.settled(1).await.matched, 1);
    let cancel = rig.begin("cancel", "1", Some(true), 20);
    rig.end_with(cancel, 30, false, |answered| {
        let calls = RequestEffects::new(Duration::ZERO);
        calls.add_gap();
        (answered.flags, answered.flag) = flags(true);
        answered.effects = Some(calls);
    });
    assert_eq!(rig.skipped(2).await, [("unresolved_effect".to_owned(), 1)]);
    rig.read("look", "1", 40, 50);
    assert_eq!(rig.test.settled(3).await.matched, 2);
    assert!(rig.marked().is_empty(), "{:?}", rig.marked());
}

#[tokio::test]
async fn what_waits_is_bounded_and_a_drain_settles_it() {
    let rig = Rig::new(Limits { followups_held_max: 3, ..limits() }).await;
    let _never = rig.hold("create");
    rig.create("create", "17", 0, 10);
    for _ in 0..5 {
        rig.read("look", "17", 20, 30);
    }
    rig.until("three wait", |rig| rig.held() == 3).await;
    assert_eq!(rig.skipped(2).await, [("queue_full".to_owned(), 2)]);
    rig.test.shadow.drain(Duration::from_millis(50)).await;
    let skipped = rig.skipped(6).await;
    assert_eq!(skipped, [("queue_full".to_owned(), 2), ("shutting_down".to_owned(), 4)]);
    assert_eq!(rig.held(), 0);
}
