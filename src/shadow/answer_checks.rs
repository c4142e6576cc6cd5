//! Checks what the engine answered callers: judges the invariants of the route, and asks legacy what it would have
//! answered (`reverse`).
//!
//! Always true: a check begins when the caller has the answer, and nobody waits for it. The memory of all checks is
//! bounded, a route that takes all it can get leaves some for others, and one answer is judged at a time. An answer
//! counts as not judged if there is no room for its check, if its run does not end in time, or if a stop or a kill ends
//! the check.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::reverse::count_reverse;
use super::run::Runner;
use super::shared_bound::SharedBound;
use super::stop::Stop;
use crate::compare::{CompareBounds, Observation, answer_scope};
use crate::evidence::{Evidence, GuardedAnswer, InvariantVerdict, JudgedAnswer};
use crate::exchange::{EngineAnswered, request_value};
use crate::expression::{Expression, ExpressionError, Scope};
use crate::flag::Invariant;
use crate::limits::{Limits, UNRESOLVED_TEXT_BYTES_MAX};
use crate::names::{RouteId, RunId};
use crate::priority;
use crate::secret::{LengthMax, masked_and_cut, redact_line};
use crate::workflow::RunStatus;

/// How long an invariant waits for the end of the run whose calls, or status, it reads.
const RUN_ENDS_WITHIN: Duration = Duration::from_secs(60);
/// How long reading a run's calls may take.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// The bytes that the answers under check may hold in memory.
const CHECKED_BYTES_MAX: u64 = 32 << 20;

/// The checks of answers that are under way.
pub(super) struct AnswerChecks {
    runner: Arc<Runner>,
    memory: Arc<SharedBound>,
    /// One permit: conditions are evaluated for one answer at a time, so that rehearsals have a thread left.
    evaluation: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// Counts an answer as one whose check waits for the end of its run, until this is dropped.
struct PendingCheck {
    evidence: Arc<Evidence>,
    route: RouteId,
}

impl PendingCheck {
    fn begin(evidence: Arc<Evidence>, route: RouteId) -> Self {
        evidence.begin_check(&route);
        Self { evidence, route }
    }
}

impl Drop for PendingCheck {
    fn drop(&mut self) {
        self.evidence.end_check(&self.route);
    }
}

impl AnswerChecks {
    pub(super) fn new(runner: Arc<Runner>) -> Self {
        let (memory, evaluation) = (SharedBound::new(CHECKED_BYTES_MAX), Arc::new(Semaphore::new(1)));
        Self { runner, memory, evaluation, tasks: TaskTracker::new() }
    }

    /// Checks an answer on the threads of this runtime. Never waits.
    pub(super) fn begin(&self, answered: EngineAnswered, runtime: &Runtime, stop: watch::Receiver<Stop>) {
        let bytes = u64::try_from(answered.bytes()).unwrap_or(u64::MAX);
        let why = match self.memory.take(&answered.flag.route.id, bytes) {
            _ if self.tasks.is_closed() => NotJudged::ShuttingDown,
            None => NotJudged::QueueFull,
            Some(reserved) => {
                let (runner, evaluation) = (Arc::clone(&self.runner), Arc::clone(&self.evaluation));
                let (evidence, route) = (Arc::clone(&runner.evidence), answered.counted_as.clone());
                // Only a check that waits for the end of its run is noted, for the next process: one that is judged at
                // once is over soon.
                let waits_for_run =
                    answered.is_stored && answered.flag.route.invariants.iter().any(Invariant::reads_the_run);
                let pending_check = waits_for_run.then(|| PendingCheck::begin(evidence, route));
                let check = async move {
                    runner.check(answered, &evaluation, stop).await;
                    drop((reserved, pending_check));
                };
                runtime.spawn(self.tasks.track_future(priority::yielding(check)));
                return;
            }
        };
        // Conditions (`when:`) are not evaluated on this thread, which serves clients: an invariant that has one counts
        // as applicable.
        let may_apply = |invariant: &&Invariant| invariant.when.is_some() || answered.status.as_u16() < 400;
        self.runner.count_not_judged(&answered, answered.flag.route.invariants.iter().filter(may_apply), why);
        if answered.reverse.is_some() {
            count_reverse(&answered, why.as_str());
        }
    }

    /// Lets no further check begin, and waits for the end of those under way.
    pub(super) async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many checks are under way.
    pub(super) fn under_way(&self) -> usize {
        self.tasks.len()
    }
}

/// Why the invariants of an answer are not judged.
#[derive(Clone, Copy)]
enum NotJudged {
    QueueFull,
    RunGoesOn,
    ShuttingDown,
    OverBudget,
    Failed,
}

impl NotJudged {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::RunGoesOn => "run_goes_on",
            Self::ShuttingDown => "shutting_down",
            Self::OverBudget => "over_budget",
            Self::Failed => "failed",
        }
    }
}

