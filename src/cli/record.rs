//! `record`: who moved what, when, why; whether anything of it was changed later; a copy to keep elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{CallError, Client};
use super::format::{Formatter, Tone, ago, counted, duration_text, escape_control};
use super::output::Output;
use super::record_rows::{HASH_SHOWN, delay, is_late, list};
use crate::admin::types::{ChainHead, RecordEntry, RecordPage};
use crate::record::{BrokenChain, ChainCheck, LATE_ENTRY_AFTER};

/// How many entries are read at a time.
const PAGE: u64 = 500;

/// Reads the entries with a number above `after`, the oldest first.
fn read(
    client: &Client,
    mut after: u64,
    mut each: impl FnMut(RecordEntry) -> Result<(), CallError>,
) -> Result<(), CallError> {
    loop {
        let (page, _) = client.get::<RecordPage>(&format!("/api/v2/record?after={after}&limit={PAGE}"))?;
        let Some(last) = page.entries.last() else { return Ok(()) };
        // An entry with a number that is not above would be read for ever.
        after = last.number.max(after + 1);
        page.entries.into_iter().try_for_each(&mut each)?;
    }
}

pub(crate) fn show(client: &Client, route: Option<&str>, limit: usize, format: Formatter) -> Result<Output, CallError> {
    let mut shown = std::collections::VecDeque::new();
    let (newest, _) = client.get::<RecordPage>("/api/v2/record?limit=1")?;
    let limit = limit.max(1);
    // Which of them are of a route is known only once they are read.
    let after = match route {
        None => newest.newest.saturating_sub(limit as u64),
        Some(_) => 0,
    };
    read(client, after, |entry| {
        if route.is_none_or(|route| entry.route.as_ref().is_some_and(|of| of.as_str() == route)) {
            shown.push_back(entry);
        }
        if shown.len() > limit {
            shown.pop_front();
        }
        Ok(())
    })?;
    let json = json!(shown);
    if shown.is_empty() {
        return Ok(Output { text: "the record has no such entry\n".to_owned(), json, is_ok: true });
    }
    let now = Timestamp::now();
    let shown: Vec<&RecordEntry> = shown.iter().collect();
    Ok(Output { text: list(&shown, now, format), json, is_ok: true })
}

/// What a check of the whole record has found.
#[derive(Default)]
struct RecordCheck {
    chain: ChainCheck,
    broken: Option<BrokenChain>,
    /// The entries of flips, by the number of the flip.
    flips: BTreeMap<u64, Value>,
    /// What the store noted as the newest entry before the entries were read.
    head: Option<ChainHead>,
    /// The hash of the entry with the number of the head.
    hash_at_head: Option<String>,
    /// Whether an entry has the hash that was asked for.
    has_hash: bool,
    /// How many entries were written long after their flips.
    late: u64,
    /// The number of the first of these, and how many seconds later.
    first_late: Option<(u64, f64)>,
}

impl RecordCheck {
    fn add(&mut self, entry: &RecordEntry, hash: Option<&str>) {
        if self.broken.is_none()
            && let Err(broken) = self.chain.next(entry)
        {
            self.broken = Some(broken);
        }
        if self.head.as_ref().is_some_and(|head| head.number == entry.number) {
            self.hash_at_head = Some(entry.hash.clone());
        }
        self.has_hash |= self.broken.is_none() && hash.is_some_and(|hash| entry.hash.starts_with(hash));
        if let Some(late) = delay(entry) {
            self.late += 1;
            self.first_late.get_or_insert((entry.number, late));
        }
        if let Some(number) = entry.source.strip_prefix("flip ").and_then(|number| number.parse().ok()) {
            self.flips.insert(number, entry.body.clone());
        }
    }

    /// The next entry cannot be read.
    fn add_unreadable(&mut self, number: i64, why: &str) {
        // Wrong numbers below 1 come first, and count as 0.
        let number = u64::try_from(number).unwrap_or(0);
        let broken = BrokenChain { number, why: format!("cannot be read: {}", escape_control(why)) };
        self.broken.get_or_insert(broken);
    }

    /// All entries were read; `now` is what the store notes since as the newest entry.
    fn check_head(&mut self, now: Option<&ChainHead>) {
        if self.broken.is_some() {
            return;
        }
        self.broken = match (&self.head, now) {
            (Some(head), _) => self.chain.ends_at(head, self.hash_at_head.as_deref()).err(),
            // The first entry may have come after the head was read.
            (None, Some(_)) => None,
            (None, None) => self.chain.ends_without_head().err(),
        };
    }

