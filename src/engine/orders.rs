//! What is asked of a run, wherever it is moved.
//!
//! Always true: what is asked is done once; an answer is given after the events are on disk. A run that rests is woken
//! for it, and one that another process moves gets it through the store.
//!
//! When the other process does not come to it in time, whoever asks hears that nobody knows, and the asking stands: it
//! is done when somebody moves the run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::Core;
use super::desk::NotDone;
use super::mail::{Asking, Letter, Reply};
use super::take::Unposted;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{News, OrderRecord};
use crate::workflow::{Order, Refusal, RunSummary};

/// How often the store is asked for an answer that no news tell of.
const LOOK: Duration = Duration::from_secs(1);

/// Asks something of a run.
pub(super) async fn order(core: &Arc<Core>, run: RunId, order: Order, by: String) -> Result<RunSummary, NotDone> {
    let until = Instant::now() + Limits::ms(core.limits.order_wait_ms);
    loop {
        let (reply, told) = oneshot::channel();
        let asking = Asking { order: order.clone(), by: by.clone(), reply };
        match timeout_at(until, core.post(run, Letter::Order(Box::new(asking)))).await {
            Ok(Ok(())) => {}
            Ok(Err(Unposted::Draining)) => return Err(store("the process is shutting down", false)),
            Err(_) => return Err(store("the run takes no orders now (order_wait_ms)", false)),
        }
        match timeout_at(until, told).await {
            Ok(Ok(Reply::Done(summary))) => return Ok(*summary),
            Ok(Ok(Reply::Not(why))) => return Err(why),
            Ok(Ok(Reply::Elsewhere)) => return elsewhere(core, run, &order, by, until).await,
            Ok(Ok(Reply::Again)) => {}
            Ok(Err(_)) => return Err(store("the run's task ended", true)),
            Err(_) => return Err(store("it was not on disk in time (order_wait_ms)", true)),
        }
        if Instant::now() >= until {
            return Err(store("the run takes no orders now (order_wait_ms)", false));
        }
    }
}

fn store(why: &str, unknown: bool) -> NotDone {
    NotDone::Store { why: why.to_owned(), unknown }
}

/// Asks through the store, and waits for the answer.
async fn elsewhere(
    core: &Arc<Core>,
    run: RunId,
    order: &Order,
    by: String,
    until: Instant,
) -> Result<RunSummary, NotDone> {
    let order = serde_json::to_value(order).map_err(|error| NotDone::Unreadable(error.to_string()))?;
    let id = Uuid::now_v7();
    let mut news = core.store.news();
    let record = OrderRecord { id, run, order, by, at: core.clock.now(), answer: None };
    match timeout_at(until, core.store.put_order(record)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(store(&error.to_string(), true)),
        Err(_) => return Err(store("the store does not answer", true)),
    }
    loop {
        if let Ok(Ok(Some(OrderRecord { answer: Some(answer), .. }))) = timeout_at(until, core.store.order(id)).await {
            return answered(core, run, answer).await;
        }
        let heard = async {
            loop {
                match news.recv().await {
                    Ok(News::Order(settled)) if settled == id => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = heard => {}
            () = tokio::time::sleep(LOOK) => {}
            () = tokio::time::sleep_until(until) => {
                return Err(store("the process that moves the run has not answered (order_wait_ms)", true));
            }
        }
    }
}

async fn answered(core: &Core, run: RunId, answer: Value) -> Result<RunSummary, NotDone> {
    let refused = answer.get("refused").map(refusal_of);
    if refused == Some(None) {
        return Err(NotDone::NoRun);
    }
    match (core.store.run(run).await, refused.flatten()) {
        (Ok(Some(summary)), None) => Ok(summary),
        (Ok(Some(summary)), Some(refusal)) => Err(NotDone::Refused { run: Box::new(summary), refusal }),
        (Ok(None), _) => Err(NotDone::NoRun),
        (Err(error), None) => Err(store(&format!("it was done, and the run cannot be shown: {error}"), true)),
        (Err(error), Some(refusal)) => Err(store(&format!("{refusal} ({error})"), false)),
    }
}

/// It is done: what the store keeps.
pub(super) fn done() -> Value {
    json!({ "done": true })
}

/// What was asked makes no sense to this version.
pub(super) fn unreadable(error: &serde_json::Error) -> Value {
    refused(&Refusal::NoSense(format!("it cannot be read by the process that moves the run: {error}")))
}

/// It is refused: what the store keeps.
pub(super) fn refused(refusal: &Refusal) -> Value {
    let text = || json!({ "no_sense": refusal.to_string() });
    let kept = match refusal {
        Refusal::NotDue(_) => text(), // of interest only to whoever asked the core
        refusal => serde_json::to_value(refusal).unwrap_or_else(|_| text()),
    };
    json!({ "refused": kept })
}

/// The refusal that the store kept; `None` where there is no such run.
fn refusal_of(kept: &Value) -> Option<Refusal> {
    match kept.as_str() {
        // These two are the store's own words.
        Some("the run has ended") => return Some(Refusal::Ended),
        Some("there is no such run") => return None,
        Some(_) | None => {}
    }
    let newer = |_| Refusal::NoSense(kept.as_str().map_or_else(|| kept.to_string(), str::to_owned));
    Some(serde_json::from_value(kept.clone()).unwrap_or_else(newer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Seq;
    use crate::workflow::Said;

    #[test]
    fn a_refusal_comes_through_the_store_as_it_was() {
        let said = Said { approve: true, values: None, approved: vec![1], struck: Vec::new(), note: None };
        for refusal in [
            Refusal::Ended,
            Refusal::NoSuchStep,
            Refusal::NoSuchCheckpoint,
            Refusal::NotYours("bob decides".into()),
            Refusal::NoSense("it is not paused".into()),
            Refusal::BadValues(vec!["/a: is no string".into()]),
            Refusal::AnsweredBefore { by: "bob".into(), said: Box::new(said), seq: Seq(7) },
        ] {
            assert_eq!(refusal_of(&refused(&refusal)["refused"]), Some(refusal));
        }
        assert_eq!(refusal_of(&refused(&Refusal::NotDue("x"))["refused"]), Some(Refusal::NoSense("not due: x".into())));
        let newer = refusal_of(&json!({ "later": 1 }));
        assert!(matches!(newer, Some(Refusal::NoSense(text)) if text.contains("later")), "a newer process said so");
        assert_eq!(refusal_of(&crate::store::run_has_ended()["refused"]), Some(Refusal::Ended));
        assert_eq!(refusal_of(&crate::store::no_such_run()["refused"]), None);
        assert_eq!(refusal_of(&json!("the run has ended")), Some(Refusal::Ended));
        assert_eq!(refusal_of(&json!("there is no such run")), None);
    }
}
