//! Tests of the term of a lease, in which a process may begin real runs.

use std::time::Duration;

use super::cluster::shared;
use super::*;
use crate::store::{Announcement, AppendError, Claim, ProcessRecord, PutFlips, StandingAnnouncement};

const LEASE: Duration = Duration::from_secs(600);

struct TestProcess {
    store: StoreHandle,
    n: u128,
}

impl TestProcess {
    async fn open(url: &str, n: u128) -> Self {
        let store = PostgresStore::open(&Secret::new(url.to_owned()), None, &Limits::default()).await.unwrap();
        Self { store: Arc::new(store), n }
    }

    async fn renew_lease(&self) {
        self.store.heartbeat(worker(self.n), format!("worker {}", self.n), LEASE).await.unwrap();
    }

    async fn term(&self) -> i64 {
        self.term_with(ProcessRecord::default()).await
    }

    async fn term_while_announcing(&self, number: u64) -> i64 {
        let announced = Some(Announcement::new(number, vec![vec!["route".into()]]));
        self.term_with(ProcessRecord { announced, ..ProcessRecord::default() }).await
    }

    async fn term_with(&self, record: ProcessRecord) -> i64 {
        let living = self.store.exchange_processes(worker(self.n), record).await.unwrap();
        living.unwrap().processes.iter().find(|process| process.worker == worker(self.n)).unwrap().term
    }

    /// Begins runs in one batch. Returns which were begun.
    async fn begin(&self, runs: [(u64, Begun); 2]) -> [bool; 2] {
        let append = |(n, begun): (u64, Begun)| {
            let append = append(run_id(n), 1, 1);
            let mode = if begun == Begun::Dark { Mode::Dark } else { Mode::Real };
            let claim = Claim::new(RetryKey([u8::try_from(n).unwrap(); 32]), [0; 32]);
            let claim = match begun {
                Begun::Keyed => Some(claim),
                Begun::DecidedIn(set) => Some(Claim { decided_in: Some(set), ..claim }),
                Begun::Dark | Begun::Unkeyed => None,
            };
            let summary = RunSummary { mode, ..append.summary };
            self.store.append(Append { claim, summary, ..append }.into())
        };
        let (one, two) = tokio::join!(append(runs[0]), append(runs[1]));
        for result in [&one, &two] {
            assert!(matches!(result, Ok(()) | Err(AppendError::LeaseOver(_))), "{result:?}");
        }
        [one.is_ok(), two.is_ok()]
    }
}

/// Which run is begun.
#[derive(Clone, Copy, PartialEq)]
enum Begun {
    /// A real run with a retry key.
    Keyed,
    /// The same; its request was decided by the flag set with this number.
    DecidedIn(u64),
    /// A real run without a retry key.
    Unkeyed,
    Dark,
}

#[tokio::test]
async fn real_runs_begin_only_in_the_term_that_the_process_has_named() {
    use Begun::{Dark, DecidedIn, Keyed, Unkeyed};
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    let process = TestProcess::open(&database.url(), 1).await;
    let end_lease = || {
        database.query("UPDATE pointsman.workers SET alive_until = clock_timestamp() - interval '1 s'");
    };
    assert_eq!(process.begin([(1, Keyed), (2, Unkeyed)]).await, [true; 2], "nothing is required yet");
    process.store.begin_runs_under(worker(1), None, 0);
    process.renew_lease().await;
    assert_eq!(process.begin([(3, Keyed), (4, Dark)]).await, [false, true]);
    let first = process.term().await;
    process.store.begin_runs_under(worker(1), Some(first), 4);
    process.renew_lease().await;
    assert_eq!(process.term().await, first, "the lease was not over");
    assert_eq!(process.begin([(3, Keyed), (10, DecidedIn(3))]).await, [true, false]);
    process.store.begin_runs_under(worker(1), Some(first), 7);
    assert_eq!(process.begin([(5, DecidedIn(4)), (11, Unkeyed)]).await, [true; 2], "the term is the same");
    end_lease();
    assert_eq!(process.begin([(6, Keyed), (7, Dark)]).await, [false, true]);
    assert_eq!(process.begin([(6, Keyed), (12, Unkeyed)]).await, [false; 2]);
    process.renew_lease().await;
    let second = process.term().await;
    assert!(second > first, "{first} {second}");
    assert_eq!(process.begin([(6, Keyed), (8, Unkeyed)]).await, [false; 2], "it has not caught up with the others yet");
    process.store.begin_runs_under(worker(1), Some(second), 9);
    assert_eq!(
        process.begin([(6, DecidedIn(9)), (8, DecidedIn(8))]).await,
        [true, false],
        "the second request was decided before that"
    );
    assert_eq!(process.begin([(9, Keyed), (8, Unkeyed)]).await, [true; 2]);
    let known = process.store.engine_tries_since(jiff::Timestamp::MIN, None, 3).await.unwrap();
    let rest = process.store.engine_tries_since(jiff::Timestamp::MIN, known.next, 3).await.unwrap();
    let keys: Vec<u8> = known.result.iter().chain(&rest.result).map(|position| position.key.0[0]).collect();
    assert_eq!((keys, rest.next), (vec![1, 3, 5, 6, 9], None), "in the order of their times");
    let newest = rest.result[1].at;
    let last = process.store.engine_tries_since(newest, None, 3).await.unwrap();
    assert!(last.result.iter().all(|position| position.at >= newest) && last.result.contains(&rest.result[1]));
    process.store.close().await;
}

