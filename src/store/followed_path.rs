//! Which requests of a route follow up instances of a family. Stored with the declarations of the files.

use serde::{Deserialize, Serialize};

use crate::flag::PathConventions;
use crate::names::RouteId;

/// Describes the requests of a route that follow up instances of a family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowedPath {
    /// The ids of the creator: the present one, then earlier ones.
    pub family: Vec<RouteId>,
    /// The method, host and path of these requests, as text.
    pub matches: String,
    /// How the route's service read paths; `None` if an earlier version read the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathConventions>,
    /// The parameter of the path that is the instance's id.
    pub param: String,
    /// Requests that `matches` covers too, but that belong to more specific routes of the same files, which do not
    /// follow up the family; as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}
