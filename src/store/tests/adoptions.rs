//! Instances that are moved from legacy to the engine: one claim holds, and what follows from its end.

use super::*;
use crate::store::{
    Adoption, AdoptionClaim, AdoptionOutcome, AdoptionState, AppendConflict, AppendError, InstanceChange, NewAdoption,
    PinAdoption,
};

on_every_store! {
    one_claim_of_an_instance_holds,
    an_adopted_instance_is_the_engines_for_good,
    an_instance_that_is_given_back_is_legacys_and_may_be_claimed_again,
    an_unknown_adoption_keeps_its_pins_until_it_is_decided,
    the_engines_own_instances_are_not_claimed,
    adoptions_are_listed_in_pages,
    nothing_is_claimed_while_another_process_uses_the_store,
}

fn key(id: &str) -> PinKey {
    PinKey { family: "f".into(), id: id.into() }
}

fn new(id: &str, run: u64) -> NewAdoption {
    NewAdoption {
        key: key(&id.to_lowercase()),
        id: id.into(),
        pins: vec![key(id)],
        twins: vec![key(id), PinKey { family: "earlier".into(), id: id.into() }],
        run: run_id(run),
        workflow: "adopt".into(),
        by: "anna".into(),
        at: at(1),
        worker: WorkerId(Uuid::from_u128(7)),
        settles_s: 0,
    }
}

fn outcome(id: &str, run: u64, state: AdoptionState) -> AdoptionOutcome {
    let (key, run) = (key(id), run_id(run));
    AdoptionOutcome { key, run, state, reason: Some("why\u{0}not".into()), by: None, at: at(5) }
}

async fn claim(fixture: &StoreFixture, new: NewAdoption) -> AdoptionClaim {
    let claim = fixture.store.claim_adoption(new.clone()).await.unwrap();
    // A repeated claim of one run changes nothing.
    assert_eq!(fixture.store.claim_adoption(new).await.unwrap(), claim);
    claim
}

async fn record(fixture: &StoreFixture, outcome: AdoptionOutcome) -> bool {
    let first = fixture.store.record_adoption_outcome(outcome.clone()).await.unwrap();
    assert_eq!(fixture.store.record_adoption_outcome(outcome).await.unwrap(), first);
    first
}

async fn pinned(fixture: &StoreFixture, id: &str) -> Option<(Arm, Option<RunId>, Option<PinAdoption>)> {
    fixture.store.pin(key(id)).await.unwrap().map(|pin| (pin.arm, pin.run, pin.adoption))
}

async fn alive(fixture: &StoreFixture, arm: Arm) -> u64 {
    let found = fixture.store.instance_counts(vec!["f".into()]).await.unwrap();
    found.into_iter().find(|count| count.arm == arm).unwrap().alive
}

async fn see(fixture: &StoreFixture, change: InstanceChange) {
    fixture.store.change_instances(vec![change]).await.unwrap();
}

async fn one_claim_of_an_instance_holds(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    see(&fixture, InstanceChange::LegacySeen(key("17"), at(1))).await;
    // A twin gives way, also one under an earlier id of the family.
    for (n, family) in [(1, "f"), (2, "earlier")] {
        let pins = vec![NewPin { key: PinKey { family: family.into(), id: "17".into() }, arm: Arm::Legacy }];
        fixture.store.append(Append { pins, ..append(run_id(n), 1, 1) }.into()).await.unwrap();
    }
    assert_eq!(claim(&fixture, new("17", 10)).await, AdoptionClaim::Claimed);
    fixture.reopen().await;
    let AdoptionClaim::Held(held) = claim(&fixture, new("17", 11)).await else { panic!("the first claim holds") };
    assert_eq!((held.run, held.state, held.by.as_str()), (run_id(10), AdoptionState::Moving, "anna"));
    assert_eq!(pinned(&fixture, "17").await, Some((Arm::Engine, Some(run_id(10)), Some(PinAdoption::Moving))));
    let earlier = fixture.store.pin(PinKey { family: "earlier".into(), id: "17".into() }).await.unwrap();
    assert!(earlier.is_none(), "{earlier:?}");
    // While it moves it is neither the engine's nor gone from legacy.
    assert_eq!((alive(&fixture, Arm::Engine).await, alive(&fixture, Arm::Legacy).await), (0, 1));
    let open = fixture.store.adoptions(None, vec![AdoptionState::Moving], None, 10).await.unwrap();
    assert_eq!(open, [held]);
}

