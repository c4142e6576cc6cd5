//! Whether an address of a service gets requests.
//!
//! An address is *ejected*, which means that it gets no requests for a while, when it accepts no connection or when
//! several requests in a row got no answer. After that time a connection that no client waits for is tried; if the
//! address accepts it, the address is *readmitted*: it gets requests again. An address is *unhealthy* while the
//! declared health checks fail. Always true:
//! - At most half of a service's addresses are ejected because they give no answer, and never the last one that is not
//!   ejected. Otherwise an overload of all addresses would direct all requests to the last one.
//! - Whether an address is available is read from two flags, without a lock.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::flag::Eject;

/// How many of a service's addresses there are, and how many of them are ejected.
#[derive(Debug, Default)]
pub(super) struct EjectedCount(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    addresses: usize,
    no_connection: usize,
    no_answer: usize,
}

impl Counts {
    fn count_of(&mut self, why: EjectionReason) -> &mut usize {
        match why {
            EjectionReason::NoConnection => &mut self.no_connection,
            EjectionReason::NoAnswer => &mut self.no_answer,
        }
    }
}

impl EjectedCount {
    pub(super) fn set_addresses(&self, addresses: usize) {
        self.lock().addresses = addresses;
    }
    /// Counts one more ejected address. Returns `false` if the address may not be ejected:
    /// - The only address of a service is never ejected.
    /// - Of several addresses all may be ejected at the same time for `NoConnection`.
    /// - For `NoAnswer` at most half may be, however many accept no connection; and one address has to be left that is
    ///   not ejected for either reason.
    fn add(&self, why: EjectionReason) -> bool {
        let mut counts = self.lock();
        let ejected = counts.no_connection + counts.no_answer;
        let may_be = match why {
            EjectionReason::NoConnection => ejected < counts.addresses,
            EjectionReason::NoAnswer => counts.no_answer < counts.addresses / 2 && ejected + 1 < counts.addresses,
        };
        let is_added = counts.addresses > 1 && may_be;
        *counts.count_of(why) += usize::from(is_added);
        is_added
    }
    fn remove(&self, why: EjectionReason) {
        let mut counts = self.lock();
        let count = counts.count_of(why);
        *count = count.saturating_sub(1);
    }
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    #[cfg(test)]
    fn ejected(&self) -> usize {
        let counts = self.lock();
        counts.no_connection + counts.no_answer
    }
}

/// Why an address is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    /// The address accepts no connection.
    NoConnection,
    /// Requests were sent to the address, and no answer came.
    NoAnswer,
}

impl EjectionReason {
    /// Returns the reason's label in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NoConnection => "no_connection",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// Whether one address gets requests.
#[derive(Debug, Default)]
pub(super) struct Availability {
    ejected: AtomicBool,
    unhealthy: AtomicBool,
    /// Requests in a row that got no answer.
    unanswered: AtomicU32,
    last: Mutex<LastEjection>,
}

/// The last ejection.
#[derive(Debug, Default)]
struct LastEjection {
    /// For how long the address was ejected.
    time: Option<Duration>,
    why: Option<EjectionReason>,
    /// When the address is tried again, in microseconds of `ServiceState::now`.
    until: u64,
    /// When the address was last readmitted, in microseconds of `ServiceState::now`.
    readmitted_at: u64,
}

impl Availability {
    /// Whether the address is neither ejected nor unhealthy.
    pub(super) fn is_available(&self) -> bool {
        !self.ejected.load(Relaxed) && !self.unhealthy.load(Relaxed)
    }

    /// Records that a request got an answer.
    pub(super) fn answered(&self) {
        if self.unanswered.load(Relaxed) != 0 {
            self.unanswered.store(0, Relaxed);
        }
    }

