//! The check at the end: compares what callers were told with what was done.
//!
//! PURE. Always true: every promise that is checked by counting at the end is one row here; a row with another count
//! than the expected one is a broken promise. The first two rows are no promises: they only show how many orders there
//! were. (`ladder_demo`, `changes` and `campaign` check further promises on the way.)

use super::Ledger;
use super::traffic::Tally;

/// One promise: a count, and the expected count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What is counted.
    pub what: String,
    /// The count.
    pub count: u64,
    /// The expected count.
    pub expected: u64,
}

impl Promise {
    /// Whether it is as promised.
    pub fn holds(&self) -> bool {
        self.count == self.expected
    }
}

/// Compares the ledger with what callers were told.
pub fn check(ledger: &Ledger, tally: &Tally) -> Vec<Promise> {
    let balance = ledger.balance();
    let line = |what: &str, count: u64, expected: u64| Promise { what: what.to_owned(), count, expected };
    let mut rehearsed = 0;
    let mut both = 0;
    // Drafts are not counted, since only the engine makes them, nor are ads, since no request started their runs.
    let is_counted = |e: &&super::LedgerEntry| !e.repeated && e.operation != "draft" && e.service != "ads";
    for entry in ledger.entries().iter().filter(is_counted) {
        let answered_by_engine = entry.trace.as_ref().is_some_and(|t| tally.engine_traces.contains(t));
        match (entry.by_engine(), answered_by_engine) {
            (true, false) => rehearsed += 1,
            (false, true) => both += 1,
            (true, true) | (false, false) => {}
        }
    }
    vec![
        line("orders acknowledged", tally.orders, tally.orders),
        line("  of those made by the engine", tally.engine_orders, tally.engine_orders),
        line("charges", balance.total("charge"), tally.orders),
        line("mails", balance.total("mail"), tally.orders + tally.cancelled),
        line("refunds, one for each cancelled order", balance.total("refund"), tally.cancelled),
        line("requests that failed", tally.failed, 0),
        line("duplicates", balance.duplicates.len() as u64, 0),
        line("effects from rehearsed steps", rehearsed, 0),
        line("effects of legacy for requests that the engine answered", both, 0),
    ]
}
