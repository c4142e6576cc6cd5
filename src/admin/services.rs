//! The services: their addresses, breakers, calls in flight and rates.

use axum::Json;

use super::state::{Admin, JsonResult};
use super::types::ServiceRow;

pub(super) async fn list(admin: Admin) -> JsonResult<Vec<ServiceRow>> {
    Ok(Json((admin.parts.services)()))
}
