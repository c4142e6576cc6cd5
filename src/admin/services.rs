//! Where services stand: their breakers, and who is under way there.

use axum::Json;

use super::types::ServiceRow;
use super::{Admin, Answer};

pub(super) async fn list(admin: Admin) -> Answer<Vec<ServiceRow>> {
    Ok(Json((admin.parts.services)()))
}
