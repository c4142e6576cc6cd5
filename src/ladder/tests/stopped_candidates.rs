//! The gate of a candidate whose share the guard has set to 0.

use super::guard::guard_settings;
use super::plans::{promoting, sharing};
use super::*;
use crate::evidence::{Condition, ConditionName, GateVerdict, GuardStop};
use crate::flag::{Guard, GuardRelease};
use crate::store::candidate_key;

/// The files in which the guard sets the share of the candidate `two` to 0.
fn stopping() -> DeclaredFiles {
    let mut files = sharing("two", Some(0.0));
    let asked = files.plans.candidate_move.as_mut().unwrap();
    (asked.by, asked.force) = ("guard".into(), false);
    asked.reason = Some("5 of the last 5 requests were refused with 4xx".into());
    files
}

impl Fixture {
    fn stopped(&self) -> Option<Condition> {
        let candidate = self.status("bare").candidate?;
        candidate.conditions.into_iter().find(|condition| condition.name == ConditionName::StoppedByGuard)
    }
    fn stop_in_evidence(&self) -> bool {
        self.evidence.of(&candidate_key(&"bare".into())).stopped_by_guard.is_some()
    }
}

#[tokio::test]
async fn what_the_guard_has_stopped_does_not_come_into_force_except_by_force() {
    let fixture = Fixture::with_share(50.0).await;
    assert_eq!(fixture.stopped(), None);
    fixture.ladder.reload(stopping(), || {}).await.unwrap();
    let found = fixture.stopped().unwrap();
    assert!(found.verdict == GateVerdict::Fail && found.detail.contains("were refused with 4xx"), "{found:?}");
    let mut asked = promoting("two", false);
    asked.plans.in_force = sharing("two", None).plans.in_force;
    asked.plans.candidate_move.as_mut().unwrap().share = Percent::new(1.0);
    let refused = fixture.ladder.reload(asked, || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("the guard has taken its share of new requests away"), "{refused}");
    // Another process may have been killed before it stored the evidence: the record says the same.
    fixture.evidence.set_guard_stop(&candidate_key(&"bare".into()), None);
    assert!(fixture.stopped().is_some());
    fixture.ladder.reload(stopping(), || {}).await.unwrap();
    // Another candidate comes and goes: then the last record is not the guard's.
    fixture.ladder.reload(sharing("three", None), || {}).await.unwrap();
    fixture.ladder.reload(sharing("two", None), || {}).await.unwrap();
    assert!(fixture.stop_in_evidence() && fixture.stopped().is_some());
    fixture.ladder.reload(sharing("two", Some(0.0)), || {}).await.unwrap();
    assert!(fixture.stopped().is_some(), "force that gives it no request releases nothing");
    fixture.ladder.reload(sharing("two", Some(5.0)), || {}).await.unwrap();
    assert_eq!((fixture.stopped(), fixture.stop_in_evidence()), (None, false), "a person has passed the gate by force");
    // Evidence of earlier files comes back with the stop; a later one counts.
    let stop = |at| Some(GuardStop { at, why: "refused".into() });
    fixture.evidence.set_guard_stop(&candidate_key(&"bare".into()), stop(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(fixture.stopped(), None);
    fixture.evidence.set_guard_stop(&candidate_key(&"bare".into()), stop(jiff::Timestamp::MAX));
    assert!(fixture.stopped().is_some());
}

#[tokio::test]
async fn clean_pairs_release_a_stopped_candidate_whose_guard_declares_it() {
    let fixture = Fixture::with_share(50.0).await;
    let guard = Guard { release: GuardRelease::Evidence, ..guard_settings() };
    let with_guard = |files| edited(files, "bare", |route| route.guard = Some(guard.clone()));
    let key = candidate_key(&"bare".into());
    fixture.evidence.set_guards([(&key, Some(&guard))].into_iter());
    fixture.record_pairs(key.as_str());
    fixture.ladder.reload(with_guard(stopping()), || {}).await.unwrap();
    let found = fixture.stopped().unwrap();
    assert!(found.detail.contains("needs 20 more clean pairs in a row"), "those before do not count: {found:?}");
    fixture.record_pairs(key.as_str());
    assert_eq!(fixture.stopped().unwrap().verdict, GateVerdict::Pass);
}
