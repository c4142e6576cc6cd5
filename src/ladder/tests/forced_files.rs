//! States that files force without a flip: what is entered of them.

use std::sync::Mutex;

use super::files::forcing;
use super::held_cohorts::with_staff;
use super::*;
use crate::expression::Expression;
use crate::ladder::{CohortListener, CohortMove, ForcedFileState};
use crate::store::PutFlips;

/// The states that files put in force without a flip, with their reasons and the sources of their entries.
fn forced_files(fixture: &Fixture) -> Vec<(State, Option<String>, String)> {
    let shown = |file: ForcedFileState| (file.forced.state, file.forced.reason, file.forced.source);
    fixture.ladder.forced_files().into_iter().map(shown).collect()
}

#[tokio::test]
async fn a_state_that_a_file_forces_without_a_flip_has_one_entry_until_state_or_reason_change() {
    let because =
        |state, reason: &str| edited(files(&[("bare", state)]), "bare", |route| route.force = Some(reason.to_owned()));
    let fixture = Fixture::open(because(State::Live, "audit")).await;
    let first = forced_files(&fixture);
    assert_eq!((first.len(), first[0].0, first[0].1.as_deref()), (1, State::Live, Some("audit")));
    fixture.ladder.reload(because(State::Live, "audit"), || {}).await.unwrap();
    let mut fixture = fixture.restart(because(State::Live, "audit")).await;
    assert_eq!(forced_files(&fixture), first, "neither a reading nor a start makes another one");
    // A renamed route keeps it.
    let renamed = edited(because(State::Live, "audit"), "bare", |route| {
        (route.id, route.was) = ("new".into(), vec!["bare".into()]);
    });
    fixture.ladder.reload(renamed.clone(), || {}).await.unwrap();
    assert_eq!(forced_files(&fixture), first);
    fixture = fixture.restart(because(State::Live, "audit")).await;

    fixture.ladder.reload(because(State::Live, "another"), || {}).await.unwrap();
    let second = forced_files(&fixture);
    assert!(second[0].1.as_deref() == Some("another") && second[0].2 != first[0].2, "{second:?}");
    // Without the reason the state is not in force any more, and the end of it has an entry too.
    fixture.ladder.reload(files(&[("bare", State::Live)]), || {}).await.unwrap();
    let end = forced_files(&fixture);
    assert_eq!((end[0].0, &end[0].1, fixture.state("bare").state), (State::Shadow, &None, State::Shadow));
    fixture.ladder.reload(because(State::Live, "another"), || {}).await.unwrap();
    let third = forced_files(&fixture);
    assert!(third[0].1.is_some() && third[0].2 != second[0].2, "it is in force once more: {third:?}");
    assert_eq!(fixture.flips().await, 0);

    fixture.flip("bare", to(State::Dark)).await.unwrap();
    fixture.ladder.reload(because(State::Live, "another"), || {}).await.unwrap();
    assert_eq!(forced_files(&fixture), [], "the flip supports its state");
    let shadow = fixture.restart(forcing(&[("plain", State::Shadow)], &["plain"])).await;
    assert_eq!(forced_files(&shadow), [], "a file needs no `force` for that");
}

/// The moves of cohorts that a listener was told.
#[derive(Default)]
struct ToldMoves(Mutex<Vec<CohortMove>>);

impl CohortListener for ToldMoves {
    fn moved(&self, cohort_move: CohortMove) {
        self.0.lock().unwrap().push(cohort_move);
    }
}

