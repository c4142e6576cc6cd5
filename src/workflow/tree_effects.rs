//! What a run reports to the run that began it: the effects of its whole tree, which is the run and all runs below it.
//!
//! Always true: an attempt at any depth counts unless it is certain that it did nothing. Events of earlier versions have
//! no report; then everything that depends on it assumes the worst.

use serde::{Deserialize, Serialize};

/// The effects of a run and of all runs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TreeEffects {
    /// A private step was done, or may have been.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// A shared step was done, or may have been.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl TreeEffects {
    /// Whether anything but reads was done, or may have been.
    pub fn any(&self) -> bool {
        self.private || self.shared
    }
}
