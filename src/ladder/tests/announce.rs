//! Moves that are announced to other processes before they are recorded.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::*;
use crate::expression::Expression;
use crate::flag::Cohort;
use crate::names::WorkerId;
use crate::store::StandingAnnouncement;

/// The other processes: they note what is announced, and acknowledge it or not.
#[derive(Default)]
struct Others {
    silent: bool,
    announced: Mutex<Vec<Vec<RouteId>>>,
    ended: Mutex<usize>,
    /// The lease of this process is over while the next announcement is acknowledged.
    lease_is_to_end: AtomicBool,
    leases_ended: AtomicU64,
    /// Acknowledges nothing until there is a permit.
    holds: Option<Semaphore>,
    /// The store does not have the announcement any more when the move is recorded.
    is_forgotten: AtomicBool,
    /// Whether the store has announcements, in a term that each end of a lease ends.
    has_terms: bool,
}

impl OtherProcesses for Others {
    fn announce(&self, routes: Vec<Vec<RouteId>>) -> u64 {
        self.announced.lock().unwrap().push(routes.into_iter().flatten().collect());
        0
    }
    fn wait_until_acknowledged(&self, _announcement: u64) -> BoxFuture<'_, Result<(), String>> {
        let ends = self.lease_is_to_end.swap(false, Ordering::Relaxed);
        self.leases_ended.fetch_add(u64::from(ends), Ordering::Relaxed);
        async move {
            if let Some(holds) = &self.holds {
                holds.acquire().await.unwrap().forget();
            }
            if self.silent { Err("process 7 on a hangs".to_owned()) } else { Ok(()) }
        }
        .boxed()
    }
    fn standing(&self, _announcement: u64) -> Result<Option<StandingAnnouncement>, String> {
        if self.is_forgotten.load(Ordering::Relaxed) {
            return Err("nobody knows of it".to_owned());
        }
        let term = self.leases_ended.load(Ordering::Relaxed).cast_signed();
        Ok(self.has_terms.then(|| StandingAnnouncement { worker: WorkerId(uuid::Uuid::nil()), term, number: 0 }))
    }
    fn end_announcement(&self, _announcement: u64) {
        *self.ended.lock().unwrap() += 1;
    }
    fn announce_within(&self) -> Duration {
        Duration::from_secs(60)
    }
    fn leases_ended(&self) -> u64 {
        self.leases_ended.load(Ordering::Relaxed)
    }
}

impl Others {
    fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }
    /// What was announced since this was last called, if all of it has ended.
    fn take(&self) -> Vec<String> {
        let announced = std::mem::take(&mut *self.announced.lock().unwrap());
        assert_eq!(std::mem::take(&mut *self.ended.lock().unwrap()), announced.len());
        announced.iter().flatten().map(ToString::to_string).collect()
    }
}

async fn open(files: DeclaredFiles, others: &Arc<Others>) -> Fixture {
    open_on(Arc::new(FailingStore::default()), files, others).await
}

async fn open_on(store: Arc<FailingStore>, files: DeclaredFiles, others: &Arc<Others>) -> Fixture {
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let others = Some(others.clone() as Arc<dyn OtherProcesses>);
    let parts = LadderParts { others, ..ladder_parts(&store, &evidence, Vec::new()) };
    let ladder = Ladder::open(files, parts).await.unwrap();
    Fixture { store, evidence, ladder }
}

/// Then the others do not claim the keys of the route, and would follow the flip.
#[tokio::test]
async fn a_move_that_the_store_does_not_have_as_announced_is_not_recorded() {
    let others = Arc::new(Others::default());
    let ladder = open(files(&[]), &others).await;
    others.is_forgotten.store(true, Ordering::Relaxed);
    let error = format!("{:?}", ladder.flip("bare", forced(State::Live)).await.unwrap_err());
    assert!(error.contains("nobody knows of it"), "{error}");
    assert_eq!(ladder.state("bare").state, State::Off);
    assert_eq!(ladder.store.flips(None, 10).await.unwrap(), []);
    others.is_forgotten.store(false, Ordering::Relaxed);
    ladder.flip("bare", forced(State::Live)).await.unwrap();
}

/// The process has another lease when it records the move: the others have forgotten what they acknowledged before.
#[tokio::test]
async fn a_move_is_recorded_only_in_the_lease_in_which_it_was_acknowledged() {
    let others = Arc::new(Others { has_terms: true, ..Others::default() });
    let ladder = open(files(&[]), &others).await;
    let mover = &ladder.ladder.mover;
    let position = mover.in_force().inputs().positions.routes[&RouteId::from("bare")].clone();
    others.lease_is_to_end.store(true, Ordering::Relaxed);
    let announced = mover.announce_flip(&position, State::Live).await.ok().unwrap();
    let term = || announced.standing().unwrap().unwrap().term;
    assert_eq!(term(), 1, "it was announced again");
    others.leases_ended.fetch_add(1, Ordering::Relaxed);
    assert_eq!(term(), 1);
}

