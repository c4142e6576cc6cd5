//! The durable store against the one in memory, from the same random operations.

use proptest::prelude::*;

use super::*;
use crate::flag::RetryKey;
use crate::names::JobId;
use crate::store::{Claim, LockChange, LockRow, RunFilter, RunSnapshot, TakeResult, WebhookMessage};

#[derive(Clone, Debug)]
struct Op {
    run: u64,
    first: u64,
    count: u64,
    batch: u64,
    pin: Option<(u8, bool)>,
    claim: Option<(u8, u8)>,
    dark: bool,
    legacy_try: Option<u8>,
    /// Most of them are the run's own by then.
    fence: u64,
    status: u8,
    release: bool,
    wake: Option<i64>,
    locks: Vec<(bool, u8, u8)>,
    notice: bool,
    settles: Option<u8>,
    /// A run that it decides on.
    birth: Option<u64>,
    then: Then,
}

/// What else happens once an append was tried.
#[derive(Clone, Debug)]
enum Then {
    Nothing,
    Take(u64),
    TakeDue(usize),
    Leave,
    Ask(u8, u64),
    Settle(u8),
    NoticeDone,
    RemovePendingRun(u64),
    Purge(u8),
    Snapshot(u64, u64),
}

/// Few names, so that operations meet.
fn op() -> impl Strategy<Value = Op> {
    let pin = proptest::option::weighted(0.3, (0..4_u8, any::<bool>()));
    let claim = proptest::option::weighted(0.3, (0..4_u8, 0..2_u8));
    let legacy = proptest::option::weighted(0.1, 0..4_u8);
    let first = (0..4_u64, 1..6_u64, 1..4_u64, 0..6_u64, pin, claim, any::<bool>(), legacy);
    let fence = prop_oneof![6 => Just(1_u64), 3 => Just(2), 1 => Just(3)];
    let status = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    let wake = proptest::option::of(prop_oneof![Just(1_600_000_000_i64), Just(4_000_000_000)]);
    let locks = proptest::collection::vec((any::<bool>(), 0..3_u8, 0..2_u8), 0..4);
    let then = prop_oneof![
        6 => Just(Then::Nothing),
        1 => (0..4_u64).prop_map(Then::Take),
        1 => (1..3_usize).prop_map(Then::TakeDue),
        1 => Just(Then::Leave),
        2 => (0..5_u8, 0..5_u64).prop_map(|(order, run)| Then::Ask(order, run)),
        1 => (0..5_u8).prop_map(Then::Settle),
        1 => Just(Then::NoticeDone),
        1 => (0..6_u64).prop_map(Then::RemovePendingRun),
        1 => (0..2_u8).prop_map(Then::Purge),
        2 => (0..4_u64, 1..6_u64).prop_map(|(run, seq)| Then::Snapshot(run, seq)),
    ];
    let settles = proptest::option::weighted(0.2, 0..5_u8);
    let birth = proptest::option::weighted(0.3, 0..6_u64);
    let second = (fence, status, any::<bool>(), wake, locks, any::<bool>(), settles, birth, then);
    (first, second).prop_map(|(first, second)| {
        let (run, first, count, batch, pin, claim, dark, legacy_try) = first;
        let (fence, status, release, wake, locks, notice, settles, birth, then) = second;
        Op {
            run,
            first,
            count,
            batch,
            pin,
            claim,
            dark,
            legacy_try,
            fence,
            status,
            release,
            wake,
            locks,
            notice,
            settles,
            birth,
            then,
        }
    })
}

