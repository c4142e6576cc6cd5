//! Commands, locks, messages to webhooks, notifications; and lists by job and parent.

use super::*;
use crate::names::JobId;
use crate::store::{
    CommandRecord, LockChange, LockRow, RunFilter, StoreNotification, WebhookMessage, no_such_run, run_has_ended,
};

on_every_store! {
    a_command_is_listed_until_it_is_answered_once,
    an_append_answers_its_commands,
    a_command_to_an_ended_or_unknown_run_is_refused,
    the_end_of_a_run_answers_its_open_commands,
    a_lock_is_granted_in_the_order_of_requests,
    a_step_leaves_a_queue_once_and_joins_it_again_at_the_end,
    the_end_of_a_run_frees_its_locks,
    a_refused_append_changes_no_lock,
    webhook_messages_are_numbered_and_stay_until_they_are_removed,
    subscribers_are_notified,
    runs_are_listed_by_job_and_parent,
    commands_locks_and_messages_survive_a_restart,
}

pub(super) fn command_record(n: u128, run: RunId) -> CommandRecord {
    CommandRecord {
        id: Uuid::from_u128(n),
        run,
        command: json!({ "pause": { "reason": null, "n": 12_345_678_901_234_567_890_u64 } }),
        by: "ada".into(),
        at: at(1),
        answer: None,
    }
}

fn queue(name: &str, step: &str, item: Option<u32>) -> LockChange {
    LockChange::Queue { name: name.into(), step: step.into(), item }
}

fn leave(name: &str, step: &str, item: Option<u32>) -> LockChange {
    LockChange::Leave { name: name.into(), step: step.into(), item }
}

async fn rows(store: &StoreHandle, name: &str) -> Vec<(RunId, String, Option<u32>)> {
    let rows = store.locks(Some(vec![name.to_owned()]), 99).await.unwrap();
    assert!(rows.is_sorted_by_key(|row| row.position) && rows.iter().all(|row| row.name == name));
    rows.into_iter().map(|row| (row.run, row.step.as_str().to_owned(), row.item)).collect()
}

async fn a_command_is_listed_until_it_is_answered_once(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    let (one, two) = (command_record(9, run_id(1)), command_record(3, run_id(1)));
    store.put_command(one.clone()).await.unwrap();
    store.put_command(two.clone()).await.unwrap();
    store.put_command(CommandRecord { by: "eve".into(), ..one.clone() }).await.unwrap();
    store.put_command(command_record(4, run_id(2))).await.unwrap();
    assert_eq!(store.commands(run_id(1)).await.unwrap(), [one.clone(), two.clone()]);
    store.answer_command(one.id, json!({ "ok": 1 })).await.unwrap();
    store.answer_command(one.id, json!({ "ok": 2 })).await.unwrap();
    store.answer_command(Uuid::from_u128(99), json!(1)).await.unwrap();
    assert_eq!(store.commands(run_id(1)).await.unwrap(), [two]);
    let answered = CommandRecord { answer: Some(json!({ "ok": 1 })), ..one.clone() };
    assert_eq!(store.command(one.id).await.unwrap(), Some(answered.clone()));
    store.put_command(one).await.unwrap();
    assert_eq!(store.command(answered.id).await.unwrap(), Some(answered), "a repeated command stays answered");
    assert_eq!(store.command(Uuid::from_u128(99)).await.unwrap(), None);
}

