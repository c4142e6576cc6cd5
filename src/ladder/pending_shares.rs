//! The larger shares that were requested together with flips down and are not set yet (`larger_share`). The end of the
//! process waits for them, and logs those that are lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::flag::{Percent, State};
use crate::names::RouteId;

/// A larger share that was asked for together with a flip down.
#[derive(Clone)]
pub(super) struct LargerShare {
    pub route: RouteId,
    pub to: State,
    pub percent: Percent,
    pub by: String,
}

/// The larger shares that are to be set, numbered.
#[derive(Default)]
pub(super) struct PendingShares(watch::Sender<BTreeMap<u64, LargerShare>>);

/// Marks a larger share as pending until it is dropped.
pub(super) struct PendingShare {
    pub share: LargerShare,
    number: u64,
    all: Arc<PendingShares>,
}

impl PendingShares {
    /// Adds a share that is to be set.
    pub fn add(self: &Arc<Self>, share: LargerShare) -> PendingShare {
        let mut number = 0;
        self.0.send_modify(|all| {
            number = all.last_key_value().map_or(0, |(last, _)| last + 1);
            all.insert(number, share.clone());
        });
        PendingShare { share, number, all: self.clone() }
    }

    /// All shares that are to be set.
    pub fn all(&self) -> Vec<LargerShare> {
        self.0.borrow().values().cloned().collect()
    }

    /// Waits until no share is left to be set.
    pub async fn wait_for_none(&self) {
        let mut pending = self.0.subscribe();
        // Cannot fail: it would only if the sender were dropped, and `self` is the sender.
        let _ = pending.wait_for(BTreeMap::is_empty).await;
    }
}

impl Drop for PendingShare {
    fn drop(&mut self) {
        self.all.0.send_modify(|all| drop(all.remove(&self.number)));
    }
}

impl LargerShare {
    /// Logs, at the end of the process, that this share is not set. The store may have it nevertheless, if it has not
    /// answered the write.
    pub fn log_lost(&self) {
        let Self { route, to, percent, by } = self;
        tracing::error!(
            %route, %to, %percent, %by,
            "the process ends before the larger share is set, which was asked for together with a flip down: after the \
             next start, look at the route's share, and flip the route again if it is not the share that you want"
        );
    }
}
