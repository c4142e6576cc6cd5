//! What goes on behind the requests: files that change, and the health of the store.
//!
//! Always true: a bad set of files changes nothing and is told where it can be seen; a good one is in force whole. A
//! store that is not healthy holds new instances back before the next request finds out by itself.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::parts::{Orphans, Parts};
use crate::config::{Change, ReloadStatus, Setup};

/// The store's health is looked at this often.
const HEALTH_EVERY: Duration = Duration::from_millis(200);

/// A good set that the store refused is tried again this often: nobody else would, until a file changes.
const TAKE_AGAIN: Duration = Duration::from_secs(2);

/// A set that the store keeps waiting for longer is told of.
const SAID_AFTER: Duration = Duration::from_secs(2);

/// Takes good sets and refuses bad ones, for as long as the files are watched.
pub(super) async fn reload(
    parts: Parts,
    started_with: Setup,
    reload_status: Arc<ReloadStatus>,
    mut changes: mpsc::Receiver<Change>,
) {
    let mut untaken = None;
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = tokio::time::sleep(TAKE_AGAIN), if untaken.is_some() => untaken.take().map(Change::Loaded),
        };
        let Some(change) = change else { return };
        untaken = None;
        match change {
            Change::Loaded(loaded) => match taken(&parts, &loaded.setup, &reload_status).await {
                Ok(()) => {
                    reload_status.accepted(loaded.warnings);
                    tracing::info!("a new set of flag files is in force");
                    let mut waiting = started_with.settings.differing_until_restart(&loaded.setup.settings);
                    waiting.extend((started_with.limits != loaded.setup.limits).then_some("limits"));
                    if !waiting.is_empty() {
                        tracing::warn!(keys = waiting.join(", "), "changed, and in force only after the next start");
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the new files pass the check, and cannot be put in force: the last good set stays"
                    );
                    reload_status.refused_because(format!("{error:#}"));
                    // The store may take it later; what the engine owns does not go away.
                    untaken = (!error.is::<Orphans>()).then_some(loaded);
                }
            },
            Change::Refused(failed) => {
                tracing::error!(
                    "the changed flag files are refused, the last good set stays:\n{}",
                    failed.render(false)
                );
                reload_status.refused(&failed);
            }
        }
    }
}

/// Puts a set in force, and says so where the store keeps that waiting.
async fn taken(parts: &Parts, setup: &Setup, reload_status: &ReloadStatus) -> anyhow::Result<()> {
    let mut taking = pin!(parts.take(setup));
    if let Ok(outcome) = tokio::time::timeout(SAID_AFTER, &mut taking).await {
        return outcome;
    }
    let waiting = "the new files pass the check and are not in force: the store has not answered, so it is not known yet \
                   whether the flips that they make are recorded. They come in force as a whole as soon as the store says \
                   that they are; else nothing changes";
    tracing::warn!("{waiting}");
    reload_status.refused_because(waiting.to_owned());
    taking.await
}

/// Tells the ladder of the store's health.
pub(super) async fn health(parts: Parts) {
    let mut ticks = tokio::time::interval(HEALTH_EVERY);
    loop {
        ticks.tick().await;
        let look = parts.ladder.look();
        parts.ladder.set_health(look, parts.store.healthy());
    }
}
