//! Moves that are announced to other processes before they are recorded.

use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::*;
use crate::expression::Expression;
use crate::flag::Cohort;

/// The other processes: they note what is announced, and acknowledge it or not.
#[derive(Default)]
struct Others {
    silent: bool,
    announced: Mutex<Vec<String>>,
    ended: Mutex<usize>,
}

impl OtherProcesses for Others {
    fn announce(&self, routes: Vec<RouteId>) -> BoxFuture<'_, Result<(), String>> {
        self.announced.lock().unwrap().extend(routes.iter().map(ToString::to_string));
        let answer = if self.silent { Err("process 7 on a hangs".to_owned()) } else { Ok(()) };
        ready(answer).boxed()
    }
    fn end_announcement(&self) {
        *self.ended.lock().unwrap() += 1;
    }
    fn announce_within(&self) -> Duration {
        Duration::ZERO
    }
}

impl Others {
    fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }
    /// What was announced since this was last called, if all of it has ended.
    fn take(&self) -> Vec<String> {
        let announced = std::mem::take(&mut *self.announced.lock().unwrap());
        assert_eq!(std::mem::take(&mut *self.ended.lock().unwrap()), usize::from(!announced.is_empty()));
        announced
    }
}

async fn open(files: DeclaredFiles, others: &Arc<Others>) -> Fixture {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let others = Some(others.clone() as Arc<dyn OtherProcesses>);
    let parts = LadderParts { others, ..ladder_parts(&store, &evidence, Vec::new()) };
    let ladder = Ladder::open(files, parts).await.unwrap();
    Fixture { store, evidence, ladder }
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
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!((others.take(), fixture.state("bare").state), (vec!["bare".to_owned()], State::Live));
}