#[tokio::test]
async fn only_what_lets_the_engine_answer_is_announced() {
    let others = Arc::new(Others::default());
    let fixture = open(files(&[]), &others).await;
    for rung in [State::Shadow, State::Dark] {
        fixture.flip("bare", forced(rung)).await.unwrap();
        assert!(others.take().is_empty(), "{rung}");
    }
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(others.take(), ["bare"]);
    for request in [forced(State::Only), MoveRequest { acknowledge: true, ..to(State::Live) }, to(State::Dark)] {
        fixture.flip("bare", request).await.unwrap();
        assert!(others.take().is_empty(), "all know that the engine answers");
    }
    // A cohort is raised by its file.
    let force = Some("the staff first".to_owned());
    let when = Expression::parse("request.headers.staff == 'yes'").unwrap();
    let cohort = Cohort { name: "staff".into(), when, state: State::Live, force };
    let files = edited(files(&[]), "plain", |route| route.cohorts = vec![cohort]);
    fixture.ladder.reload(files, || {}).await.unwrap();
    assert_eq!(others.take(), ["plain"]);
}

#[tokio::test]
async fn a_move_that_a_process_does_not_acknowledge_is_refused_except_by_force() {
    let others = Arc::new(Others::silent());
    let fixture = open(files(&[]), &others).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    let by_file = edited(files(&[]), "bare", |route| {
        (route.declared, route.force) = (State::Live, Some("a drill".to_owned()));
    });
    let refused = fixture.ladder.reload(by_file, || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(refused.contains("process 7 on a hangs"), "{refused}");
    assert_eq!((others.take(), fixture.state("bare").state), (vec!["bare".to_owned()], State::Dark));
    let forced = fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!((others.take(), fixture.state("bare").state), (vec!["bare".to_owned()], State::Live));
    assert_eq!(forced.still_required.last().map(String::as_str), Some("process 7 on a hangs"));
}

#[tokio::test]
async fn a_route_is_announced_under_all_its_ids() {
    let others = Arc::new(Others::default());
    let renamed = edited(files(&[]), "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]));
    let fixture = open(renamed, &others).await;
    fixture.flip("new", forced(State::Live)).await.unwrap();
    assert_eq!(others.take(), ["new", "bare"]);
}

/// The others do not wait for a process without a lease, and forget what it has announced.
#[tokio::test]
async fn a_move_is_announced_again_if_the_lease_was_over_before_it_was_recorded() {
    let others = Arc::new(Others::default());
    let fixture = open(files(&[]), &others).await;
    others.lease_is_to_end.store(true, Ordering::Relaxed);
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(others.take(), ["bare", "bare"]);
    let by_file = edited(files(&[]), "plain", |route| {
        (route.declared, route.force) = (State::Live, Some("a drill".to_owned()));
    });
    others.lease_is_to_end.store(true, Ordering::Relaxed);
    fixture.ladder.reload(by_file, || {}).await.unwrap();
    assert_eq!(others.take(), ["plain", "plain"]);
}

/// A process that hangs acknowledges nothing. What other processes record is in force here nevertheless.
#[tokio::test]
async fn moves_of_other_processes_are_followed_while_a_flip_is_not_acknowledged() {
    let others = Arc::new(Others { holds: Some(Semaphore::new(0)), ..Others::default() });
    let store = Arc::new(FailingStore::default());
    store.inner.set_shared();
    let one = open_on(store.clone(), files(&[]), &others).await;
    let two = open_on(store, files(&[]), &Arc::default()).await;
    one.flip("plain", forced(State::Dark)).await.unwrap();
    let moves = two.ladder.newer_moves().await.unwrap().unwrap();
    two.ladder.follow(moves, files(&[]), || {}).await.unwrap();
    let flip = one.flip("bare", forced(State::Live));
    let down = async {
        while others.announced.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        two.flip("plain", to(State::Off)).await.unwrap();
        let moves = one.ladder.newer_moves().await.unwrap().unwrap();
        one.ladder.follow(moves, files(&[]), || {}).await.unwrap();
        assert_eq!((one.state("plain").state, one.state("bare").state), (State::Off, State::Off));
        others.holds.as_ref().unwrap().add_permits(1);
    };
    let (flipped, ()) = tokio::join!(flip, down);
    assert!(flipped.unwrap().changed);
    assert_eq!((others.take(), one.state("bare").state), (vec!["bare".to_owned()], State::Live));
}

/// A person leaves the route where it is while files that raise it wait for the acknowledgement.
#[tokio::test]
async fn a_flip_to_the_present_state_stops_files_that_are_being_announced() {
    let others = Arc::new(Others { holds: Some(Semaphore::new(0)), ..Others::default() });
    let ladder = open(files(&[]), &others).await;
    ladder.flip("bare", forced(State::Dark)).await.unwrap();
    let live = edited(files(&[]), "bare", |route| {
        (route.declared, route.force) = (State::Live, Some("we know".into()));
    });
    let read = std::time::Instant::now();
    let reload = ladder.ladder.reload_files(read, live.clone(), || {});
    let stay = async {
        while others.announced.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!ladder.flip("bare", to(State::Dark)).await.unwrap().changed);
        others.holds.as_ref().unwrap().add_permits(1);
    };
    let (reloaded, ()) = tokio::join!(reload, stay);
    assert!(matches!(reloaded, Err(FilesError::FlippedMeanwhile)), "{reloaded:?}");
    // The files are judged again.
    ladder.ladder.reload_files(read, live.clone(), || {}).await.unwrap();
    assert_eq!((ladder.state("bare").state, ladder.store.flips(None, 10).await.unwrap().len()), (State::Dark, 1));
    let lower = edited(live, "bare", |route| route.declared = State::Shadow);
    ladder.ladder.reload(lower, || {}).await.unwrap();
    assert_eq!(ladder.state("bare").state, State::Shadow, "files that were read later");
}

/// The store has no flip of the route, and the flip down is not recorded yet when the files would be.
#[tokio::test(start_paused = true)]
async fn a_flip_down_of_a_route_that_was_never_flipped_stops_files_that_are_being_announced() {
    let others = Arc::new(Others { holds: Some(Semaphore::new(0)), ..Others::default() });
    let ladder = open(files(&[("bare", State::Shadow)]), &others).await;
    let live = edited(files(&[("bare", State::Shadow)]), "bare", |route| {
        (route.declared, route.force) = (State::Live, Some("we know".into()));
    });
    let read = std::time::Instant::now();
    let reload = ladder.ladder.reload_files(read, live.clone(), || {});
    let down = async {
        while others.announced.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let flipped = ladder.flip("bare", to(State::Off));
        let let_go = async { others.holds.as_ref().unwrap().add_permits(100) };
        tokio::join!(flipped, let_go).0.unwrap();
    };
    let (reloaded, ()) = tokio::join!(reload, down);
    if reloaded.is_err() {
        ladder.ladder.reload_files(read, live, || {}).await.unwrap();
    }
    assert_eq!(ladder.state("bare").state, State::Off);
    let recorded = ladder.store.flips(None, 10).await.unwrap();
    let states: Vec<_> = recorded.iter().map(|flip| flip.to.as_str()).collect();
    assert_eq!(states, ["off"], "the files record no flip to `live`, which others would follow");
}

#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_share_stops_files_that_enlarge_it_and_are_being_announced() {
    let others = Arc::new(Others { holds: Some(Semaphore::new(100)), ..Others::default() });
    let key = crate::expression::Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap();
    let keyed = edited(files(&[]), "bare", |route| route.key = Some(key));
    let ladder = open(keyed.clone(), &others).await;
    let tenth = || MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) };
    ladder.flip("bare", tenth()).await.unwrap();
    others.holds.as_ref().unwrap().forget_permits(100);
    let half = edited(keyed, "bare", |route| {
        (route.declared, route.force) = (State::Live, Some("we know".into()));
        route.shares = route.shares.with(State::Live, Percent::new(50.0).unwrap());
    });
    let both = edited(half, "plain", |route| (route.declared, route.force) = (State::Live, Some("we know".into())));
    let share = || ladder.ladder.flags().load().route(&"bare".into()).unwrap().shares.of(State::Live);
    let (read, announced) = (std::time::Instant::now(), others.announced.lock().unwrap().len());
    let reload = ladder.ladder.reload_files(read, both.clone(), || {});
    let stay = async {
        while others.announced.lock().unwrap().len() == announced {
            tokio::task::yield_now().await;
        }
        assert!(!ladder.flip("bare", tenth()).await.unwrap().changed);
        others.holds.as_ref().unwrap().add_permits(100);
    };
    let (reloaded, ()) = tokio::join!(reload, stay);
    assert!(matches!(reloaded, Err(FilesError::FlippedMeanwhile)), "{reloaded:?}");
    ladder.ladder.reload_files(read, both, || {}).await.unwrap();
    assert_eq!((share(), ladder.state("plain").state), (Percent::new(10.0).unwrap(), State::Live));
}
