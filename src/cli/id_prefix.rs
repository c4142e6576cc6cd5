//! `flip PREFIX.*`: flips all routes whose ids begin with `PREFIX.`, one after the other.
//!
//! Always true: first the routes that are lowered, creators before their followers; then the routes that are raised,
//! followers before their creator; so a creator is never on a higher rung than its followers. The first refusal stops
//! the command, and its error lists the routes that were moved before.

use serde_json::{Value, json};

use super::args::Server;
use super::client::{CallError, Client};
use super::flip::{self, FlipOptions};
use super::format::{Formatter, escape_control};
use super::output::Output;
use crate::admin::types::RouteRow;
use crate::flag::{EffectiveReason, State};

pub(crate) fn flip(
    client: &Client,
    server: &Server,
    prefix: &str,
    options: &FlipOptions,
    format: Formatter,
) -> Result<Output, CallError> {
    let (rows, _) = client.get::<Vec<RouteRow>>("/api/v2/routes")?;
    let (to_flip, without_workflow) = in_flip_order(&rows, prefix, options.state);
    if to_flip.is_empty() {
        let hint = "`pointsman status` lists the routes; only those with a workflow move".to_owned();
        return Err(CallError::Failed(format!("no route `{prefix}.*` has a workflow"), hint));
    }
    let (mut text, mut moved) = (String::new(), Vec::new());
    for (at, row) in to_flip.iter().enumerate() {
        let one = FlipOptions { route: row.id.to_string(), ..options.clone() };
        match flip::flip(client, server, &one, format) {
            Ok(done) => {
                text.push_str(&done.text);
                moved.push(done.json);
            }
            Err(error) => {
                let left = to_flip.get(at + 1..).unwrap_or_default().iter().map(|row| row.id.as_str());
                return Err(with_progress(error, row.id.as_str(), &moved, &left.collect::<Vec<_>>()));
            }
        }
    }
    for row in without_workflow {
        text.push_str(&format!("{} has no workflow: it stays off\n", escape_control(row.id.as_str())));
    }
    Ok(Output { text, json: Value::Array(moved), is_ok: true })
}

/// The routes whose ids begin with `PREFIX.`: those with a workflow in the order in which they are flipped, and those
/// without one.
fn in_flip_order<'a>(rows: &'a [RouteRow], prefix: &str, to: State) -> (Vec<&'a RouteRow>, Vec<&'a RouteRow>) {
    let begins = |row: &&RouteRow| row.id.as_str().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    let (mut to_flip, without_workflow): (Vec<_>, Vec<_>) =
        rows.iter().filter(begins).partition(|row| row.workflow.is_some());
    to_flip.sort_by_key(|row| {
        let goes_up = to > current_rung(row);
        // Down before up; creators first on the way down, last on the way up. But a follower in `only` answers for no
        // instance that legacy creates: it goes down before its creator.
        let leaves_only = !goes_up && row.follows.is_some() && current_rung(row) == State::Only;
        (goes_up, !leaves_only, goes_up != row.follows.is_some())
    });
    (to_flip, without_workflow)
}

/// The rung that a route is on: the requested state, or a lower one where the gate holds it there.
fn current_rung(row: &RouteRow) -> State {
    if row.effective.why == EffectiveReason::Gate { row.effective.state } else { row.requested }
}

/// Adds to the error of one route which routes were flipped before it, and which were not tried.
fn with_progress(error: CallError, at: &str, moved: &[Value], left: &[&str]) -> CallError {
    let names = |flips: &[Value]| {
        let name = |flip: &Value| {
            let part = |key: &str| flip["flip"][key].as_str().unwrap_or("?").to_owned();
            match flip["changed"].as_bool() {
                Some(false) => format!("{} is {} already", part("route"), part("to")),
                _ => format!("{} {} -> {}", part("route"), part("from"), part("to")),
            }
        };
        flips.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let before = if moved.is_empty() { "nothing".to_owned() } else { names(moved) };
    let after = if left.is_empty() { "nothing".to_owned() } else { left.join(", ") };
    let others = format!("stopped at `{at}`; moved before it: {before}; not tried: {after}");
    match error {
        CallError::Refused(mut problem, mut value) => {
            problem.detail = format!("{}. {others}", problem.detail);
            value["moved"] = json!(moved);
            value["not_tried"] = json!(left);
            CallError::Refused(problem, value)
        }
        CallError::Failed(message, hint) => CallError::Failed(format!("{message} ({others})"), hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, follows: Option<&str>, workflow: bool, state: State) -> RouteRow {
        serde_json::from_value(json!({
            "id": id, "matches": "GET /", "legacy": "shop", "workflow": workflow.then_some("w"), "follows": follows,
            "requested": state, "effective": { "state": state, "why": "requested" },
            "shares": { "shadow": 100.0, "dark": 100.0, "live": 100.0 },
            "pairs": 0, "mismatched": 0, "requests": 0, "overhead_p50_us": null,
        }))
        .unwrap()
    }

    #[test]
    fn followers_go_up_before_their_creator_and_down_after_it() {
        let rows = [
            row("orders.create", None, true, State::Shadow),
            row("orders.get", Some("orders.create"), true, State::Shadow),
            row("orders.list", None, false, State::Off),
            row("orders.cancel", Some("orders.create"), true, State::Live),
            row("ordersx.create", None, true, State::Off),
        ];
        let ids = |to| in_flip_order(&rows, "orders", to).0.into_iter().map(|row| row.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids(State::Only), ["orders.get", "orders.cancel", "orders.create"]);
        assert_eq!(ids(State::Off), ["orders.create", "orders.get", "orders.cancel"]);
        assert_eq!(ids(State::Dark), ["orders.cancel", "orders.get", "orders.create"], "down before up");
        let [create, get, list, mut cancel, other] = rows.clone();
        (cancel.requested, cancel.effective.state) = (State::Only, State::Only);
        let with_only = [create, get, list, cancel, other];
        let down: Vec<&str> =
            in_flip_order(&with_only, "orders", State::Off).0.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(
            down,
            ["orders.cancel", "orders.create", "orders.get"],
            "it answers for nothing that legacy creates"
        );
        assert_eq!(in_flip_order(&rows, "orders", State::Off).1[0].id.as_str(), "orders.list");
        assert!(in_flip_order(&rows, "order", State::Off).0.is_empty());
    }
}
