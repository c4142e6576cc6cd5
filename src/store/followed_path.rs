//! By which requests a route follows up the instances of a family, as it is stored with the declarations of the files.

use serde::{Deserialize, Serialize};

use crate::names::RouteId;

/// The requests by which a route follows up instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowedPath {
    /// The ids of the creator: the present one, then earlier ones.
    pub family: Vec<RouteId>,
    /// Which requests it matches, as text.
    pub matches: String,
    /// The parameter of the path that is the instance's id.
    pub param: String,
    /// What more specific routes of the same files match that lead elsewhere, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}
