//! The task of a move ends without a result. Whether anything changed is not known, so the error must not say that
//! nothing did.

use futures_util::future::BoxFuture;

use super::*;

/// Panics while a move is judged.
struct PanickingCondition;

impl GateCondition for PanickingCondition {
    fn unmet(&self, route: &Route, _from: State, _to: State) -> Vec<Unmet> {
        assert_ne!(route.id.as_str(), "plain", "on purpose");
        Vec::new()
    }
}

/// Panics when a freeze is set.
struct PanickingListener;

impl KillSwitchListener for PanickingListener {
    fn apply_freeze(&self, _version: u64, freeze: Freeze) -> BoxFuture<'_, ()> {
        assert_eq!(freeze, Freeze::No, "on purpose");
        Box::pin(std::future::ready(()))
    }
}

const UNKNOWN: &str = "ended without a result, so it is not known whether anything changed";

#[tokio::test]
async fn the_outcome_of_a_move_whose_task_ended_is_not_known() {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let ladder = open_with(files(&[]), &store, &evidence, vec![Arc::new(PanickingCondition)]).await.unwrap();
    let error = ladder.flip(&"plain".into(), to(State::Shadow)).await.unwrap_err();
    assert!(matches!(error, FlipError::Unconfirmed(Unconfirmed::TaskEnded)), "{error}");
    assert!(error.to_string().contains(UNKNOWN), "{error}");

    let declared = edited(files(&[]), "bare", |route| route.declared = State::Shadow);
    let error = ladder.reload(declared, || panic!("on purpose")).await.unwrap_err();
    assert!(matches!(error, FilesError::TaskEnded), "{error}");
    assert!(error.to_string().contains(UNKNOWN), "{error}");

    ladder.connect_to_kill_switch(Arc::new(PanickingListener)).await;
    let error = ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap_err();
    assert!(matches!(error, FreezeError::Unconfirmed(Unconfirmed::TaskEnded)), "{error}");
    assert!(error.to_string().contains(UNKNOWN), "{error}");
}
