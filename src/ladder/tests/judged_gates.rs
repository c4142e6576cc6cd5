//! What the record says of the gates of a flip, and of changes of what they require.

use super::*;
use crate::flag::Cohort;
use crate::store::{JudgedCondition, JudgedGate};

fn condition<'a>(gate: &'a JudgedGate, name: &str) -> &'a JudgedCondition {
    gate.conditions.iter().find(|condition| condition.name == name).unwrap()
}

fn between(gates: &[JudgedGate]) -> Vec<(&str, &str)> {
    gates.iter().map(|gate| (gate.from.as_str(), gate.to.as_str())).collect()
}

#[tokio::test]
async fn a_flip_has_the_conditions_of_its_gates_as_they_were_judged() {
    let lax = edited(files(&[]), "bare", |route| route.promote.pairs = 7);
    let fixture = Fixture::open(lax).await;
    let flip = fixture.flip("bare", to(State::Shadow)).await.unwrap().flip;
    assert_eq!(flip.gates, [], "it asks for nothing");
    fixture.record_pairs("bare");
    let flip = fixture.flip("bare", to(State::Dark)).await.unwrap().flip;
    assert_eq!(between(&flip.gates), [("shadow", "dark")]);
    let pairs = condition(&flip.gates[0], "pairs");
    assert_eq!((pairs.verdict.as_str(), pairs.wanted.as_deref()), ("pass", Some("7")));
    assert!(pairs.found.contains("20 compared pairs of 7"), "{pairs:?}");
    assert_eq!(condition(&flip.gates[0], "mismatch_below").wanted.as_deref(), Some("100%"));
    assert_eq!(fixture.store.flips(None, 1).await.unwrap()[0].gates, flip.gates, "and so has the store");
    // By force over several gates: what did not hold is in it too.
    let flip = fixture.flip("plain", forced(State::Live)).await.unwrap().flip;
    assert_eq!(between(&flip.gates), [("shadow", "dark"), ("dark", "live")]);
    let pairs = condition(&flip.gates[1], "pairs");
    assert_eq!((pairs.verdict.as_str(), pairs.wanted.as_deref()), ("inconclusive", Some("20")));
    let down = fixture.flip("plain", to(State::Off)).await.unwrap().flip;
    assert_eq!(down.gates, []);
}

#[tokio::test]
async fn what_a_record_says_of_a_gate_is_bounded() {
    let many = edited(files(&[]), "plain", |route| {
        let cohort = |n: usize| Cohort {
            name: format!("c{n}{}", "x".repeat(999)),
            when: crate::expression::Expression::parse("true").unwrap(),
            state: State::Dark,
            force: None,
        };
        route.cohorts = (0..200).map(cohort).collect();
    });
    let fixture = Fixture::open(many).await;
    let flip = fixture.flip("plain", forced(State::Only)).await.unwrap().flip;
    let text = serde_json::to_string(&flip.gates).unwrap();
    assert!(text.len() < 20_000 && text.contains("\"other\""), "{}", text.len());
}

#[tokio::test]
async fn a_change_of_what_gates_require_is_stored_with_its_entry_until_the_next_one() {
    let with = |pairs| edited(files(&[]), "bare", |route| route.promote.pairs = pairs);
    let changed = |fixture: &Fixture| {
        let all = fixture.ladder.changed_promotes().into_iter();
        all.map(|changed| (changed.route.to_string(), changed.change)).collect::<Vec<_>>()
    };
    let fixture = Fixture::open(with(20)).await;
    assert_eq!(changed(&fixture), [], "it is the first that is known");
    fixture.ladder.reload(with(1), || {}).await.unwrap();
    let [(route, first)] = changed(&fixture).try_into().unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((route.as_str(), first.keys), ("bare", [("pairs".to_owned(), (text("20"), text("1")))].into()));
    // The files are changed back while no process runs, and are read again.
    let mut fixture = fixture.restart(with(20)).await;
    for _ in 0..2 {
        let [(_, second)] = changed(&fixture).try_into().unwrap();
        assert!(second.source != first.source, "{second:?}");
        assert_eq!(second.keys, [("pairs".to_owned(), (text("1"), text("20")))].into());
        fixture = fixture.restart(with(20)).await;
    }
    // A route that is left out and added again, or renamed, goes on with what it had.
    let renamed = edited(with(3), "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]));
    fixture.ladder.reload(renamed, || {}).await.unwrap();
    let [(route, third)] = changed(&fixture).try_into().unwrap();
    assert_eq!((route.as_str(), third.keys), ("new", [("pairs".to_owned(), (text("20"), text("3")))].into()));
}

/// Each change needs a source of its own, else it is taken for one that is in the record already.
#[tokio::test]
async fn the_changes_of_what_gates_require_are_counted_also_while_the_route_is_in_no_file() {
    let with = |pairs| edited(files(&[]), "bare", |route| route.promote.pairs = pairs);
    let without = || {
        let mut files = files(&[]);
        files.routes.retain(|route| route.id.as_str() != "bare");
        files
    };
    let renamed =
        |pairs| edited(with(pairs), "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]));
    // Another route with the id that the renamed one had.
    let with_another = |pairs| {
        let mut files = edited(renamed(5), "new", |route| route.was.clear());
        let another = edited(with(pairs), "bare", |route| route.matches.path = "/another".into());
        files.routes.extend(another.routes.into_iter().filter(|route| route.id.as_str() == "bare"));
        files
    };
    let mut fixture = Fixture::open(with(1_000)).await;
    let mut sources = std::collections::BTreeSet::new();
    let mut read = 0;
    for (files, changes) in [
        (with(1), 1),
        (without(), 0),
        (with(1_000), 1),
        (with(1), 1),
        (without(), 0),
        (with(1), 1),
        (with(2), 1),
        (renamed(5), 1),
        (with_another(1), 1),
        (with_another(2), 2),
    ] {
        read += 1;
        if read % 3 == 0 {
            fixture = fixture.restart(files).await;
        } else {
            fixture.ladder.reload(files, || {}).await.unwrap();
        }
        let changed = fixture.ladder.changed_promotes();
        assert_eq!(changed.len(), changes, "{read}: {changed:?}");
        sources.extend(changed.into_iter().map(|changed| changed.change.source));
    }
    let counted: Vec<&str> = sources.iter().map(|source| source.rsplit_once(' ').unwrap().0).collect();
    let expected =
        ["promote bare 1", "promote bare 2", "promote bare 3", "promote bare 4", "promote bare 6", "promote new 5"];
    assert_eq!(counted, expected);
}