fn append_of(op: &Op) -> Append {
    let run = run_id(op.run);
    let status =
        [RunStatus::Running, RunStatus::Queued, RunStatus::Paused, RunStatus::Completed][usize::from(op.status)];
    let plain = standing(append(run, op.first, op.count), status);
    let change = |(queue, name, step): &(bool, u8, u8)| {
        let (name, step, item) = (format!("lock-{name}"), "step".into(), (*step > 0).then_some(u32::from(*step)));
        match queue {
            true => LockChange::Queue { name, step, item },
            false => LockChange::Leave { name, step, item },
        }
    };
    let notice = WebhookMessage { body: json!(op.batch), ..notice(run, 1) };
    Append {
        batch: Uuid::from_u128(u128::from(op.batch)),
        pins: op.pin.iter().map(|(id, engine)| pin(&id.to_string(), arm(*engine))).collect(),
        claim: op.claim.map(|(key, request)| Claim {
            key: RetryKey([key; 32]),
            request: [request; 32],
            any_caller: None,
        }),
        // One priority for all of a run, as the engine has it: two queues keep no order between them.
        priority: if op.dark { Priority::Dark } else { Priority::Live },
        worker: worker(7),
        fence: Fence(op.fence),
        release: op.release,
        locks: op.locks.iter().map(change).collect(),
        webhook_messages: op.notice.then_some(notice).into_iter().collect(),
        settled: op.settles.map(|id| (Uuid::from_u128(id.into()), json!(op.batch))).into_iter().collect(),
        pending_runs: op.birth.map(|run| pending_runs::birth(run, Some(op.run))).into_iter().collect(),
        size: Default::default(),
        summary: RunSummary {
            wake: op.wake.map(|wake| Timestamp::from_second(wake).unwrap()),
            job: (op.run % 2 == 1).then_some(JobId(run_id(0).0)),
            parent: (op.run > 1).then_some(run_id(0)),
            // Long enough ago to be purged.
            updated: Timestamp::from_second(1_700_000_000).unwrap(),
            ..plain.summary
        },
        ..plain
    }
}

fn arm(engine: bool) -> Arm {
    if engine { Arm::Engine } else { Arm::Legacy }
}

/// What a store shows; numbers that only count up are left out.
async fn look(store: &SharedStore) -> String {
    let mut seen = String::new();
    let all = RunFilter { limit: 99, ..RunFilter::default() };
    for run in 0..4 {
        seen += &format!("{:?}\n", store.events(run_id(run), Seq::FIRST).await);
        seen += &format!("{:?}\n", store.orders(run_id(run)).await);
        seen += &format!("{:?}\n", store.remains(run_id(run)).await);
        seen += &format!("{:?}\n", store.run_snapshot(run_id(run)).await);
        seen += &format!("{:?}\n", store.runs(RunFilter { job: Some(JobId(run_id(run).0)), ..all.clone() }).await);
        seen += &format!("{:?}\n", store.runs(RunFilter { parent: Some(run_id(run)), ..all.clone() }).await);
    }
    for status in [RunStatus::Running, RunStatus::Queued, RunStatus::Paused, RunStatus::Completed] {
        seen += &format!("{:?}\n", store.runs(RunFilter { statuses: vec![status], ..all.clone() }).await);
    }
    seen += &format!("{:?}\n", store.runs(all).await);
    seen += &format!("{:?}\n", store.pin_counts().await);
    for key in 0..5 {
        seen += &format!("{:?}\n", store.first_try(RetryKey([key; 32])).await);
        seen += &format!("{:?}\n", store.pin(pin(&key.to_string(), Arm::Engine).key).await);
        seen += &format!("{:?}\n", store.order(Uuid::from_u128(key.into())).await);
    }
    seen += &format!("{:?}\n", store.pending_runs(99).await);
    seen += &format!("{:?}\n", store.due_times(99).await);
    let locks = store.locks(None, 99).await.unwrap();
    seen += &format!("{:?}\n", locks.into_iter().map(|row| LockRow { place: 0, ..row }).collect::<Vec<_>>());
    let webhook_messages = store.webhook_messages(0, 99).await.unwrap();
    seen += &format!(
        "{:?}\n",
        webhook_messages.into_iter().map(|notice| WebhookMessage { number: 0, ..notice }).collect::<Vec<_>>()
    );
    seen
}

