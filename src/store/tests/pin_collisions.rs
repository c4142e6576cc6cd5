//! Pin collisions: found, accepted, found again.

use super::*;
use crate::store::PinCollision;

on_every_store! {
    collisions_are_merged_in_whatever_order_they_come,
    collisions_of_families_are_apart,
}

fn collision(family: &str, since: i64, accepted: Option<i64>) -> PinCollision {
    PinCollision { family: family.into(), since: at(since), accepted: accepted.map(at) }
}

async fn collisions_are_merged_in_whatever_order_they_come(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    assert_eq!(fixture.store.pin_collisions().await.unwrap(), []);
    // Each with what is stored after it.
    let steps = [
        ((5, None), (5, None)),
        ((3, None), (3, None)),
        ((4, None), (3, None)),
        // Accepted before the known one was found.
        ((1, Some(2)), (3, None)),
        ((4, Some(6)), (3, Some(6))),
        // Found before the acceptance, by a process that did not know of it.
        ((6, None), (3, Some(6))),
        ((3, Some(8)), (3, Some(8))),
        ((3, Some(7)), (3, Some(8))),
        // Found after it.
        ((9, None), (9, None)),
        ((3, Some(8)), (9, None)),
        ((9, Some(10)), (9, Some(10))),
        ((11, Some(12)), (11, Some(12))),
    ];
    for (step, ((since, accepted), expected)) in steps.into_iter().enumerate() {
        // Twice: a repeated write changes nothing.
        for _ in 0..2 {
            fixture.store.put_pin_collisions(vec![collision("orders", since, accepted)]).await.unwrap();
        }
        if step % 4 == 0 {
            fixture.reopen().await;
        }
        let found = fixture.store.pin_collisions().await.unwrap();
        assert_eq!(found, [collision("orders", expected.0, expected.1)], "step {step}");
    }
}

async fn collisions_of_families_are_apart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let both = vec![collision("orders", 3, None), collision("Offers", 1, Some(2))];
    fixture.store.put_pin_collisions(both).await.unwrap();
    fixture.store.put_pin_collisions(vec![collision("orders", 3, Some(4)), collision("b", 7, None)]).await.unwrap();
    fixture.store.put_pin_collisions(Vec::new()).await.unwrap();
    fixture.reopen().await;
    let found = fixture.store.pin_collisions().await.unwrap();
    assert_eq!(found, [collision("Offers", 1, Some(2)), collision("b", 7, None), collision("orders", 3, Some(4))]);
}
