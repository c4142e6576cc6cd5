//! What the first event of a child run says of the route at the top of its tree; used by `waiting_caller`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The route that started the run at the top of a child's tree, as the child sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAbove {
    /// Until when the route's caller waits for this run; `None` where it does not.
    pub caller_until: Option<Timestamp>,
}
