//! A route that leaves the files and is re-added counts as new.

use super::*;

/// `bare` in this state, perhaps with `force`; with `reads` its workflow only reads, so that a repeat does no harm.
fn declaring(state: State, force: bool, reads: bool) -> DeclaredFiles {
    let files = edited(files(&[("bare", state)]), "bare", |route| route.force = force.then(|| "we know".to_owned()));
    let read_only = if reads { ["bare".into()].into() } else { Default::default() };
    DeclaredFiles { read_only, ..files }
}

fn without_bare(mut files: DeclaredFiles) -> DeclaredFiles {
    files.routes.retain(|route| route.id.as_str() != "bare");
    files
}

#[tokio::test]
async fn a_re_added_route_is_at_most_where_its_file_and_its_gates_allow() {
    use State::{Dark, Live, Off, Only, Shadow};
    for restarts in [false, true] {
        // The columns: the state it was flipped to; the state in its file; whether with `force`; whether it only reads;
        // whether it has evidence; its state once it is re-added.
        for (flipped, declared, force, reads, has_pairs, expected) in [
            (Live, Off, false, false, true, Off),
            (Only, Off, false, false, true, Off),
            (Live, Shadow, false, false, true, Shadow),
            (Shadow, Live, false, false, true, Shadow),
            (Off, Live, true, false, true, Off),
            (Live, Live, false, true, false, Shadow),
            // Legacy served requests meanwhile whose keys were not recorded.
            (Live, Live, false, false, true, Dark),
            (Live, Live, false, true, true, Live),
            (Live, Live, true, false, false, Live),
        ] {
            let case = format!("{flipped} {declared} {force} {reads} {has_pairs}, restarts: {restarts}");
            let files = || declaring(declared, force, reads);
            let mut fixture = Fixture::open(files()).await;
            fixture.flip("bare", MoveRequest { acknowledge: true, ..forced(flipped) }).await.unwrap();
            if has_pairs {
                fixture.record_pairs("bare");
            }
            let flips = fixture.flips().await;
            // The removal of a route in `only` is refused, except at a start.
            if restarts || flipped == Only {
                fixture = fixture.restart(without_bare(files())).await;
            } else {
                fixture.ladder.reload(without_bare(files()), || {}).await.unwrap();
            }
            for _ in 0..2 {
                if restarts {
                    fixture = fixture.restart(files()).await;
                } else {
                    fixture.ladder.reload(files(), || {}).await.unwrap();
                }
                assert_eq!(fixture.state("bare").state, expected, "{case}");
            }
            let last = fixture.status("bare").last.unwrap();
            assert_eq!((last.to.as_str(), last.by == "file"), (expected.as_str(), expected != flipped), "{case}");
            assert_eq!(fixture.flips().await, flips + usize::from(expected != flipped), "{case}");
        }
    }
}

#[tokio::test]
async fn the_flip_of_a_re_added_route_says_why() {
    let fixture = Fixture::open(declaring(State::Live, false, true)).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(without_bare(files(&[])), || {}).await.unwrap();
    fixture.ladder.reload(declaring(State::Live, false, true), || {}).await.unwrap();
    let why = fixture.status("bare").last.unwrap().reason.unwrap();
    assert!(why.contains("counts as new, and the gate to `dark` is shut: needs 20 more compared pairs"), "{why}");
    assert_eq!(fixture.status("bare").refused, [why]);
    // A person may raise it at once.
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let fixture = fixture.restart(declaring(State::Live, false, true)).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
}
