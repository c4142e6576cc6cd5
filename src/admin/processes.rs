//! The processes that share the store.

use axum::Json;

use super::state::{Admin, JsonResult};
use super::types::ProcessRow;

pub(super) async fn list(admin: Admin) -> JsonResult<Vec<ProcessRow>> {
    Ok(Json((admin.parts.processes)()))
}