    /// What is said of entries that are later than their flips.
    fn late_text(&self) -> Option<String> {
        let (number, late) = self.first_late?;
        Some(format!(
            "{}: the record was written anew since, no process could add entries then, or the version then had no record.\n",
            match (self.late, duration_text(LATE_ENTRY_AFTER.as_secs_f64()), duration_text(late)) {
                (1, bound, late) =>
                    format!("1 entry was written more than {bound} after its flip (entry {number}: {late} after)"),
                (count, bound, late) => format!(
                    "{count} entries were written more than {bound} after their flips (the first is entry {number}: \
                     {late} after)"
                ),
            }
        ))
    }

    fn output(self, hash: Option<&str>, other: Option<String>, format: Formatter) -> Output {
        let lost = hash.filter(|_| self.broken.is_none() && !self.has_hash).map(|hash| {
            format!(
                "no entry has the hash {}: since that hash was noted, the record was rewritten or truncated",
                escape_control(hash)
            )
        });
        let wrong = self.broken.as_ref().map(ToString::to_string).or(lost).or(other);
        let (entries, newest) = (self.chain.number, self.chain.hash.clone());
        let json = json!({
            "intact": wrong.is_none(),
            "why": wrong,
            "bad_entry": self.broken.as_ref().map(|broken| broken.number),
            "entries": entries,
            "newest_hash": newest,
            "late_entries": self.late,
            "first_late_entry": self.first_late.map(|(number, _)| number),
        });
        let text = match &wrong {
            Some(why) => format!("{} {why}\n", format.tone("the record is broken:", Tone::Bad)),
            None if entries == 0 => "the record is empty\n".to_owned(),
            None => format!(
                "{}: {}, the newest hash is\n{newest}\nNote it outside this store: `--hash` checks later that it is still in the \
                 chain.\n",
                format.tone("the record is intact", Tone::Good),
                counted(entries, "entry"),
            ),
        };
        let late = self.late_text().map(|late| format.tone(late, Tone::Warn)).unwrap_or_default();
        let text = text + &late;
        Output { text, is_ok: wrong.is_none(), json }
    }
}

pub(crate) fn verify(client: &Client, hash: Option<&str>, format: Formatter) -> Result<Output, CallError> {
    let (hash, mut recorded) = (hash.map(noted_hash).transpose()?, 0);
    // Before the entries are read, because some may be added meanwhile. No entry is read for it.
    let without_entries = format!("/api/v2/record?after={}&limit=1", i64::MAX);
    let (page, _) = client.get::<RecordPage>(&without_entries)?;
    let mut found = RecordCheck { head: page.head, ..RecordCheck::default() };
    let whole = read(client, 0, |entry| {
        recorded = recorded.max(entry.flips);
        found.add(&entry, hash.as_deref());
        Ok(())
    });
    if let Err(error) = whole {
        let (number, why) = unreadable_row(error)?;
        found.add_unreadable(number, &why);
    }
    // Its time is not this machine's clock, which may differ from the one by which flips are dated.
    let (page, _) = client.get::<RecordPage>(&without_entries)?;
    found.check_head(page.head.as_ref());
    let is_empty = found.chain.number == 0 && found.broken.is_none();
    let recorded = (!is_empty).then_some(recorded);
    let other = compare_flips(client, std::mem::take(&mut found.flips), recorded, page.read_at)?;
    Ok(found.output(hash.as_deref(), other, format))
}

/// The row that the server cannot read, and why; any other error is returned.
fn unreadable_row(error: CallError) -> Result<(i64, String), CallError> {
    match error {
        CallError::Refused(problem, value) => match problem.row {
            Some(row) => Ok((row, problem.detail)),
            None => Err(CallError::Refused(problem, value)),
        },
        CallError::Failed(..) => Err(error),
    }
}

/// Holds the flips in the store against their entries, by number, and says what is wrong with the first that differs.
/// Flips above `recorded` have no entry yet, but only for a short time; it is `None` if the record is empty, and then
/// there must be no flips. `now` is the server's time.
fn compare_flips(
    client: &Client,
    mut entries: BTreeMap<u64, Value>,
    recorded: Option<u64>,
    now: Timestamp,
) -> Result<Option<String>, CallError> {
    let (mut after, mut wrong) = (0, None);
    loop {
        let flips = match client.get::<Vec<Value>>(&format!("/api/v2/record/flips?after={after}&limit={PAGE}")) {
            Ok((flips, _)) => flips,
            Err(error) => {
                let (number, why) = unreadable_row(error)?;
                let why = format!("flip {number} in the store cannot be read: {}", escape_control(&why));
                return Ok(wrong.or(Some(why)));
            }
        };
        let Some(last) = flips.last() else { break };
        // A flip with a number that is not above would be read for ever.
        after = last["number"].as_u64().unwrap_or(0).max(after + 1);
        for flip in &flips {
            let number = flip["number"].as_u64().unwrap_or(0);
            let found = match entries.remove(&number) {
                Some(entry) => difference(&entry, flip)
                    .map(|name| format!("flip {number} in the store is not the one in the record: `{name}` differs")),
                None => without_entry(flip, number, recorded, now),
            };
            wrong = wrong.or(found);
        }
    }
    let missing =
        entries.keys().next().map(|number| format!("flip {number} of the record is not in the store any more"));
    Ok(wrong.or(missing))
}

