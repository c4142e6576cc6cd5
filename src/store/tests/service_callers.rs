//! Who called which service.

use super::*;
use crate::store::service_callers::SERVICE_CALLERS_MAX;
use crate::store::{ServiceCaller, WatchedTime};

on_every_store! {
    calls_extend_what_is_known_of_a_caller,
    the_callers_that_called_last_are_kept,
}

fn caller(service: &str, source: &str, first: i64, last: i64) -> ServiceCaller {
    let (source, client, path) = (source.into(), "10.0.0.7".into(), "GET /orders/{}".into());
    ServiceCaller { service: service.into(), source, client, path, first: at(first), last: at(last) }
}

fn watched(process: u128, since: i64, until: i64, has_ended: bool) -> WatchedTime {
    WatchedTime { process: Uuid::from_u128(process), since: at(since), until: at(until), has_ended }
}

async fn calls_extend_what_is_known_of_a_caller(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let put = async |fixture: &StoreFixture, callers: &[ServiceCaller], watched| {
        // Twice: a repeated write changes nothing.
        for _ in 0..2 {
            fixture.store.put_service_callers(callers.to_vec(), watched).await.unwrap();
        }
    };
    assert_eq!(fixture.store.service_callers("shop".into()).await.unwrap(), []);
    put(&fixture, &[caller("shop", "route a", 5, 6), caller("bank", "step w.pay", 5, 5)], watched(2, 4, 7, false))
        .await;
    put(&fixture, &[caller("shop", "route a", 3, 4), caller("shop", "route b", 8, 9)], watched(2, 4, 9, true)).await;
    put(&fixture, &[], watched(1, 2, 3, false)).await;
    // A write that comes late takes nothing back.
    put(&fixture, &[], watched(2, 4, 8, false)).await;
    fixture.reopen().await;
    let found = fixture.store.service_callers("shop".into()).await.unwrap();
    assert_eq!(found, [caller("shop", "route b", 8, 9), caller("shop", "route a", 3, 6)]);
    let times = fixture.store.watched_times().await.unwrap();
    assert_eq!(times, [watched(1, 2, 3, false), watched(2, 4, 9, true)]);
}

async fn the_callers_that_called_last_are_kept(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let all: Vec<_> =
        (0..SERVICE_CALLERS_MAX as i64 + 3).map(|n| caller("shop", &format!("route {n:04}"), 1, n + 1)).collect();
    fixture.store.put_service_callers(vec![caller("bank", "route x", 1, 1)], watched(1, 1, 1, false)).await.unwrap();
    fixture.store.put_service_callers(all.clone(), watched(1, 1, 2, false)).await.unwrap();
    let kept = fixture.store.service_callers("shop".into()).await.unwrap();
    assert_eq!(kept.len(), SERVICE_CALLERS_MAX);
    assert_eq!((kept.first(), kept.last()), (all.last(), all.get(3)));
    assert_eq!(fixture.store.service_callers("bank".into()).await.unwrap().len(), 1, "of each service");
}