    /// Records that a request got no answer. Returns for how long the address is ejected, if that ejects it.
    pub(super) fn unanswered(&self, settings: &Eject, count: &EjectedCount, at: u64) -> Option<Duration> {
        let unanswered = self.unanswered.fetch_add(1, Relaxed).saturating_add(1);
        (unanswered >= settings.after).then(|| self.eject(EjectionReason::NoAnswer, settings, count, at)).flatten()
    }

    /// Ejects the address. Returns for how long; `None` if it is ejected already, or if no further address may be
    /// ejected.
    pub(super) fn eject(
        &self,
        why: EjectionReason,
        settings: &Eject,
        count: &EjectedCount,
        at: u64,
    ) -> Option<Duration> {
        // Held until both are written: the flag, and the reason under which the ejection is counted.
        let mut last = self.lock_last();
        if self.ejected.load(Relaxed) || !count.add(why) {
            return None;
        }
        self.ejected.store(true, Relaxed);
        // The time doubles only if the address was used for less time than its last ejection lasted; otherwise it
        // starts at `settings.time`.
        let used_for = Duration::from_micros(at.saturating_sub(last.readmitted_at));
        let previous = last.time.filter(|time| used_for < *time);
        let time = previous.map_or(settings.time, |time| time.saturating_mul(2)).min(settings.time_max);
        *last = LastEjection { time: Some(time), why: Some(why), until: after(at, time), ..*last };
        Some(time)
    }

    /// Records that the address still accepts no connection. Returns for how long it stays ejected.
    pub(super) fn stay_ejected(&self, settings: &Eject, at: u64) -> Duration {
        let mut last = self.lock_last();
        let time = last.time.unwrap_or(settings.time).saturating_mul(2).min(settings.time_max);
        *last = LastEjection { time: Some(time), until: after(at, time), ..*last };
        time
    }

    /// Readmits the address; the first request without an answer ejects it again. Returns whether it was ejected.
    pub(super) fn readmit(&self, settings: &Eject, count: &EjectedCount, at: u64) -> bool {
        let mut last = self.lock_last();
        if !self.end_ejection(&last, count) {
            return false;
        }
        last.readmitted_at = at;
        self.unanswered.store(settings.after.saturating_sub(1), Relaxed);
        true
    }

    /// Whether the address is ejected.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Returns when an ejected address is tried again, in microseconds of `ServiceState::now`, and why it was ejected;
    /// `None` if it is not ejected.
    pub(super) fn ejection(&self) -> Option<(u64, EjectionReason)> {
        let last = self.lock_last();
        self.is_ejected().then_some((last.until, last.why?))
    }

    /// Whether the address's health checks fail.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    /// Records what the health checks found. Returns whether the health has changed.
    pub(super) fn set_healthy(&self, is_healthy: bool) -> bool {
        self.unhealthy.swap(!is_healthy, Relaxed) == is_healthy
    }

    /// Takes the address out of the count, because its service no longer has it. Returns whether it was ejected, and
    /// whether it was unhealthy.
    pub(super) fn remove(&self, count: &EjectedCount) -> (bool, bool) {
        let is_ejected = self.end_ejection(&self.lock_last(), count);
        (is_ejected, self.unhealthy.swap(false, Relaxed))
    }

    /// Ends the ejection, if there is one. Returns whether there was one.
    fn end_ejection(&self, last: &LastEjection, count: &EjectedCount) -> bool {
        let was_ejected = self.ejected.swap(false, Relaxed);
        if let (true, Some(why)) = (was_ejected, last.why) {
            count.remove(why);
        }
        was_ejected
    }