async fn an_adopted_instance_is_the_engines_for_good(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    see(&fixture, InstanceChange::LegacySeen(key("17"), at(1))).await;
    assert_eq!(claim(&fixture, new("17", 10)).await, AdoptionClaim::Claimed);
    fixture.store.append(append(run_id(10), 1, 1).into()).await.unwrap();
    assert!(!record(&fixture, outcome("17", 11, AdoptionState::Adopted)).await, "another run's");
    assert!(record(&fixture, outcome("17", 10, AdoptionState::Adopted)).await);
    fixture.reopen().await;
    assert!(!record(&fixture, outcome("17", 10, AdoptionState::GivenBack)).await, "it has ended");
    assert_eq!(pinned(&fixture, "17").await, Some((Arm::Engine, Some(run_id(10)), Some(PinAdoption::Adopted))));
    assert_eq!((alive(&fixture, Arm::Engine).await, alive(&fixture, Arm::Legacy).await), (1, 0));
    // Legacy goes on to list it, and a report of it was under way.
    see(&fixture, InstanceChange::LegacyListed(key("17"), at(9))).await;
    see(&fixture, InstanceChange::LegacySeen(key("17"), at(9))).await;
    assert_eq!(alive(&fixture, Arm::Legacy).await, 0);
    assert!(matches!(claim(&fixture, new("17", 12)).await, AdoptionClaim::Held(_)));
    // A dark run of its create may end after it was adopted: it has no twin, and yet legacy alone has made it.
    let twin = vec![NewPin { key: key("17"), arm: Arm::Legacy }];
    let conflict = AppendConflict::Pin { key: key("17"), owner: Arm::Engine, made_by: Arm::Legacy };
    let late = fixture.store.append(Append { pins: twin, ..append(run_id(13), 1, 1) }.into()).await;
    assert_eq!(late, Err(AppendError::Conflict(conflict)));
    // It ends as any other instance of the engine.
    let family = vec!["f".into()];
    see(&fixture, InstanceChange::EngineEnded { family, run: run_id(10), at: at(10) }).await;
    assert_eq!(alive(&fixture, Arm::Engine).await, 0);
    // One that no request had shown is no new instance of legacy later.
    assert_eq!(claim(&fixture, new("18", 20)).await, AdoptionClaim::Claimed);
    assert!(record(&fixture, outcome("18", 20, AdoptionState::Adopted)).await);
    see(&fixture, InstanceChange::LegacySeen(key("18"), at(9))).await;
    assert_eq!(alive(&fixture, Arm::Legacy).await, 0);
}

async fn an_instance_that_is_given_back_is_legacys_and_may_be_claimed_again(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    see(&fixture, InstanceChange::LegacySeen(key("17"), at(1))).await;
    assert_eq!(claim(&fixture, new("17", 10)).await, AdoptionClaim::Claimed);
    assert!(record(&fixture, outcome("17", 10, AdoptionState::GivenBack)).await);
    fixture.reopen().await;
    assert_eq!(pinned(&fixture, "17").await, None);
    assert_eq!((alive(&fixture, Arm::Engine).await, alive(&fixture, Arm::Legacy).await), (0, 1));
    let known: Adoption = fixture.store.adoption(key("17")).await.unwrap().unwrap();
    assert_eq!((known.state, known.reason.as_deref()), (AdoptionState::GivenBack, Some("why\u{0}not")));
    assert_eq!(claim(&fixture, new("17", 10)).await, AdoptionClaim::EngineOwns, "a run claims once");
    assert_eq!(claim(&fixture, new("17", 11)).await, AdoptionClaim::Claimed);
    let counts = fixture.store.adoption_counts().await.unwrap();
    assert_eq!(counts, [("f".into(), AdoptionState::Moving, 1)]);
}

