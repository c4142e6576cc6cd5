//! Records beside events: plans, keys of runs, flips, declarations, evidence, the secret, key files.

use super::*;
use crate::flag::{Framework, GuardCondition, PathConventions, Percent, RetryScope, Shares, State, TokenSource};
use crate::names::PlanSet;
use crate::store::{
    CohortRule, DeclaredState, DroppedReason, EarlierFollowerRequests, EvidenceRecord, FileState, FlipRecord,
    FollowerRequests, ForcedCohort, ForcedState, GuardAction, GuardRecord, KeyFileRecord, LiveBasis, Overridden,
    PutFlips, RecordEntry, ReplacedMatch, ReplacedScope, RetryScopes, UnreadKeyFile, UnrecordedBecause, guard_key,
};

on_every_store! {
    a_plan_is_stored_by_its_id,
    the_key_of_a_run_is_removed_when_the_run_ends,
    a_detached_twin_keeps_its_pin_without_a_run,
    flips_are_numbered_and_the_last_of_each_route_is_returned,
    nothing_is_recorded_that_was_to_follow_an_older_flip,
    declarations_are_replaced_as_a_whole,
    evidence_is_replaced_by_route,
    the_secret_stays_the_same,
    key_files_are_listed_until_they_are_removed,
    an_entry_of_the_record_is_added_once_and_stays,
    flips_after_a_number_come_in_order,
}

pub(super) fn flip(route: Option<&str>, to: &str) -> FlipRecord {
    FlipRecord {
        number: 0,
        route: route.map(RouteId::from),
        from: "off".into(),
        to: to.into(),
        shares: Some(Shares { live: Percent::new(12.5).unwrap(), ..Shares::default() }),
        by: "ada (unverified)".into(),
        at: at(1),
        reason: Some("try it".into()),
        forced: true,
        overridden: Some(Overridden {
            from: State::Dark,
            reason: "a drill".into(),
            forced_at: Some(at(1)),
            by_this_move: Some(State::Live),
        }),
        evidence: json!({ "pairs": 20, "rate": 0.125 }),
        gates: Vec::new(),
        guard: None,
        candidate: None,
    }
}

/// Records flips that are to follow the flip with this number.
async fn put(
    fixture: &StoreFixture,
    after: u64,
    flips: &[FlipRecord],
    declared: Option<Vec<DeclaredState>>,
) -> Option<Vec<u64>> {
    fixture.store.put_flips(PutFlips { flips: flips.to_vec(), declared, after, ..PutFlips::default() }).await.unwrap()
}

async fn a_plan_is_stored_by_its_id(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let source = json!({ "workflow": "w", "big": 12_345_678_901_234_567_890_u64, "steps": { "b": 1, "a": 2 } });
    fixture.store.put_plan("plan_1".into(), source.clone()).await.unwrap();
    fixture.store.put_plan("plan_1".into(), source.clone()).await.unwrap();
    fixture.reopen().await;
    assert_eq!(fixture.store.plan("plan_1".into()).await.unwrap(), Some(source));
    assert_eq!(fixture.store.plan("plan_2".into()).await.unwrap(), None);
}

async fn a_detached_twin_keeps_its_pin_without_a_run(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let pins = vec![pin("1", Arm::Engine), pin("2", Arm::Legacy), pin("3", Arm::Legacy)];
    fixture.store.append(Append { pins, ..append(run_id(1), 1, 1) }.into()).await.unwrap();
    for id in ["1", "2", "4"] {
        fixture.store.detach_twin(pin(id, Arm::Legacy).key).await.unwrap();
    }
    fixture.reopen().await;
    let run_of = async |id| {
        let found = fixture.store.pin(pin(id, Arm::Legacy).key).await.unwrap();
        found.map(|pin| (pin.arm, pin.run))
    };
    assert_eq!(run_of("1").await, Some((Arm::Engine, Some(run_id(1)))), "the engine's own instances are not twins");
    assert_eq!(run_of("2").await, Some((Arm::Legacy, None)));
    assert_eq!(run_of("3").await, Some((Arm::Legacy, Some(run_id(1)))));
    assert_eq!(run_of("4").await, None);
    let counts: u64 = fixture.store.pin_counts().await.unwrap().iter().map(|(.., count)| count).sum();
    assert_eq!(counts, 3, "it is still known that legacy owns it");
}

