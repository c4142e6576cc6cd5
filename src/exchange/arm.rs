//! A request to the engine, and its reply.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tower::util::BoxCloneSyncService;

use super::{
    AnswerBody, Branch, EarlierKeys, KeysOfLegacy, LegacyCalls, Reads, RehearsedEvents, RequestCopy, SetInUse,
};
use crate::compare::{AwaitedIntents, InstanceIds, Intent, Observation};
use crate::expression::CreatedIdSource;
use crate::flag::{Family, InstanceId, PinKey, RetryKeys, UnknownInstance};
use crate::names::{PlanId, PlanSet, RouteId, RunId, StepId, WorkflowName};
use crate::workflow::{Mode, Redaction, RunStatus};

/// A request to the engine ([`EngineArm`]).
#[derive(Clone)]
pub struct ArmRequest {
    /// The route.
    pub route: RouteId,
    /// The version of the files by which it was decided. It is run by the same version; if the engine no longer holds
    /// that version, no run begins.
    pub files_version: u64,
    /// What to run; `None` where the route has no workflow now and only the run of an earlier try is looked up.
    pub workflow: Option<WorkflowName>,
    /// The plans to run, if the files do not decide: those in force of the route, or those of the route's candidate.
    /// Child runs use plans of the same set.
    pub plans: Option<Arc<PlanSet>>,
    /// What the run may send, for its whole life.
    pub mode: Mode,
    /// The request.
    pub request: Arc<RequestCopy>,
    /// What legacy did, where it answered first: `legacy` in `rehearse:` expressions.
    pub legacy: Option<Arc<Observation>>,
    /// The calls that legacy made for the request, for steps that are rehearsed from them (`rehearse: legacy`).
    pub legacy_calls: Option<Arc<dyn LegacyCalls>>,
    /// Records the reads of the run, or answers them in place of the services.
    pub reads: Option<Arc<dyn Reads>>,
    /// The instance that the request follows up.
    pub instance: Option<InstanceId>,
    /// Who answers if nothing is known of that instance, in [`Mode::Real`].
    pub unknown_instance: UnknownInstance,
    /// Where the replies of the instance's creator have the id of an instance. The engine finds there the id that it
    /// gave to the twin of an instance that legacy created.
    pub instance_ids: Option<CreatedIdSource>,
    /// The family, and where the reply has the id of a created instance: the engine pins the instance before the reply
    /// leaves.
    pub creates: Option<(Family, CreatedIdSource)>,
    /// The keys that its retries have: the same scoped key gets the answer of the same run.
    pub retry_keys: Option<RetryKeys>,
    /// Whether a run may begin if no run of an earlier try is found.
    pub may_begin: MayBegin,
    /// The request's keys under the scopes of earlier files. If the engine took the request under one of them, it is
    /// refused.
    pub earlier: EarlierKeys,
    /// In [`Mode::Dark`]: the keys under which legacy took the request. If one of them was taken before, this request
    /// is a retry, and its first try had the dark run.
    pub legacy_keys: Option<KeysOfLegacy>,
    /// Whether the run is stored; a rehearsal never is. A real or dark run that is not stored may only read, and is
    /// dropped if it cannot answer in time.
    pub keep: bool,
    /// Legacy may still answer: where no private or shared step has begun, the engine may return the request as
    /// [`Abandoned`].
    pub may_fall_back: bool,
    /// The answer is due within this time.
    pub deadline: Duration,
    /// In [`Mode::Dark`]: the intents that the comparison reads. The answer is held back as long as one of them may
    /// still be recorded, or until the deadline.
    pub awaited_intents: AwaitedIntents,
    /// The flag set that decided it, in [`Mode::Real`].
    pub set_in_use: Option<SetInUse>,
}

/// Whether a request may begin a run, where no run of an earlier try is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayBegin {
    /// Yes, even while new instances are frozen: for a request in `only`, and for one whose instance the engine owns.
    Always,
    /// Yes, unless new instances are frozen.
    UnlessFrozen,
    /// No: the engine gets the request only as the retry of a first try that the engine took. If no run came of that
    /// first try, legacy takes the retry.
    Never,
}

