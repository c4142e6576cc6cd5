//! What all connections of a proxy share.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;

use super::clock::Bounds;
use super::open::Open;
use super::table::Table;
use crate::exchange::{Affinity, ArmReply, ArmRequest, Offer, Watch};
use crate::flag::FlagSet;
use crate::limits::Limits;

/// The engine, as the proxy knows it.
pub type EngineArm = BoxCloneSyncService<ArmRequest, ArmReply, Infallible>;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because their requests did not finish within the bound.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

/// What all connections share.
pub(super) struct Shared {
    pub flags: Arc<ArcSwap<FlagSet>>,
    pub table: ArcSwap<Table>,
    pub limits: Arc<Limits>,
    pub bounds: Bounds,
    pub trust_forwarded: bool,
    pub engine: EngineArm,
    pub pins: Arc<dyn Affinity>,
    pub offer: Arc<dyn Offer>,
    pub watch: Arc<dyn Watch>,
    pub open: Open,
    pub tasks: TaskTracker,
    pub drain: AtomicU8,
    pub cut: CancellationToken,
}

impl Shared {
    /// The flags in force, ready to serve. One request keeps what it got.
    pub(super) fn table(&self) -> Arc<Table> {
        let table = self.table.load_full();
        let flags = self.flags.load();
        if Arc::ptr_eq(&table.set, &flags) {
            return table;
        }
        // Whoever comes first after a swap prepares it; another thread may do the same work and one of the two stays.
        let fresh = Arc::new(Table::new(flags.clone(), &self.limits, Some(&table)));
        self.table.store(fresh.clone());
        fresh
    }
}
