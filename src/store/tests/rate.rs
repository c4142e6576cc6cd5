//! How many events a second, by hand: `cargo test --release --lib store::tests::rate -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;

const FOR: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_a_second() {
    for (callers, events) in [(1, 1), (32, 1), (128, 1), (1, 4), (128, 4)] {
        let place = Place::new(Which::Sqlite).await;
        let begin = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|n| {
                let store = place.store.clone();
                tokio::spawn(async move {
                    let (mut first, mut waits) = (1, Vec::new());
                    while begin.elapsed() < FOR {
                        let append = append(run_id(n), first, events);
                        let asked = Instant::now();
                        store.append(append).await.unwrap();
                        waits.push(asked.elapsed());
                        first += events;
                    }
                    waits
                })
            })
            .collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await.unwrap());
        }
        let rate = waits.len() as f64 * events as f64 / begin.elapsed().as_secs_f64();
        waits.sort();
        let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!("callers {callers}, events an append {events}: {rate:.0} events/s, append p50 {p50:?}, p99 {p99:?}");
        place.store.close().await;
    }
}