/// The database gets the flip late: after the process has lost its lease, or ended its announcement.
#[tokio::test]
async fn a_flip_that_was_announced_is_recorded_only_while_the_announcement_stands() {
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    let process = TestProcess::open(&database.url(), 1).await;
    process.renew_lease().await;
    let announces = async |number: Option<u64>| {
        // Each announcement before it has ended.
        let announced = number.map(|number| Announcement::new(number, vec![vec!["route".into()]]));
        let record = ProcessRecord { announced, ..ProcessRecord::default() };
        process.store.exchange_processes(worker(1), record).await.unwrap();
    };
    let put = async |after: u64, term: i64, number: u64| {
        let announced = Some(StandingAnnouncement { worker: worker(1), term, number });
        let flips = vec![super::records::flip(Some("route"), "live")];
        process.store.put_flips(PutFlips { flips, declared: None, after, announced }).await.unwrap()
    };
    let first = process.term().await;
    assert_eq!(put(0, first, 3).await, None, "nothing is announced");
    announces(Some(3)).await;
    assert_eq!(put(0, first, 4).await, None, "the announcement that stands is another one");
    assert_eq!(put(0, first + 1, 3).await, None, "in another term");
    assert_eq!(put(0, first, 3).await, Some(vec![1]));
    announces(Some(5)).await;
    assert_eq!(put(1, first, 3).await, None, "a later announcement may be of other routes");
    let both = Announcement { standing: vec![4, 5], ..Announcement::new(5, vec![vec!["route".into()]]) };
    let record = ProcessRecord { announced: Some(both), ..ProcessRecord::default() };
    process.store.exchange_processes(worker(1), record).await.unwrap();
    assert_eq!(put(1, first, 4).await, Some(vec![2]), "both announcements stand");
    database.query("UPDATE pointsman.workers SET alive_until = clock_timestamp() - interval '1 s'");
    assert_eq!(put(2, first, 5).await, None, "the lease is over");
    process.renew_lease().await;
    let second = process.term_while_announcing(5).await;
    assert_eq!(put(2, first, 5).await, None, "the others may have forgotten the announcement meanwhile");
    assert_eq!(put(2, second, 5).await, Some(vec![3]));
    announces(None).await;
    assert_eq!(put(3, second, 5).await, None, "the announcement has ended");
    process.store.close().await;
}

/// A process is stopped between the last statement of a transaction and its commit.
#[tokio::test]
async fn a_run_that_is_about_to_begin_when_the_lease_ends_is_waited_for() {
    use sqlx::{Connection, Executor};
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    let (one, two) = (TestProcess::open(&database.url(), 1).await, TestProcess::open(&database.url(), 2).await);
    one.renew_lease().await;
    let term = one.term().await;
    let mut writer = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let begin = format!("BEGIN; SET LOCAL search_path TO pointsman; SELECT is_in_term(worker, {term}) FROM workers");
    writer.execute(sqlx::AssertSqlSafe(begin)).await.unwrap();
    // While the lease lasts, it is renewed, and nobody waits.
    one.renew_lease().await;
    two.store.wait_for_ended_leases().await.unwrap();
    database.query("UPDATE pointsman.workers SET alive_until = clock_timestamp() - interval '1 s'");
    let mut others_wait = two.store.wait_for_ended_leases();
    let mut renewal = Box::pin(one.renew_lease());
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while database.query(waiting).trim() != "2" {
        tokio::select! {
            biased;
            result = &mut others_wait => panic!("the transaction is not waited for: {result:?}"),
            () = &mut renewal => panic!("the next term begins before the transaction ends"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    writer.execute("COMMIT").await.unwrap();
    others_wait.await.unwrap();
    renewal.await;
    assert!(one.term().await > term);
    writer.close().await.unwrap();
    one.store.close().await;
    two.store.close().await;
}
