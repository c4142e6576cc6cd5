//! Tests of the evidence of renamed routes.

use std::time::Duration;

use super::{evidence_over, memory, pair, route, sample, set_renames};
use crate::compare::Verdict;
use crate::flag::State;
use crate::names::RouteId;

#[tokio::test]
async fn a_renamed_route_keeps_its_evidence() {
    let store = memory();
    let evidence = evidence_over(&store).await;
    let [next, last] = ["orders.make", "orders.new"].map(RouteId::new);
    let was = [route()];
    evidence.set_basis(0, &[(route(), "one".into())]);
    for verdict in [Verdict::Match, Verdict::Mismatch] {
        pair(&evidence, State::Dark, verdict);
    }
    let generation = evidence.generation(&route(), 0);
    evidence.keep_sample(generation, sample("stored"));
    evidence.flush().await.unwrap();
    evidence.keep_sample(generation, sample("waiting"));
    assert_eq!(evidence.of_basis([&next, &route()].into_iter(), "one").pairs(), 2, "before the new files are in force");

    set_renames(&evidence, &[(&next, &was)]);
    evidence.set_basis(0, &[(next.clone(), "one".into())]);
    assert_eq!(evidence.of(&next).dark_pairs, 2);
    // A comparison that began under the old id.
    pair(&evidence, State::Dark, Verdict::Match);
    evidence.keep_sample(generation, sample("late"));
    assert_eq!((evidence.of(&next).matched, evidence.of_basis([&next].into_iter(), "one").matched), (2, 2));
    let stored_samples = async |route: &RouteId| store.samples(route.clone(), 10).await.unwrap().len();
    evidence.flush().await.unwrap();
    assert_eq!((stored_samples(&next).await, stored_samples(&route()).await), (3, 0));

    // The next rename, in another process.
    let evidence = evidence_over(&store).await;
    let was = [next.clone(), route()];
    set_renames(&evidence, &[(&last, &was)]);
    evidence.set_basis(0, &[(last.clone(), "one".into())]);
    assert_eq!((evidence.of(&last).pairs(), evidence.of(&last).seen["f"].count), (3, 1));
    evidence.flush().await.unwrap();
    assert_eq!((stored_samples(&last).await, stored_samples(&next).await), (3, 0));

    // Back to the first id, with other rules at the same time.
    let was = [last.clone(), next.clone()];
    let first = route();
    set_renames(&evidence, &[(&first, &was)]);
    assert_eq!(evidence.of(&first).pairs(), 3);
    evidence.set_basis(0, &[(first.clone(), "two".into())]);
    pair(&evidence, State::Dark, Verdict::Match);
    evidence.flush().await.unwrap();
    let samples = (stored_samples(&first).await, stored_samples(&last).await);
    assert_eq!((evidence.of(&first).pairs(), samples), (1, (0, 0)));
    let later = evidence_over(&store).await;
    assert_eq!((later.of(&first).pairs(), later.of(&last).pairs()), (1, 0));
}

/// One thread keeps a sample while another one renames its route. Each needs the locks of the renames and of the
/// pending samples: taken in different orders, the threads would wait for each other for ever.
#[tokio::test]
async fn a_mismatch_and_a_rename_do_not_wait_for_each_other() {
    const ROUNDS: usize = 20_000;
    let evidence = evidence_over(&memory()).await;
    evidence.set_basis(0, &[(route(), "one".into())]);
    let generation = evidence.generation(&route(), 0);
    let (ended, has_ended) = std::sync::mpsc::channel();
    let (comparing, renaming) = (evidence.clone(), evidence);
    let end = ended.clone();
    std::thread::spawn(move || {
        for n in 0..ROUNDS {
            comparing.wants_sample(&route(), generation, &n.to_string());
            comparing.keep_sample(generation, sample("same"));
        }
        let _ = end.send(());
    });
    std::thread::spawn(move || {
        let [one, two] = [route(), RouteId::new("orders.make")];
        for _ in 0..ROUNDS / 2 {
            set_renames(&renaming, &[(&two, std::slice::from_ref(&one))]);
            renaming.set_basis(0, &[(two.clone(), "one".into())]);
            set_renames(&renaming, &[(&one, std::slice::from_ref(&two))]);
            renaming.set_basis(0, &[(one.clone(), "one".into())]);
        }
        let _ = ended.send(());
    });
    for _ in 0..2 {
        has_ended.recv_timeout(Duration::from_secs(60)).expect("no thread waits for ever");
    }
}

#[tokio::test]
async fn a_route_with_evidence_does_not_take_that_of_its_earlier_id() {
    let evidence = evidence_over(&memory()).await;
    let old = RouteId::new("old");
    evidence.set_basis(0, &[(route(), "one".into()), (old.clone(), "one".into())]);
    pair(&evidence, State::Shadow, Verdict::Match);
    set_renames(&evidence, &[(&route(), &[old])]);
    assert_eq!(evidence.of(&route()).pairs(), 1);
}

/// A rename first lacked `was:` and was then corrected: meanwhile the route had an id under which nothing was counted.
#[tokio::test]
async fn a_route_keeps_the_open_mismatches_of_whichever_earlier_id_has_them() {
    let evidence = evidence_over(&memory()).await;
    let [between, last] = ["orders.make", "orders.new"].map(RouteId::new);
    evidence.set_basis(0, &[(route(), "one".into()), (between.clone(), "one".into())]);
    for verdict in [Verdict::Match, Verdict::Mismatch] {
        pair(&evidence, State::Dark, verdict);
    }
    let was = [between, route()];
    let ids = [&last, &was[0], &was[1]];
    assert_eq!(evidence.of_basis(ids.into_iter(), "one").mismatched, 1, "before the new files are in force");
    set_renames(&evidence, &[(&last, &was)]);
    evidence.set_basis(0, &[(last.clone(), "one".into())]);
    assert_eq!((evidence.of(&last).mismatched, evidence.of(&last).pairs()), (1, 2));
}
