//! Which entry the next one follows.
//!
//! Always true: where the entry that the store notes as the head of the chain is not in the chain any more, the next
//! entry continues from the noted head: its number is the one after the head's, and its previous hash is the head's.
//! The chain then has a gap for ever, which shows that entries were removed or written anew, although from then on the
//! store notes the new entry as the head. The same gap is left if the store lost that note after the newest entry was
//! added.

use crate::store::{ChainHead, RecordEntry, StoreError, StoreHandle};

/// What the next entry follows.
pub(super) struct ChainEnd {
    /// The number of the newest entry, or of the lost head, if that is higher.
    pub(super) number: u64,
    /// The hash that the next entry continues from: that of the newest entry, or of the noted head if the chain does
    /// not have that any more.
    pub(super) hash: String,
    /// [`RecordEntry::flips`] of the newest entry that is there.
    pub(super) flips: u64,
    /// The source of the newest entry that is there.
    pub(super) source: String,
    /// Set if entries, or the store's note of the head, were lost: the noted head, if the chain does not have it any
    /// more; if the note itself is gone, the number after the newest entry, with an empty hash.
    pub(super) lost_head: Option<ChainHead>,
}

impl ChainEnd {
    /// Reads the end of the store's chain; `None` if there is no entry, and none was noted.
    pub(super) async fn read(store: &StoreHandle) -> Result<Option<Self>, StoreError> {
        // The head is read before the newest entry, because another process may add one in between.
        let head = store.chain_head().await?;
        let newest = store.newest_record_entry().await?;
        let head = match head {
            Some(head) => head,
            // Read again: the first entry may have come in between.
            None => match (store.chain_head().await?, newest) {
                (Some(_), newest) => return Ok(newest.map(Self::of)),
                (None, Some(newest)) if newest.is_noted => return Ok(Some(Self::with_lost_note(newest))),
                (None, newest) => return Ok(newest.map(Self::of)),
            },
        };
        let entry_at_head = match &newest {
            Some(entry) if entry.number > head.number => {
                store.record_entries(head.number.saturating_sub(1), 1).await?.pop()
            }
            Some(_) | None => newest.clone(),
        };
        if entry_at_head.is_some_and(|entry| entry.number == head.number && entry.hash == head.hash) {
            return Ok(newest.map(Self::of));
        }
        let (number, flips, source) =
            newest.map_or_else(|| (0, 0, String::new()), |entry| (entry.number, entry.flips, entry.source));
        let number = number.max(head.number);
        Ok(Some(Self { number, hash: head.hash.clone(), flips, source, lost_head: Some(head) }))
    }

    /// The end of a chain whose head the store noted when the newest entry was added, and notes no more.
    fn with_lost_note(newest: RecordEntry) -> Self {
        let missing = ChainHead { number: newest.number + 1, hash: String::new() };
        Self { number: missing.number, lost_head: Some(missing), ..Self::of(newest) }
    }

    fn of(entry: RecordEntry) -> Self {
        let RecordEntry { number, hash, flips, source, .. } = entry;
        Self { number, hash, flips, source, lost_head: None }
    }
}
