//! How a route's pairs are compared. Written by the compare room's owner.

/// Checked rules of one route.
#[derive(Clone)]
pub struct Rules {}