/// The engine's reply.
#[derive(Clone, Debug)]
pub enum ArmReply {
    /// An answer for the caller (or, in a rehearsal, for the comparison).
    Answer(ArmAnswer),
    /// The engine returns the request, and legacy may be called: no private or shared step has begun or will begin, and
    /// that is on disk (or nothing of the run was handed to the store's writer). Only if `may_fall_back`.
    Abandoned(Abandoned),
    /// No answer: a problem for the caller, which says whether a shared step had begun.
    Refused(ProblemDocument, RunReport),
}

/// The engine as a service: `proxy` and `shadow` send it requests.
pub type EngineArm = BoxCloneSyncService<ArmRequest, ArmReply, Infallible>;

/// An answer.
#[derive(Clone, Debug)]
pub struct ArmAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers that `respond` gives, with `content-type`.
    pub headers: HeaderMap,
    /// The body.
    pub body: AnswerBody,
    /// What the run did.
    pub report: RunReport,
}

/// What a run did, besides its answer.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// The run; `None` if none was made.
    pub run: Option<RunId>,
    /// The plan that the run executes.
    pub plan: Option<PlanId>,
    /// The run's status.
    pub status: Option<RunStatus>,
    /// What its rehearsed steps would have sent, and what its private steps sent in `dark`, in step order; the intents
    /// of a child run are at the position of the step that started it. It is compared, with the sensitive values in
    /// clear, and neither stored nor shown.
    pub intents: Vec<Intent>,
    /// In [`Mode::Rehearse`] and [`Mode::Dark`]: the steps with a call whose `for_each` had no items.
    pub steps_without_items: Vec<StepId>,
    /// In [`Mode::Rehearse`] and [`Mode::Dark`], if the run has not ended: its unfinished steps that have a call or run
    /// a workflow. Their intents may be missing. `None` if the run has ended.
    pub open_steps: Option<Vec<StepId>>,
    /// Why a rehearsal could not continue, and a detail that names the step and expression. The comparison is skipped
    /// with this reason: `unresolved_effect`, `needs_person`, `needs_signal` or `would_pause`.
    pub unresolved: Option<(crate::flag::SkipReason, String)>,
    /// The caller got `respond.pending` because the run outlived the deadline: it is not known yet how the run serves
    /// the request.
    pub outlived_deadline: bool,
    /// The caller got `respond.pending` because the run was paused with an open conflict: it is not known whether the
    /// run serves the request.
    pub pending_in_conflict: bool,
    /// The instance that was pinned.
    pub pinned: Option<PinKey>,
    /// Another run had pinned the instance before.
    pub pin_is_taken: bool,
    /// In [`Mode::Rehearse`] and [`Mode::Dark`], of a follow-up: the ids of the instance and of its twin.
    pub instance: Option<InstanceIds>,
    /// The plan has a `volatile: true` read, which is sent after legacy acted: all differences in the body are of kind
    /// `stale_read`.
    pub stale_reads: bool,
    /// In [`Mode::Rehearse`] and [`Mode::Dark`]: which branch the run took through its workflow.
    pub branch: Branch,
    /// The request does not fit the workflow's own schema, and the workflow declares no answer for that.
    pub refused_by_schema: bool,
    /// The run ended early on purpose, not because the engine failed: a person cancelled it or said no, or a rule of
    /// the workflow ended it.
    pub ended_on_purpose: bool,
    /// The reply is that of an earlier try of the same request.
    pub of_earlier_try: bool,
    /// In [`Mode::Rehearse`]: the first events of the run and of the runs below it, which are in no store, with the
    /// sensitive values in clear.
    pub events: RehearsedEvents,
    /// Replaces the run's sensitive values where people are shown what it did; `None` if it has none.
    pub redaction: Option<Arc<Redaction>>,
    /// The same for the runs below it whose intents are among `intents`.
    pub redactions_below: Vec<Arc<Redaction>>,
    /// In [`Mode::Dark`]: the intents of some runs below this one could not be read.
    pub lacks_intents: bool,
}

