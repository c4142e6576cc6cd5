//! What the pages of one route read of it. A store that does not answer must not hide what is known without it: a route
//! can be moved down then too.

use std::time::Duration;

use http::StatusCode;

use crate::admin::types::{ApiProblem, EvidenceView, RouteDetail, RouteRow, Status};
use crate::page::client::{problem, segment};
use crate::page::failure::Failure;
use crate::page::request::Visit;

/// How long a page waits for what the store has of a route.
const STORE_WAIT: Duration = Duration::from_secs(2);

/// A route, and the process around it.
pub(in crate::page) struct RouteData {
    pub status: Status,
    pub row: RouteRow,
    /// What needs the store, or why it is not known.
    pub detail: Result<RouteDetail, Box<ApiProblem>>,
    pub evidence: Result<EvidenceView, Box<ApiProblem>>,
}

/// Reads a route.
///
/// # Errors
/// There is no such route, or the API refuses the viewer.
pub(in crate::page) async fn load(visit: &Visit, id: &str) -> Result<RouteData, Failure> {
    let path = format!("/api/v2/routes/{}", segment(id));
    let evidence = format!("{path}/evidence");
    let (status, detail, evidence) = tokio::join!(
        visit.client.get::<Status>("/api/v2/status"),
        within(visit.client.get::<RouteDetail>(&path)),
        visit.client.get::<EvidenceView>(&evidence),
    );
    let status = status.map_err(|problem| visit.failed(problem))?;
    let row = status.routes.iter().find(|route| route.id.as_str() == id).cloned();
    match (row, detail) {
        (Some(row), detail) => Ok(RouteData { status, row, detail, evidence }),
        // Files that came into force between the two requests have the route.
        (None, Ok(detail)) => Ok(RouteData { status, row: detail.row.clone(), detail: Ok(detail), evidence }),
        (None, Err(problem)) => Err(visit.failed(problem)),
    }
}

/// The result of a request, or a problem if the store keeps it waiting.
pub(in crate::page) async fn within<T>(
    request: impl Future<Output = Result<T, Box<ApiProblem>>>,
) -> Result<T, Box<ApiProblem>> {
    let waited = tokio::time::timeout(STORE_WAIT, request).await;
    waited.unwrap_or_else(|_| {
        let detail = format!("It did not answer within {} s.", STORE_WAIT.as_secs());
        let mut problem = problem(StatusCode::SERVICE_UNAVAILABLE, &detail);
        problem.title = "The store did not answer".into();
        Err(Box::new(problem))
    })
}