/// The files were changed while no process ran.
#[tokio::test]
async fn a_start_reports_a_forced_cohort_whose_rule_changed_under_the_same_reason() {
    let with = |when: &str, state: State| {
        edited(with_staff(files(&[]), "our own people"), "bare", |route| {
            route.cohorts[0].when = Expression::parse(when).unwrap();
            route.cohorts[0].state = state;
        })
    };
    let told = |fixture: &Fixture| {
        let told = Arc::new(ToldMoves::default());
        fixture.ladder.connect_to_cohorts(told.clone());
        let mut told = std::mem::take(&mut *told.0.lock().unwrap());
        told.retain(|moved| !moved.is_repeated);
        told
    };
    let (few, all) = ("request.headers[\"x-staff\"] == \"1\"", "request.method == \"POST\"");
    let (shown_few, shown_all) = (few.replace("\"1\"", "\"***\""), all.replace("POST", "***"));
    let fixture = Fixture::open(with(few, State::Dark)).await;
    assert_eq!(told(&fixture).len(), 1, "a first start");
    let fixture = fixture.restart(with(few, State::Dark)).await;
    assert_eq!(told(&fixture), []);
    let fixture = fixture.restart(with(all, State::Dark)).await;
    let [moved] = told(&fixture).try_into().unwrap();
    assert_eq!((moved.from, moved.to), (Some(State::Dark), Some(State::Dark)));
    assert_eq!((&moved.when_before, &moved.when), (&Some(shown_few.clone()), &Some(shown_all.clone())));
    let fixture = fixture.restart(with(all, State::Live)).await;
    let [moved] = told(&fixture).try_into().unwrap();
    assert_eq!((moved.from, moved.to), (Some(State::Dark), Some(State::Live)));
    let fixture = fixture.restart(with(all, State::Live)).await;
    assert_eq!(told(&fixture), []);
    // By a reload, both rules are told too.
    let listener = Arc::new(ToldMoves::default());
    fixture.ladder.connect_to_cohorts(listener.clone());
    fixture.ladder.reload(with(few, State::Live), || {}).await.unwrap();
    let [moved] = std::mem::take(&mut *listener.0.lock().unwrap()).try_into().unwrap();
    assert_eq!((moved.when_before, moved.when), (Some(shown_all), Some(shown_few)));
}

/// A condition may compare with a credential, whose name need not say so.
#[tokio::test]
async fn what_is_told_and_stored_of_a_cohort_has_no_literal_of_its_condition_and_shows_that_one_changed() {
    let with = |secret: &str, reason: &str| {
        edited(with_staff(files(&[]), reason), "bare", |route| {
            let when = format!("request.headers[\"x-staff\"] == \"{secret}\"");
            route.cohorts[0].when = Expression::parse(&when).unwrap();
        })
    };
    let told = |fixture: &Fixture| {
        let told = Arc::new(ToldMoves::default());
        fixture.ladder.connect_to_cohorts(told.clone());
        std::mem::take(&mut *told.0.lock().unwrap())
    };
    let fixture = Fixture::open(with("k3y-one", "audit")).await;
    let [first] = told(&fixture).try_into().unwrap();
    assert_eq!(first.when.as_deref(), Some("request.headers[\"x-staff\"] == \"***\""));
    // An earlier version stored it with the literals.
    let mut rows = fixture.store.declared().await.unwrap();
    let text = serde_json::to_string(&rows).unwrap();
    assert!(!text.contains("k3y"), "{text}");
    let forced = rows.iter_mut().find_map(|row| row.retry.as_mut()?.forced_cohorts.as_mut()).unwrap();
    forced.get_mut("staff").unwrap().rule.as_mut().unwrap().when = "request.query.a == \"k3y-zero".to_owned();
    let after = fixture.store.flips(None, 1).await.unwrap().first().map_or(0, |flip| flip.number);
    fixture
        .store
        .put_flips(PutFlips { flips: Vec::new(), declared: Some(rows), after, ..PutFlips::default() })
        .await
        .unwrap();
    let fixture = fixture.restart(with("k3y-two", "audit")).await;
    let [second] = told(&fixture).try_into().unwrap();
    assert_eq!(second.when_before.as_deref(), Some("request.query.a == \"***\""));
    assert!(first.rule.is_some() && second.rule_before == first.rule && second.rule != first.rule, "{second:?}");
    let text = serde_json::to_string(&fixture.store.declared().await.unwrap()).unwrap();
    assert!(!text.contains("k3y"), "{text}");
}
