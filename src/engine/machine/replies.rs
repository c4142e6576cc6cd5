//! Replies to callers: the one place where the engine builds answers and problems.
//!
//! Always true: a problem says whether trying again could do the work twice, and whether a shared step was done or may
//! have been.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::engine::machine::run_report::{report, shown_note};
use crate::exchange::{
    ABANDONED_BEFORE, Abandoned, ArmAnswer, ArmReply, LEGACY_TOOK_FIRST_TRY, ProblemDocument, RunReport, Source,
};
use crate::names::RunId;
use crate::workflow::{
    AnswerRecord, DecisionInputs, Failure, FailureKind, Mode, Plan, Run, RunStatus, ShownTexts, StepKind,
    is_without_content, wire,
};

/// The inputs of expressions, and the time of the reply.
type Inputs<'a> = (&'a DecisionInputs, Timestamp);

/// The status that the caller of a run is told. A run that undoes what it did has failed, also while its undoing waits
/// for a person: its caller has that answer already.
pub(in crate::engine) fn status_for_caller(run: &Run) -> RunStatus {
    match run.status() {
        RunStatus::Paused if run.has_begun_compensation() => RunStatus::Compensating,
        status => status,
    }
}

/// The reply of a run, for its caller and for every request with its retry key; `None` while there is none.
pub(in crate::engine) fn of_run(
    run: &Run,
    plan: Option<&Plan>,
    inputs: Inputs<'_>,
    may_fall_back: bool,
) -> Option<ArmReply> {
    let report = report(run, plan);
    if let Some(answer) = run.answer() {
        return Some(answered(answer, report));
    }
    if let Some(superseded) = run.superseded() {
        return Some(superseded_reply(run, plan, superseded.successor));
    }
    match status_for_caller(run) {
        RunStatus::Abandoned if may_fall_back => {
            Some(ArmReply::Abandoned(Abandoned { reason: ABANDONED_BEFORE, run: Some(run.id()) }))
        }
        RunStatus::Abandoned => Some(ArmReply::Refused(given_to_legacy(Some(run.id())), report)),
        RunStatus::Failed | RunStatus::Cancelled | RunStatus::Compensating => {
            let problem = run.failure().map(|failure| failed(run, plan, failure));
            Some(ArmReply::Refused(problem.unwrap_or_else(|| unknown(Some(run), "the run failed")), report))
        }
        RunStatus::Paused | RunStatus::WaitingCheckpoint => Some(pending(run, plan, inputs).unwrap_or_else(|| {
            let detail = shown_note(run, plan).unwrap_or_else(|| "it asks a person".into());
            let detail = format!("The run waits for a person: {detail}. A person decides how it goes on.");
            ArmReply::Refused(waits_for_person(run, "The run waits for a person", &detail), report.clone())
        })),
        RunStatus::Queued | RunStatus::Running | RunStatus::WaitingSignal | RunStatus::Completed => None,
    }
}

/// The reply while a run below this one waits for a person or a signal, so that the caller is not made to wait.
pub(in crate::engine) fn descendant_waits(run: &Run, plan: Option<&Plan>, inputs: Inputs<'_>) -> ArmReply {
    match still_running(run, plan, inputs) {
        ArmReply::Refused(_, report) => {
            let title = "A run below this one waits for a person or a signal";
            let detail = "A run that this one began waits for a person or a signal; this one goes on after that.";
            ArmReply::Refused(waits_for_person(run, title, detail), report)
        }
        reply => reply,
    }
}

fn waits_for_person(run: &Run, title: &str, detail: &str) -> ProblemDocument {
    ProblemDocument {
        status: 503,
        kind: "run-paused".into(),
        title: title.into(),
        detail: format!(
            "{detail} Sending the request again with the same retry key is safe: no work is done twice, and it gets the \
             run's answer. Without one it could do the work twice."
        ),
        source: Source::Workflow,
        run: Some(run.id()),
        retry_after_s: Some(30),
        shared_step_begun: Some(run.shared_begun()),
    }
}

/// The reply of a superseded run, where the result of its successor is not known here: its pending answer, or a problem
/// that tells the caller to try again.
fn superseded_reply(run: &Run, plan: Option<&Plan>, successor: RunId) -> ArmReply {
    if let Some(answer) = run.pending() {
        return answered(answer, report(run, plan));
    }
    let detail = format!(
        "A person requested a rerun: {successor} takes the place of this run. Sending the request again with the same retry \
         key is safe: no work is done twice, and it gets the rerun's answer. Without one it could do the work twice."
    );
    ArmReply::Refused(goes_on(run, successor, detail), report(run, plan))
}

