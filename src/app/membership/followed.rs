//! Which other processes have a flip of this one in force.

use std::time::Duration;

use super::{Membership, display_name};
use crate::store::ProcessRecord;

/// How long the answer to a flip waits until it is in force in the other processes.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);
/// Named in place of others while the store does not say which processes live.
const UNSEEN: &str = "those that started meanwhile (the store does not tell this process)";

impl Membership {
    /// Waits, for at most [`FOLLOWED_WITHIN`], until every other process has this flip in force. Returns the names of
    /// those that do not have it. A flip that is not recorded has no number, and no other process has it: then returns
    /// all names at once.
    ///
    /// What was seen of the others before the flip was recorded does not count, because a process may have started
    /// since.
    pub(in crate::app) async fn wait_followed(&self, number: Option<u64>) -> Vec<String> {
        let behind = || {
            let seen = self.seen();
            let has = |record: &ProcessRecord| number.is_some() && record.flips >= number;
            let behind = seen.others.iter().filter(|other| !other.record.as_ref().is_some_and(has));
            let is_outdated = self.store.is_shared() && number > Some(seen.newest_flip);
            let unseen = is_outdated.then(|| UNSEEN.to_owned());
            behind.map(display_name).chain(unseen).collect::<Vec<String>>()
        };
        if number.is_none() {
            return behind();
        }
        let mut exchanges = self.exchanges.subscribe();
        let all = exchanges.wait_for(|_| behind().is_empty());
        let _in_time = tokio::time::timeout(FOLLOWED_WITHIN, all).await.is_ok();
        behind()
    }
}
