//! Captures: stored once, in order, within their bounds.

use super::*;
use crate::store::{CaptureBounds, CaptureRecord};

on_every_store! {
    captures_are_kept_in_their_order_and_once,
    captures_are_bounded_in_number_bytes_and_age,
}

const WIDE: CaptureBounds = CaptureBounds { per_route: 100, bytes_per_route: 1 << 20, since: Timestamp::UNIX_EPOCH };

fn capture(route: &str, n: u8, bytes: usize) -> CaptureRecord {
    CaptureRecord { id: Uuid::from_u128(u128::from(n)), route: route.into(), at: at(n.into()), body: vec![n; bytes] }
}

async fn stored(store: &StoreHandle, route: &str) -> Vec<u8> {
    let found = store.captures(route.into(), 0, 99).await.unwrap();
    assert!(found.is_sorted_by_key(|(position, _)| *position));
    found.iter().map(|(_, capture)| capture.body[0]).collect()
}

async fn captures_are_kept_in_their_order_and_once(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let three = vec![capture("r", 1, 5), capture("other", 2, 5), capture("r", 3, 5)];
    fixture.store.put_captures(three.clone(), WIDE).await.unwrap();
    fixture.store.put_captures(three.clone(), WIDE).await.unwrap();
    fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(stored(store, "r").await, [1, 3]);
    let found = store.captures("r".into(), 0, 1).await.unwrap();
    assert_eq!(found[0].1, three[0]);
    let next = store.captures("r".into(), found[0].0, 9).await.unwrap();
    assert_eq!((next.len(), &next[0].1), (1, &three[2]));
    assert_eq!(store.captures("r".into(), next[0].0, 9).await.unwrap(), []);
}

async fn captures_are_bounded_in_number_bytes_and_age(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let put = async |captures, bounds| store.put_captures(captures, bounds).await.unwrap();
    put((1..=5).map(|n| capture("r", n, 10)).collect(), CaptureBounds { per_route: 3, ..WIDE }).await;
    assert_eq!(stored(store, "r").await, [3, 4, 5]);
    put(vec![capture("other", 6, 10)], CaptureBounds { per_route: 1, ..WIDE }).await;
    assert_eq!(stored(store, "r").await, [3, 4, 5], "only of the routes of the captures");
    put(vec![capture("r", 7, 10)], CaptureBounds { bytes_per_route: 25, ..WIDE }).await;
    assert_eq!(stored(store, "r").await, [5, 7]);
    put(Vec::new(), CaptureBounds { since: at(6), ..WIDE }).await;
    assert_eq!((stored(store, "r").await, stored(store, "other").await), (vec![7], vec![6]));
    put(vec![capture("r", 8, 100)], CaptureBounds { bytes_per_route: 25, ..WIDE }).await;
    assert_eq!(stored(store, "r").await, [0_u8; 0], "one that is too large alone is not kept");
}