fn goes_on(run: &Run, answering_run: RunId, detail: String) -> ProblemDocument {
    ProblemDocument {
        status: 503,
        kind: "run-goes-on".into(),
        title: "The run has no answer yet".into(),
        detail,
        source: Source::Workflow,
        run: Some(answering_run),
        retry_after_s: Some(1),
        shared_step_begun: Some(run.shared_begun()),
    }
}

/// The `respond.pending` answer that the caller of a run was given, while the run that has taken its place has no
/// answer: the id in it leads to that run.
pub(in crate::engine) fn pending_of_predecessor(run: &Run, successor: &Run, plan: Option<&Plan>) -> Option<ArmReply> {
    let is_open = match status_for_caller(successor) {
        RunStatus::Failed | RunStatus::Cancelled | RunStatus::Compensating => successor.superseded().is_some(),
        RunStatus::Abandoned | RunStatus::Completed => false,
        RunStatus::Queued
        | RunStatus::Running
        | RunStatus::Paused
        | RunStatus::WaitingCheckpoint
        | RunStatus::WaitingSignal => true,
    };
    let pending = run.pending().filter(|_| is_open && successor.answer().is_none())?;
    Some(answered(pending, report(successor, plan)))
}

/// The reply at the caller's deadline, while the run goes on.
pub(in crate::engine) fn still_running(run: &Run, plan: Option<&Plan>, inputs: Inputs<'_>) -> ArmReply {
    if let Some(reply) = to_compare(run, plan, inputs) {
        return reply;
    }
    // Not in shadow and dark: a pending answer must not be compared with legacy's final one.
    let mut pending = pending(run, plan, inputs).filter(|_| run.mode() == Mode::Real);
    let waits_for_person = matches!(status_for_caller(run), RunStatus::WaitingCheckpoint | RunStatus::Paused);
    if let Some(ArmReply::Answer(answer)) = &mut pending {
        answer.report.outlived_deadline = !waits_for_person;
    }
    pending.unwrap_or_else(|| {
        let detail = "The run goes on. Sending the request again with the same retry key is safe: no work is done twice, \
                      and it gets the run's answer. Without one it could do the work twice.";
        ArmReply::Refused(goes_on(run, run.id(), detail.into()), report(run, plan))
    })
}

/// The reply that is compared although the run has not ended: in shadow and dark, if a caller would have been answered
/// by now. The report names the steps that have not ended.
fn to_compare(run: &Run, plan: Option<&Plan>, inputs: Inputs<'_>) -> Option<ArmReply> {
    let has_reply = run.answer().is_some() || status_for_caller(run) == RunStatus::Compensating;
    if run.mode() == Mode::Real || !has_reply { None } else { of_run(run, plan, inputs, false) }
}

/// The reply where a run that is not stored has passed its deadline: the run is dropped.
pub(in crate::engine) fn unstored_past_deadline(run: &Run, plan: &Plan, inputs: Inputs<'_>) -> ArmReply {
    if let Some(reply) = to_compare(run, Some(plan), inputs) {
        return reply;
    }
    let (title, detail) = match run.mode() {
        Mode::Rehearse => ("The rehearsal did not end in time", "Nothing but reads was sent."),
        Mode::Dark | Mode::Real => ("The workflow did not end in time", NOTHING_STORED),
    };
    unstored(run, plan, 504, "deadline", title, detail.into())
}

/// The reply where a run that is not stored cannot go on without a person: the run is dropped.
pub(in crate::engine) fn unstored_and_paused(run: &Run, plan: &Plan) -> ArmReply {
    let why = run.shown_note(plan).unwrap_or_else(|| "a person would have to decide".into());
    unstored(run, plan, 503, "workflow-stuck", "The workflow cannot go on", format!("{why}. {NOTHING_STORED}"))
}

const ONLY_READS: &str = "Nothing but reads was done.";
/// The end of the detail for a caller whose run was not stored.
const NOTHING_STORED: &str =
    "Nothing but reads was sent, and nothing of the run is kept: sending the request again is safe.";

fn unstored(run: &Run, plan: &Plan, status: u16, kind: &str, title: &str, detail: String) -> ArmReply {
    let problem = ProblemDocument {
        status,
        kind: kind.into(),
        title: title.into(),
        detail,
        source: Source::Workflow,
        run: (run.mode() != Mode::Real).then(|| run.id()),
        retry_after_s: (status == 503).then_some(1),
        shared_step_begun: Some(false),
    };
    ArmReply::Refused(problem, report(run, Some(plan)))
}

