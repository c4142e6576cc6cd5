//! The chain of hashes over the entries of the record.
//!
//! Always true: the hash of an entry covers everything in it, its number and the hash of the entry before, so that an
//! entry that is changed, removed or inserted later breaks the chain at that entry, unless all entries after it are
//! written anew, which changes the newest hash. Removing the newest entries breaks nothing: only a hash that was noted
//! elsewhere shows it, such as the one that the store notes outside the table of entries ([`ChainCheck::ends_at`]).

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::store::{ChainHead, RecordEntry};

/// The hash of an entry, from its other fields.
pub fn hash_of(entry: &RecordEntry) -> String {
    #[derive(Serialize)]
    struct Hashed<'a> {
        number: u64,
        at: jiff::Timestamp,
        kind: &'a str,
        route: Option<&'a str>,
        source: &'a str,
        flips: u64,
        body: &'a Value,
        previous: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_noted: bool,
    }
    let RecordEntry { number, at, kind, route, source, flips, body, previous, is_noted, hash: _ } = entry;
    let route = route.as_ref().map(|route| route.as_str());
    let (number, at, flips, is_noted) = (*number, *at, *flips, *is_noted);
    let hashed = Hashed { number, at, kind, route, source, flips, body, previous, is_noted };
    // A struct of texts, numbers and JSON always has a JSON text.
    let text = serde_json::to_vec(&hashed).unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}

/// Why a chain does not hold, and at which entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenChain {
    /// The number of the first bad entry; if it is missing, the number that it would have.
    pub number: u64,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for BrokenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}: {}", self.number, self.why)
    }
}

/// Follows a chain from its first entry on.
#[derive(Clone, Debug, Default)]
pub struct ChainCheck {
    /// The number of the last entry that was checked; 0 before the first.
    pub number: u64,
    /// Its hash.
    pub hash: String,
    /// [`RecordEntry::is_noted`] of it.
    pub is_noted: bool,
}

impl ChainCheck {
    /// Checks the next entry.
    ///
    /// # Errors
    /// It is not the one that follows, or it was changed after it was written.
    pub fn next(&mut self, entry: &RecordEntry) -> Result<(), BrokenChain> {
        let expected = self.number + 1;
        let broken = |number, why: String| Err(BrokenChain { number, why });
        if entry.number != expected {
            let why = match self.number {
                0 => format!("is missing: the first one is entry {}", entry.number),
                number => format!("is missing: entry {} follows entry {number}", entry.number),
            };
            return broken(expected, why);
        }
        if entry.previous != self.hash {
            return broken(expected, format!("names a previous hash that is not the hash of entry {}", self.number));
        }
        if entry.hash != hash_of(entry) {
            return broken(
                expected,
                "was changed after it was written: its stored hash does not match its content".to_owned(),
            );
        }
        self.number = entry.number;
        self.hash.clone_from(&entry.hash);
        self.is_noted = entry.is_noted;
        Ok(())
    }

    /// Checks that the chain, of which all entries were checked, has the entry that the store notes as the newest.
    /// `hash_at_head` is the hash of the entry with the number of the head, if there is one.
    ///
    /// # Errors
    /// The noted entry is missing, or has another hash.
    pub fn ends_at(&self, head: &ChainHead, hash_at_head: Option<&str>) -> Result<(), BrokenChain> {
        let noted = format!("the store notes entry {} with the hash {} as the newest", head.number, head.hash);
        match hash_at_head {
            Some(hash) if hash == head.hash => Ok(()),
            Some(_) => Err(BrokenChain { number: head.number, why: format!("was written anew: {noted}") }),
            None => Err(BrokenChain { number: self.number + 1, why: format!("is missing: {noted}") }),
        }
    }

    /// Checks that the chain, of which all entries were checked, may be in a store that notes no entry as the newest.
    ///
    /// # Errors
    /// The store noted the newest entry when the last one was added.
    pub fn ends_without_head(&self) -> Result<(), BrokenChain> {
        let (number, newest) = (self.number + 1, self.number);
        let why = || {
            format!(
                "may be missing: the store has lost its note of the newest entry; it had one when entry {newest} was \
                 added"
            )
        };
        (!self.is_noted).then_some(()).ok_or_else(|| BrokenChain { number, why: why() })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    /// A chain of entries.
    fn chain(entries: u64) -> Vec<RecordEntry> {
        let mut all: Vec<RecordEntry> = Vec::new();
        for number in 1..=entries {
            let previous = all.last().map(|entry| entry.hash.clone()).unwrap_or_default();
            let mut entry = RecordEntry {
                number,
                at: Timestamp::UNIX_EPOCH,
                kind: "flip".into(),
                route: (number != 2).then(|| "orders".into()),
                source: format!("flip {number}"),
                flips: number,
                body: json!({ "to": "live", "rate": serde_json::from_str::<Value>("1.10").unwrap() }),
                previous,
                is_noted: number > 3,
                hash: String::new(),
            };
            entry.hash = hash_of(&entry);
            all.push(entry);
        }
        all
    }

    fn check(entries: &[RecordEntry]) -> Result<String, u64> {
        let mut check = ChainCheck::default();
        for entry in entries {
            check.next(entry).map_err(|broken| broken.number)?;
        }
        Ok(check.hash)
    }

    #[test]
    fn a_chain_holds_also_after_it_was_written_as_text_and_read_back() {
        let entries = chain(5);
        let text: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let read: Vec<RecordEntry> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(check(&read), Ok(entries[4].hash.clone()));
        assert_eq!(check(&[]), Ok(String::new()));
        // The hash as the documentation defines it.
        let without = text[0].replace(&format!(r#","hash":"{}""#, entries[0].hash), "");
        assert_eq!(blake3::hash(without.as_bytes()).to_hex().as_str(), entries[0].hash);
    }

    #[test]
    fn whatever_is_changed_the_first_bad_entry_is_named() {
        let changes: [fn(&mut RecordEntry); 7] = [
            |entry| entry.at = Timestamp::MAX,
            |entry| entry.kind = "freeze".into(),
            |entry| entry.route = Some("other".into()),
            |entry| entry.source = "flip 9".into(),
            |entry| entry.flips = 9,
            |entry| entry.body["to"] = json!("off"),
            |entry| entry.hash = "0".repeat(64),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut entries = chain(5);
            change(&mut entries[2]);
            assert_eq!(check(&entries), Err(3), "change {at}");
            // With a hash that fits, the next entry does not follow any more.
            entries[2].hash = hash_of(&entries[2]);
            assert_eq!(check(&entries), if at == 6 { Ok(entries[4].hash.clone()) } else { Err(4) }, "change {at}");
        }
        let mut removed = chain(5);
        removed.remove(1);
        assert_eq!(check(&removed), Err(2));
        let mut swapped = chain(5);
        swapped.swap(1, 2);
        assert_eq!(check(&swapped), Err(2));
    }
}