    fn lock_last(&self) -> MutexGuard<'_, LastEjection> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the point in time that is `time` after `at`, in microseconds.
fn after(at: u64, time: Duration) -> u64 {
    at.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Eject = Eject { after: 3, time: Duration::from_secs(10), time_max: Duration::from_secs(35) };
    const SECOND: u64 = 1_000_000;

    fn of(addresses: usize) -> EjectedCount {
        let count = EjectedCount::default();
        count.set_addresses(addresses);
        count
    }

    #[test]
    fn three_requests_in_a_row_without_an_answer_eject() {
        let (address, count) = (Availability::default(), of(2));
        for _ in 0..5 {
            assert_eq!(address.unanswered(&SETTINGS, &count, 0), None);
            assert_eq!(address.unanswered(&SETTINGS, &count, 0), None);
            address.answered();
        }
        assert!(address.is_available());
        let times: Vec<_> = (0..3).map(|_| address.unanswered(&SETTINGS, &count, 0)).collect();
        assert_eq!(times, [None, None, Some(SETTINGS.time)]);
        assert!(!address.is_available());
        address.readmit(&SETTINGS, &count, 10 * SECOND);
        assert!(address.is_available());
        let again = address.unanswered(&SETTINGS, &count, 11 * SECOND);
        assert_eq!(again, Some(SETTINGS.time * 2), "the first one after it got requests again");
    }

    #[test]
    fn the_time_doubles_up_to_its_maximum_and_begins_anew_after_good_service() {
        let (address, count) = (Availability::default(), of(2));
        let eject = |at| address.eject(EjectionReason::NoConnection, &SETTINGS, &count, at).map(|time| time.as_secs());
        assert_eq!((eject(0), eject(0)), (Some(10), None), "it is ejected once");
        assert_eq!(address.stay_ejected(&SETTINGS, 10 * SECOND).as_secs(), 20);
        assert_eq!(address.ejection(), Some((30 * SECOND, EjectionReason::NoConnection)));
        assert_eq!(address.stay_ejected(&SETTINGS, 30 * SECOND).as_secs(), 35);
        address.readmit(&SETTINGS, &count, 100 * SECOND);
        assert_eq!(address.ejection(), None);
        assert_eq!(eject(101 * SECOND), Some(35));
        address.readmit(&SETTINGS, &count, 200 * SECOND);
        assert_eq!(eject(235 * SECOND), Some(10));
    }

    #[test]
    fn at_most_half_are_ejected_for_want_of_answers_and_the_only_one_never() {
        let eject =
            |address: &Availability, why, count: &EjectedCount| address.eject(why, &SETTINGS, count, 0).is_some();
        let (addresses, count) = ([(); 3].map(|()| Availability::default()), of(3));
        let ejected = addresses.each_ref().map(|address| eject(address, EjectionReason::NoAnswer, &count));
        assert_eq!((ejected, count.ejected()), ([true, false, false], 1));
        let ejected = addresses.each_ref().map(|address| eject(address, EjectionReason::NoConnection, &count));
        assert_eq!((ejected, count.ejected()), ([false, true, true], 3));
        addresses.iter().for_each(|address| assert_eq!(address.remove(&count), (true, false)));
        assert_eq!(count.ejected(), 0);
        // One accepts no connection, another gives no answer: the third gets all requests. Of two, one is left.
        for (number, expected) in [(3, [true, true, false]), (2, [true, false, false]), (6, [true, true, true])] {
            let (addresses, count) = ([(); 3].map(|()| Availability::default()), of(number));
            let mut why =
                [EjectionReason::NoConnection, EjectionReason::NoAnswer, EjectionReason::NoAnswer].into_iter();
            let ejected = addresses.each_ref().map(|address| eject(address, why.next().unwrap(), &count));
            assert_eq!(ejected, expected, "{number} addresses");
            let removed = addresses.each_ref().map(|address| address.remove(&count).0);
            assert_eq!(removed, expected);
            assert_eq!(count.ejected(), 0);
        }
        for why in [EjectionReason::NoAnswer, EjectionReason::NoConnection] {
            assert!(!eject(&Availability::default(), why, &of(1)));
        }
    }

    #[test]
    fn an_unhealthy_address_is_not_available() {
        let address = Availability::default();
        assert!(!address.set_healthy(true) && address.set_healthy(false) && !address.is_available());
        assert!(!address.set_healthy(false) && address.set_healthy(true) && address.is_available());
    }
}