/// Removes the run's id from the reply of a run that is not stored: nobody can look it up.
pub(in crate::engine) fn without_run(reply: ArmReply) -> ArmReply {
    match reply {
        ArmReply::Refused(mut problem, report) => {
            if let Some((why, _advice_for_stored_runs)) = problem.detail.split_once(ONLY_READS) {
                problem.detail = format!("{why}{NOTHING_STORED}");
            }
            ArmReply::Refused(ProblemDocument { run: None, ..problem }, report)
        }
        reply => reply,
    }
}

/// The `respond.pending` answer: the recorded one, or, where the run creates no instance, evaluated now.
fn pending(run: &Run, plan: Option<&Plan>, inputs: Inputs<'_>) -> Option<ArmReply> {
    if let Some(answer) = run.pending() {
        return Some(answered(answer, report(run, plan)));
    }
    if run.mode() == Mode::Real && run.started().creates.is_some() {
        return None; // the answer would contain the id of an instance that is not pinned
    }
    let answer = wire::pending_answer(plan?, &inputs.0.at(inputs.1), run)?;
    Some(answered(&answer, report(run, plan)))
}

/// A recorded answer as an HTTP reply.
pub(in crate::engine) fn answered(record: &AnswerRecord, report: RunReport) -> ArmReply {
    let mut headers = HeaderMap::new();
    // A reply with such a status ends after its headers (RFC 9110), so that the record's body is neither sent nor
    // compared, and no type of it either. A content type that the workflow declares is sent.
    let body = if is_without_content(record.status) { Vec::new() } else { record.body.bytes() };
    let is_of_unsent_body = |name: &str| record.is_type_of_unsent_body && name == CONTENT_TYPE.as_str();
    for (name, value) in record.headers.iter().filter(|(name, _)| !is_of_unsent_body(name)) {
        // Only a record of an earlier version holds a value that no header can hold.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            // Headers for which the map has no room are left out. The check of workflows refuses that many; a record of
            // an earlier version may have them.
            let _is_full = headers.try_append(name, value);
        }
    }
    // `workflow` records only valid statuses.
    let status = StatusCode::from_u16(record.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ArmReply::Answer(ArmAnswer { status, headers, body: body.into(), report })
}

/// The reply to a request for which no run was started.
pub(in crate::engine) fn not_started(may_fall_back: bool, status: u16, reason: &'static str, detail: &str) -> ArmReply {
    if may_fall_back {
        return ArmReply::Abandoned(Abandoned { reason, run: None });
    }
    let problem = ProblemDocument {
        status,
        kind: reason.replace('_', "-"),
        title: "The workflow was not started".into(),
        detail: format!("{detail}. Nothing was done: sending the request again is safe."),
        source: Source::Workflow,
        run: None,
        retry_after_s: (status == 503).then_some(1),
        shared_step_begun: Some(false),
    };
    ArmReply::Refused(problem, RunReport::default())
}

/// The reply to a request whose retry key belongs to another request.
pub(in crate::engine) fn other_request(run: RunId) -> ArmReply {
    let problem = ProblemDocument {
        status: 422,
        kind: "retry-key-reused".into(),
        title: "The retry key belongs to another request".into(),
        detail: "The same key came before with another request. Nothing was done for this one: sending it again with \
                 a key of its own is safe."
            .into(),
        source: Source::Workflow,
        run: Some(run),
        retry_after_s: None,
        shared_step_begun: None,
    };
    ArmReply::Refused(problem, RunReport { run: Some(run), ..RunReport::default() })
}

/// The problem where it is unknown whether the run's events were stored, or what it did.
pub(in crate::engine) fn unknown(run: Option<&Run>, why: &str) -> ProblemDocument {
    unknown_of(run.map(Run::id), why, run.map(Run::shared_begun))
}

/// As [`unknown`], where only the id of the run is known.
pub(in crate::engine) fn unknown_of(run: Option<RunId>, why: &str, shared_step_begun: Option<bool>) -> ProblemDocument {
    ProblemDocument {
        status: 503,
        kind: "outcome-unknown".into(),
        title: "The outcome is unknown".into(),
        detail: format!(
            "It is unknown what became of the request ({why}). Without a retry key, sending it again could do the work \
             twice."
        ),
        source: Source::Workflow,
        run,
        retry_after_s: Some(5),
        shared_step_begun,
    }
}

