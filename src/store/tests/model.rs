//! Compares each store with the memory store, after the same random operations.

use proptest::prelude::*;

use super::*;
use crate::names::JobId;
use crate::store::{AcquireResult, Claim, LockChange, LockRow, RunFilter, RunSnapshot, WebhookMessage};

#[derive(Clone, Debug)]
struct Operation {
    run: u64,
    first: u64,
    count: u64,
    batch: u64,
    pin: Option<(u8, bool)>,
    claim: Option<(u8, u8)>,
    dark: bool,
    legacy_try: Option<u8>,
    /// Mostly the present fencing token of the run.
    fence: u64,
    status: u8,
    release: bool,
    wake: Option<i64>,
    locks: Vec<(bool, u8, u8)>,
    webhook_message: bool,
    /// A command that the append answers.
    settles: Option<u8>,
    /// A run that the append puts into the outbox.
    pending_run: Option<u64>,
    follow_up: FollowUp,
}

/// What follows the append.
#[derive(Clone, Debug)]
enum FollowUp {
    Nothing,
    Acquire(u64),
    AcquireDue(usize),
    Deregister,
    PutCommand(u8, u64),
    AnswerCommand(u8),
    RemoveWebhookMessage,
    RemovePendingRun(u64),
    Purge(u8),
    Snapshot(u64, u64),
}

/// Ids and names are drawn from few values, so that operations concern the same things.
fn operation() -> impl Strategy<Value = Operation> {
    let pin = proptest::option::weighted(0.3, (0..4_u8, any::<bool>()));
    let claim = proptest::option::weighted(0.3, (0..4_u8, 0..2_u8));
    let legacy = proptest::option::weighted(0.1, 0..4_u8);
    let first = (0..4_u64, 1..6_u64, 1..4_u64, 0..6_u64, pin, claim, any::<bool>(), legacy);
    let fence = prop_oneof![6 => Just(1_u64), 3 => Just(2), 1 => Just(3)];
    let status = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    let wake = proptest::option::of(prop_oneof![Just(1_600_000_000_i64), Just(4_000_000_000)]);
    let locks = proptest::collection::vec((any::<bool>(), 0..3_u8, 0..2_u8), 0..4);
    let follow_up = prop_oneof![
        6 => Just(FollowUp::Nothing),
        1 => (0..4_u64).prop_map(FollowUp::Acquire),
        1 => (1..3_usize).prop_map(FollowUp::AcquireDue),
        1 => Just(FollowUp::Deregister),
        2 => (0..5_u8, 0..5_u64).prop_map(|(command, run)| FollowUp::PutCommand(command, run)),
        1 => (0..5_u8).prop_map(FollowUp::AnswerCommand),
        1 => Just(FollowUp::RemoveWebhookMessage),
        1 => (0..6_u64).prop_map(FollowUp::RemovePendingRun),
        1 => (0..2_u8).prop_map(FollowUp::Purge),
        2 => (0..4_u64, 1..6_u64).prop_map(|(run, seq)| FollowUp::Snapshot(run, seq)),
    ];
    let settles = proptest::option::weighted(0.2, 0..5_u8);
    let pending_run = proptest::option::weighted(0.3, 0..6_u64);
    let second = (fence, status, any::<bool>(), wake, locks, any::<bool>(), settles, pending_run, follow_up);
    (first, second).prop_map(|(first, second)| {
        let (run, first, count, batch, pin, claim, dark, legacy_try) = first;
        let (fence, status, release, wake, locks, webhook_message, settles, pending_run, follow_up) = second;
        Operation {
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
            webhook_message,
            settles,
            pending_run,
            follow_up,
        }
    })
}