/// Does it, and says what came of it. Every owner but the one worker that asks is dead.
async fn perform(store: &SharedStore, then: &Then) -> String {
    match then {
        Then::Nothing => String::new(),
        Then::Take(run) => match store.take(worker(7), run_id(*run)).await.unwrap() {
            TakeResult::Taken(owned) => format!("{owned:?}"),
            other => format!("{other:?}"),
        },
        Then::TakeDue(limit) => format!("{:?}", store.take_due(worker(7), *limit).await),
        Then::Leave => format!("{:?}", store.deregister(worker(7)).await),
        Then::Ask(order, run) => {
            format!("{:?}", store.put_order(between::order(u128::from(*order), run_id(*run))).await)
        }
        Then::Settle(order) => {
            format!("{:?}", store.settle_order(Uuid::from_u128(u128::from(*order)), json!("by hand")).await)
        }
        Then::NoticeDone => {
            let first = store.webhook_messages(0, 1).await.unwrap();
            let done = first.first().map_or(0, |notice| notice.number);
            format!("{:?}", store.remove_webhook_message(done).await)
        }
        Then::RemovePendingRun(run) => format!("{:?}", store.remove_pending_run(run_id(*run)).await),
        Then::Purge(limit) => {
            let purged = store.purge(RunStatus::Completed, at(0), usize::from(*limit)).await.unwrap();
            format!("{} {}", purged.runs, purged.pinned)
        }
        Then::Snapshot(run, seq) => {
            let body = vec![*seq as u8];
            let snapshot =
                RunSnapshot { run: run_id(*run), seq: Seq(*seq), at: at(*seq as i64), fold: "f".into(), body };
            format!("{:?}", store.put_run_snapshot(snapshot).await)
        }
    }
}

/// The stores that are held against the one in memory.
macro_rules! and_the_others {
    (memory, $which:ident, $each:expr) => {};
    ($name:ident, $which:ident, $each:expr) => {
        ($each)(Which::$which).await;
    };
}

async fn all_agree(ops: Vec<Vec<Op>>) {
    let each = async |which| agree(which, &ops).await;
    every_store!(and_the_others(each));
}

async fn agree(which: Which, ops: &[Vec<Op>]) {
    // A database of its own for each case takes its time there: every third must do.
    if matches!(which, Which::Postgres) && (!ops.len().is_multiple_of(3) || !which.is_here()) {
        return;
    }
    let memory = Place::new(Which::Memory).await;
    let other = Place::new(which).await;
    for together in ops {
        let dark = together.first().is_some_and(|op| op.dark);
        let appends: Vec<Append> = together.iter().map(|op| append_of(&Op { dark, ..op.clone() })).collect();
        let (mut expected, mut taken) = (Vec::new(), Vec::new());
        for append in appends {
            // Nobody goes on with a run that has ended; what ended it may be handed in again.
            let ended = memory.store.run(append.run_id).await.unwrap().filter(|run| run.status.is_final());
            if ended.is_some_and(|run| append.first > run.seq) {
                continue;
            }
            expected.push(memory.store.append(append.clone().into()).await);
            taken.push(append);
        }
        // Of an answer to an order and the end of its run, whichever is written first counts: in one batch either may be.
        let given = match taken.iter().any(|append| !append.settled.is_empty()) {
            false => futures_util::future::join_all(taken.into_iter().map(|a| other.store.append(a.into()))).await,
            true => {
                let mut given = Vec::new();
                for append in taken {
                    given.push(other.store.append(append.into()).await);
                }
                given
            }
        };
        assert_eq!(given, expected, "{which:?}");
        for op in together {
            if let Some(key) = op.legacy_try {
                memory.store.note_legacy_tries(vec![RetryKey([key; 32])]).await.unwrap();
                other.store.note_legacy_tries(vec![RetryKey([key; 32])]).await.unwrap();
            }
            let expected = perform(&memory.store, &op.then).await;
            assert_eq!(perform(&other.store, &op.then).await, expected, "{which:?}: {:?}", op.then);
        }
    }
    assert_eq!(look(&other.store).await, look(&memory.store).await, "{which:?}");
    other.store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn stores_agree(ops in proptest::collection::vec(proptest::collection::vec(op(), 1..8), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(all_agree(ops));
    }
}
