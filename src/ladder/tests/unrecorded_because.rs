//! The gate names the one cause for which retry keys are recorded only since a time.

use super::*;
use crate::expression::Template;
use crate::ladder::scopes::{self, Scopes, unrecorded_retries};

const DAY: Duration = Duration::from_secs(86_400);

fn at(hours: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_000_000 + hours * 3_600).unwrap()
}

/// Why the gate of `bare` is shut after it was changed.
fn why_after(before: &DeclaredFiles, change: impl Fn(&mut Route), windows: (u32, u32)) -> String {
    let first = scopes::after_files(&Scopes::new(), before, false, at(0), windows.0 * DAY);
    let after = scopes::after_files(&first, &edited(files(&[]), "bare", &change), true, at(48), windows.1 * DAY);
    // Later files, and the next process, know it too.
    let stored = serde_json::to_string(&after[&RouteId::from("bare")]).unwrap();
    let stored: crate::store::RetryScopes = serde_json::from_str(&stored).unwrap();
    unrecorded_retries(&stored, at(48), windows.1 * DAY).expect("the gate is shut").why
}

#[test]
fn a_gate_that_waits_for_retries_names_one_cause() {
    let without_workflow = edited(files(&[]), "bare", |route| route.workflow = None);
    let key = Template::parse_str("${request.query.order}").unwrap();
    let causes = [
        (why_after(&without_workflow, |_| {}, (1, 1)), "its workflow, was added"),
        (why_after(&files(&[]), |route| route.matches.path = "/elsewhere".into(), (1, 1)), "its `match` changed"),
        (why_after(&files(&[]), |route| route.retry_key = Some(key.clone()), (1, 1)), "its `retry_key` changed"),
        (why_after(&files(&[]), |_| {}, (1, 3)), "`retry_window_s` was shorter"),
    ];
    for (n, (why, cause)) in causes.iter().enumerate() {
        let named: Vec<bool> = causes.iter().map(|(_, cause)| why.contains(cause)).collect();
        assert_eq!(named.iter().position(|is| *is), Some(n), "{cause}: {why}");
        assert_eq!(named.iter().filter(|is| **is).count(), 1, "{why}");
    }
}

/// The gate says what to do.
#[tokio::test]
async fn the_gate_says_to_wait_or_to_force() {
    let fixture = Fixture::open(files(&[])).await;
    fixture
        .ladder
        .reload(edited(files(&[]), "bare", |route| route.matches.path = "/elsewhere".into()), || {})
        .await
        .unwrap();
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    let refused = fixture.refusal("bare", to(State::Live)).await;
    assert!(refused.contains("when its `match` changed") && refused.contains("; wait until then, or"), "{refused}");
}
