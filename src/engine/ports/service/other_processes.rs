//! What the other processes that share the store change at a service: its rate is divided among them, and what their
//! breakers know is a hint for this one.

use std::sync::PoisonError;

use super::ServiceLimits;
use crate::engine::ports::breaker::Breaker;

impl ServiceLimits {
    /// Sets the number of processes that send calls to the service; each has an equal share of the rate.
    pub fn divide_rate_among(&self, processes: u32) {
        self.rates.iter().for_each(|rates| rates.divide_among(processes));
    }

    /// The breaker is open in these other processes now.
    pub fn set_open_in(&self, processes: &[String]) {
        if let Some(breaker) = self.breaker().as_mut() {
            breaker.set_open_elsewhere(!processes.is_empty());
        }
        let mut open_in = self.open_in.lock().unwrap_or_else(PoisonError::into_inner);
        if *open_in != processes {
            processes.clone_into(&mut open_in);
        }
    }

    /// The other processes where the breaker is open.
    pub fn open_in(&self) -> Vec<String> {
        self.open_in.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the breaker is open here, and its next probe is not due yet. Not where a hint has opened it: hints that
    /// follow from hints would outlast their cause.
    pub fn is_open_by_own_calls(&self) -> bool {
        let now = self.now();
        let breaker = self.breaker();
        let own = breaker.as_ref().filter(|breaker| !breaker.is_opened_by_hint());
        own.and_then(Breaker::open_until).is_some_and(|until| now < until)
    }
}
