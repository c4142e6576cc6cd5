//! When there were calls by legacy that may have changed something and that no request's calls show: writing calls that
//! were attributed to no request, and tunnels, whose content is not seen.
//!
//! Always true: a tunnel is either open here, or the time of its end is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

/// What was not seen, as far as the time tells. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct UnattributedWrites(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Tunnels that are open now.
    tunnels: AtomicU64,
    /// When the last of these calls or tunnels ended, in microseconds; 0 before the first.
    last_us: AtomicU64,
}

impl UnattributedWrites {
    /// A call was attributed to no request, and ended now.
    pub(super) fn note(&self, now_us: u64) {
        self.0.last_us.fetch_max(now_us.max(1), Relaxed);
    }
    /// A tunnel is open until the returned value is dropped; `now_us` tells the time then.
    pub(super) fn tunnel(&self, now_us: impl Fn() -> u64 + Send + 'static) -> Box<dyn Send> {
        self.0.tunnels.fetch_add(1, Relaxed);
        Box::new(Tunnel { writes: self.clone(), now_us })
    }
    /// Whether there may have been such calls since then.
    pub(super) fn since(&self, began_us: u64) -> bool {
        // Read first: a tunnel that ends in between has set the time before.
        if self.0.tunnels.load(Acquire) > 0 {
            return true;
        }
        let last = self.0.last_us.load(Relaxed);
        last > 0 && last >= began_us
    }
}

struct Tunnel<F: Fn() -> u64> {
    writes: UnattributedWrites,
    now_us: F,
}

impl<F: Fn() -> u64> Drop for Tunnel<F> {
    fn drop(&mut self) {
        self.writes.note((self.now_us)());
        self.writes.0.tunnels.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_or_tunnel_that_ended_before_is_not_since() {
        let writes = UnattributedWrites::default();
        assert!(!writes.since(0));
        writes.note(5);
        assert!(writes.since(5) && !writes.since(6));
        let tunnel = writes.tunnel(|| 9);
        assert!(writes.since(100), "it is open");
        drop(tunnel);
        assert!(writes.since(9) && !writes.since(10));
    }
}