/// A reply to one request, in the form for another request with the same retry key.
pub(in crate::engine) fn shared_reply(reply: ArmReply, may_fall_back: bool) -> ArmReply {
    match reply {
        ArmReply::Abandoned(abandoned) if !may_fall_back => {
            ArmReply::Refused(given_to_legacy(abandoned.run), RunReport::default())
        }
        reply => reply,
    }
}

/// The reply where legacy took the first try of the retry key.
pub(in crate::engine) fn taken_by_legacy(may_fall_back: bool) -> ArmReply {
    match may_fall_back {
        true => ArmReply::Abandoned(Abandoned { reason: LEGACY_TOOK_FIRST_TRY, run: None }),
        false => {
            // It is not known whether it was this request: legacy's requests are passed on before their body is read.
            let detail = "An earlier request with this retry key went to legacy, so nothing was done here. If it was the same \
                          request, sending it again could do the work twice: whether legacy did it is not known here. If it \
                          was another one (for example, for another instance), this request needs a key of its own.";
            let title = "Legacy took the first request with this retry key".into();
            let problem = ProblemDocument { title, detail: detail.into(), ..given_to_legacy(None) };
            ArmReply::Refused(problem, RunReport::default())
        }
    }
}

fn given_to_legacy(run: Option<RunId>) -> ProblemDocument {
    ProblemDocument {
        status: 503,
        kind: "given-to-legacy".into(),
        title: "The request was given back to legacy".into(),
        detail: "An earlier try with this retry key was given back to legacy before anything was done here. Whether \
                 legacy did it is not known here; sending it again could do the work twice."
            .into(),
        source: Source::Workflow,
        run,
        retry_after_s: None,
        shared_step_begun: Some(false),
    }
}

/// The title where something did not come in time.
fn timed_out(plan: Option<&Plan>, failure: &Failure) -> &'static str {
    let step = failure.step.as_ref().map(|step| plan.and_then(|plan| plan.step(step)).map(|(_, step)| &step.kind));
    match step {
        None => "The workflow's deadline has passed",
        Some(None) => "A step of the workflow did not end in time",
        Some(Some(StepKind::Wait(_))) => "A signal that the workflow waits for did not come in time",
        Some(Some(_)) => "A service that the workflow needs did not answer in time",
    }
}

fn failed(run: &Run, plan: Option<&Plan>, failure: &Failure) -> ProblemDocument {
    let title = match failure.kind {
        FailureKind::Refused => "A service refused a step of the workflow",
        FailureKind::Unavailable => "A service that the workflow needs is not available",
        FailureKind::TimedOut => timed_out(plan, failure),
        FailureKind::Broken => "A service that the workflow needs failed",
        FailureKind::Schema => "A service's reply does not match the schema of a step of the workflow",
        FailureKind::Cancelled => "The run was cancelled",
        FailureKind::Rejected => "A person said no to a step of the workflow",
        FailureKind::ChildFailed => "A workflow that this one runs did not complete",
        FailureKind::Expression
        | FailureKind::Unresolved
        | FailureKind::Bound
        | FailureKind::NoAnswer
        | FailureKind::NeedsPerson
        | FailureKind::NeedsSignal
        | FailureKind::WouldPause => "The workflow failed",
        FailureKind::Declared => "The workflow ended early",
    };
    let is_decided = run.ended_on_purpose();
    let (done, risk) = match (run.shared_begun(), run.effects_begun()) {
        (true, _) => ("A shared step was done or may have been.", ", which could do work twice"),
        (false, true) => ("No shared step was done.", ""),
        (false, false) => (ONLY_READS, ""),
    };
    let message = match plan {
        Some(plan) => ShownTexts::of(plan, run).failure(failure),
        // Without the plan it is not known which parts of the message may be shown.
        None if run.holds_sensitive() => "The run failed; why cannot be shown, because its plan cannot be read".into(),
        None => failure.message.as_str().into(),
    };
    ProblemDocument {
        status: match failure.kind {
            // The child did not fail: a person or a rule of its workflow decided against it.
            FailureKind::ChildFailed if is_decided => FailureKind::Cancelled.default_status(),
            _ => failure.default_status(),
        },
        kind: format!("workflow-{}", failure.kind.as_str().replace('_', "-")),
        title: title.into(),
        detail: format!(
            "{message}. {done} Sending the request again with the same retry key does nothing and gets this answer; without \
             one, or with another, it is a new request{risk}."
        ),
        source: Source::Workflow,
        run: Some(run.id()),
        retry_after_s: failure.retry_after_ms.map(|ms| ms.div_ceil(1_000)),
        shared_step_begun: Some(run.shared_begun()),
    }
}