async fn an_append_answers_its_commands(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    for n in 1..=3 {
        store.put_command(command_record(n, run_id(1))).await.unwrap();
    }
    let answered = |n, answer| (Uuid::from_u128(n), answer);
    let refused = Append { answered_commands: vec![answered(1, json!("no"))], ..append(run_id(1), 1, 1) };
    store.append(refused.into()).await.unwrap_err();
    assert_eq!(store.commands(run_id(1)).await.unwrap().len(), 3, "a refused append answers nothing");
    let both = vec![answered(1, json!("yes")), answered(2, json!(null)), answered(77, json!("nobody asked"))];
    store.append(Arc::new(Append { answered_commands: both, ..append(run_id(1), 2, 1) })).await.unwrap();
    assert_eq!(store.commands(run_id(1)).await.unwrap(), [command_record(3, run_id(1))]);
    assert_eq!(store.command(Uuid::from_u128(1)).await.unwrap().unwrap().answer, Some(json!("yes")));
    assert_eq!(store.command(Uuid::from_u128(2)).await.unwrap().unwrap().answer, Some(json!(null)));
    let late = vec![answered(1, json!("late"))];
    store.append(Arc::new(Append { answered_commands: late, ..append(run_id(1), 3, 1) })).await.unwrap();
    assert_eq!(store.command(Uuid::from_u128(1)).await.unwrap().unwrap().answer, Some(json!("yes")));
}

async fn a_command_to_an_ended_or_unknown_run_is_refused(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(with_status(append(run_id(1), 1, 1), RunStatus::Cancelled).into()).await.unwrap();
    store.put_command(command_record(1, run_id(1))).await.unwrap();
    store.put_command(command_record(2, run_id(2))).await.unwrap();
    assert_eq!(store.commands(run_id(1)).await.unwrap(), []);
    assert_eq!(store.commands(run_id(2)).await.unwrap(), []);
    assert_eq!(store.command(Uuid::from_u128(1)).await.unwrap().unwrap().answer, Some(run_has_ended()));
    assert_eq!(store.command(Uuid::from_u128(2)).await.unwrap().unwrap().answer, Some(no_such_run()));
}

async fn the_end_of_a_run_answers_its_open_commands(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    for n in [1, 2] {
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
        store.put_command(command_record(n.into(), run_id(n))).await.unwrap();
        store.put_command(command_record((n + 10).into(), run_id(n))).await.unwrap();
    }
    let last = with_status(append(run_id(1), 2, 1), RunStatus::Completed);
    store
        .append(Arc::new(Append { answered_commands: vec![(Uuid::from_u128(1), json!("done"))], ..last }))
        .await
        .unwrap();
    let answer = async |n| store.command(Uuid::from_u128(n)).await.unwrap().unwrap().answer;
    assert_eq!(answer(1).await, Some(json!("done")));
    assert_eq!(answer(11).await, Some(run_has_ended()));
    assert_eq!((answer(2).await, answer(12).await), (None, None), "the other run's commands stay open");
}

