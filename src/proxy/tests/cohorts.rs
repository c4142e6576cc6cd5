//! Which of the engine's answers to callers in cohorts are counted.

use super::rig::{OK, Origin, Rig, Setup, engine_gives_back, engine_says, post};
use crate::exchange::Served;
use crate::expression::Expression;
use crate::flag::{Cohort, Route, State};

/// These answers are no evidence for `only`, which holds for everybody; errors of the engine still count.
#[tokio::test]
async fn answers_to_callers_whom_only_a_forced_cohort_put_in_live_are_not_counted() {
    let edit_route = |route: &mut Route| {
        route.cohorts = vec![Cohort {
            name: "everybody".into(),
            when: Expression::parse("true").unwrap(),
            state: State::Live,
            force: Some("our own people".into()),
        }];
    };
    let origin = Origin::always_answers(OK).await;
    for (state, expected) in
        [(State::Dark, &[Served::FellBack][..]), (State::Live, &[Served::Answered, Served::FellBack])]
    {
        let rig = Rig::new(&origin, Setup { state, edit_route, ..Setup::default() }).await;
        rig.fakes.answers.lock().unwrap().extend([engine_says("{}"), engine_gives_back()]);
        for _ in 0..2 {
            rig.ask(&post("/orders", "{}")).await;
        }
        assert_eq!(*rig.fakes.served.lock().unwrap(), expected, "{state}");
    }
}