/// The reason of [`Abandoned`] where new instances were frozen after the decision.
pub const FROZEN: &str = "frozen";
/// The reason of [`Abandoned`] where the engine no longer holds the version of the files that decided the request.
pub const FILES_CHANGED: &str = "files_changed";
/// The reason of [`Abandoned`] if no run came of the first try and the retry may not begin one.
pub const NO_FIRST_TRY: &str = "no_first_try";
/// The reason of [`Abandoned`] if the engine gave the same request to legacy before.
pub const ABANDONED_BEFORE: &str = "abandoned_before";
/// The reason of [`Abandoned`] if legacy took the first try.
pub const LEGACY_TOOK_FIRST_TRY: &str = "legacy_took_first_try";

/// Why the engine returned a request without having begun a private or shared step; reads may have been sent.
#[derive(Clone, Debug)]
pub struct Abandoned {
    /// Why: one of a closed set, for metrics and logs.
    pub reason: &'static str,
    /// The run that was abandoned, if one was on disk.
    pub run: Option<RunId>,
}

/// An RFC 9457 problem that Pointsman produces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// The HTTP status.
    pub status: u16,
    /// The last part of the problem's type: `engine-unavailable`.
    pub kind: String,
    /// What happened, short and the same for each occurrence.
    pub title: String,
    /// What happened here, and whether trying again could do the work twice.
    pub detail: String,
    /// Where the error came from.
    pub source: Source,
    /// The run, where there is one.
    pub run: Option<RunId>,
    /// Seconds until trying again makes sense.
    pub retry_after_s: Option<u64>,
    /// Whether a step with a shared effect had begun, or may have: in a child run that has not ended, one may have.
    pub shared_step_begun: Option<bool>,
}

impl ProblemDocument {
    const RETRY_KEY_HELD: &str = "retry-key-held";
    const NO_SUCH_INSTANCE: &str = "no-such-instance";

    /// The problem if neither arm is known to have given out the id of the instance, and the route declares that such a
    /// request gets 404.
    pub fn no_such_instance() -> Self {
        Self {
            status: 404,
            kind: Self::NO_SUCH_INSTANCE.into(),
            title: "There is no such instance".into(),
            detail:
                "The engine did not give out this id, and no request has shown that legacy did. Nothing was begun, so \
                     trying again cannot do the work twice."
                    .into(),
            source: Source::Workflow,
            run: None,
            retry_after_s: None,
            shared_step_begun: Some(false),
        }
    }

    /// The problem if the engine has the same request under another credential. Without a verified credential it is not
    /// known whether this is a retry by the same caller or a request of another caller.
    pub fn taken_under_another_credential() -> Self {
        Self {
            status: 409,
            kind: Self::RETRY_KEY_HELD.into(),
            title: "The retry key was used before under another credential".into(),
            detail: "The same request with the same retry key was taken before under another credential, and that one \
                     or this one could not be verified. Nothing was done for this one: send it with the first \
                     credential to get its answer, or with another key to have it done again."
                .into(),
            source: Source::Proxy,
            run: None,
            retry_after_s: None,
            shared_step_begun: None,
        }
    }

    /// The problem if the engine has the same request under the keys that other files give it: the files changed while
    /// the request was under way.
    pub fn taken_under_other_files() -> Self {
        Self {
            title: "The retry key was used before, under other flag files".into(),
            detail: "The same request with the same retry key was taken under other flag files, \
                     which recognise retries in another way. Nothing was done for this one: send it again to get \
                     its answer."
                .into(),
            ..Self::taken_under_another_credential()
        }
    }

    /// The problem if legacy took a request under one of this request's keys, and the engine took one under another. A
    /// request has several keys because earlier files gave it other ones.
    pub fn taken_by_both_arms() -> Self {
        Self {
            title: "The retry key was used before, for requests of both arms".into(),
            detail: "Under earlier flag files, legacy took a request with this retry key and the engine another one, \
                     and it is not known which of them this one repeats. Nothing was done for this one: ask for the \
                     outcome of the first, or send it under another key if it is new."
                .into(),
            ..Self::taken_under_another_credential()
        }
    }

    /// Whether this is one of the problems `taken_…`: an arm has the same request.
    pub fn is_retry_key_taken(&self) -> bool {
        self.kind == Self::RETRY_KEY_HELD
    }
}

/// Where an error came from: the header `x-pointsman-source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The proxy itself.
    Proxy,
    /// The workflow.
    Workflow,
}

impl Source {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Proxy => "proxy",
            Source::Workflow => "workflow",
        }
    }
}
