//! Tests of the families of which an open run may create an instance.

use super::*;
use crate::names::JobId;
use crate::store::{OutboxRow, families_of_open_runs};
use crate::workflow::{Creates, Superseded};

on_every_store! {
    open_runs_of_a_creator_and_their_reruns_may_create_an_instance,
    a_rerun_that_is_to_begin_may_create_an_instance,
}

/// A run that has only begun.
fn begun(n: u64, edit: impl FnOnce(&mut RunStarted)) -> Append {
    let run = run_id(n);
    let Event::RunStarted(mut started) = run_started(run, at(0)) else { panic!("it is the first event") };
    edit(Arc::make_mut(&mut started));
    appended(n, vec![Event::RunStarted(started)])
}

fn appended(n: u64, events: Vec<Event>) -> Append {
    let summary = fold(events.iter()).unwrap().summary(at(0));
    Append { events: events.into_iter().map(|event| (at(0), event)).collect(), summary, ..append(run_id(n), 1, 1) }
}

/// A run of the job of run 1, begun by no route.
fn rerun(started: &mut RunStarted) {
    (started.route, started.job, started.rerun_of) = (None, Some(JobId(run_id(1).0)), Some(run_id(1)));
}

fn creates(family: &str) -> Option<Creates> {
    Some(Creates::Engine { family: family.into(), path: "$.id".into() })
}

async fn found(fixture: &StoreFixture) -> Vec<String> {
    let families = ["a", "b", "c", "d"].map(RouteId::from).into();
    let oldest_ids = [("renamed", "d"), ("other", "other")].map(|(id, oldest)| (id.into(), oldest.into())).into();
    let found = families_of_open_runs(&*fixture.store, &families, &oldest_ids).await.unwrap();
    assert!(found.families.values().all(Option::is_none) && found.unreadable_reruns.is_empty(), "{found:?}");
    found.families.keys().map(|id| id.as_str().to_owned()).collect()
}

async fn open_runs_of_a_creator_and_their_reruns_may_create_an_instance(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let put = async |append: Append| fixture.store.append(Arc::new(append)).await.unwrap();
    assert!(found(&fixture).await.is_empty());
    put(begun(1, |started| (started.route, started.creates) = (Some("a".into()), creates("a")))).await;
    put(begun(2, |started| {
        rerun(started);
        started.creates = creates("b");
    }))
    .await;
    // Reruns that do not count: of another family, in `dark`, and without an instance.
    put(begun(3, |started| {
        rerun(started);
        started.creates = creates("other");
    }))
    .await;
    put(begun(4, |started| {
        rerun(started);
        (started.mode, started.creates) = (Mode::Dark, creates("c"));
    }))
    .await;
    put(begun(5, rerun)).await;
    // Runs that do not count: of the route `c`, but without an instance; and of a route that is not examined, because
    // its oldest id is `other`.
    put(begun(6, |started| started.route = Some("c".into()))).await;
    put(begun(7, |started| (started.route, started.creates) = (Some("other".into()), creates("c")))).await;
    assert_eq!(found(&fixture).await, ["a", "b"]);
    // Runs of routes that were renamed before the run began.
    put(begun(8, |started| (started.route, started.creates) = (Some("renamed".into()), creates("d")))).await;
    put(begun(9, |started| (started.route, started.creates) = (Some("gone".into()), creates("c")))).await;
    assert_eq!(found(&fixture).await, ["a", "b", "c", "d"]);
    fixture.store.close().await;
}

async fn a_rerun_that_is_to_begin_may_create_an_instance(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let superseded = |by: u64| {
        let (by, from) = (run_id(by), "charge".into());
        let superseded =
            Superseded { successor: by, from, handed_over_steps: Vec::new(), sealed: None, requested_by: "ann".into() };
        Event::Ending(EndingEvent::Superseded(Box::new(superseded)))
    };
    let row = |run: u64, parent: u64| OutboxRow {
        run: run_id(run),
        parent: Some(run_id(parent)),
        record: json!({ "kind": "any" }),
        at: at(0),
    };
    let with_route = |family: &'static str| {
        move |started: &mut RunStarted| {
            (started.route, started.creates) = (Some(family.into()), creates(family));
        }
    };
    let handed_over = begun(1, with_route("a")).events.remove(0).1;
    let handed_over = Append { pending_runs: vec![row(8, 1)], ..appended(1, vec![handed_over, superseded(8)]) };
    fixture.store.append(Arc::new(handed_over)).await.unwrap();
    // An ended run whose outbox row is not about its successor.
    let other = begun(2, with_route("b")).events.remove(0).1;
    let other = Append { pending_runs: vec![row(9, 2)], ..appended(2, vec![other, superseded(7)]) };
    fixture.store.append(Arc::new(other)).await.unwrap();
    assert_eq!(found(&fixture).await, ["a"]);
    fixture.store.close().await;
}
