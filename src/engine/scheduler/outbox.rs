//! Begins the runs that other runs decided on: rows of the store's outbox of births.
//!
//! The question it answers: "the process ended between the append that decided on a run and the run's first append: who
//! begins it?" A row is written by the first of these appends and removed by the second, so that it is delivered at
//! least once; a run begins at most once, because a child is begun in its own slot after a look that found nothing, and
//! an heir takes a claim with its first append.
//!
//! What it leaves to others: a child is begun by its parent's driver, which is woken here (`children`); an heir is
//! begun as it would be if somebody ordered the same rerun again (`rerun`). Whoever decided begins the run at once, as a
//! rule: a row is looked at only when that has not happened for a while, and at once when a process starts.
//!
//! When the store does not answer, or refuses a first append, the row stays and is delivered again after a growing pause.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use metrics::gauge;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::engine::api::rerun;
use crate::engine::context::Core;
use crate::engine::machine::BirthRecord;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{Birth, News, StoreError};

/// Rows that are read together.
const ROWS_MAX: usize = 10_000;
/// A younger row is left to whoever decided on it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first pause before a row is delivered again; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Rows that were delivered and are still there, by the run that is to begin: how often, and when they are due again.
type Tries = HashMap<RunId, (u32, Instant)>;

/// Delivers what is to begin, for as long as the process lives.
pub(in crate::engine) async fn deliver(core: &Arc<Core>) {
    let mut news = core.ports.store.news();
    let mut tries = Tries::new();
    // Where the store is this process's alone, nobody is left who would begin what the last one decided.
    let mut patience = if core.ports.store.is_shared() { PATIENCE } else { Duration::ZERO };
    let mut next = Some(Instant::now());
    loop {
        let heard = async {
            loop {
                match news.recv().await {
                    Ok(News::Birth) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = heard => {
                let due = Instant::now() + PATIENCE;
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            () = until(next) => {
                next = match round(core, &mut tries, patience).await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(%error, "the runs that are to begin cannot be read");
                        Some(Instant::now() + PAUSE)
                    }
                };
                patience = PATIENCE;
                if core.ports.store.is_shared() {
                    let sweep = Instant::now() + Limits::ms(core.files.limits.sweep_ms.max(1));
                    next = Some(next.map_or(sweep, |next| next.min(sweep)));
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Delivers every row whose turn has come; when the next one's does.
async fn round(core: &Arc<Core>, tries: &mut Tries, patience: Duration) -> Result<Option<Instant>, StoreError> {
    if *core.process.draining.borrow() {
        return Ok(None);
    }
    let births = core.ports.store.births(ROWS_MAX).await?;
    let there: HashSet<RunId> = births.iter().map(|birth| birth.run).collect();
    tries.retain(|run, _| there.contains(run));
    let (mut next, mut overdue) = (None::<Instant>, 0_u32);
    let mut later = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
    for birth in &births {
        let now = Instant::now();
        let age = core.process.clock.now().duration_since(birth.at);
        let left = SignedDuration::try_from(patience).unwrap_or_default() - age;
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            later(now + left);
            continue;
        }
        overdue += 1;
        let (times, due) = tries.get(&birth.run).copied().unwrap_or((0, now));
        if due > now {
            later(due);
            continue;
        }
        deliver_one(core, birth).await?;
        let due = Instant::now() + PAUSE.saturating_mul(1 << times.min(6)).min(PAUSE_MAX);
        tries.insert(birth.run, (times.saturating_add(1), due));
        later(due);
    }
    gauge!("pointsman_births_overdue").set(overdue);
    Ok(next)
}

async fn deliver_one(core: &Arc<Core>, birth: &Birth) -> Result<(), StoreError> {
    let run = birth.run;
    let (record, parent) = match (serde_json::from_value::<BirthRecord>(birth.record.clone()), birth.parent) {
        (Ok(record), Some(parent)) => (record, parent),
        (record, parent) => {
            tracing::error!(%run, ?parent, ?record, "a run is to begin, and this version does not know how: it is left");
            return Ok(());
        }
    };
    match record {
        BirthRecord::Child => child(core, run, parent).await,
        BirthRecord::Heir { from } => {
            match rerun::rerun(core, parent, from, String::new()).await {
                Ok(started) => {
                    tracing::info!(%run, %parent, fresh = started.fresh, "the run that takes another's place began late")
                }
                Err(why) => {
                    tracing::warn!(%run, %parent, %why, "a run that is to take another's place did not begin: it is tried again")
                }
            }
            Ok(())
        }
    }
}

/// A child that was decided on has no event yet: its parent's driver begins it, where that has not ended.
async fn child(core: &Arc<Core>, child: RunId, parent: RunId) -> Result<(), StoreError> {
    if core.ports.store.run(parent).await?.is_none_or(|parent| parent.status.is_final()) {
        tracing::debug!(run = %child, %parent, "a child is not born: its parent has ended");
        return core.ports.store.drop_birth(child).await;
    }
    core.wake(parent);
    Ok(())
}