fn append_of(operation: &Operation) -> Append {
    let run = run_id(operation.run);
    let status =
        [RunStatus::Running, RunStatus::Queued, RunStatus::Paused, RunStatus::Completed][usize::from(operation.status)];
    let plain = with_status(append(run, operation.first, operation.count), status);
    let change = |(queue, name, step): &(bool, u8, u8)| {
        let (name, step, item) = (format!("lock-{name}"), "step".into(), (*step > 0).then_some(u32::from(*step)));
        match queue {
            true => LockChange::Queue { name, step, item },
            false => LockChange::Leave { name, step, item },
        }
    };
    let message = WebhookMessage { body: json!(operation.batch), ..webhook_message(run, 1) };
    Append {
        batch: Uuid::from_u128(u128::from(operation.batch)),
        pins: operation.pin.iter().map(|(id, engine)| pin(&id.to_string(), arm(*engine))).collect(),
        claim: operation.claim.map(|(key, request)| Claim::new(RetryKey([key; 32]), [request; 32])),
        // One priority for all appends of a batch ([`agree`]): the order between the two queues is not defined.
        priority: if operation.dark { Priority::Dark } else { Priority::Real },
        worker: worker(7),
        fence: Fence(operation.fence),
        release: operation.release,
        locks: operation.locks.iter().map(change).collect(),
        webhook_messages: operation.webhook_message.then_some(message).into_iter().collect(),
        answered_commands: operation
            .settles
            .map(|id| (Uuid::from_u128(id.into()), json!(operation.batch)))
            .into_iter()
            .collect(),
        pending_runs: operation
            .pending_run
            .map(|run| pending_runs::pending_run(run, Some(operation.run)))
            .into_iter()
            .collect(),
        size: Default::default(),
        summary: RunSummary {
            wake: operation.wake.map(|wake| Timestamp::from_second(wake).unwrap()),
            job: (operation.run % 2 == 1).then_some(JobId(run_id(0).0)),
            parent: (operation.run > 1).then_some(run_id(0)),
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

/// What a store returns of runs, pins, retry keys, commands, locks and messages, without the numbers that it assigns in
/// ascending order.
async fn contents(store: &StoreHandle) -> String {
    let mut text = String::new();
    let all = RunFilter { limit: 99, ..RunFilter::default() };
    for run in 0..4 {
        text += &format!("{:?}\n", store.events(run_id(run), Seq::FIRST).await);
        text += &format!("{:?}\n", store.commands(run_id(run)).await);
        text += &format!("{:?}\n", store.purged_run_bodies(run_id(run)).await);
        text += &format!("{:?}\n", store.run_snapshot(run_id(run)).await);
        text += &format!("{:?}\n", store.runs(RunFilter { job: Some(JobId(run_id(run).0)), ..all.clone() }).await);
        text += &format!("{:?}\n", store.runs(RunFilter { parent: Some(run_id(run)), ..all.clone() }).await);
    }
    for status in [RunStatus::Running, RunStatus::Queued, RunStatus::Paused, RunStatus::Completed] {
        text += &format!("{:?}\n", store.runs(RunFilter { statuses: vec![status], ..all.clone() }).await);
    }
    text += &format!("{:?}\n", store.runs(all).await);
    text += &format!("{:?}\n", store.pin_counts().await);
    for key in 0..5 {
        let first_try = store.first_try(RetryKey([key; 32])).await.unwrap();
        text += &format!(
            "{:?}\n",
            first_try.map(|first| crate::store::StoredFirstTry { at: Timestamp::UNIX_EPOCH, ..first })
        );
        text += &format!("{:?}\n", store.pin(pin(&key.to_string(), Arm::Engine).key).await);
        text += &format!("{:?}\n", store.command(Uuid::from_u128(key.into())).await);
    }
    text += &format!("{:?}\n", store.pending_runs(99).await);
    text += &format!("{:?}\n", store.due_times(99).await);
    let locks = store.locks(None, 99).await.unwrap();
    text += &format!("{:?}\n", locks.into_iter().map(|row| LockRow { position: 0, ..row }).collect::<Vec<_>>());
    let webhook_messages = store.webhook_messages(0, 99).await.unwrap();
    text += &format!(
        "{:?}\n",
        webhook_messages.into_iter().map(|message| WebhookMessage { number: 0, ..message }).collect::<Vec<_>>()
    );
    text
}

/// Performs what follows an append, and returns its result. All workers but worker 7 are dead.
async fn perform(store: &StoreHandle, follow_up: &FollowUp) -> String {
    match follow_up {
        FollowUp::Nothing => String::new(),
        FollowUp::Acquire(run) => match store.acquire(worker(7), run_id(*run)).await.unwrap() {
            AcquireResult::Acquired(owned) => format!("{owned:?}"),
            other => format!("{other:?}"),
        },
        FollowUp::AcquireDue(limit) => format!("{:?}", store.acquire_due(worker(7), *limit).await),
        FollowUp::Deregister => format!("{:?}", store.deregister(worker(7)).await),
        FollowUp::PutCommand(command, run) => {
            format!("{:?}", store.put_command(coordination::command_record(u128::from(*command), run_id(*run))).await)
        }
        FollowUp::AnswerCommand(command) => {
            format!("{:?}", store.answer_command(Uuid::from_u128(u128::from(*command)), json!("by hand")).await)
        }
        FollowUp::RemoveWebhookMessage => {
            let first = store.webhook_messages(0, 1).await.unwrap();
            let done = first.first().map_or(0, |message| message.number);
            format!("{:?}", store.remove_webhook_message(done).await)
        }
        FollowUp::RemovePendingRun(run) => format!("{:?}", store.remove_pending_run(run_id(*run)).await),
        FollowUp::Purge(limit) => {
            let purged = store.purge(RunStatus::Completed, at(0), usize::from(*limit)).await.unwrap();
            format!("{} {}", purged.runs, purged.pinned)
        }
        FollowUp::Snapshot(run, seq) => {
            let body = vec![*seq as u8];
            let snapshot =
                RunSnapshot { run: run_id(*run), seq: Seq(*seq), at: at(*seq as i64), fold: "f".into(), body };
            format!("{:?}", store.put_run_snapshot(snapshot).await)
        }
    }
}

/// Calls a function for each store but the memory store.
macro_rules! each_other_store {
    (memory, $which:ident, $each:expr) => {};
    ($name:ident, $which:ident, $each:expr) => {
        ($each)(StoreKind::$which).await;
    };
}

async fn all_agree(operations: Vec<Vec<Operation>>) {
    let each = async |which| agree(which, &operations).await;
    every_store!(each_other_store(each));
}

async fn agree(which: StoreKind, operations: &[Vec<Operation>]) {
    // Each case has a database of its own, which is slow on PostgreSQL: only about a third of the cases run there.
    if matches!(which, StoreKind::Postgres) && (!operations.len().is_multiple_of(3) || !which.is_installed()) {
        return;
    }
    let memory = StoreFixture::new(StoreKind::Memory).await;
    let other = StoreFixture::new(which).await;
    for batch in operations {
        let dark = batch.first().is_some_and(|operation| operation.dark);
        let appends: Vec<Append> =
            batch.iter().map(|operation| append_of(&Operation { dark, ..operation.clone() })).collect();
        let (mut expected, mut appended) = (Vec::new(), Vec::new());
        for append in appends {
            // The engine appends nothing to a run that has ended, but may repeat its last append.
            let ended = memory.store.run(append.run_id).await.unwrap().filter(|run| run.status.is_final());
            if ended.is_some_and(|run| append.first > run.seq) {
                continue;
            }
            expected.push(memory.store.append(append.clone().into()).await);
            appended.push(append);
        }
        // A command may be answered by an append and by the end of its run: the first one counts. The order of appends
        // within one batch is not defined, so such appends are submitted one after the other.
        let results = match appended.iter().any(|append| !append.answered_commands.is_empty()) {
            false => futures_util::future::join_all(appended.into_iter().map(|a| other.store.append(a.into()))).await,
            true => {
                let mut results = Vec::new();
                for append in appended {
                    results.push(other.store.append(append.into()).await);
                }
                results
            }
        };
        assert_eq!(results, expected, "{which:?}");
        for operation in batch {
            if let Some(key) = operation.legacy_try {
                memory.store.note_legacy_tries(taken_now(vec![RetryKey([key; 32])])).await.unwrap();
                other.store.note_legacy_tries(taken_now(vec![RetryKey([key; 32])])).await.unwrap();
            }
            let expected = perform(&memory.store, &operation.follow_up).await;
            assert_eq!(
                perform(&other.store, &operation.follow_up).await,
                expected,
                "{which:?}: {:?}",
                operation.follow_up
            );
        }
    }
    assert_eq!(contents(&other.store).await, contents(&memory.store).await, "{which:?}");
    other.store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_store_behaves_like_the_memory_store(operations in proptest::collection::vec(proptest::collection::vec(operation(), 1..8), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(all_agree(operations));
    }
}