/// What is known of the run when its answer is judged.
struct KnownRun {
    status: Option<&'static str>,
    /// The run whose calls are to be read; `None` if it has sent nothing but reads.
    sent_by: Option<RunId>,
}

/// How far an answer has been judged. Some invariants are judged at once, others when the run has ended; the guard
/// counts the answer once: as a bad one as soon as an invariant is broken, as a good one when all were judged and held.
#[derive(Default)]
struct JudgedSoFar {
    /// Whether at least one invariant held.
    has_held: bool,
    /// Whether at least one invariant was not judged.
    lacks_verdicts: bool,
    /// Whether the guard has counted the answer.
    is_counted: bool,
}

impl JudgedSoFar {
    /// Adds verdicts, and returns as what the guard counts the answer now, if it does. `is_last`: no verdicts follow.
    fn for_guard(&mut self, found: &[(&Invariant, InvariantVerdict)], is_last: bool) -> Option<GuardedAnswer> {
        self.has_held |= found.iter().any(|(_, verdict)| *verdict == InvariantVerdict::Held);
        self.lacks_verdicts |= found.iter().any(|(_, verdict)| matches!(verdict, InvariantVerdict::NotJudged(_)));
        let is_broken = found.iter().any(|(_, verdict)| verdict.is_broken());
        let is_good = is_last && self.has_held && !self.lacks_verdicts;
        let counts = match (is_broken, is_good) {
            _ if self.is_counted => None,
            (true, _) => Some(GuardedAnswer::Bad),
            (false, true) => Some(GuardedAnswer::Good),
            (false, false) => None,
        };
        self.is_counted |= counts.is_some();
        counts
    }
}

impl Runner {
    /// Checks an answer.
    async fn check(&self, answered: EngineAnswered, evaluation: &Semaphore, stop: watch::Receiver<Stop>) {
        let asked = self.compare_with_legacy(&answered, stop.clone());
        let judged = self.judge_invariants(&answered, evaluation, stop);
        tokio::join!(asked, judged);
    }

    async fn judge_invariants(&self, answered: &EngineAnswered, evaluation: &Semaphore, stop: watch::Receiver<Stop>) {
        if answered.flag.route.invariants.is_empty() {
            return;
        }
        let mut judged = JudgedSoFar::default();
        let Some(Ok(permit)) = unless_stopped(evaluation.acquire(), stop.clone()).await else {
            return self.count_not_judged(answered, answered.flag.route.invariants.iter(), NotJudged::ShuttingDown);
        };
        let selected = std::panic::catch_unwind(AssertUnwindSafe(|| applicable_invariants(answered)));
        drop(permit);
        let Ok((invariants, failed)) = selected else {
            return self.count_not_judged(answered, answered.flag.route.invariants.iter(), NotJudged::Failed);
        };
        let for_guard = judged.for_guard(&failed, false);
        self.record(answered, &failed, for_guard);
        let answer = match &answered.answer {
            Ok(answer) => answer,
            Err(unknown) => {
                let found = |invariant| (invariant, InvariantVerdict::NotJudged(unknown.as_str()));
                return self.record(answered, &invariants.into_iter().map(found).collect::<Vec<_>>(), None);
            }
        };
        let (of_run, of_reply): (Vec<_>, Vec<_>) =
            invariants.into_iter().partition(|invariant| answered.is_stored && invariant.reads_the_run());
        let is_last = of_run.is_empty();
        if !of_reply.is_empty() {
            // A run that is not stored has ended, and has sent nothing but reads.
            let known = KnownRun { status: answered.run_status.map(RunStatus::as_str), sent_by: None };
            let so_far = (&mut judged, is_last);
            self.judge_answer(answered, answer, &of_reply, known, so_far, (evaluation, stop.clone())).await;
        }
        if is_last {
            return;
        }
        let ended = async {
            let run = answered.run.ok_or(NotJudged::Failed)?;
            let status = self.twins.ended(run, RUN_ENDS_WITHIN).await.ok_or(NotJudged::RunGoesOn)?;
            Ok(KnownRun { status: Some(status.as_str()), sent_by: Some(run) })
        };
        match unless_stopped(ended, stop.clone()).await.unwrap_or(Err(NotJudged::ShuttingDown)) {
            Ok(known) => {
                let so_far = (&mut judged, true);
                self.judge_answer(answered, answer, &of_run, known, so_far, (evaluation, stop)).await;
            }
            Err(why) => self.count_not_judged(answered, of_run.into_iter(), why),
        }
    }

