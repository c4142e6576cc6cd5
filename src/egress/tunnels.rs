//! Counts the tunnels (CONNECT) that legacy opened through the egress listener, by host and port.
//!
//! Calls within a tunnel are encrypted and therefore not compared. `pointsman egress` shows these counts, so that its
//! reader knows which destinations are not covered. (`unattributed_writes` has the times of tunnels, for the judgement
//! of pairs.)
//!
//! Always true: at most `TARGETS_MAX` targets are counted separately; tunnels to all others are counted together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::clock;
use crate::exchange::CallTarget;
use crate::names::ServiceName;

/// Hosts and ports that are told apart.
const TARGETS_MAX: usize = 64;

/// The tunnels since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelCounts {
    /// By target: those to which most tunnels were opened first.
    pub targets: Vec<TunnelTarget>,
    /// Tunnels to targets beyond the first 64.
    pub to_others: u64,
}

/// The tunnels to one host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTarget {
    /// The service that has this address.
    pub service: Option<ServiceName>,
    /// The host and port.
    pub authority: String,
    /// How many were opened.
    pub opened: u64,
    /// How many of them are open.
    pub open: u64,
    /// When the last one was opened.
    pub last_opened: Timestamp,
}

/// Counts tunnels. Clones share the counts.
#[derive(Clone, Default)]
pub(super) struct Tunnels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    targets: BTreeMap<String, TunnelTarget>,
    to_others: u64,
}

impl Tunnels {
    /// Counts a tunnel; it is open until the returned value is dropped.
    pub(super) fn open(&self, to: &CallTarget) -> OpenTunnel {
        let mut state = self.lock();
        if state.targets.len() >= TARGETS_MAX && !state.targets.contains_key(&to.authority) {
            state.to_others += 1;
            return OpenTunnel { tunnels: self.clone(), authority: None };
        }
        let now = clock::now();
        let target = state.targets.entry(to.authority.clone()).or_insert_with(|| TunnelTarget {
            service: to.service.clone(),
            authority: to.authority.clone(),
            opened: 0,
            open: 0,
            last_opened: now,
        });
        // The services may have changed since.
        target.service.clone_from(&to.service);
        target.opened += 1;
        target.open += 1;
        target.last_opened = now;
        OpenTunnel { tunnels: self.clone(), authority: Some(to.authority.clone()) }
    }

    pub(super) fn counts(&self) -> TunnelCounts {
        let state = self.lock();
        let mut targets: Vec<TunnelTarget> = state.targets.values().cloned().collect();
        targets.sort_by(|a, b| b.opened.cmp(&a.opened).then_with(|| a.authority.cmp(&b.authority)));
        TunnelCounts { targets, to_others: state.to_others }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tunnel that is open until this is dropped.
pub(super) struct OpenTunnel {
    tunnels: Tunnels,
    /// `None` if its target is one of the others.
    authority: Option<String>,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        let Some(authority) = &self.authority else { return };
        if let Some(target) = self.tunnels.lock().targets.get_mut(authority) {
            target.open = target.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn to(authority: &str, service: Option<&str>) -> CallTarget {
        CallTarget {
            service: service.map(Into::into),
            authority: authority.to_owned(),
            method: Method::CONNECT,
            path: String::new(),
        }
    }

    #[test]
    fn tunnels_are_counted_by_where_they_lead() {
        let tunnels = Tunnels::default();
        assert_eq!(tunnels.counts(), TunnelCounts::default());
        drop(tunnels.open(&to("mail.test:443", None)));
        let open = tunnels.open(&to("bank.test:443", Some("bank")));
        drop(tunnels.open(&to("bank.test:443", Some("bank"))));
        let counts = tunnels.counts();
        let shown: Vec<_> = counts.targets.iter().map(|to| (to.authority.as_str(), to.opened, to.open)).collect();
        assert_eq!((shown, counts.to_others), (vec![("bank.test:443", 2, 1), ("mail.test:443", 1, 0)], 0));
        assert_eq!(counts.targets[0].service, Some("bank".into()));
        drop(open);
        assert_eq!(tunnels.counts().targets[0].open, 0);
    }

    #[test]
    fn the_list_of_targets_is_bounded() {
        let tunnels = Tunnels::default();
        let open: Vec<_> = (0..TARGETS_MAX + 3).map(|n| tunnels.open(&to(&format!("{n}.test:443"), None))).collect();
        let counts = tunnels.counts();
        assert_eq!((counts.targets.len(), counts.to_others), (TARGETS_MAX, 3));
        drop(open);
        assert!(tunnels.counts().targets.iter().all(|to| to.open == 0));
    }
}
