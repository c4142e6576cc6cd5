//! Flips and declarations become durable, or certainly not.
//!
//! Always true: what is recorded together is there as a whole or not at all (one transaction of the store); an outcome
//! that the store did not tell is looked up until it is known, because what is in force must be what a restart finds.

use std::time::Duration;

use super::types::Move;
use crate::flag::Shares;
use crate::store::{DeclaredState, FlipRecord, SharedStore, StoreError};

/// What is recorded in one transaction.
pub(super) struct Recording {
    pub flips: Vec<FlipRecord>,
    /// What the files declare from then on; `None` leaves what is remembered as it is.
    pub declared: Option<Vec<DeclaredState>>,
}

/// Between two looks after an outcome that the store did not tell: from, up to.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Records, and gives the flips their numbers. Returns once the outcome is known, however long the store takes.
///
/// # Errors
/// Nothing of it was recorded.
pub(super) async fn record(store: &SharedStore, recording: Recording) -> Result<Vec<FlipRecord>, StoreError> {
    let Recording { mut flips, declared } = recording;
    let numbers = match store.put_flips(flips.clone(), declared.clone()).await {
        Ok(numbers) => numbers,
        Err(error) => look_up(store, &flips, declared, error).await?,
    };
    for (flip, number) in flips.iter_mut().zip(numbers) {
        flip.number = number;
    }
    Ok(flips)
}

/// The numbers of flips that were recorded though the store did not say so.
async fn look_up(
    store: &SharedStore,
    flips: &[FlipRecord],
    declared: Option<Vec<DeclaredState>>,
    error: StoreError,
) -> Result<Vec<u64>, StoreError> {
    let mut pause = LOOK_AGAIN.0;
    loop {
        match read_back(store, flips, declared.as_deref()).await {
            Ok(Some(numbers)) => return Ok(numbers),
            Ok(None) => return Err(error),
            Err(silent) => {
                tracing::warn!(
                    %error, %silent, flips = flips.len(),
                    "it is not known whether the store recorded a move; it is looked up until the store answers"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_AGAIN.1);
    }
}

/// `None`: they are not there.
async fn read_back(
    store: &SharedStore,
    flips: &[FlipRecord],
    declared: Option<&[DeclaredState]>,
) -> Result<Option<Vec<u64>>, StoreError> {
    if flips.is_empty() {
        let mut declared = declared.unwrap_or_default().to_vec();
        declared.sort_by(|a, b| a.route.cmp(&b.route));
        return Ok((store.declared().await? == declared).then(Vec::new));
    }
    let stored = store.flips(None, flips.len()).await?;
    let is_it = |(kept, flip): (&FlipRecord, &FlipRecord)| {
        kept.route == flip.route && kept.at == flip.at && kept.by == flip.by && kept.to == flip.to
    };
    let all = stored.len() == flips.len() && stored.iter().rev().zip(flips).all(is_it);
    Ok(all.then(|| stored.iter().rev().map(|flip| flip.number).collect()))
}

/// A move as it is recorded, without its number.
pub(super) fn row(step: Move, by: String, at: jiff::Timestamp, evidence: serde_json::Value) -> FlipRecord {
    let Move { route, from, to, shares, reason, forced } = step;
    let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
    let shares: Option<Shares> = Some(shares);
    FlipRecord { number: 0, route: Some(route), from, to, shares, by, at, reason, forced, evidence }
}
