//! Which requests of a route follow up instances of a family. Stored with the declarations of the files.

use serde::{Deserialize, Serialize};

use crate::flag::PathConventions;
use crate::names::RouteId;

/// Describes the requests of a route that follow up instances of a family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowerRequests {
    /// The ids of the creator: the present one, then earlier ones.
    pub family: Vec<RouteId>,
    /// The method, host and path of these requests, as text.
    pub matches: String,
    /// How the route's service read paths; `None` if an earlier version read the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathConventions>,
    /// Where a request has the instance's id: the name of a parameter of the path, or the text of another key.
    pub param: String,
    /// Requests that `matches` covers too, but that belong to more specific routes of the same files, which do not
    /// follow up the family; as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Whether the route has no workflow, so that legacy answers these requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_no_workflow: bool,
    /// Whether the files that were read last have no such route any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_absent: bool,
    /// Other requests by which the route followed up instances by earlier files, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierFollowerRequests>,
}

/// Requests by which a route followed up instances of a family by earlier files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierFollowerRequests {
    /// See [`FollowerRequests::family`].
    pub family: Vec<RouteId>,
    /// See [`FollowerRequests::matches`].
    pub matches: String,
    /// See [`FollowerRequests::paths`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathConventions>,
}
