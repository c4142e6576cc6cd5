//! A record of every effect on the outside world.
//!
//! The question it answers: "who did what, how often, and under which key?" Always true: one accepted effect per
//! service and idempotency key; a further delivery with the same key and bytes is an entry with `repeated` set, has no
//! effect and gets the first answer; the same key with other bytes is refused. No entry is ever dropped, since the
//! promises are checked by counting entries; the length is bounded only by what a demo or a test does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One delivery to the outside world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// When it arrived.
    pub at: Timestamp,
    /// The service: `stock`, `bank`, `mail`, `ads` or `studio`.
    pub service: String,
    /// The operation: `reserve`, `release`, `charge`, `refund`, `mail`, `draft` and so on.
    pub operation: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// The amount, if money is moved.
    pub amount: Option<Value>,
    /// Who caused it: `legacy:17`, `engine:RUN`, or a user agent.
    pub caused_by: String,
    /// The trace that the caller's request belongs to.
    pub trace: Option<String>,
    /// Whether a delivery with this key was accepted before, so that this one has no effect.
    pub repeated: bool,
}

impl LedgerEntry {
    /// Whether the engine caused it.
    pub fn by_engine(&self) -> bool {
        self.caused_by.starts_with("engine:")
    }
}

/// A delivery that is to be recorded.
#[derive(Clone, Debug)]
pub struct Delivery<'a> {
    /// The service.
    pub service: &'a str,
    /// The operation.
    pub operation: &'a str,
    /// Its idempotency key.
    pub key: Option<&'a str>,
    /// The body, which tells a repeat from another request with the same key.
    pub body: &'a [u8],
    /// The amount, if money is moved.
    pub amount: Option<Value>,
    /// Who caused it.
    pub caused_by: &'a str,
    /// The trace that the caller's request belongs to.
    pub trace: Option<&'a str>,
}

/// The result of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryResult {
    /// It had an effect; this is the answer.
    Accepted(Value),
    /// It had no effect; this is the answer of the first delivery with this key.
    Repeated(Value),
    /// It is refused: the key came with other bytes before.
    KeyReused,
}

#[derive(Debug, Default)]
struct Records {
    entries: Vec<LedgerEntry>,
    keys: HashMap<(String, String), (Vec<u8>, Value)>,
    numbers: BTreeMap<String, u64>,
}

/// The ledger; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Records>>);

/// Counts of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Balance {
    /// Accepted effects by operation, of legacy.
    pub legacy: BTreeMap<String, u64>,
    /// Accepted effects by operation, of the engine.
    pub engine: BTreeMap<String, u64>,
    /// Deliveries that repeated a key: answered, without effect.
    pub repeated_deliveries: u64,
    /// Traces in which an operation that should have one effect had several, of one arm or of both.
    pub duplicates: Vec<String>,
}

impl Balance {
    /// Accepted effects of an operation, of both arms.
    pub fn total(&self, operation: &str) -> u64 {
        self.legacy.get(operation).copied().unwrap_or(0) + self.engine.get(operation).copied().unwrap_or(0)
    }
}

impl Ledger {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Records a delivery: at most one effect per service and key. `answer` computes the answer from the number of this
    /// effect among the operation's effects.
    pub fn record(&self, delivery: Delivery<'_>, answer: impl FnOnce(u64) -> Value) -> DeliveryResult {
        let mut records = self.records();
        let mut entry = LedgerEntry {
            at: Timestamp::now(),
            service: delivery.service.to_owned(),
            operation: delivery.operation.to_owned(),
            key: delivery.key.map(str::to_owned),
            amount: delivery.amount,
            caused_by: delivery.caused_by.to_owned(),
            trace: delivery.trace.map(str::to_owned),
            repeated: false,
        };
        let keyed = delivery.key.map(|key| (delivery.service.to_owned(), key.to_owned()));
        if let Some((body, first)) = keyed.as_ref().and_then(|keyed| records.keys.get(keyed)) {
            if body != delivery.body {
                return DeliveryResult::KeyReused;
            }
            let first = first.clone();
            entry.repeated = true;
            records.entries.push(entry);
            return DeliveryResult::Repeated(first);
        }
        let number = records.numbers.entry(delivery.operation.to_owned()).or_insert(0);
        *number += 1;
        let answer = answer(*number);
        if let Some(keyed) = keyed {
            records.keys.insert(keyed, (delivery.body.to_vec(), answer.clone()));
        }
        records.entries.push(entry);
        DeliveryResult::Accepted(answer)
    }
    /// All entries so far.
    pub fn entries(&self) -> Vec<LedgerEntry> {
        self.records().entries.clone()
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.records().entries.len()
    }
    /// Whether nothing was done yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The counts so far.
    pub fn balance(&self) -> Balance {
        let records = self.records();
        let mut balance = Balance::default();
        // A request charges, mails and refunds at most once: a second such effect of the same trace is a duplicate.
        let mut once: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for entry in &records.entries {
            if entry.repeated {
                balance.repeated_deliveries += 1;
                continue;
            }
            let arm = if entry.by_engine() { &mut balance.engine } else { &mut balance.legacy };
            *arm.entry(entry.operation.clone()).or_insert(0) += 1;
            if let (Some(trace), "charge" | "mail" | "refund") = (&entry.trace, entry.operation.as_str()) {
                once.entry((trace, &entry.operation)).or_default().push(&entry.caused_by);
            }
        }
        for ((trace, operation), by) in once {
            if by.len() > 1 {
                balance.duplicates.push(format!("{operation} of trace {trace}: by {}", by.join(" and ")));
            }
        }
        balance
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn charge<'a>(key: Option<&'a str>, body: &'a [u8], by: &'a str) -> Delivery<'a> {
        Delivery {
            service: "bank",
            operation: "charge",
            key,
            body,
            amount: Some(json!(5)),
            caused_by: by,
            trace: Some("t1"),
        }
    }

    #[test]
    fn one_effect_per_key() {
        let ledger = Ledger::default();
        let first = ledger.record(charge(Some("k"), b"a", "engine:1"), |n| json!({ "id": n }));
        assert_eq!(first, DeliveryResult::Accepted(json!({ "id": 1 })));
        let again = ledger.record(charge(Some("k"), b"a", "engine:1"), |n| json!({ "id": n }));
        assert_eq!(again, DeliveryResult::Repeated(json!({ "id": 1 })));
        let other = ledger.record(charge(Some("k"), b"b", "engine:1"), |n| json!({ "id": n }));
        assert_eq!(other, DeliveryResult::KeyReused);
        let balance = ledger.balance();
        assert_eq!((balance.total("charge"), balance.repeated_deliveries), (1, 1));
        assert!(balance.duplicates.is_empty());
    }

    #[test]
    fn both_arms_for_one_request_are_a_duplicate() {
        let ledger = Ledger::default();
        ledger.record(charge(Some("k"), b"a", "engine:1"), |n| json!(n));
        ledger.record(charge(None, b"a", "legacy:7"), |n| json!(n));
        assert_eq!(ledger.balance().duplicates.len(), 1);
    }
}
