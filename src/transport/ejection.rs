//! Whether an address of a service gets requests.
//!
//! An address is *ejected*, that is gets no requests for a while, when it accepts no connection or when several
//! requests in a row got no answer; when the while is over, it is tried with a connection that no client waits for, and
//! gets requests again if it accepts it. It is *unhealthy* while the declared health checks fail. Always true: of a
//! service's addresses at most half are ejected because they give no answer, so that an overload of all of them does
//! not lead to the overload of the last one; whether an address is available is read from two flags, without a lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::flag::Eject;

/// How many of a service's addresses there are, and how many of them are ejected.
#[derive(Debug, Default)]
pub(super) struct EjectedCount {
    addresses: AtomicUsize,
    ejected: AtomicUsize,
}

impl EjectedCount {
    pub(super) fn set_addresses(&self, addresses: usize) {
        self.addresses.store(addresses, Relaxed);
    }
    /// Counts one more ejected address. Refused for the only address of a service. For `NoAnswer` also refused if half
    /// of the addresses are ejected already, for either reason; for `NoConnection` all may be ejected.
    fn add(&self, why: EjectionReason) -> bool {
        let addresses = self.addresses.load(Relaxed);
        let most = match why {
            EjectionReason::NoConnection => addresses,
            EjectionReason::NoAnswer => addresses / 2,
        };
        let add = |ejected: usize| (addresses > 1 && ejected < most).then_some(ejected + 1);
        self.ejected.fetch_update(Relaxed, Relaxed, add).is_ok()
    }
    fn remove(&self) {
        self.ejected.fetch_sub(1, Relaxed);
    }
    #[cfg(test)]
    fn ejected(&self) -> usize {
        self.ejected.load(Relaxed)
    }
}

/// Why an address is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    /// It accepts no connection.
    NoConnection,
    /// Requests were sent to it, and no answer came.
    NoAnswer,
}

impl EjectionReason {
    /// The label of its metric.
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
    last_ejection: Mutex<LastEjection>,
}

/// The last ejection.
#[derive(Debug, Default)]
struct LastEjection {
    time: Option<Duration>,
    why: Option<EjectionReason>,
    /// When it is tried again, in microseconds of `ServiceState::now`.
    until: u64,
    /// When it got requests again, in microseconds of `ServiceState::now`.
    readmitted_at: u64,
}

impl Availability {
    /// Whether it is neither ejected nor unhealthy.
    pub(super) fn is_available(&self) -> bool {
        !self.ejected.load(Relaxed) && !self.unhealthy.load(Relaxed)
    }

    /// A request got an answer.
    pub(super) fn answered(&self) {
        if self.unanswered.load(Relaxed) != 0 {
            self.unanswered.store(0, Relaxed);
        }
    }

    /// A request got no answer. Returns for how long the address is ejected, if it is ejected now.
    pub(super) fn unanswered(&self, settings: &Eject, count: &EjectedCount, at: u64) -> Option<Duration> {
        let unanswered = self.unanswered.fetch_add(1, Relaxed).saturating_add(1);
        (unanswered >= settings.after).then(|| self.eject(EjectionReason::NoAnswer, settings, count, at)).flatten()
    }

    /// Ejects it. Returns for how long; `None` if it is ejected already or if no further address
    /// may be ejected.
    pub(super) fn eject(
        &self,
        why: EjectionReason,
        settings: &Eject,
        count: &EjectedCount,
        at: u64,
    ) -> Option<Duration> {
        if self.ejected.swap(true, Relaxed) {
            return None;
        }
        if !count.add(why) {
            self.ejected.store(false, Relaxed);
            return None;
        }
        let mut last_ejection = self.last_ejection.lock().unwrap_or_else(PoisonError::into_inner);
        // The time doubles only if the address was used for less time than its last ejection lasted; otherwise it
        // starts at `settings.time`.
        let used_for = Duration::from_micros(at.saturating_sub(last_ejection.readmitted_at));
        let last = last_ejection.time.filter(|time| used_for < *time);
        let time = last.map_or(settings.time, |time| time.saturating_mul(2)).min(settings.time_max);
        *last_ejection = LastEjection { time: Some(time), why: Some(why), until: after(at, time), ..*last_ejection };
        Some(time)
    }

    /// It still accepts no connection. Returns for how long it stays ejected.
    pub(super) fn stay_ejected(&self, settings: &Eject, at: u64) -> Duration {
        let mut last_ejection = self.last_ejection.lock().unwrap_or_else(PoisonError::into_inner);
        let time = last_ejection.time.unwrap_or(settings.time).saturating_mul(2).min(settings.time_max);
        *last_ejection = LastEjection { time: Some(time), until: after(at, time), ..*last_ejection };
        time
    }

    /// It gets requests again; the first one without an answer ejects it again. Returns whether it was ejected.
    pub(super) fn readmit(&self, settings: &Eject, count: &EjectedCount, at: u64) -> bool {
        if !self.ejected.swap(false, Relaxed) {
            return false;
        }
        count.remove();
        self.last_ejection.lock().unwrap_or_else(PoisonError::into_inner).readmitted_at = at;
        self.unanswered.store(settings.after.saturating_sub(1), Relaxed);
        true
    }

    /// Whether it gets no requests for a while.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// If it is ejected: when it is tried again, in microseconds of `ServiceState::now`, and why it was ejected.
    pub(super) fn ejection(&self) -> Option<(u64, EjectionReason)> {
        let last_ejection = self.last_ejection.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_ejected().then_some((last_ejection.until, last_ejection.why?))
    }

    /// Whether its health checks fail.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    /// Records what the health checks found; returns whether that is a change.
    pub(super) fn set_healthy(&self, is_healthy: bool) -> bool {
        self.unhealthy.swap(!is_healthy, Relaxed) == is_healthy
    }

    /// It is no address of its service any more. Returns whether it was ejected, and whether it was unhealthy.
    pub(super) fn remove(&self, count: &EjectedCount) -> (bool, bool) {
        let is_ejected = self.ejected.swap(false, Relaxed);
        if is_ejected {
            count.remove();
        }
        (is_ejected, self.unhealthy.swap(false, Relaxed))
    }
}

/// The time after a duration, both in microseconds.
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
