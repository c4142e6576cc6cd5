//! Calls by legacy that may have changed something and are in no request's list of calls: writing calls that were
//! attributed to no request, and tunnels, whose content is not seen.
//!
//! Always true: each tunnel is counted as open or by the time at which it ended. The list is bounded; of targets that
//! found no room the times are kept for all of them together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::compare::path_without_values;
use crate::exchange::{CallTarget, UnattributedWrites};
use crate::limits::EGRESS_UNATTRIBUTED_WRITES_MAX;

/// The targets of recent unattributed writes and tunnels, each with the time of its last end. Clones share the list.
#[derive(Clone, Default)]
pub(super) struct RecentUnattributedWrites(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    listed: HashMap<Arc<CallTarget>, Times>,
    /// Those that are not listed.
    others: Times,
}

/// When there were calls or tunnels to one target.
#[derive(Clone, Copy, Default)]
struct Times {
    /// Tunnels that are open now.
    open: u64,
    /// When the last one ended, in microseconds; 0 before the first.
    last_us: u64,
}

impl Times {
    fn was_active_since(self, began_us: u64) -> bool {
        self.open > 0 || (self.last_us > 0 && self.last_us >= began_us)
    }
    fn note(&mut self, now_us: u64) {
        self.last_us = self.last_us.max(now_us).max(1);
    }
}

impl State {
    /// The times of this target.
    fn times_of(&mut self, target: &Arc<CallTarget>) -> &mut Times {
        if self.listed.len() >= EGRESS_UNATTRIBUTED_WRITES_MAX && !self.listed.contains_key(target) {
            self.make_room(target);
        }
        match self.listed.len() < EGRESS_UNATTRIBUTED_WRITES_MAX || self.listed.contains_key(target) {
            true => self.listed.entry(target.clone()).or_default(),
            false => &mut self.others,
        }
    }

    /// Removes the oldest of the targets that differ from this one only in values of the path, such as ids: a rule that
    /// fits one of them fits the others. If there is none, removes the oldest target of all, of which only the time is
    /// remembered. One with an open tunnel stays.
    fn make_room(&mut self, target: &CallTarget) {
        let kind = path_without_values(&target.path);
        let is_of_kind = |other: &CallTarget| {
            (other.service.as_ref(), &other.authority, &other.method)
                == (target.service.as_ref(), &target.authority, &target.method)
                && path_without_values(&other.path) == kind
        };
        let oldest = |filter: &dyn Fn(&CallTarget) -> bool| {
            let ended = self.listed.iter().filter(|(other, times)| times.open == 0 && filter(other));
            ended.min_by_key(|(_, times)| times.last_us).map(|(other, _)| other.clone())
        };
        if let Some(of_kind) = oldest(&is_of_kind) {
            self.listed.remove(&of_kind);
        } else if let Some(removed) = oldest(&|_| true).and_then(|oldest| self.listed.remove(&oldest)) {
            self.others.note(removed.last_us);
        }
    }
}

impl RecentUnattributedWrites {
    /// Notes a call that ended now and was attributed to no request.
    pub(super) fn note(&self, target: &Arc<CallTarget>, now_us: u64) {
        self.lock().times_of(target).note(now_us);
    }
    /// Notes that a call of which nothing is known any more ended now.
    pub(super) fn note_unknown(&self, now_us: u64) {
        self.lock().others.note(now_us);
    }
    /// Notes a tunnel, which is open until the returned value is dropped; `now_us` returns the time then.
    pub(super) fn tunnel(&self, target: CallTarget, now_us: impl Fn() -> u64 + Send + 'static) -> Box<dyn Send> {
        let target = Arc::new(target);
        self.lock().times_of(&target).open += 1;
        Box::new(Tunnel { writes: self.clone(), target, now_us })
    }
    /// The unattributed writes that ended at or after `began_us`, and the tunnels that are open now.
    pub(super) fn since(&self, began_us: u64) -> UnattributedWrites {
        let State { listed, others } = &*self.lock();
        let since = listed.iter().filter(|(_, times)| times.was_active_since(began_us));
        UnattributedWrites {
            calls: since.map(|(target, _)| target.clone()).collect(),
            may_have_others: others.was_active_since(began_us),
        }
    }

