//! Requests that a process has compared and that are not in the evidence in the store yet: the other processes do not
//! know whether they differ.
//!
//! Always true: a process that has had such requests for longer than [`TOLD_AFTER`] tells the others, by a connection
//! that writes no evidence. Until then the others may not know of them.

use jiff::{SignedDuration, Timestamp};

use super::{Membership, Seen, display_name};
use crate::clock;
use crate::ladder::Unmet;

/// For how long a process may be unable to write before it tells the others: until then a write may be about to
/// succeed.
const TOLD_AFTER: SignedDuration = SignedDuration::from_millis(1_500);
/// The evidence of the others counts as unknown if it was last read longer ago than this.
const KNOWN_WITHIN: SignedDuration = SignedDuration::from_secs(2);

impl Membership {
    /// Since when this process has compared requests that it cannot write, if it tells the others.
    pub(super) fn unwritten_to_tell(&self) -> Option<Timestamp> {
        self.evidence.unwritten_since().filter(|since| clock::now().duration_since(*since) >= TOLD_AFTER)
    }

    /// Why some of the evidence of the processes is not known.
    pub(super) fn unmet_of_evidence(&self) -> Vec<Unmet> {
        let seen = self.seen();
        if seen.others.is_empty() {
            return Vec::new();
        }
        let read = self.evidence.exchanged_until();
        let is_outdated = clock::now().duration_since(read) > KNOWN_WITHIN;
        let own = is_outdated.then(|| Unmet {
            why: format!(
                "the store does not answer, so that it is not known what the other processes that share it have \
                 compared since {read:.0}: some of these pairs may differ. It is judged again once it answers"
            ),
            since: Some(read),
        });
        let others = seen.unwritten().map(|(name, since)| Unmet {
            why: format!(
                "{name} shares the store and cannot write there what it has compared since {since:.0}: some of these \
                 pairs may differ. It is judged again once that is written"
            ),
            since: Some(since),
        });
        own.into_iter().chain(others).collect()
    }
}

impl Seen {
    pub(super) fn has_unwritten(&self) -> bool {
        self.unwritten().next().is_some()
    }

    /// The names of the others that have compared what is not written, and since when.
    fn unwritten(&self) -> impl Iterator<Item = (String, Timestamp)> {
        self.others.iter().filter_map(|other| Some((display_name(other), other.record.as_ref()?.unwritten_since?)))
    }
}
