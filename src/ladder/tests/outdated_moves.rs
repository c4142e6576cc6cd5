//! Moves up that were asked for before a flip down of their route, and are judged after it.

use super::held::elsewhere;
use super::overtaken::{silence, stored};
use super::*;

type Outcome<T, E> = tokio::task::JoinHandle<Result<T, E>>;

fn by_bob(state: State) -> MoveRequest {
    MoveRequest { by: "bob".into(), acknowledge: true, ..to(state) }
}

fn share(fixture: &Fixture, route: &str, state: State) -> Percent {
    fixture.ladder.flags().load().route(&route.into()).unwrap().shares.of(state)
}

/// A flip of `plain` waits for the store, so that other moves wait for it.
async fn behind_a_pending_flip(fixture: &Fixture) -> Outcome<Flipped, FlipError> {
    silence(fixture, true);
    let ladder = fixture.ladder.clone();
    let first = tokio::spawn(async move { ladder.flip(&"plain".into(), forced(State::Dark)).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    first
}

#[tokio::test(start_paused = true)]
async fn a_pending_flip_up_does_not_raise_a_route_that_is_lowered_meanwhile() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    let first = behind_a_pending_flip(&fixture).await;
    let ladder = fixture.ladder.clone();
    let up = tokio::spawn(async move { ladder.flip(&"bare".into(), forced(State::Live)).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!fixture.flip("bare", by_bob(State::Off)).await.unwrap().recorded);
    silence(&fixture, false);
    first.await.unwrap().unwrap();
    let refused = up.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("`bare` was flipped to `off` by bob while this flip waited"), "{refused}");
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
    assert_eq!(stored(&fixture).await.last().unwrap(), &("dark".to_owned(), "off".to_owned()));
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Live, "it was asked for later");
}

/// The file asks for `asked` by force, and makes the share of `live` smaller.
#[tokio::test(start_paused = true)]
async fn pending_files_do_not_raise_a_route_that_is_lowered_meanwhile() {
    let quarter = Percent::new(25.0).unwrap();
    for (asked, stays) in [(State::Live, State::Shadow), (State::Shadow, State::Shadow), (State::Off, State::Off)] {
        let read = || {
            let forced = |route: &mut Route| {
                (route.declared, route.force) = (asked, Some("we know".into()));
                route.shares = route.shares.with(State::Live, quarter);
                route.key = Some(Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
                (route.id, route.was) = ("new".into(), vec!["bare".into()]);
            };
            edited(files(&[]), "bare", forced)
        };
        let fixture = Fixture::open(files(&[("bare", State::Shadow)])).await;
        fixture.flip("bare", forced(State::Dark)).await.unwrap();
        let first = behind_a_pending_flip(&fixture).await;
        let ladder = fixture.ladder.clone();
        let given = read();
        let reload = tokio::spawn(async move { ladder.reload(given, || {}).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!fixture.flip("bare", by_bob(State::Shadow)).await.unwrap().recorded);
        silence(&fixture, false);
        first.await.unwrap().unwrap();
        reload.await.unwrap().unwrap();
        assert_eq!(fixture.state("new"), effective(stays, EffectiveReason::Requested), "asked: {asked}");
        assert_eq!(share(&fixture, "new", State::Live), quarter);
        assert!(fixture.status("new").refused.is_empty());
        fixture.ladder.reload(read(), || {}).await.unwrap();
        assert_eq!(fixture.state("new").state, stays, "the same files ask for nothing new");
        let fixture = fixture.restart(read()).await;
        assert_eq!(fixture.state("new").state, stays);
        let raised = edited(read(), "new", |route| route.declared = State::Dark);
        fixture.ladder.reload(raised, || {}).await.unwrap();
        assert_eq!(fixture.state("new").state, State::Dark, "an edit that was made later");
    }
}

/// Such a flip is not recorded, and yet it stops what was asked for before it: a flip up, and files.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_stops_pending_moves_up() {
    for by_files in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Dark)).await.unwrap();
        let first = behind_a_pending_flip(&fixture).await;
        let ladder = fixture.ladder.clone();
        let up = tokio::spawn(async move {
            let live = |route: &mut Route| (route.declared, route.force) = (State::Live, Some("we know".into()));
            match by_files {
                true => ladder.reload(edited(files(&[]), "bare", live), || {}).await.map_err(|error| error.to_string()),
                false => match ladder.flip(&"bare".into(), forced(State::Live)).await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                },
            }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!fixture.flip("bare", by_bob(State::Dark)).await.unwrap().changed);
        silence(&fixture, false);
        first.await.unwrap().unwrap();
        assert_eq!(up.await.unwrap().is_ok(), by_files, "files are taken, without the move");
        assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested), "by files: {by_files}");
    }
}

