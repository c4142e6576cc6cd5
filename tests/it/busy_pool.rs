//! A process whose connections for reads are all in use keeps its lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::demo::Latency;
use tokio::task::{block_in_place, spawn_blocking};

use crate::support::postgres_server::Cluster;
use crate::support::test_system::TestSystem;
use crate::support::until_true;

const CONNECTIONS: usize = 2;
const LEASE: Duration = Duration::from_secs(4);
/// How long the reads wait for another session's lock.
const BLOCKED: Duration = Duration::from_secs(20);
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_reads_all_wait_keeps_its_lease() {
    let Some(cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let cluster = Arc::new(cluster);
    let limits = format!(
        "limits: {{ store_connections_max: {CONNECTIONS}, lease_ms: {}, store_lock_ms: 30000, store_statement_ms: 30000 }}\n",
        LEASE.as_millis()
    );
    let system = TestSystem::on(Some(cluster.url()), Latency::instant(), |flags| {
        flags.edit("pointsman.yaml", |text| text + &limits);
    })
    .await;
    let count = |text: &str| -> usize {
        let found = block_in_place(|| cluster.query(text)).expect("it answers");
        found.trim().parse().expect("a number")
    };
    let alive = || count("SELECT count(*) FROM pointsman.workers WHERE alive_until > clock_timestamp()");
    until_true("the process to have a lease", || alive() == 1).await;

    let lock = format!(
        "BEGIN; LOCK TABLE pointsman.samples IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({}); ROLLBACK",
        BLOCKED.as_secs()
    );
    let of_lock = cluster.clone();
    let locked = spawn_blocking(move || of_lock.query(&lock));
    let has_lock = "SELECT count(*) FROM pg_locks WHERE relation = 'pointsman.samples'::regclass \
                    AND mode = 'AccessExclusiveLock' AND granted";
    until_true("the table to be locked", || count(has_lock) == 1).await;
    let read = |_| system.pointsman.try_api("/api/v2/routes/orders.create/diffs");
    let reads = futures_util::future::join_all((0..4 * CONNECTIONS).map(read));
    let watched = async {
        until_true("all connections for reads to be in use", || count(WAITING) >= CONNECTIONS).await;
        let (began, mut seen) = (Instant::now(), 0);
        while began.elapsed() < 2 * LEASE + LEASE / 2 {
            assert_eq!(alive(), 1, "the lease is over after {:?}", began.elapsed());
            seen += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(count(WAITING) >= CONNECTIONS, "the reads waited all the time");
        seen
    };
    let (_, seen) = tokio::join!(reads, watched);
    println!(
        "the process had its lease {seen} times of {seen}, while {CONNECTIONS} of {CONNECTIONS} connections waited"
    );
    locked.await.expect("it ends").expect("the lock is released");
    system.finish().await;
}