/// What is wrong with a flip that has no entry.
fn without_entry(flip: &Value, number: u64, recorded: Option<u64>, now: Timestamp) -> Option<String> {
    let Some(recorded) = recorded else {
        return Some(format!(
            "the record is empty although flip {number} is in the store: its entries were removed, or the flip was just \
             made and its entry follows within a minute"
        ));
    };
    let at: Option<Timestamp> = flip["at"].as_str().and_then(|at| at.parse().ok());
    let has_none = format!("flip {number} in the store has no entry in the record");
    match at.filter(|at| is_late(*at, now)) {
        _ if number <= recorded => Some(has_none),
        Some(at) => Some(format!(
            "{has_none}, and was made {}: entries were removed, or none can be added (the log says why)",
            ago(at, now)
        )),
        None => None,
    }
}

/// The first field in which a flip differs from its entry. A field that one of them lacks has no value in it: entries
/// by other versions have other fields.
fn difference(entry: &Value, flip: &Value) -> Option<String> {
    let is_empty = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    let names = entry.as_object().into_iter().chain(flip.as_object()).flat_map(serde_json::Map::keys);
    names.collect::<BTreeSet<_>>().into_iter().find_map(|name| {
        let (of_entry, of_flip) = (&entry[name], &flip[name]);
        (of_entry != of_flip && !(is_empty(of_entry) && is_empty(of_flip))).then(|| name.clone())
    })
}

/// A hash, or its first digits as `record show` prints them.
fn noted_hash(hash: &str) -> Result<String, CallError> {
    let hash = hash.trim().to_ascii_lowercase();
    let is_hash = (HASH_SHOWN..=64).contains(&hash.len()) && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hash.then_some(hash).ok_or_else(|| {
        let hint = format!("a hash has 64 hexadecimal digits; its first {HASH_SHOWN} or more will do");
        CallError::Failed("`--hash` is no hash of an entry".to_owned(), hint)
    })
}

pub(crate) fn verify_file(file: &Path, hash: Option<&str>, format: Formatter) -> Result<Output, CallError> {
    let failed = |why: String| {
        let why = format!("{}: {why}", file.display());
        CallError::Failed(why, "give a file that `pointsman record export` wrote".to_owned())
    };
    let hash = hash.map(noted_hash).transpose()?;
    let lines = BufReader::new(File::open(file).map_err(|error| failed(error.to_string()))?).lines();
    let mut found = RecordCheck::default();
    for (index, line) in lines.enumerate() {
        let at = |why: String| failed(format!("line {}: {why}", index + 1));
        let line = line.map_err(|error| at(error.to_string()))?;
        let entry = serde_json::from_str::<RecordEntry>(&line).map_err(|error| at(format!("no entry: {error}")))?;
        // The hash does not cover what is in no field, nor how a value is written.
        if serde_json::to_string(&entry).ok().as_deref() != Some(&line) {
            let why = RecordEntry::why_of_newer_version(line.as_bytes()).unwrap_or_else(|| {
                "it is not exactly as `record export` writes it, so its hash proves nothing: export it again".to_owned()
            });
            return Err(at(why));
        }
        found.add(&entry, hash.as_deref());
    }
    let empty = (found.chain.number == 0 && found.broken.is_none()).then(|| "the file has no entry".to_owned());
    Ok(found.output(hash.as_deref(), empty, format))
}

/// Prints each entry as a line of JSON.
pub(crate) fn export(client: &Client) -> Result<Output, CallError> {
    let mut lines = Vec::new();
    read(client, 0, |entry| {
        serde_json::to_writer(&mut lines, &entry)
            .map_err(|error| CallError::Failed(error.to_string(), String::new()))?;
        lines.write_all(b"\n").map_err(|error| CallError::Failed(error.to_string(), String::new()))
    })?;
    let text = String::from_utf8_lossy(&lines).into_owned();
    let json = Value::Array(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect());
    Ok(Output { text, json, is_ok: true })
}