    async fn judge_answer(
        &self,
        answered: &EngineAnswered,
        answer: &Arc<Observation>,
        invariants: &[&Invariant],
        KnownRun { status, sent_by }: KnownRun,
        (judged, is_last): (&mut JudgedSoFar, bool),
        (evaluation, stop): (&Semaphore, watch::Receiver<Stop>),
    ) {
        let not_judged = |why: NotJudged| InvariantVerdict::NotJudged(why.as_str());
        let Some(Ok(_permit)) = unless_stopped(evaluation.acquire(), stop.clone()).await else {
            return self.count_not_judged(answered, invariants.iter().copied(), NotJudged::ShuttingDown);
        };
        // Read while the permit is held, so that the calls of only one run at a time are in memory.
        let sent = match sent_by {
            None => Some(Vec::new()),
            Some(run) => tokio::time::timeout(READ_WITHIN, self.twins.sent(run)).await.ok().flatten(),
        };
        let Some(sent) = sent else {
            return self.count_not_judged(answered, invariants.iter().copied(), NotJudged::Failed);
        };
        let (headers, body) = (answer.headers().clone(), answer.body().clone());
        let seen = Observation::new(answer.status(), headers, body, answer.latency(), sent);
        let run = json!({ "id": answered.run.map(|run| run.to_string()), "status": status });
        let scope = answer_scope(request_value(&answered.request), &seen, run, &CompareBounds::of(&self.limits));
        let end = Instant::now() + Limits::ms(self.limits.compare_ms);
        let mut found = Vec::new();
        for invariant in invariants {
            let verdict = match &scope {
                _ if *stop.borrow() != Stop::No => not_judged(NotJudged::ShuttingDown),
                Ok(scope) if Instant::now() < end => {
                    priority::yield_core();
                    // A panic in an expression leaves this invariant without a verdict, and nothing else.
                    let judged = std::panic::catch_unwind(AssertUnwindSafe(|| verdict(&invariant.that, scope)));
                    judged.unwrap_or(not_judged(NotJudged::Failed))
                }
                Ok(_) | Err(_) => not_judged(NotJudged::OverBudget),
            };
            found.push((*invariant, verdict));
            tokio::task::yield_now().await;
        }
        let for_guard = judged.for_guard(&found, is_last);
        self.record(answered, &found, for_guard);
    }

    fn count_not_judged<'i>(
        &self,
        answered: &EngineAnswered,
        invariants: impl Iterator<Item = &'i Invariant>,
        why: NotJudged,
    ) {
        let found = |invariant| (invariant, InvariantVerdict::NotJudged(why.as_str()));
        self.record(answered, &invariants.map(found).collect::<Vec<_>>(), None);
    }

    fn record(
        &self,
        answered: &EngineAnswered,
        found: &[(&Invariant, InvariantVerdict)],
        for_guard: Option<GuardedAnswer>,
    ) {
        if found.is_empty() && for_guard.is_none() {
            return;
        }
        let EngineAnswered { flags, counted_as, rung, answered_at, supports_only, run, .. } = answered;
        let answer = JudgedAnswer {
            files_version: flags.files_version,
            rung: *rung,
            answered_at: *answered_at,
            for_guard,
            supports_only: *supports_only,
            run: *run,
        };
        self.evidence.record_invariants(counted_as, &answer, found);
    }
}

/// Waits for `work`; `None` if a stop is asked for before it is done.
async fn unless_stopped<T>(work: impl Future<Output = T>, mut stop: watch::Receiver<Stop>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        _ = stop.wait_for(|stop| *stop != Stop::No) => None,
    }
}

/// The invariants that apply to an answer, and those whose `when:` cannot be evaluated, which have no verdict.
fn applicable_invariants(answered: &EngineAnswered) -> (Vec<&Invariant>, Vec<(&Invariant, InvariantVerdict)>) {
    let invariants = &*answered.flag.route.invariants;
    let status = answered.status.as_u16();
    let scope = invariants.iter().any(|one| one.when.is_some()).then(|| {
        let reply = Arc::new(json!({ "status": status }));
        let mut scope = Scope::new();
        scope.set("request", Arc::new(request_value(&answered.request)));
        scope.set("reply", Arc::clone(&reply)).set("engine", reply);
        scope
    });
    let (mut applicable, mut failed) = (Vec::new(), Vec::new());
    for invariant in invariants {
        match (&invariant.when, &scope) {
            (Some(when), Some(scope)) => match when.holds(scope) {
                Ok(true) => applicable.push(invariant),
                Ok(false) => {}
                Err(_) => failed.push((invariant, InvariantVerdict::NotJudged("when_failed"))),
            },
            _ if status < 400 => applicable.push(invariant),
            _ => {}
        }
    }
    (applicable, failed)
}

fn verdict(that: &Expression, scope: &Scope) -> InvariantVerdict {
    match that.holds(scope) {
        Ok(true) => InvariantVerdict::Held,
        Ok(false) => InvariantVerdict::Broken,
        Err(error) => InvariantVerdict::Error(shown(that, &error)),
    }
}

/// Why a condition cannot be evaluated, without values: it is stored and logged. A path is shown only as it is in the
/// condition; a key in it may be a value of the request.
fn shown(that: &Expression, error: &ExpressionError) -> String {
    match &error.absent {
        Some(path) if !that.source().contains(path.as_str()) => "a value that it looks up is absent".to_owned(),
        _ => masked_and_cut(&error.message, redact_line, LengthMax::Bytes(UNRESOLVED_TEXT_BYTES_MAX)),
    }
}
