//! What the conditions of a route read of an answer that the engine gave, where legacy gave none.

use std::sync::Arc;

use serde_json::Value;

use super::assert::{effects, intents, reply};
use super::bounds::{BoundExceeded, CompareBounds};
use super::compared_body::ComparedBody;
use super::observation::Observation;
use crate::expression::{EFFECTS, Scope};

/// The names `request`, `reply` (which is also called `engine`), `run`, `intents` and `effects` with their values. The
/// intents of `answer` are the calls that the run sent.
///
/// # Errors
/// The body is too large, or nested too deeply.
pub fn answer_scope(
    request: Value,
    answer: &Observation,
    run: Value,
    bounds: &CompareBounds,
) -> Result<Scope, BoundExceeded> {
    let reply = Arc::new(reply(answer, ComparedBody::of(answer, bounds)?.value()));
    let mut scope = Scope::new();
    scope.set("request", Arc::new(request)).set("reply", Arc::clone(&reply)).set("engine", reply);
    scope.set("run", Arc::new(run));
    scope.set("intents", Arc::new(intents(answer))).set(EFFECTS, Arc::new(effects(answer)));
    Ok(scope)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::compare::Intent;
    use crate::compare::tests::{BOUNDS, reply};
    use crate::expression::Expression;

    #[test]
    fn conditions_read_the_reply_the_run_and_what_it_sent() {
        let of = reply(201, &[("content-type", "application/json")], r#"{"total": 12}"#);
        let sent = vec![Intent {
            step: "charge".into(),
            item: None,
            method: http::Method::POST,
            url: "http://bank/charges".to_owned(),
            headers: Vec::new(),
            body: json!({ "amount": 12 }),
            service: None,
            bytes: None,
            taken_from: None,
        }];
        let headers = of.headers().clone();
        let answer = Observation::new(of.status(), headers, of.body().clone(), Duration::ZERO, sent);
        let run = json!({ "id": "r1", "status": "completed" });
        let scope = answer_scope(json!({ "method": "POST" }), &answer, run, &BOUNDS).unwrap();
        for (condition, holds) in [
            ("reply.status == 201 && engine.body.total == 12", true),
            (r#"size(effects("charge")) == 1 && effects("charge")[0].body.amount == reply.body.total"#, true),
            (r#"intents.charge.body.amount > 12"#, false),
            (r#"run.status == "completed" && request.method == "POST""#, true),
        ] {
            assert_eq!(Expression::parse(condition).unwrap().holds(&scope), Ok(holds), "{condition}");
        }
    }
}
