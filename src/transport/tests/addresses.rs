//! The addresses of names, and who may change their state.

use std::io;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::transport::AddressRegistry;

fn sockets(addresses: &ServiceAddresses) -> Vec<String> {
    addresses.list().iter().map(|address| address.socket.to_string()).collect()
}

fn resolved(answer: &[&str]) -> Vec<SocketAddr> {
    answer.iter().map(|socket| socket.parse().unwrap()).collect()
}

fn made(service: &Service, resolver: Resolver) -> Arc<ServiceAddresses> {
    AddressRegistry::with_resolver(resolver).of(service, &Limits::default())
}

#[tokio::test]
async fn the_first_request_waits_for_the_addresses_of_the_names_and_others_share_its_lookup() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let resolver = Resolver::new(move |_, _| {
        counted.fetch_add(1, Relaxed);
        Box::pin(async { Ok(resolved(&["127.0.0.1:1"])) })
    });
    let addresses = made(&Service::at("shop", ["http://shop.test:9000".parse().unwrap()]), resolver);
    assert!(addresses.choose(&[], true, TrafficClass::Real).is_none());
    let (a, b) = tokio::join!(addresses.ready(), addresses.ready());
    assert!(a.is_ok() && b.is_ok());
    assert_eq!((sockets(&addresses), lookups.load(Relaxed)), (vec!["127.0.0.1:1".to_owned()], 1));
}

/// A long exchange may still hold an address that was removed.
#[tokio::test]
async fn a_removed_address_no_longer_counts_and_a_changed_service_keeps_those_of_its_names() {
    let (a, b) = ("127.0.0.1:1", "127.0.0.1:2");
    let answers = Arc::new(Mutex::new(vec![vec![a, b], vec![b]]));
    let resolver = Resolver::new(move |_, _| {
        let answer = answers.lock().unwrap().remove(0);
        Box::pin(async move { Ok(resolved(&answer)) })
    });
    let service = Service::at("shop", ["http://shop.test:9000".parse().unwrap()]);
    let registry = AddressRegistry::with_resolver(resolver);
    let addresses = registry.of(&service, &Limits::default());
    addresses.look_up_all().await;
    let held = addresses.list()[0].clone();
    held.connect_failed(&ConnectError::TimedOut);
    assert!(!held.is_available(), "ejected");
    addresses.look_up_all().await;
    assert_eq!(sockets(&addresses), [b]);
    assert!(held.is_removed() && held.is_available(), "it is not among the ejected ones any more");
    let changed = Service { slow_start: Some(Duration::from_secs(9)), ..service };
    let changed = registry.of(&changed, &Limits::default());
    assert!(!Arc::ptr_eq(&changed, &addresses));
    assert_eq!((sockets(&changed), changed.is_looked_up.load(Relaxed)), (vec![b.to_owned()], true));
}

#[tokio::test]
async fn the_addresses_of_a_name_are_replaced_and_stay_while_it_has_none() {
    let answers = Arc::new(Mutex::new(Vec::<io::Result<Vec<&str>>>::new()));
    let asked = answers.clone();
    let resolver = Resolver::new(move |name, port| {
        assert_eq!((name.as_str(), port), ("shop.test", 9000));
        let answer = asked.lock().unwrap().remove(0);
        Box::pin(async move { answer.map(|found| resolved(&found)) })
    });
    let urls = ["http://127.0.0.1:1", "http://shop.test:9000"].map(|url| url.parse().unwrap());
    let addresses = made(&Service::at("shop", urls), resolver);
    assert_eq!(sockets(&addresses), ["127.0.0.1:1"]);
    let look_up = async |answer| {
        answers.lock().unwrap().push(answer);
        addresses.look_up_all().await;
        sockets(&addresses)
    };
    let (a, b, c) = ("10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000");
    assert_eq!(look_up(Ok(vec![a, b, a])).await, ["127.0.0.1:1", a, b]);
    let (kept, version) = (addresses.list()[2].clone(), addresses.version());
    assert_eq!(look_up(Ok(vec![b, c])).await, ["127.0.0.1:1", b, c]);
    assert!(Arc::ptr_eq(&kept, &addresses.list()[1]), "it keeps its state");
    assert_ne!(addresses.version(), version);
    assert_eq!(look_up(Err(io::Error::other("no answer"))).await, ["127.0.0.1:1", b, c]);
    assert_eq!(look_up(Ok(vec![])).await, ["127.0.0.1:1", b, c]);
}

#[tokio::test]
async fn the_same_service_has_the_same_addresses_for_all_that_use_it() {
    let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(|url| url.parse().unwrap());
    let service = Service::at("shop", urls);
    let registry = AddressRegistry::new();
    let forwarding = registry.of(&service, &Limits::default());
    // What concerns only calls of steps or only forwarded requests does not change them.
    let steps = registry.of(&Service { keyed: true, requests_max: Some(7), ..service }, &Limits::default());
    steps.list()[0].connect_failed(&ConnectError::TimedOut);
    assert!(Arc::ptr_eq(&forwarding, &steps) && !forwarding.list()[0].is_available());
}

#[tokio::test]
async fn rehearsals_and_dark_runs_see_the_state_of_addresses_and_never_change_it() {
    let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(|url| url.parse().unwrap());
    let addresses = made(&Service::at("shop", urls), Resolver::system());
    let [first, second] = [0, 1].map(|index| addresses.list()[index].clone());
    for tried in [&first, &second] {
        let others = [if Arc::ptr_eq(tried, &first) { second.clone() } else { first.clone() }];
        let secondary = addresses.choose(&others, true, TrafficClass::Secondary).unwrap();
        secondary.connect_failed(&ConnectError::TimedOut);
        (0..9).for_each(|_| secondary.unanswered());
        assert!(tried.is_available());
        assert_eq!((tried.in_flight(TrafficClass::Real), tried.in_flight(TrafficClass::Secondary)), (0, 1));
    }
    first.connect_failed(&ConnectError::TimedOut);
    for _ in 0..20 {
        let secondary = addresses.choose(&[], false, TrafficClass::Secondary).unwrap();
        assert!(Arc::ptr_eq(secondary.address(), &second), "it sees the ejection");
    }
    let secondary = addresses.choose(&[second], true, TrafficClass::Secondary).unwrap();
    secondary.answered();
    assert!(Arc::ptr_eq(secondary.address(), &first) && !first.is_available(), "and does not end it");
}
