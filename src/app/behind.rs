//! Background tasks of a process: reloading changed files, and watching the health of the store.
//!
//! Always true: an invalid set of files changes nothing and is reported; a valid one comes into force as a whole. While the
//! store is not healthy no new instances are begun, so that requests need not find out by themselves.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::parts::{Orphans, Parts};
use crate::config::{Change, ReloadStatus, Setup};

/// How often the store's health is read.
const HEALTH_INTERVAL: Duration = Duration::from_millis(200);

/// The pause before a valid set that the store refused is tried again: no change of a file would trigger it.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// After how long a set that waits for the store is reported.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// Puts valid sets in force and reports invalid ones, for as long as the files are watched.
pub(super) async fn reload(
    parts: Parts,
    started_with: Setup,
    reload_status: Arc<ReloadStatus>,
    mut changes: mpsc::Receiver<Change>,
) {
    let mut not_in_force = None;
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = tokio::time::sleep(RETRY_PAUSE), if not_in_force.is_some() => not_in_force.take().map(Change::Loaded),
        };
        let Some(change) = change else { return };
        not_in_force = None;
        match change {
            Change::Loaded(loaded) => match put_in_force(&parts, &loaded.setup, &reload_status).await {
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
                    // The store may accept it later; instances without a follower will not become valid by waiting.
                    not_in_force = (!error.is::<Orphans>()).then_some(loaded);
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

/// Puts a set in force; reports it while the set waits for the store.
async fn put_in_force(parts: &Parts, setup: &Setup, reload_status: &ReloadStatus) -> anyhow::Result<()> {
    let mut taking = pin!(parts.take(setup));
    if let Ok(outcome) = tokio::time::timeout(REPORT_AFTER, &mut taking).await {
        return outcome;
    }
    let waiting = "the new files pass the check and are not in force: the store has not answered, so it is not known yet \
                   whether the flips that they make are recorded. They come into force as a whole as soon as the store says \
                   that they are; else nothing changes";
    tracing::warn!("{waiting}");
    reload_status.refused_because(waiting.to_owned());
    taking.await
}

/// Passes the store's health on to the ladder.
pub(super) async fn health(parts: Parts) {
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        ticks.tick().await;
        let look = parts.ladder.look();
        parts.ladder.set_health(look, parts.store.healthy());
    }
}