async fn a_lock_is_granted_in_the_order_of_requests(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let request = |n, locks| store.append(Arc::new(Append { locks, ..append(run_id(n), 1, 1) }));
    request(3, vec![queue("a", "x", None)]).await.unwrap();
    request(1, vec![queue("a", "x", Some(1)), queue("a", "x", Some(0)), queue("b", "y", None)]).await.unwrap();
    request(2, vec![queue("a", "x", None), queue("a", "x", None)]).await.unwrap();
    // Already in the queue: it keeps its position.
    store.append(Arc::new(Append { locks: vec![queue("a", "x", None)], ..append(run_id(3), 2, 1) })).await.unwrap();
    let of = |n, item| (run_id(n), "x".to_owned(), item);
    let expected = [of(3, None), of(1, Some(1)), of(1, Some(0)), of(2, None)];
    assert_eq!(rows(store, "a").await, expected);
    assert_eq!(rows(store, "c").await, []);
    let all = store.locks(None, 99).await.unwrap();
    assert!(all.is_sorted_by_key(|row| row.position));
    assert_eq!(all.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "a", "a", "b", "a"]);
    assert_eq!(
        all[0],
        LockRow {
            position: all[0].position,
            name: "a".into(),
            run: run_id(3),
            step: "x".into(),
            item: None,
            since: at(1)
        }
    );
    assert_eq!(store.locks(None, 2).await.unwrap(), all[..2]);
    let both = store.locks(Some(vec!["b".into(), "a".into()]), 99).await.unwrap();
    assert_eq!(both, all);
    store.append(Arc::new(Append { locks: vec![leave("a", "x", None)], ..append(run_id(3), 3, 1) })).await.unwrap();
    assert_eq!(rows(store, "a").await, expected[1..]);

    let requests: Vec<_> = (10..40)
        .map(|n| {
            let store = store.clone();
            let locks = vec![queue("race", "x", None)];
            tokio::spawn(
                async move { store.append(Arc::new(Append { locks, ..append(run_id(n), 1, 1) })).await.unwrap() },
            )
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    let mut holders = Vec::new();
    while let Some((holder, ..)) = rows(store, "race").await.into_iter().next() {
        holders.push(holder);
        let locks = vec![leave("race", "x", None)];
        store.append(Arc::new(Append { locks, ..append(holder, 2, 1) })).await.unwrap();
    }
    holders.sort();
    assert_eq!(holders, (10..40).map(run_id).collect::<Vec<_>>(), "each run holds the lock once");
}

async fn a_step_leaves_a_queue_once_and_joins_it_again_at_the_end(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let first = Append { locks: vec![queue("a", "x", None)], ..append(run_id(1), 1, 1) };
    store.append(first.clone().into()).await.unwrap();
    store.append(Arc::new(Append { locks: vec![queue("a", "x", None)], ..append(run_id(2), 1, 1) })).await.unwrap();
    // A step that leaves and joins again in one append is at the end of the queue.
    let leave_and_join = vec![leave("a", "x", None), queue("a", "x", None)];
    store.append(Arc::new(Append { locks: leave_and_join, ..append(run_id(1), 2, 1) })).await.unwrap();
    let holders = async || rows(store, "a").await.into_iter().map(|(run, ..)| run).collect::<Vec<_>>();
    assert_eq!(holders().await, [run_id(2), run_id(1)]);
    // A step that joins and leaves in one append is not in the queue. Leaving a queue without being in it is no error.
    let join_and_leave = vec![queue("b", "x", None), leave("b", "x", None), leave("c", "x", None)];
    store.append(Arc::new(Append { locks: join_and_leave, ..append(run_id(2), 2, 1) })).await.unwrap();
    assert_eq!(rows(store, "b").await, []);
    // A repeated append changes nothing.
    store.append(Arc::new(Append { locks: vec![leave("a", "x", None)], ..append(run_id(1), 3, 1) })).await.unwrap();
    store.append(first.into()).await.unwrap();
    assert_eq!(holders().await, [run_id(2)]);
    // Submitted together.
    let appends = [
        Append { locks: vec![queue("d", "x", None)], ..append(run_id(3), 1, 1) },
        Append { locks: vec![leave("d", "x", None)], ..append(run_id(3), 2, 1) },
        Append { locks: vec![queue("d", "x", None)], ..append(run_id(4), 1, 1) },
        Append { locks: vec![queue("d", "x", None)], ..append(run_id(3), 3, 1) },
    ];
    for done in futures_util::future::join_all(appends.map(|append| store.append(append.into()))).await {
        done.unwrap();
    }
    let holders: Vec<_> = rows(store, "d").await.into_iter().map(|(run, ..)| run).collect();
    assert_eq!(holders, [run_id(4), run_id(3)]);
}

async fn the_end_of_a_run_frees_its_locks(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    for n in [1, 2] {
        let locks = vec![queue("a", "x", None), queue("b", "x", Some(7))];
        store.append(Arc::new(Append { locks, ..append(run_id(n), 1, 1) })).await.unwrap();
    }
    store.append(with_status(append(run_id(1), 2, 1), RunStatus::Failed).into()).await.unwrap();
    assert_eq!(rows(store, "a").await, [(run_id(2), "x".to_owned(), None)]);
    assert_eq!(rows(store, "b").await, [(run_id(2), "x".to_owned(), Some(7))]);
    // A lock that the last append requests is not granted.
    let locks = vec![queue("c", "x", None)];
    store.append(Arc::new(Append { locks, ..with_status(append(run_id(2), 2, 1), RunStatus::Failed) })).await.unwrap();
    assert_eq!(store.locks(None, 9).await.unwrap(), []);
}

async fn a_refused_append_changes_no_lock(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(Arc::new(Append { locks: vec![queue("a", "x", None)], ..append(run_id(1), 1, 1) })).await.unwrap();
    let bad = vec![leave("a", "x", None), queue("b", "x", None)];
    let webhook_messages = vec![webhook_message(run_id(1), 1)];
    store
        .append(Arc::new(Append { locks: bad.clone(), webhook_messages, ..append(run_id(1), 1, 1) }))
        .await
        .unwrap_err();
    store.append(Arc::new(Append { locks: bad, fence: Fence(7), ..append(run_id(1), 2, 1) })).await.unwrap_err();
    assert_eq!(rows(store, "a").await.len(), 1);
    assert_eq!(rows(store, "b").await.len(), 0);
    assert_eq!(store.webhook_messages(0, 9).await.unwrap(), []);
}

async fn webhook_messages_are_numbered_and_stay_until_they_are_removed(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let with = |n, webhook_messages| Append { webhook_messages, ..append(run_id(n), 1, 1) };
    store.append(with(1, vec![webhook_message(run_id(1), 1), webhook_message(run_id(1), 2)]).into()).await.unwrap();
    store.append(with(2, vec![webhook_message(run_id(2), 3)]).into()).await.unwrap();
    let found = store.webhook_messages(0, 9).await.unwrap();
    assert!(found.is_sorted_by_key(|message| message.number) && found[0].number > 0);
    let as_appended: Vec<_> = found.iter().cloned().map(|message| WebhookMessage { number: 0, ..message }).collect();
    assert_eq!(
        as_appended,
        [webhook_message(run_id(1), 1), webhook_message(run_id(1), 2), webhook_message(run_id(2), 3)]
    );
    assert_eq!(store.webhook_messages(0, 2).await.unwrap(), found[..2]);
    assert_eq!(store.webhook_messages(found[0].number, 9).await.unwrap(), found[1..]);
    assert_eq!(store.webhook_messages(found[2].number, 9).await.unwrap(), []);
    for done in [1, 2, 0] {
        store.remove_webhook_message(found[done].number).await.unwrap();
    }
    assert_eq!(store.webhook_messages(0, 9).await.unwrap(), []);
    store.append(with(3, vec![webhook_message(run_id(3), 4)]).into()).await.unwrap();
    let later = store.webhook_messages(0, 9).await.unwrap().remove(0);
    assert!(later.number > found[2].number, "a number is never used again");
    store.remove_webhook_message(found[2].number).await.unwrap();
    assert_eq!(store.webhook_messages(0, 9).await.unwrap(), [later]);
}

async fn subscribers_are_notified(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let mut notifications = store.notifications();
    // There may be more notifications, and in another order: they are only hints.
    let mut all = Vec::new();
    let mut expect = async |wanted: StoreNotification| {
        let received = async {
            while !all.contains(&wanted) {
                all.push(notifications.recv().await.unwrap());
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), received).await;
        waited.unwrap_or_else(|_| panic!("no notification {wanted:?}"));
    };
    let run = run_id(1);
    let locks = vec![queue("a", "x", None), queue("b", "x", None)];
    store
        .append(Arc::new(Append { locks, webhook_messages: vec![webhook_message(run, 1)], ..append(run, 1, 1) }))
        .await
        .unwrap();
    expect(StoreNotification::WebhookMessage).await;
    store.put_command(command_record(1, run)).await.unwrap();
    expect(StoreNotification::Run(run)).await;
    store.answer_command(Uuid::from_u128(1), json!(1)).await.unwrap();
    expect(StoreNotification::Command(Uuid::from_u128(1))).await;
    store.put_command(command_record(2, run)).await.unwrap();
    let answered = vec![(Uuid::from_u128(2), json!(2))];
    store
        .append(Arc::new(Append {
            locks: vec![leave("a", "x", None)],
            answered_commands: answered,
            ..append(run, 2, 1)
        }))
        .await
        .unwrap();
    expect(StoreNotification::Lock("a".into())).await;
    let queued = with_status(append(run_id(2), 1, 1), RunStatus::Queued);
    store.append(Arc::new(Append { release: true, ..queued })).await.unwrap();
    expect(StoreNotification::Run(run_id(2))).await;
    store.append(with_status(append(run, 3, 1), RunStatus::Completed).into()).await.unwrap();
    expect(StoreNotification::Lock("b".into())).await;
    expect(StoreNotification::Ended { run, by_this_process: true }).await;
}

async fn runs_are_listed_by_job_and_parent(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let job = JobId(run_id(1).0);
    for n in 1..=6 {
        let mut one = append(run_id(n), 1, 1);
        one.summary.job = [3, 5].contains(&n).then_some(job);
        one.summary.parent = [2, 4].contains(&n).then_some(run_id(1));
        if n == 4 {
            one.summary.status = RunStatus::Failed;
        }
        fixture.store.append(one.into()).await.unwrap();
    }
    let list = async |filter: RunFilter| {
        let runs = fixture.store.runs(filter).await.unwrap();
        runs.iter().map(|run| (1..=6).find(|n| run_id(*n) == run.run_id).unwrap()).collect::<Vec<_>>()
    };
    let all = RunFilter { limit: 100, ..RunFilter::default() };
    assert_eq!(list(RunFilter { job: Some(job), ..all.clone() }).await, [5, 3, 1]);
    assert_eq!(list(RunFilter { job: Some(job), limit: 2, ..all.clone() }).await, [5, 3]);
    assert_eq!(list(RunFilter { job: Some(job), before: Some(run_id(3)), ..all.clone() }).await, [1]);
    assert_eq!(list(RunFilter { job: Some(JobId(run_id(6).0)), ..all.clone() }).await, [6]);
    assert_eq!(list(RunFilter { parent: Some(run_id(1)), ..all.clone() }).await, [4, 2]);
    let failed = vec![RunStatus::Failed];
    assert_eq!(list(RunFilter { parent: Some(run_id(1)), statuses: failed, ..all.clone() }).await, [4]);
    assert_eq!(list(RunFilter { job: Some(job), parent: Some(run_id(1)), ..all }).await, [0; 0]);
}

async fn commands_locks_and_messages_survive_a_restart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let locks = vec![queue("a", "x", Some(3))];
    let webhook_messages = vec![webhook_message(run_id(1), 1)];
    fixture.store.append(Arc::new(Append { locks, webhook_messages, ..append(run_id(1), 1, 1) })).await.unwrap();
    fixture.store.put_command(command_record(1, run_id(1))).await.unwrap();
    fixture.store.put_command(command_record(2, run_id(1))).await.unwrap();
    fixture.store.answer_command(Uuid::from_u128(2), json!("done")).await.unwrap();
    fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(rows(store, "a").await, [(run_id(1), "x".to_owned(), Some(3))]);
    assert_eq!(store.webhook_messages(0, 9).await.unwrap().len(), 1);
    assert_eq!(store.commands(run_id(1)).await.unwrap(), [command_record(1, run_id(1))]);
    assert_eq!(store.command(Uuid::from_u128(2)).await.unwrap().unwrap().answer, Some(json!("done")));
    let mut notifications = store.notifications();
    store.append(with_status(append(run_id(1), 2, 1), RunStatus::Completed).into()).await.unwrap();
    let received = async { while notifications.recv().await.unwrap() != StoreNotification::Lock("a".into()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), received)
        .await
        .expect("the lock from before the restart is freed");
}