async fn the_key_of_a_run_is_removed_when_the_run_ends(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let (run, other) = (run_id(1), run_id(2));
    for run in [run, other] {
        fixture.store.put_run_key(run, Some(vec![1, 2, 3])).await.unwrap();
        fixture.store.append(append(run, 1, 2).into()).await.unwrap();
    }
    fixture.reopen().await;
    assert_eq!(fixture.store.run_key(run).await.unwrap(), Some(vec![1, 2, 3]));
    let mut last = append(run, 3, 1);
    last.summary.status = RunStatus::Completed;
    fixture.store.append(last.into()).await.unwrap();
    assert_eq!(fixture.store.run_key(run).await.unwrap(), None);
    assert_eq!(fixture.store.run_key(other).await.unwrap(), Some(vec![1, 2, 3]));
    fixture.store.put_run_key(other, None).await.unwrap();
    assert_eq!(fixture.store.run_key(other).await.unwrap(), None);

    // A run that ends with its first append.
    fixture.store.put_run_key(run_id(3), Some(vec![4])).await.unwrap();
    let mut only = append(run_id(3), 1, 1);
    only.summary.status = RunStatus::Failed;
    fixture.store.append(only.into()).await.unwrap();
    assert_eq!(fixture.store.run_key(run_id(3)).await.unwrap(), None);
}

async fn flips_are_numbered_and_the_last_of_each_route_is_returned(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let given = [
        flip(Some("a"), "shadow"),
        flip(Some("b"), "shadow"),
        flip(None, "instances"),
        flip(Some("a"), "dark"),
        flip(None, "no"),
    ];
    assert_eq!(put(&fixture, 0, &given[..1], None).await, Some(vec![1]));
    assert_eq!(put(&fixture, 1, &given[1..], None).await, Some(vec![2, 3, 4, 5]));
    fixture.reopen().await;
    let numbers = |flips: Vec<FlipRecord>| flips.iter().map(|flip| flip.number).collect::<Vec<_>>();
    assert_eq!(numbers(fixture.store.flips(None, 10).await.unwrap()), [5, 4, 3, 2, 1]);
    assert_eq!(numbers(fixture.store.flips(None, 2).await.unwrap()), [5, 4]);
    assert_eq!(numbers(fixture.store.flips(Some("a".into()), 10).await.unwrap()), [4, 1]);
    assert_eq!(numbers(fixture.store.last_flips().await.unwrap()), [5, 4, 2]);
    assert_eq!(put(&fixture, 5, &[], None).await, Some(Vec::new()));
    assert_eq!(put(&fixture, 5, &[flip(Some("a"), "off")], None).await, Some(vec![6]));
    let first = fixture.store.flips(Some("b".into()), 1).await.unwrap().remove(0);
    assert_eq!(first, FlipRecord { number: 2, ..flip(Some("b"), "shadow") });
    // What the guard of a route did is beside its flips, and is not its last one.
    let (action, limit, condition) = (GuardAction::Lowered, Some(State::Dark), Some(GuardCondition::Errors));
    let guard = GuardRecord { route: "a".into(), action, limit, condition, bad: 5, of: 6, runs: vec![run_id(7)] };
    let lowered = FlipRecord { guard: Some(guard), route: Some(guard_key(&"a".into())), ..flip(None, "dark") };
    assert_eq!(put(&fixture, 6, std::slice::from_ref(&lowered), None).await, Some(vec![7]));
    let last = fixture.store.last_flips().await.unwrap();
    assert_eq!(last.len(), 4);
    assert!(last.contains(&FlipRecord { number: 7, ..lowered }), "{last:?}");
    assert_eq!(numbers(fixture.store.flips(Some("a".into()), 10).await.unwrap()), [6, 4, 1]);
}

/// Such a write was decided before the newest flip, and reaches the store after it.
async fn nothing_is_recorded_that_was_to_follow_an_older_flip(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let file = Some(FileState { state: State::Off, shares: Shares::default() });
    let declared = vec![DeclaredState {
        route: "a".into(),
        file,
        retry: None,
        follows: None,
        live: None,
        in_force: None,
        evidence_from: None,
        forced: None,
        promote: None,
        is_absent: false,
        earlier_ids: Vec::new(),
    }];
    // The database of several processes may have lost flips that they have in force.
    if which != StoreKind::Postgres {
        let early = put(&fixture, 1, &[flip(Some("a"), "off")], Some(declared.clone())).await;
        assert_eq!(early, None, "there is no flip 1");
    }
    assert_eq!(put(&fixture, 0, &[flip(Some("a"), "live")], None).await, Some(vec![1]));
    assert_eq!(put(&fixture, 1, &[flip(None, "instances")], None).await, Some(vec![2]));
    for flips in [vec![flip(Some("a"), "only")], vec![flip(None, "no"), flip(Some("b"), "live")], Vec::new()] {
        assert_eq!(put(&fixture, 1, &flips, Some(declared.clone())).await, None);
    }
    assert_eq!(
        (fixture.store.flips(None, 9).await.unwrap().len(), fixture.store.declared().await.unwrap()),
        (2, vec![])
    );
    assert_eq!(put(&fixture, 2, &[flip(Some("a"), "off")], Some(declared.clone())).await, Some(vec![3]));
    assert_eq!(fixture.store.declared().await.unwrap(), declared);
}

