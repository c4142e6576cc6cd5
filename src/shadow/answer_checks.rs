//! Checks what the engine answered callers: judges the invariants of the route, and asks legacy what it would have
//! answered (`reverse`).
//!
//! Always true: a check begins when the caller has the answer, and nobody waits for it. The memory of all checks is
//! bounded, and so is their number at a time; what finds no room, or whose run has not ended in time, is counted as not
//! judged. A stop ends the checks that wait.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::queue::ByteBudget;
use super::run::Runner;
use super::stop::Stop;
use crate::compare::{CompareBounds, Intent, Observation, answer_scope};
use crate::evidence::{InvariantVerdict, JudgedAnswer};
use crate::exchange::{EndedRun, EngineAnswered, request_value};
use crate::expression::Scope;
use crate::flag::Invariant;
use crate::priority;

/// How long an invariant waits for the end of the run whose calls, or status, it reads.
const RUN_ENDS_WITHIN: Duration = Duration::from_secs(60);
/// The most checks that read runs from the store, or evaluate conditions, at the same time.
const CHECKS_AT_ONCE_MAX: usize = 4;

/// The bytes that the answers under check may hold in memory.
const CHECKED_BYTES_MAX: u64 = 32 << 20;

/// The checks of answers that are under way.
pub(super) struct AnswerChecks {
    runner: Arc<Runner>,
    memory: Arc<ByteBudget>,
    at_once: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl AnswerChecks {
    pub(super) fn new(runner: Arc<Runner>) -> Self {
        let (memory, at_once) = (ByteBudget::new(CHECKED_BYTES_MAX), Semaphore::new(CHECKS_AT_ONCE_MAX));
        Self { runner, memory: Arc::new(memory), at_once: Arc::new(at_once), tasks: TaskTracker::new() }
    }

    /// Checks an answer on the threads of this runtime. Never waits.
    pub(super) fn begin(&self, answered: EngineAnswered, runtime: &Runtime, stop: watch::Receiver<Stop>) {
        let why = match self.memory.reserve(answered.bytes()) {
            _ if self.tasks.is_closed() => NotJudged::ShuttingDown,
            None => NotJudged::QueueFull,
            Some(reserved) => {
                let (runner, at_once) = (Arc::clone(&self.runner), Arc::clone(&self.at_once));
                let check = async move {
                    runner.check(answered, &at_once, stop).await;
                    drop(reserved);
                };
                runtime.spawn(self.tasks.track_future(priority::giving_way(check)));
                return;
            }
        };
        self.runner.count_not_judged(&answered, answered.flag.route.invariants.iter(), why);
    }

    /// Begins no more, and waits for the end of those under way.
    pub(super) async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> u64 {
        self.memory.entries()
    }
}

/// Why the invariants of an answer are not judged.
#[derive(Clone, Copy)]
enum NotJudged {
    QueueFull,
    RunGoesOn,
    ShuttingDown,
    Failed,
}

impl NotJudged {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::RunGoesOn => "run_goes_on",
            Self::ShuttingDown => "shutting_down",
            Self::Failed => "failed",
        }
    }
}

/// What is known of the run when its answer is judged.
struct KnownRun {
    run: Value,
    sent: Vec<Intent>,
}

/// What of an answer was judged so far. Some invariants are judged at once, others when the run has ended; the guard
/// counts the answer once.
#[derive(Default)]
struct JudgedSoFar {
    is_counted: bool,
    is_broken: bool,
}

impl JudgedSoFar {
    /// Whether the guard counts the answer now: with its first verdict, and once more only if that was good and this
    /// one is not.
    fn counts_now(&mut self, found: &[(&Invariant, InvariantVerdict)]) -> bool {
        let is_judged = found.iter().any(|(_, verdict)| !matches!(verdict, InvariantVerdict::NotJudged(_)));
        let is_broken = found.iter().any(|(_, verdict)| verdict.is_broken());
        let counts = is_judged && (!self.is_counted || is_broken && !self.is_broken);
        self.is_counted |= counts;
        self.is_broken |= is_broken;
        counts
    }
}

impl Runner {
    /// Checks an answer.
    async fn check(&self, answered: EngineAnswered, at_once: &Semaphore, stop: watch::Receiver<Stop>) {
        let asked = self.compare_with_legacy(&answered, stop.clone());
        let judged = self.judge_invariants(&answered, at_once, stop);
        tokio::join!(asked, judged);
    }