    /// The targets of the tunnels that are open now; `None` for those that are not listed.
    pub(super) fn open_tunnels(&self) -> Vec<Option<Arc<CallTarget>>> {
        let State { listed, others } = &*self.lock();
        let open = listed.iter().filter(|(_, times)| times.open > 0).map(|(target, _)| Some(target.clone()));
        open.chain((others.open > 0).then_some(None)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Tunnel<F: Fn() -> u64> {
    writes: RecentUnattributedWrites,
    target: Arc<CallTarget>,
    now_us: F,
}

impl<F: Fn() -> u64> Drop for Tunnel<F> {
    fn drop(&mut self) {
        let now_us = (self.now_us)();
        let mut state = self.writes.lock();
        let State { listed, others } = &mut *state;
        // A tunnel that found no room in the list is counted in `others`. If its target was listed later, for another
        // tunnel, the end of either may be counted in either place: both counts are right once both have ended.
        let times = listed.get_mut(&self.target).filter(|times| times.open > 0).unwrap_or(others);
        times.open = times.open.saturating_sub(1);
        times.note(now_us);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn to(path: &str) -> Arc<CallTarget> {
        let authority = "bank.test".to_owned();
        Arc::new(CallTarget { service: None, authority, method: Method::POST, path: path.to_owned() })
    }

    fn any_since(writes: &RecentUnattributedWrites, began_us: u64) -> bool {
        !writes.since(began_us).is_empty()
    }

    fn tunnel_to(host: &str) -> CallTarget {
        CallTarget { service: None, authority: host.to_owned(), method: Method::CONNECT, path: String::new() }
    }

    #[test]
    fn calls_and_tunnels_that_ended_before_the_time_are_not_returned() {
        let writes = RecentUnattributedWrites::default();
        assert!(!any_since(&writes, 0));
        writes.note(&to("/charges"), 5);
        assert!(any_since(&writes, 5) && !any_since(&writes, 6));
        let tunnel = writes.tunnel(tunnel_to("bank.test:443"), || 9);
        assert!(any_since(&writes, 100), "it is open");
        drop(tunnel);
        assert!(any_since(&writes, 9) && !any_since(&writes, 10));
        writes.note_unknown(12);
        assert!(any_since(&writes, 12));
    }

    #[test]
    fn the_targets_of_unattributed_writes_are_returned() {
        let writes = RecentUnattributedWrites::default();
        writes.note(&to("/charges"), 5);
        // Words that look like values are told apart too.
        writes.note(&to("/rpc/createCharge"), 6);
        writes.note(&to("/rpc/sendMail"), 7);
        let tunnel = writes.tunnel(tunnel_to("mail.test:443"), || 9);
        let since = |began_us| {
            let UnattributedWrites { calls, may_have_others } = writes.since(began_us);
            let mut shown: Vec<String> = calls.iter().map(|to| format!("{}{}", to.authority, to.path)).collect();
            shown.sort();
            (shown.join(" "), may_have_others)
        };
        let all = "bank.test/charges bank.test/rpc/createCharge bank.test/rpc/sendMail mail.test:443";
        assert_eq!(since(0), (all.to_owned(), false));
        assert_eq!(since(7), ("bank.test/rpc/sendMail mail.test:443".to_owned(), false));
        drop(tunnel);
        writes.note_unknown(11);
        assert_eq!(since(10), (String::new(), true));
    }

    /// Of targets for which there is no room the time stays known; the target of an open tunnel stays in the list.
    #[test]
    fn the_list_is_bounded() {
        let writes = RecentUnattributedWrites::default();
        let tunnel = writes.tunnel(tunnel_to("mail.test:443"), || 5_000);
        let word = |n: usize| -> String { format!("{n:04}").bytes().map(|digit| char::from(digit + 49)).collect() };
        let count = EGRESS_UNATTRIBUTED_WRITES_MAX + 10;
        for n in 0..count {
            writes.note(&to(&format!("/{}", word(n))), u64::try_from(n).unwrap() + 1);
        }
        let all = writes.since(0);
        assert_eq!((all.calls.len(), all.may_have_others), (EGRESS_UNATTRIBUTED_WRITES_MAX, true));
        let last = u64::try_from(count).unwrap();
        let late = writes.since(last);
        assert_eq!((late.calls.len(), late.may_have_others), (2, false), "the last one and the tunnel: {late:?}");
        drop(tunnel);
        assert!(any_since(&writes, 5_000));
    }

    /// Targets that differ only in an id take the place of each other, and of no other target.
    #[test]
    fn targets_that_differ_only_in_an_id_evict_each_other_first() {
        let writes = RecentUnattributedWrites::default();
        writes.note(&to("/charges"), 1);
        for n in 0..2 * u64::try_from(EGRESS_UNATTRIBUTED_WRITES_MAX).unwrap() {
            writes.note(&to(&format!("/items/{n}")), n + 2);
        }
        let all = writes.since(0);
        assert_eq!((all.calls.len(), all.may_have_others), (EGRESS_UNATTRIBUTED_WRITES_MAX, false));
        assert!(all.calls.contains(&to("/charges")));
    }

    /// Where all places are taken by open tunnels, another one is still known to be open.
    #[test]
    fn a_tunnel_without_a_place_counts_until_it_ends() {
        let writes = RecentUnattributedWrites::default();
        let mut places: Vec<_> = (0..EGRESS_UNATTRIBUTED_WRITES_MAX)
            .map(|n| writes.tunnel(tunnel_to(&format!("{n}.test:443")), || 3))
            .collect();
        let without_place = writes.tunnel(tunnel_to("late.test:443"), || 7);
        places.clear();
        let open = writes.since(100);
        assert_eq!((open.calls.len(), open.may_have_others), (0, true));
        drop(without_place);
        assert!(any_since(&writes, 7) && !any_since(&writes, 8));
    }
}
