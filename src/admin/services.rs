//! The services that steps call: breaker states, calls in flight, rates.

use axum::Json;

use super::state::{Admin, JsonResult};
use super::types::ServiceRow;

pub(super) async fn list(admin: Admin) -> JsonResult<Vec<ServiceRow>> {
    Ok(Json((admin.parts.services)()))
}
