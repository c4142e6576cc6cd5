//! The calls that legacy made for one request, as the comparison gets them.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::compare::Effect;

/// The calls that legacy made for one request. Calls may be added after the request was answered. Cheap to clone.
#[derive(Clone, Default)]
pub struct RequestEffects(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<Attributed>>,
    /// Calls that may be this request's, and of which that is not known, or that were not kept.
    gaps: AtomicU64,
    /// For how long after the exchange has ended calls may be added.
    window: Duration,
}

struct Attributed {
    effect: Effect,
    /// Accounts for the memory that the effect takes.
    _held: Box<dyn Any + Send>,
}

/// The calls of a request at one moment.
#[derive(Clone, Debug)]
pub struct EffectsSoFar {
    /// In the order in which they began.
    pub calls: Vec<Effect>,
    /// Calls that may be this request's too, because several requests could have caused them, or that were not kept. If
    /// there are any, a call that seems to be missing may be one of them.
    pub gaps: u64,
}

impl RequestEffects {
    /// None so far; calls may be added for so long after the exchange has ended.
    pub fn new(window: Duration) -> Self {
        Self(Arc::new(Inner { window, ..Inner::default() }))
    }
    /// For how long after the exchange has ended calls may be added.
    pub fn window(&self) -> Duration {
        self.0.window
    }
    /// Adds a call. `held` is dropped together with it.
    pub fn add(&self, effect: Effect, held: Box<dyn Any + Send>) {
        self.lock().push(Attributed { effect, _held: held });
    }
    /// A call may be this request's, or was not kept.
    pub fn add_gap(&self) {
        self.0.gaps.fetch_add(1, Relaxed);
    }
    /// How many calls it has.
    pub fn len(&self) -> usize {
        self.lock().len()
    }
    /// Whether it has no call.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many calls may be its own in addition.
    pub fn gaps(&self) -> u64 {
        self.0.gaps.load(Relaxed)
    }
    /// A copy of what is known now.
    pub fn so_far(&self) -> EffectsSoFar {
        let mut calls: Vec<Effect> = self.lock().iter().map(|attributed| attributed.effect.clone()).collect();
        calls.sort_by_key(|effect| effect.number);
        EffectsSoFar { calls, gaps: self.gaps() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attributed>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RequestEffects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestEffects({} calls, {} gaps)", self.len(), self.gaps())
    }
}
