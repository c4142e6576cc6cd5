//! Moving a route: the rung, what it would change, the reason, and the button.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use crate::admin::types::{ApiProblem, FlipRequest, FlipResponse, State};
use crate::page::client::{problem, segment};
use crate::page::failure::Failure;
use crate::page::html::respond;
use crate::page::request::{Fields, Submitted, Visit, see_other};
use crate::page::routes::flip_form::{Typed, content};
use crate::page::routes::move_notice::Done;
use crate::page::routes::route_data::{RouteData, load};

#[derive(Deserialize)]
pub(in crate::page) struct FlipQuery {
    /// The rung that is chosen when the page opens.
    to: Option<String>,
}

pub(in crate::page) async fn show(
    Path(id): Path<String>,
    Query(query): Query<FlipQuery>,
    visit: Visit,
) -> Result<Response, Failure> {
    let visit = visit.part("routes");
    let data = load(&visit, &id).await?;
    let typed = Typed { to: query.to.unwrap_or_default(), ..Typed::default() };
    Ok(form(StatusCode::OK, &visit, &data, &typed, None))
}

pub(in crate::page) async fn perform(Path(id): Path<String>, submitted: Submitted) -> Result<Response, Failure> {
    let Submitted { visit, fields } = submitted;
    let visit = visit.part("routes");
    let typed = typed(&fields);
    let flipped = match request(&id, &typed) {
        Ok(request) => {
            let path = format!("/api/v2/routes/{}/flip", segment(&id));
            visit.client.post::<FlipResponse>(&path, &request).await
        }
        Err(refused) => Err(refused),
    };
    match flipped {
        Ok(FlipResponse { changed, flip, .. }) => {
            let done = if changed { Done::Moved(flip.number) } else { Done::Unchanged };
            Ok(see_other(&format!("/routes/{}?done={}", segment(&id), done.text())))
        }
        Err(refused) => {
            let data = load(&visit, &id).await?;
            let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(form(status, &visit, &data, &typed, Some(&refused)))
        }
    }
}

fn form(status: StatusCode, visit: &Visit, data: &RouteData, typed: &Typed, refused: Option<&ApiProblem>) -> Response {
    let content = content(&visit.frame, data, typed, refused, visit.may("flip"));
    respond(status, &visit.frame, &format!("Move {}", data.row.id), content)
}

/// What was typed into one of the two forms.
fn typed(fields: &Fields) -> Typed {
    let text = |name: &str| fields.get(name).unwrap_or_default().to_owned();
    Typed {
        to: text("to"),
        percent: text("percent"),
        reason: text("reason"),
        has_read: fields.get("acknowledge").is_some(),
        // Only the form that passes the gate by force has this field, empty or not.
        confirmed: fields.0.iter().any(|(name, _)| name == "confirm").then(|| text("confirm")),
    }
}

/// The request for what was typed.
fn request(id: &str, typed: &Typed) -> Result<FlipRequest, Box<ApiProblem>> {
    let refused = |detail: &str| {
        let mut refused = problem(StatusCode::UNPROCESSABLE_ENTITY, detail);
        refused.title = "The route was not moved".into();
        Box::new(refused)
    };
    let to = typed.to.parse::<State>().map_err(|_| refused("Choose the rung to which it is to move."))?;
    let percent = match typed.percent.as_str() {
        "" => None,
        // A comma is a decimal point in many languages.
        text => match text.trim_end_matches('%').trim().replace(',', ".").parse::<f64>() {
            Ok(percent) if percent.is_finite() => Some(percent),
            _ => return Err(refused("The share has to be a number from 0 to 100, or empty.")),
        },
    };
    if let Some(confirmed) = &typed.confirmed {
        if confirmed != id {
            return Err(refused("To pass the gate by force, type the route's id exactly. Nothing was done."));
        }
        if typed.reason.is_empty() {
            return Err(refused("Passing the gate by force needs a reason. Nothing was done."));
        }
    }
    let reason = Some(typed.reason.clone()).filter(|reason| !reason.is_empty());
    Ok(FlipRequest { to, percent, reason, force: typed.confirmed.is_some(), acknowledge: typed.has_read, by: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_plain_form_never_forces() {
        let typed = typed(&fields(&[("to", "dark"), ("percent", "12,5"), ("reason", " why "), ("force", "yes")]));
        let request = request("a", &typed).unwrap();
        let expected = FlipRequest {
            to: State::Dark,
            percent: Some(12.5),
            reason: Some("why".into()),
            force: false,
            acknowledge: false,
            by: None,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn force_needs_the_id_and_a_reason() {
        let forced = |confirm: &str, reason: &str| {
            let typed =
                typed(&fields(&[("to", "live"), ("confirm", confirm), ("reason", reason), ("acknowledge", "yes")]));
            request("orders.create", &typed)
        };
        assert!(forced("orders.create", "why").is_ok_and(|request| request.force && request.acknowledge));
        assert!(forced("orders", "why").unwrap_err().detail.contains("id exactly"));
        assert!(forced("", "why").unwrap_err().detail.contains("id exactly"));
        assert!(forced("orders.create", "").unwrap_err().detail.contains("reason"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_field() {
        let of = |to: &str, percent: &str| request("a", &typed(&fields(&[("to", to), ("percent", percent)])));
        assert!(of("", "").unwrap_err().detail.contains("rung"));
        for percent in ["x", "NaN", "inf", "1 2"] {
            assert!(of("dark", percent).unwrap_err().detail.contains("share"), "{percent}");
        }
        assert_eq!(of("dark", "").unwrap().percent, None);
    }
}
