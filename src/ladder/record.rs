//! Records flips and declarations in the store, and finds out whether they were recorded.
//!
//! Always true: flips that are recorded together are stored all or not at all (one transaction). If the store's reply
//! was lost, the outcome is looked up until it is known, because what is in force must be what a restart finds.

use std::time::Duration;

use super::types::Move;
use crate::flag::Shares;
use crate::store::{DeclaredState, FlipRecord, StoreError, StoreHandle};

/// What is recorded in one transaction.
pub(super) struct Recording {
    pub flips: Vec<FlipRecord>,
    /// The new declarations of all files; `None` keeps the stored ones.
    pub declared: Option<Vec<DeclaredState>>,
}

/// The pauses between look-ups of an unknown outcome: the first and the longest.
const LOOK_UP_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Records flips and declarations, and returns the flips with their numbers. Returns once the outcome is known, however
/// long the store takes.
///
/// # Errors
/// Nothing was recorded.
pub(super) async fn record(store: &StoreHandle, recording: Recording) -> Result<Vec<FlipRecord>, StoreError> {
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

/// Looks up whether flips were recorded after the store's reply was lost. Returns their numbers, or `error` if they
/// were not recorded.
async fn look_up(
    store: &StoreHandle,
    flips: &[FlipRecord],
    declared: Option<Vec<DeclaredState>>,
    error: StoreError,
) -> Result<Vec<u64>, StoreError> {
    let mut pause = LOOK_UP_PAUSES.0;
    loop {
        match read_back(store, flips, declared.as_deref()).await {
            Ok(Some(numbers)) => return Ok(numbers),
            Ok(None) => return Err(error),
            Err(look_up_error) => {
                tracing::warn!(
                    %error, %look_up_error, flips = flips.len(),
                    "it is not known whether the store recorded a move; asking again until the store answers"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_UP_PAUSES.1);
    }
}

/// The numbers of these flips in the store; `None` if they are not there.
async fn read_back(
    store: &StoreHandle,
    flips: &[FlipRecord],
    declared: Option<&[DeclaredState]>,
) -> Result<Option<Vec<u64>>, StoreError> {
    if flips.is_empty() {
        let mut declared = declared.unwrap_or_default().to_vec();
        declared.sort_by(|a, b| a.route.cmp(&b.route));
        return Ok((store.declared().await? == declared).then(Vec::new));
    }
    let stored = store.flips(None, flips.len()).await?;
    let is_same = |(stored, flip): (&FlipRecord, &FlipRecord)| {
        stored.route == flip.route && stored.at == flip.at && stored.by == flip.by && stored.to == flip.to
    };
    let all = stored.len() == flips.len() && stored.iter().rev().zip(flips).all(is_same);
    Ok(all.then(|| stored.iter().rev().map(|flip| flip.number).collect()))
}

/// The record of a move; the store assigns its number.
pub(super) fn flip_record(made: Move, by: String, at: jiff::Timestamp, evidence: serde_json::Value) -> FlipRecord {
    let Move { route, from, to, shares, reason, overridden } = made;
    let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
    let shares: Option<Shares> = Some(shares);
    FlipRecord {
        number: 0,
        route: Some(route),
        from,
        to,
        shares,
        by,
        at,
        reason,
        forced: overridden.is_some(),
        overridden,
        evidence,
    }
}
