//! What is in force while a ladder opens: a process that takes over serves already.

use super::*;

/// A set without routes would send requests of all routes to legacy, whatever their states and keys.
#[tokio::test]
async fn the_flags_that_a_process_serves_with_stay_in_force_until_the_first_set_is_recorded() {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let fixture = Fixture::open(files(&[])).await;
    let serving = fixture.ladder.flags().load_full();
    let flags = Arc::new(ArcSwap::new(serving.clone()));
    let parts = || ladder_parts(&store, &evidence, Vec::new());
    let open = || Ladder::open_into(files(&[]), parts(), Some(flags.clone()));
    store.refuse_flips.store(true, Ordering::SeqCst);
    assert!(open().await.is_err());
    assert!(Arc::ptr_eq(&flags.load(), &serving), "nothing is in force that was not recorded");
    store.refuse_flips.store(false, Ordering::SeqCst);
    let ladder = open().await.unwrap();
    let first = ladder.flags().load_full();
    assert!(Arc::ptr_eq(&flags.load(), &first) && !Arc::ptr_eq(&first, &serving));
    assert!(first.route(&"bare".into()).is_some());
}