async fn declarations_are_replaced_as_a_whole(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let of = |route: &str, state| {
        let file = Some(FileState { state, shares: Shares::default() });
        DeclaredState {
            route: route.into(),
            file,
            retry: None,
            follows: None,
            live: None,
            in_force: Some(PlanSet { workflow: "w".into(), plans: [("w".into(), "plan_1".into())].into() }),
            evidence_from: Some(PlanSet { workflow: "w".into(), plans: [("w".into(), "plan_0".into())].into() }),
            forced: Some(ForcedState {
                state: State::Live,
                reason: Some("we know".into()),
                since: at(0),
                source: "declared a".into(),
            }),
            promote: None,
            is_absent: false,
            earlier_ids: Vec::new(),
        }
    };
    put(&fixture, 0, &[], Some(vec![of("b", State::Live), of("a", State::Off)])).await.unwrap();
    assert_eq!(fixture.store.declared().await.unwrap(), [of("a", State::Off), of("b", State::Live)]);
    put(&fixture, 0, &[flip(Some("c"), "only")], Some(vec![of("c", State::Only)])).await.unwrap();
    assert_eq!(fixture.store.declared().await.unwrap(), [of("c", State::Only)]);
    put(&fixture, 1, &[flip(Some("c"), "off")], None).await.unwrap();
    assert_eq!(fixture.store.declared().await.unwrap(), [of("c", State::Only)], "a flip alone does not change them");
    put(&fixture, 2, &[], Some(Vec::new())).await.unwrap();
    assert_eq!(fixture.store.declared().await.unwrap(), []);
    assert_eq!(fixture.store.flips(None, 9).await.unwrap().len(), 2);
    let scope = |header: &str| RetryScope {
        form: crate::flag::KeyForm::SharedHalf,
        bytes: crate::flag::ByteForm::Exact,
        route: "a".into(),
        key: Some("${request.headers.x}".into()),
        headers: vec![header.into()],
        token: Some(TokenSource { keys: "PEM".into(), audience: vec!["us".into()] }),
    };
    let at = Timestamp::from_second(7).unwrap();
    let earlier = vec![ReplacedScope { scope: scope("x-b"), at, matches: Some("POST /a/{b}".into()), paths: None }];
    let paths = PathConventions::of(Framework::Express);
    let rule = CohortRule { hash: "0a".into(), when: "request.method == \"POST\"".into(), state: State::Live };
    let staff = ForcedCohort {
        reason: "own people".into(),
        since: at,
        source: Some("cohort a staff".into()),
        rule: Some(rule),
    };
    let retry = |present| {
        let (earlier, matches) = (earlier.clone(), Some("POST /a".into()));
        Some(RetryScopes {
            present,
            earlier,
            newest_dropped: Some(at),
            matches,
            paths: Some(paths),
            reads_only: true,
            window_s: Some(86_400),
            has_force: Some(true),
            since: Some(at),
            since_because: Some(UnrecordedBecause::MatchChanged),
            harmful_since: Some(at),
            accepted: Some(at),
            forced_cohorts: Some([("staff".into(), staff.clone())].into()),
            dropped_reasons: [("a pilot".into(), DroppedReason { since: at, at })].into(),
            reassigned: vec![ReplacedMatch { matches: "POST /b".into(), paths, scope: scope("x-c"), at }],
            joined: ["c".into()].into(),
        })
    };
    let follows = FollowerRequests {
        family: vec!["a".into(), "older".into()],
        matches: "GET shop.test/orders/{id}".into(),
        paths: Some(paths),
        param: "id".into(),
        except: vec!["GET /orders/new".into()],
        has_no_workflow: true,
        is_absent: true,
        earlier: vec![EarlierFollowerRequests {
            family: vec!["c".into()],
            matches: "GET /carts/{id}".into(),
            paths: Some(paths),
        }],
    };
    let gone = DeclaredState {
        route: "b".into(),
        file: None,
        retry: retry(None),
        follows: Some(follows),
        live: Some(LiveBasis { basis: Some("a hash".into()), is_below_live: true }),
        in_force: None,
        evidence_from: None,
        forced: None,
        promote: None,
        is_absent: true,
        earlier_ids: vec!["a".into(), "oldest".into()],
    };
    let rows = vec![DeclaredState { retry: retry(Some(scope("x-a"))), ..of("a", State::Live) }, gone];
    put(&fixture, 2, &[], Some(rows.clone())).await.unwrap();
    assert_eq!(fixture.store.declared().await.unwrap(), rows);
}