async fn an_unknown_adoption_keeps_its_pins_until_it_is_decided(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    for (id, run, decided) in [("17", 10, AdoptionState::GivenBack), ("18", 11, AdoptionState::Adopted)] {
        assert_eq!(claim(&fixture, new(id, run)).await, AdoptionClaim::Claimed);
        assert!(record(&fixture, outcome(id, run, AdoptionState::Unknown)).await);
        fixture.reopen().await;
        assert_eq!(pinned(&fixture, id).await, Some((Arm::Engine, Some(run_id(run)), Some(PinAdoption::Unknown))));
        assert!(matches!(claim(&fixture, new(id, 20)).await, AdoptionClaim::Held(_)));
        let decision = AdoptionOutcome { by: Some("bert".into()), ..outcome(id, run, decided) };
        assert!(record(&fixture, decision).await);
        let known = fixture.store.adoption(key(id)).await.unwrap().unwrap();
        assert_eq!((known.state, known.by.as_str()), (decided, "bert"));
        assert_eq!(pinned(&fixture, id).await.is_some(), decided == AdoptionState::Adopted);
    }
}

async fn the_engines_own_instances_are_not_claimed(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let pins = vec![NewPin { key: key("17"), arm: Arm::Engine }];
    fixture.store.append(Append { pins, ..append(run_id(1), 1, 1) }.into()).await.unwrap();
    assert_eq!(claim(&fixture, new("17", 10)).await, AdoptionClaim::EngineOwns);
    assert_eq!(pinned(&fixture, "17").await, Some((Arm::Engine, Some(run_id(1)), None)));
    assert!(fixture.store.adoption(key("17")).await.unwrap().is_none());
}

async fn adoptions_are_listed_in_pages(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    for n in 1..=5 {
        assert_eq!(claim(&fixture, new(&n.to_string(), n)).await, AdoptionClaim::Claimed);
    }
    record(&fixture, outcome("3", 3, AdoptionState::Adopted)).await;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let states = vec![AdoptionState::Moving, AdoptionState::Unknown];
        let page = fixture.store.adoptions(Some("f".into()), states, after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|adoption| adoption.id.to_string()));
    }
    found.sort();
    assert_eq!(found, ["1", "2", "4", "5"]);
    let other = fixture.store.adoptions(Some("g".into()), vec![AdoptionState::Moving], None, 3).await.unwrap();
    assert!(other.is_empty());
}

async fn nothing_is_claimed_while_another_process_uses_the_store(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let (this, other) = (WorkerId(Uuid::from_u128(7)), WorkerId(Uuid::from_u128(8)));
    for (worker, name) in [(this, "this"), (other, "other")] {
        fixture.store.heartbeat(worker, name.into(), std::time::Duration::from_secs(60)).await.unwrap();
    }
    let is_shared = fixture.store.is_shared();
    let expected = is_shared.then(|| "other".to_owned());
    assert_eq!(fixture.store.used_by_another(this, 0).await.unwrap(), expected);
    let claim = fixture.store.claim_adoption(new("17", 10)).await.unwrap();
    if !is_shared {
        return assert_eq!(claim, AdoptionClaim::Claimed);
    }
    assert_eq!(claim, AdoptionClaim::OtherProcess("other".to_owned()));
    assert!(fixture.store.pin(key("17")).await.unwrap().is_none(), "nothing is left of it");
    fixture.store.deregister(other).await.unwrap();
    assert_eq!(fixture.store.claim_adoption(new("17", 11)).await.unwrap(), AdoptionClaim::Claimed);
}
