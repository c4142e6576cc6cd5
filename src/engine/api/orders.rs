//! What is asked of a run, wherever it is moved.
//!
//! Always true: what is asked is done once; an answer is given after the events are on disk. A run that rests is woken
//! for it, and one that another process moves gets it through the store.
//!
//! When the other process does not come to it in time, whoever asks hears that nobody knows, and the asking stands: it
//! is done when somebody moves the run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::engine::api::types::OrderError;
use crate::engine::context::Core;
use crate::engine::machine::order_record::refusal_of;
use crate::engine::scheduler::deliver::Undelivered;
use crate::engine::scheduler::mailbox::{Message, OrderRequest, Reply};
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{OrderRecord, StoreNotification};
use crate::workflow::{Order, RunSummary};

/// How often the store is asked for an answer that no news tell of.
const LOOK: Duration = Duration::from_secs(1);

/// Asks something of a run.
pub(in crate::engine) async fn order(
    core: &Arc<Core>,
    run: RunId,
    order: Order,
    by: String,
) -> Result<RunSummary, OrderError> {
    let until = Instant::now() + Limits::ms(core.files.limits.order_wait_ms);
    loop {
        let (reply, told) = oneshot::channel();
        let asking = OrderRequest { order: order.clone(), by: by.clone(), reply };
        match timeout_at(until, core.deliver(run, Message::Order(Box::new(asking)))).await {
            Ok(Ok(())) => {}
            Ok(Err(Undelivered::Draining)) => return Err(store("the process is shutting down", false)),
            Err(_) => return Err(store("the run takes no orders now (order_wait_ms)", false)),
        }
        match timeout_at(until, told).await {
            Ok(Ok(Reply::Done(summary))) => return Ok(*summary),
            Ok(Ok(Reply::Error(why))) => return Err(why),
            Ok(Ok(Reply::Elsewhere)) => return elsewhere(core, run, &order, by, until).await,
            Ok(Ok(Reply::Retry)) => {}
            Ok(Err(_)) => return Err(store("the run's task ended", true)),
            Err(_) => return Err(store("it was not on disk in time (order_wait_ms)", true)),
        }
        if Instant::now() >= until {
            return Err(store("the run takes no orders now (order_wait_ms)", false));
        }
    }
}

fn store(why: &str, unknown: bool) -> OrderError {
    OrderError::Store { why: why.to_owned(), unknown }
}

/// Asks through the store, and waits for the answer.
async fn elsewhere(
    core: &Arc<Core>,
    run: RunId,
    order: &Order,
    by: String,
    until: Instant,
) -> Result<RunSummary, OrderError> {
    let order = serde_json::to_value(order).map_err(|error| OrderError::Unreadable(error.to_string()))?;
    let id = core.process.new_id();
    let mut news = core.ports.store.notifications();
    let record = OrderRecord { id, run, order, by, at: core.process.clock.now(), answer: None };
    match timeout_at(until, core.ports.store.put_order(record)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(store(&error.to_string(), true)),
        Err(_) => return Err(store("the store does not answer", true)),
    }
    loop {
        if let Ok(Ok(Some(OrderRecord { answer: Some(answer), .. }))) =
            timeout_at(until, core.ports.store.order(id)).await
        {
            return answered(core, run, answer).await;
        }
        let heard = async {
            loop {
                match news.recv().await {
                    Ok(StoreNotification::Order(settled)) if settled == id => return,
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

async fn answered(core: &Core, run: RunId, answer: Value) -> Result<RunSummary, OrderError> {
    let refused = answer.get("refused").map(refusal_of);
    if refused == Some(None) {
        return Err(OrderError::NoRun);
    }
    match (core.ports.store.run(run).await, refused.flatten()) {
        (Ok(Some(summary)), None) => Ok(summary),
        (Ok(Some(summary)), Some(refusal)) => Err(OrderError::Refused { run: Box::new(summary), refusal }),
        (Ok(None), _) => Err(OrderError::NoRun),
        (Err(error), None) => Err(store(&format!("it was done, and the run cannot be shown: {error}"), true)),
        (Err(error), Some(refusal)) => Err(store(&format!("{refusal} ({error})"), false)),
    }
}