    async fn judge_invariants(&self, answered: &EngineAnswered, at_once: &Semaphore, mut stop: watch::Receiver<Stop>) {
        let invariants = &*answered.flag.route.invariants;
        let answer = match &answered.answer {
            _ if invariants.is_empty() => return,
            Ok(answer) => answer,
            Err(unknown) => {
                let found = |invariant| (invariant, InvariantVerdict::NotJudged(unknown.as_str()));
                return self.record(answered, &invariants.iter().map(found).collect::<Vec<_>>(), false);
            }
        };
        let (of_run, of_reply): (Vec<_>, Vec<_>) =
            invariants.iter().partition(|invariant| answered.is_stored && invariant.reads_the_run());
        let mut judged = JudgedSoFar::default();
        if !of_reply.is_empty() {
            // A run that is not stored has ended, and has sent nothing but reads.
            let known = KnownRun { run: run_value(answered, "completed"), sent: Vec::new() };
            self.judge_answer(answered, answer, &of_reply, (known, &mut judged), at_once).await;
        }
        if of_run.is_empty() {
            return;
        }
        let ended = async {
            let Some(run) = answered.run else { return Err(NotJudged::Failed) };
            let ended = self.twins.ended(run, RUN_ENDS_WITHIN).await.ok_or(NotJudged::RunGoesOn)?;
            let EndedRun { status, sent } = ended;
            Ok(KnownRun { run: run_value(answered, status.as_str()), sent })
        };
        let known = tokio::select! {
            biased;
            ended = ended => ended,
            _ = stop.wait_for(|stop| *stop != Stop::No) => Err(NotJudged::ShuttingDown),
        };
        match known {
            Ok(known) => self.judge_answer(answered, answer, &of_run, (known, &mut judged), at_once).await,
            Err(why) => self.count_not_judged(answered, of_run.into_iter(), why),
        }
    }

    async fn judge_answer(
        &self,
        answered: &EngineAnswered,
        answer: &Arc<Observation>,
        invariants: &[&Invariant],
        (KnownRun { run, sent }, judged): (KnownRun, &mut JudgedSoFar),
        at_once: &Semaphore,
    ) {
        let Ok(_permit) = at_once.acquire().await else { return };
        priority::give_way();
        // A panic in an expression leaves this answer without a verdict, and nothing else.
        let found = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let (status, headers, body) = (answer.status(), answer.headers().clone(), answer.body().clone());
            let answer = Observation::new(status, headers, body, answer.latency(), sent);
            let request = request_value(&answered.request);
            let scope = answer_scope(request, &answer, run, &CompareBounds::of(&self.limits));
            let judge = |invariant: &&Invariant| {
                let scope = match &scope {
                    Ok(scope) => scope,
                    Err(_) => return Some(InvariantVerdict::NotJudged("over_budget")),
                };
                verdict(invariant, scope, answer.status().as_u16())
            };
            invariants.iter().filter_map(|invariant| Some((*invariant, judge(invariant)?))).collect::<Vec<_>>()
        }));
        match found {
            Ok(found) => {
                let counts_for_guard = judged.counts_now(&found);
                self.record(answered, &found, counts_for_guard);
            }
            Err(_) => self.count_not_judged(answered, invariants.iter().copied(), NotJudged::Failed),
        }
    }

    fn count_not_judged<'i>(
        &self,
        answered: &EngineAnswered,
        invariants: impl Iterator<Item = &'i Invariant>,
        why: NotJudged,
    ) {
        let found = |invariant| (invariant, InvariantVerdict::NotJudged(why.as_str()));
        self.record(answered, &invariants.map(found).collect::<Vec<_>>(), false);
    }

    fn record(&self, answered: &EngineAnswered, found: &[(&Invariant, InvariantVerdict)], counts_for_guard: bool) {
        if found.is_empty() {
            return;
        }
        let EngineAnswered { flags, counted_as, rung, supports_only, run, .. } = answered;
        let (files_version, rung, supports_only, run) = (flags.files_version, *rung, *supports_only, *run);
        let answer = JudgedAnswer { files_version, rung, counts_for_guard, supports_only, run };
        self.evidence.record_invariants(counted_as, &answer, found);
    }
}

fn run_value(answered: &EngineAnswered, status: &str) -> Value {
    json!({ "id": answered.run.map(|run| run.to_string()), "status": status })
}

/// What an invariant says of an answer; `None` if it is not one for it.
fn verdict(invariant: &Invariant, scope: &Scope, status: u16) -> Option<InvariantVerdict> {
    let is_for_it = match &invariant.when {
        None => Ok(status < 400),
        Some(when) => when.holds(scope),
    };
    match is_for_it {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => return Some(InvariantVerdict::Error(format!("`when`: {}", error.message))),
    }
    Some(match invariant.that.holds(scope) {
        Ok(true) => InvariantVerdict::Held,
        Ok(false) => InvariantVerdict::Broken,
        Err(error) => InvariantVerdict::Error(error.message.clone()),
    })
}
