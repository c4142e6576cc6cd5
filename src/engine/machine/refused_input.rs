//! The reply to a request whose body the workflow refuses or cannot read. No run is made for it.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::engine::machine::replies::answered;
use crate::exchange::{AnswerBody, ArmAnswer, ArmReply, RunReport, Source};
use crate::workflow::{DecisionInputs, Plan, Redaction, Run, ShownTexts, input_refused};

/// The answer that `respond` declares for such a request, or a problem document, which also says why the declared
/// answer could not be given. `run` is the run as it would have begun. Although none was made, a sample of the request
/// must not show its sensitive values.
pub(in crate::engine) fn reply(
    run: Option<&Run>,
    plan: &Plan,
    decision_inputs: &DecisionInputs,
    why: &[String],
) -> ArmReply {
    let declared = run.map_or(Ok(None), |run| input_refused(run, plan, decision_inputs, &why.join("; ")));
    let (declared, no_value) = match declared {
        Ok(declared) => (declared, None),
        Err(failure) => {
            let texts = run.map(|run| ShownTexts::of(plan, run));
            let message = texts.map(|texts| texts.failure(&failure).into_owned());
            (
                None,
                message.map(|message| format!("the answer that `respond` declares for this has no value: {message}")),
            )
        }
    };
    let redaction = Redaction::of_refused(plan, run, declared.as_ref()).map(Arc::new);
    let report = RunReport { redaction, ..RunReport::default() };
    match declared {
        Some(answer) => answered(&answer, report),
        None => {
            let why: Vec<String> = why.iter().cloned().chain(no_value).collect();
            problem(&why.join("; "), RunReport { refused_by_schema: true, ..report })
        }
    }
}

fn problem(why: &str, report: RunReport) -> ArmReply {
    let body = serde_json::json!({
        "type": "urn:pointsman:problem:bad-input",
        "title": "The workflow does not accept the request",
        "status": 422,
        "detail": why,
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert("x-pointsman-source", HeaderValue::from_static(Source::Workflow.as_str()));
    let (status, body) = (StatusCode::UNPROCESSABLE_ENTITY, AnswerBody::from(body.to_string()));
    ArmReply::Answer(ArmAnswer { status, headers, body, report })
}