/// A declaration of an older version has no scopes.
#[test]
fn a_declaration_without_scopes_is_read() {
    let row = serde_json::json!({ "route": "a", "state": "dark", "shares": Shares::default() });
    let read: DeclaredState = serde_json::from_value(row).unwrap();
    assert_eq!((read.file.unwrap().state, read.retry), (State::Dark, None));
}

async fn evidence_is_replaced_by_route(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let of = |route: &str, pairs: u64| EvidenceRecord {
        route: route.into(),
        at: at(1),
        value: json!({ "pairs": pairs, "rate": 0.1 }),
    };
    fixture.store.put_evidence(vec![of("b", 1), of("a", 2)]).await.unwrap();
    fixture.store.put_evidence(vec![of("b", 3)]).await.unwrap();
    assert_eq!(fixture.store.evidence().await.unwrap(), [of("a", 2), of("b", 3)]);
}

async fn the_secret_stays_the_same(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let secret = fixture.store.secret().await.unwrap();
    assert_ne!(secret, [0; 32]);
    fixture.reopen().await;
    assert_eq!(fixture.store.secret().await.unwrap(), secret);
    assert_ne!(StoreFixture::new(which).await.store.secret().await.unwrap(), secret);
}

async fn key_files_are_listed_until_they_are_removed(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    assert_eq!(fixture.store.key_files().await.unwrap(), []);
    let file = |n: u128| KeyFileRecord {
        id: uuid::Uuid::from_u128(n),
        path: format!("/var/lib/{n}.keys"),
        host: "here".into(),
        location: "/var/lib/a.db".into(),
        all_stored: n == 3,
        unread: None,
    };
    let unread =
        UnreadKeyFile { since: at(1), why: "is not there".into(), belongs_to_original: true, is_of_later_store: true };
    let gone = KeyFileRecord { unread: Some(unread), ..file(2) };
    fixture.store.put_key_files(vec![file(1), file(2), file(3)], vec![]).await.unwrap();
    fixture.store.put_key_files(vec![gone.clone()], vec![file(1).id, file(9).id]).await.unwrap();
    fixture.reopen().await;
    assert_eq!(fixture.store.key_files().await.unwrap(), [gone, file(3)]);
    fixture.store.put_key_files(vec![], vec![file(2).id, file(3).id]).await.unwrap();
    assert_eq!(fixture.store.key_files().await.unwrap(), []);
}

async fn an_entry_of_the_record_is_added_once_and_stays(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let entry = |number: u64, source: &str| RecordEntry {
        number,
        at: at(1),
        kind: "flip".into(),
        route: (number != 2).then(|| "a".into()),
        source: source.into(),
        flips: number,
        body: json!({ "rate": serde_json::from_str::<serde_json::Value>("0.10").unwrap(), "b": 1, "a": "x\u{0}" }),
        previous: "p".into(),
        is_noted: false,
        hash: format!("h{number}"),
    };
    assert_eq!(fixture.store.newest_record_entry().await.unwrap(), None);
    for (number, source) in [(1, "flip 1"), (1, "flip 9"), (2, "flip 1"), (2, "flip 2"), (3, "flip 3")] {
        fixture.store.put_record_entry(entry(number, source)).await.unwrap();
    }
    fixture.reopen().await;
    let all = [entry(1, "flip 1"), entry(2, "flip 2"), entry(3, "flip 3")];
    assert_eq!(fixture.store.record_entries(0, 9).await.unwrap(), all);
    assert_eq!(fixture.store.record_entries(1, 1).await.unwrap(), all[1..2]);
    assert_eq!(fixture.store.newest_record_entry().await.unwrap(), Some(all[2].clone()));
}

async fn flips_after_a_number_come_in_order(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    put(&fixture, 0, &[flip(Some("a"), "shadow"), flip(None, "no"), flip(Some("b"), "dark")], None).await;
    let numbers = async |after, limit| {
        let flips = fixture.store.flips_after(after, limit).await.unwrap();
        flips.iter().map(|flip| flip.number).collect::<Vec<_>>()
    };
    assert_eq!((numbers(0, 2).await, numbers(1, 9).await, numbers(3, 9).await), (vec![1, 2], vec![2, 3], Vec::new()));
}