/// The write has the new id, the route in force only the earlier one.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_stops_files_that_rename_and_raise_the_route() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    silence(&fixture, true);
    let raised = |route: &mut Route| {
        (route.declared, route.force) = (State::Live, Some("we know".into()));
        (route.id, route.was) = ("new".into(), vec!["bare".into()]);
    };
    let (ladder, files) = (fixture.ladder.clone(), edited(files(&[]), "bare", raised));
    let reload = tokio::spawn(async move { ladder.reload(files, || {}).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stays = fixture.flip("bare", to(State::Dark)).await.unwrap();
    assert!(stays.changed && !stays.recorded);
    silence(&fixture, false);
    reload.await.unwrap().unwrap();
    assert_eq!(fixture.state("new").state, State::Dark);
}

/// The route is held at `dark`, so that a flip to `dark` lowers it for good.
#[tokio::test(start_paused = true)]
async fn a_larger_share_of_a_held_route_is_not_in_force_before_it_is_recorded() {
    let fixture = Fixture::open(files(&[])).await;
    let half = Percent::new(50.0);
    fixture.flip("plain", MoveRequest { percent: half, ..forced(State::Dark) }).await.unwrap();
    fixture.flip("plain", MoveRequest { percent: half, ..forced(State::Live) }).await.unwrap();
    let moved = edited(elsewhere(), "plain", |route| route.matches.path = "/plain/elsewhere".into());
    fixture.ladder.reload(moved, || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Gate));
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    let larger = MoveRequest { percent: Percent::new(100.0), ..forced(State::Dark) };
    let refused = fixture.flip("plain", larger).await;
    assert!(matches!(refused, Err(FlipError::Store(_))), "{refused:?}");
    assert_eq!(share(&fixture, "plain", State::Dark), half.unwrap());
    let smaller = fixture.flip("plain", percent(State::Dark, 20.0)).await.unwrap();
    assert!(!smaller.recorded);
    assert_eq!(share(&fixture, "plain", State::Dark), Percent::new(20.0).unwrap());
}

/// The files were read before, and are taken without the larger share.
#[tokio::test]
async fn files_do_not_raise_a_share_that_a_later_flip_made_smaller() {
    for later in [percent(State::Dark, 20.0), MoveRequest { by: "bob".into(), ..percent(State::Dark, 50.0) }] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("plain", MoveRequest { percent: Percent::new(50.0), ..forced(State::Dark) }).await.unwrap();
        let larger = |route: &mut Route| {
            route.shares = route.shares.with(State::Dark, Percent::new(80.0).unwrap());
            route.force = Some("we know".into());
        };
        let (read, expected) = (Instant::now(), later.percent.unwrap());
        fixture.flip("plain", later).await.unwrap();
        fixture.ladder.reload_files(read, edited(files(&[]), "plain", larger), || {}).await.unwrap();
        assert_eq!(share(&fixture, "plain", State::Dark), expected);
    }
}

/// The store performs the flip to the larger share, or does not.
#[tokio::test(start_paused = true)]
async fn a_pending_larger_share_does_not_undo_a_later_flip() {
    for (is_taken, later) in [(true, None), (true, Some(20.0)), (false, Some(50.0)), (false, Some(20.0))] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("plain", MoveRequest { percent: Percent::new(50.0), ..forced(State::Dark) }).await.unwrap();
        fixture.store.fail_reads.store(true, Ordering::SeqCst);
        let writes = if is_taken { &fixture.store.lose_replies } else { &fixture.store.refuse_flips };
        writes.store(true, Ordering::SeqCst);
        let ladder = fixture.ladder.clone();
        let larger = MoveRequest { percent: Percent::new(80.0), ..forced(State::Dark) };
        let larger = tokio::spawn(async move { ladder.flip(&"plain".into(), larger).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let expected = Percent::new(later.unwrap_or(50.0)).unwrap();
        let stays = MoveRequest { percent: later.and_then(Percent::new), ..to(State::Dark) };
        assert!(!fixture.flip("plain", stays).await.unwrap().recorded);
        assert_eq!(share(&fixture, "plain", State::Dark), expected);
        silence(&fixture, false);
        fixture.store.refuse_flips.store(false, Ordering::SeqCst);
        assert_eq!(larger.await.unwrap().is_ok(), is_taken);
        super::freezes::wait_until_recorded(&fixture).await;
        assert_eq!(share(&fixture, "plain", State::Dark), expected, "taken: {is_taken}");
        let fixture = fixture.restart(files(&[])).await;
        assert_eq!(share(&fixture, "plain", State::Dark), expected);
    }
}

/// No flip of the route is recorded, so that the flip does not stop the files: they are not refused for ever either.
#[tokio::test(start_paused = true)]
async fn files_raise_a_route_that_was_never_flipped_but_to_its_present_state() {
    let fixture = Fixture::open(files(&[])).await;
    let live =
        edited(files(&[]), "bare", |route| (route.declared, route.force) = (State::Live, Some("we know".into())));
    let read = std::time::Instant::now();
    assert!(!fixture.flip("bare", to(State::Off)).await.unwrap().changed);
    fixture.ladder.reload_files(read, live, || {}).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Live);
}

#[tokio::test(start_paused = true)]
async fn files_lower_a_route_that_was_lowered_further_and_raised_again_since_they_were_read() {
    let fixture = Fixture::open(files(&[("bare", State::Shadow)])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let read = std::time::Instant::now();
    fixture.flip("bare", to(State::Off)).await.unwrap();
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let dark = edited(files(&[]), "bare", |route| route.declared = State::Dark);
    fixture.ladder.reload_files(read, dark, || {}).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Dark);
}

#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_ends_what_the_file_asks_for_and_does_not_get() {
    let fixture = Fixture::open(files(&[])).await;
    let asked = edited(files(&[]), "bare", |route| route.declared = State::Live);
    fixture.ladder.reload(asked, || {}).await.unwrap();
    assert!(!fixture.status("bare").refused.is_empty(), "the gate is closed");
    let stands = fixture.state("bare").state;
    let flipped = fixture.flip("bare", to(stands)).await.unwrap();
    assert!(flipped.changed && flipped.recorded, "it counts as a flip: the file is not judged again after it");
    assert!(fixture.status("bare").refused.is_empty());
    assert!(!fixture.flip("bare", to(stands)).await.unwrap().changed);
}
