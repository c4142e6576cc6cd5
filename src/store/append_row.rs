//! Decodes the rows of appends into events.
//!
//! Always true: a row whose content contradicts its columns is an error that names the event; no event is ever left
//! out.

use std::collections::HashMap;

use jiff::Timestamp;

use super::check::EventRow;
use super::{StoreError, StoredEvent, codec};
use crate::names::Seq;
use crate::workflow::Event;

/// The large values of events by seq, each with its path; or what is wrong with one of them.
pub(super) type PayloadsBySeq<'a> = HashMap<u64, Result<Vec<(&'a str, &'a [u8])>, String>>;

/// One row of the table of appends.
pub(super) struct AppendRow<'a> {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) version: i64,
    /// A line for each event.
    pub(super) events: &'a [u8],
}

impl<'a> AppendRow<'a> {
    /// Decodes the events of this row from `from` on and adds them to `into`.
    pub(super) fn read(&self, from: Seq, parts: &PayloadsBySeq, into: &mut Vec<StoredEvent>) -> Result<(), StoreError> {
        let (first, last, version) = (self.first, self.last, self.version);
        if version > i64::from(Event::VERSION) {
            return Err(StoreError(format!(
                "event {first} has version {version}, this binary reads events up to version {}",
                Event::VERSION
            )));
        }
        let mut end = first;
        for (seq, line) in self.lines() {
            end = end.saturating_add(1);
            if seq < from.0 {
                continue;
            }
            let (at, event) = event(seq, line, parts).map_err(|why| StoreError(format!("event {seq}: {why}")))?;
            let at = time(at).map_err(|why| StoreError(format!("event {seq}: {why}")))?;
            into.push(StoredEvent { seq: Seq(seq), at, event });
        }
        match end == last.saturating_add(1) {
            true => Ok(()),
            false => Err(StoreError(format!(
                "the append of events {first} to {last} holds {} events: run `pointsman store check`",
                end - first
            ))),
        }
    }

    /// Decodes the events of this row and adds them to `into`; one that cannot be decoded is added with the reason.
    pub(super) fn read_for_check(&self, parts: &PayloadsBySeq, into: &mut Vec<EventRow>) {
        let version = self.version.cast_unsigned();
        let (found, expected) = (self.lines().count() as i64, self.last - self.first + 1);
        if found != expected {
            let why = format!("its append should hold {expected} events, but holds {found}");
            let (seq, event) = (self.first.cast_unsigned(), Err(why));
            into.push(EventRow { seq, at: Timestamp::default(), version, event });
            return;
        }
        for (seq, line) in self.lines() {
            let at = line.as_ref().ok().and_then(|(at, _)| time(*at).ok()).unwrap_or_default();
            let event = event(seq, line, parts).map(|(_, event)| event);
            into.push(EventRow { seq, at, version, event });
        }
    }

    fn lines(&self) -> impl Iterator<Item = (u64, Result<(i64, &'a [u8]), String>)> + use<'a> {
        (self.first.cast_unsigned()..).zip(codec::split_lines(self.events))
    }
}

fn event(seq: u64, line: Result<(i64, &[u8]), String>, parts: &PayloadsBySeq) -> Result<(i64, Event), String> {
    let (at, json) = line?;
    let parts = match parts.get(&seq) {
        Some(Ok(parts)) => parts.as_slice(),
        Some(Err(why)) => return Err(why.clone()),
        None => &[],
    };
    codec::decode_event(json, parts.iter().copied()).map(|event| (at, event))
}

fn time(ns: i64) -> Result<Timestamp, String> {
    Timestamp::from_nanosecond(i128::from(ns)).map_err(|error| format!("a stored time cannot be read: {error}"))
}
