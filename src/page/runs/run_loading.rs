//! Reads the events of a run from the API, page by page and within a bound.

use crate::admin::types::{ApiProblem, EventRow};
use crate::page::client::{Client, segment};

/// How many events are read for one page: the newest. A run with more is shown without its first ones.
const EVENTS_READ_MAX: u64 = 2_000;

/// The path of a run in the API.
pub(in crate::page) fn run_path(id: &str) -> String {
    format!("/api/v2/orchestrate/run/{}", segment(id))
}

/// The newest events of a run whose last event has this number.
///
/// # Errors
/// The API's problem.
pub(in crate::page) async fn newest_events(
    client: &Client,
    run: &str,
    last_seq: u64,
) -> Result<Vec<EventRow>, Box<ApiProblem>> {
    let (mut rows, mut from) = (Vec::new(), first_read(last_seq));
    // The API may return fewer events than there are. Events that are added meanwhile are left to the next reading.
    while from <= last_seq {
        let page: Vec<EventRow> = client.get(&format!("{}/events?from={from}", run_path(run))).await?;
        let Some(last) = page.last() else { break };
        from = last.seq + 1;
        rows.extend(page);
    }
    Ok(rows)
}

/// The number of the first event that is read of a run with so many events.
pub(in crate::page) fn first_read(last_seq: u64) -> u64 {
    last_seq.saturating_sub(EVENTS_READ_MAX) + 1
}

/// The events of a rehearsal: a sample keeps a few hundred.
///
/// # Errors
/// The API's problem.
pub(in crate::page) async fn kept_events(client: &Client, run: &str) -> Result<Vec<EventRow>, Box<ApiProblem>> {
    client.get(&format!("{}/events", run_path(run))).await
}

/// A few events of a run, from this number on.
///
/// # Errors
/// The API's problem.
pub(in crate::page) async fn some_events(
    client: &Client,
    run: &str,
    first: u64,
    number: u64,
) -> Result<Vec<EventRow>, Box<ApiProblem>> {
    client.get(&format!("{}/events?from={first}&limit={number}", run_path(run))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_read_of_a_run_with_very_many() {
        assert_eq!((first_read(0), first_read(2_000), first_read(2_001)), (1, 1, 2));
        assert_eq!(run_path("../x"), "/api/v2/orchestrate/run/%2E%2E%2Fx");
    }
}
