//! Why the runs of the last process are not resumed yet. Until they are, no new run that is stored begins, except for
//! children and successors that a resumed run needs.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// Why the runs that the last process left are not resumed yet; `None` once they are resumed, and before the recovery
/// is begun.
#[derive(Default)]
pub(in crate::engine) struct WhyUnresumed(ArcSwapOption<String>);

impl WhyUnresumed {
    pub fn get(&self) -> Option<Arc<String>> {
        self.0.load_full()
    }
    pub fn is_none(&self) -> bool {
        self.0.load().is_none()
    }
    pub fn set(&self, why: Option<String>) {
        metrics::gauge!("pointsman_recovery_pending").set(if why.is_some() { 1.0 } else { 0.0 });
        self.0.store(why.map(Arc::new));
    }
}
