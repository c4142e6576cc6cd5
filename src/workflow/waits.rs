//! What a run that has not ended waits for, since when, and what would let it go on.
//!
//! Always true: a run that has not ended has at least one reason to wait. A run without one is a bug, and the watchdog
//! reports it. Reasons are a closed set; times come from the events, because the run's state has none.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::calls::{CallState, Phase, all_calls};
use super::due::due;
use super::span::{ago, ahead};
use super::{
    Action, Conditions, ConflictKind, DecisionInputs, EffectClass, Plan, Run, ShownTexts, StepKind, StepPart,
    WaitStartTimes,
};
use crate::names::{CheckpointId, RunId, ServiceName, StepId};

/// One thing that a run waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitReason {
    /// The kind of reason.
    pub kind: WaitKind,
    /// Which step.
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
    /// Until when at most, where that is known.
    pub until: Option<Timestamp>,
    /// For a person: what it waits for, since when, and what would let it go on.
    pub sentence: String,
}

/// Kinds of reasons to wait.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitKind {
    /// A call is under way.
    Call,
    /// The next attempt of a call, at a time.
    Retry,
    /// The breaker of a service is open; the next attempt is made when the breaker admits a call again.
    Breaker(ServiceName),
    /// People are asked.
    Checkpoint(CheckpointId),
    /// A time.
    Time,
    /// A signal.
    Signal(String),
    /// A lock.
    Lock(String),
    /// A child run.
    Child(RunId),
    /// Private and shared steps are frozen.
    Held,
    /// Somebody paused it.
    Paused,
    /// A person decides.
    Conflict(ConflictKind),
    /// Nothing: an action is due, and the run goes on at once.
    Due,
    /// Its own deadline.
    Deadline,
}

impl WaitKind {
    /// The label.
    pub fn as_str(&self) -> &'static str {
        match self {
            WaitKind::Call => "call",
            WaitKind::Retry => "retry",
            WaitKind::Breaker(_) => "breaker",
            WaitKind::Checkpoint(_) => "checkpoint",
            WaitKind::Time => "time",
            WaitKind::Signal(_) => "signal",
            WaitKind::Lock(_) => "lock",
            WaitKind::Child(_) => "child",
            WaitKind::Held => "held",
            WaitKind::Paused => "paused",
            WaitKind::Conflict(_) => "conflict",
            WaitKind::Due => "due",
            WaitKind::Deadline => "deadline",
        }
    }
}

/// The reasons why a run waits: first those on which a person can act, then what happens by itself. An empty list for a
/// run that has not ended is a bug. The sentences are for people: stars stand for texts that were made from sensitive
/// values.
pub fn waits(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    conditions: Conditions,
    since: &WaitStartTimes,
) -> Vec<WaitReason> {
    let texts = ShownTexts::of(plan, run);
    let actions = due(run, plan, inputs, conditions);
    let held = actions.iter().filter_map(|action| match action {
        Action::Held(index) => plan.steps.get(index.0).map(|step| &step.id),
        _ => None,
    });
    let mut all = Reasons {
        plan,
        texts: &texts,
        since,
        now: conditions.now,
        pause_ends: pause_ends(run),
        held: held.collect(),
        reasons: Vec::new(),
    };
    if run.is_final() {
        return all.reasons;
    }
    if let Some(pause) = &run.pause {
        let why = pause.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        let what = format!("{} paused it{why}", pause.by);
        let action = match run.is_ending() && run.compensates() {
            true => "resume it, and it ends and undoes what it did; `cancel --no-undo` ends it without undoing",
            false => "resume it",
        };
        all.push(WaitKind::Paused, None, since.paused, None, what, action);
    }
    for conflict in run.conflicts() {
        let what = format!("a person decides: {}", texts.conflict(conflict));
        let unblocked_by = format!("choose one of {}", conflict.choices.join(", "));
        let at = since.at(&conflict.step, conflict.item);
        all.push(
            WaitKind::Conflict(conflict.kind),
            Some((&conflict.step, conflict.item)),
            at,
            None,
            what,
            &unblocked_by,
        );
    }
    for asked in run.open_checkpoints() {
        let who = if asked.who.is_empty() { "anybody who may decide".to_owned() } else { asked.who.join(" or ") };
        let what = format!("`{}` waits for {who}: {}", asked.step, texts.question(asked));
        let unblocked_by = format!("answer {}", asked.checkpoint);
        let about = Some((&asked.step, asked.item));
        all.push(
            WaitKind::Checkpoint(asked.checkpoint.clone()),
            about,
            Some(asked.at),
            asked.until,
            what,
            &unblocked_by,
        );
    }
    all.held(run);
    all.interactions(run);
    all.calls(run);
    all.due(&actions);
    if let Some(until) = run.started.until.filter(|_| run.failing.is_none()) {
        let what = "its deadline ends it".to_owned();
        all.push(WaitKind::Deadline, None, Some(run.started.started), Some(until), what, "that time");
    }
    all.reasons
}

/// What ends the pause of a paused run, as a clause for people. No attempt begins during a pause, even if its time has
/// come.
fn pause_ends(run: &Run) -> Option<&'static str> {
    match (run.conflicts().is_empty(), run.pause.is_some()) {
        (true, false) => None,
        (false, false) => Some("the decision about the conflict, before which no attempt begins"),
        (true, true) => Some("to resume the run, before which no attempt begins"),
        (false, true) => Some("the decision about the conflict, and then to resume the run: no attempt begins before"),
    }
}

/// The words before the name of a step that tell which of its calls is meant.
fn prefix(part: StepPart) -> &'static str {
    match part {
        StepPart::Do => "",
        StepPart::Probe => "the probe of ",
        StepPart::Undo => "the undo of ",
    }
}

struct Reasons<'a> {
    plan: &'a Plan,
    texts: &'a ShownTexts,
    since: &'a WaitStartTimes,
    now: Timestamp,
    pause_ends: Option<&'static str>,
    /// The steps of which a freeze holds something that would begin now or later.
    held: BTreeSet<&'a StepId>,
    reasons: Vec<WaitReason>,
}

impl Reasons<'_> {
    fn push(
        &mut self,
        kind: WaitKind,
        about: Option<(&StepId, Option<u32>)>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        what: String,
        unblocked_by: &str,
    ) {
        let mut sentence = what;
        if let Some(item) = about.and_then(|(_, item)| item) {
            sentence.push_str(&format!(", item {item}"));
        }
        if let Some(since) = since {
            sentence.push_str(&format!("; since {}", ago(since, self.now)));
        }
        if let Some(until) = until {
            sentence.push_str(&format!("; until {}", ahead(until, self.now)));
        }
        sentence.push_str(&format!("; what would resume it: {unblocked_by}"));
        let (step, item) = about.map_or((None, None), |(step, item)| (Some(step.clone()), item));
        self.reasons.push(WaitReason { kind, step, item, since, until, sentence });
    }

    /// Adds what a freeze of private and shared steps holds.
    fn held(&mut self, run: &Run) {
        const HELD: &str = "is held: private and shared steps are frozen";
        for step in self.held.clone() {
            let calls = all_calls(&run.steps, &run.side_calls)
                .filter(|(of, _, part, call)| *of == step && self.is_held(step, *part, call));
            let calls: Vec<_> = calls.collect();
            if calls.is_empty() {
                let what = format!("`{step}` {HELD}");
                self.push(WaitKind::Held, Some((step, None)), self.since.last, None, what, "the end of the freeze");
            }
            for (_, item, part, call) in calls {
                let why = call.why.as_ref().map_or_else(String::new, |why| format!(" (it is tried again: {why})"));
                let what = format!("the next attempt of {}`{step}` {HELD}{why}", prefix(part));
                let ends = "the end of the freeze";
                let unblocked_by = match call.phase {
                    Phase::Waiting(next) if next > self.now => {
                        format!("{ends}, but not before {}", ahead(next, self.now))
                    }
                    _ => ends.to_owned(),
                };
                let at = self.since.at(step, item);
                self.push(WaitKind::Held, Some((step, item)), at, None, what, &unblocked_by);
            }
        }
    }

    /// Whether a freeze holds the next attempt of a call. A probe only reads, so that it is never held.
    fn is_held(&self, step: &StepId, part: StepPart, call: &CallState) -> bool {
        let waits = matches!(call.phase, Phase::Waiting(_));
        waits && part != StepPart::Probe && call.effect != EffectClass::Read && self.held.contains(step)
    }

    /// Adds waits, locks and child runs.
    fn interactions(&mut self, run: &Run) {
        let since = self.since;
        let open = run.failing.is_none();
        for (step, wait) in run.interactions.waits.iter().filter(|_| open) {
            let about = Some((step, None));
            let at = since.at(step, None);
            match &wait.signal {
                Some(name) => {
                    // A signal that the step takes would have ended the wait, so these were refused.
                    let refused = run.interactions.signals.iter().filter(|signal| signal.name == *name).count();
                    let came = match refused {
                        0 => String::new(),
                        1 => "; one came that its `where` refuses".to_owned(),
                        more => format!("; {more} came that its `where` refuses"),
                    };
                    let what = format!("`{step}` waits for the signal `{name}`{came}");
                    self.push(WaitKind::Signal(name.clone()), about, at, wait.until, what, "send that signal");
                }
                None => {
                    let what = format!("`{step}` waits for a time");
                    self.push(WaitKind::Time, about, at, wait.until, what, "that time, or skip the step");
                }
            }
        }
        for ((step, item), queued) in run.interactions.queue_entries.iter().filter(|(_, queued)| open && !queued.taken)
        {
            let what = format!("`{step}` stands in the queue of the lock `{}`", queued.name);
            let (about, at) = (Some((step, *item)), since.at(step, *item));
            self.push(
                WaitKind::Lock(queued.name.clone()),
                about,
                at,
                None,
                what,
                "the release of the lock by its holder",
            );
        }
        for ((step, item), child) in &run.interactions.children {
            let what = format!("`{step}` waits for {} of `{}`", child.run, child.workflow);
            let (about, at) = (Some((step, *item)), since.at(step, *item));
            let unblocked_by = "the end of that run (`explain` says what it waits for)";
            self.push(WaitKind::Child(child.run), about, at, None, what, unblocked_by);
        }
    }

    /// Adds calls, probes and undos.
    fn calls(&mut self, run: &Run) {
        for (step, item, part, call) in all_calls(&run.steps, &run.side_calls) {
            if !self.is_held(step, part, call) {
                self.call(step, item, part, call);
            }
        }
    }

    fn call(&mut self, step: &StepId, item: Option<u32>, part: StepPart, call: &CallState) {
        let prefix = prefix(part);
        let (about, at) = (Some((step, item)), self.since.at(step, item));
        match call.phase {
            Phase::InFlight => {
                let request = format!("{} {}", call.request.method, self.texts.url(step, part, &call.request.url));
                let what = format!("attempt {} of {prefix}`{step}` is under way ({request})", call.attempt);
                self.push(WaitKind::Call, about, at, call.until, what, "the service's answer, or its time-out");
            }
            Phase::ToProbe(next) => {
                let why = call.why.clone().unwrap_or_default();
                let what = format!(
                    "it is unknown whether `{step}` was done ({why}); its probe asks, and nothing is sent again"
                );
                self.attempt(WaitKind::Retry, about, next, what, "that time: then the probe asks");
            }
            Phase::Waiting(next) => {
                let why = call.why.clone().unwrap_or_default();
                let service = self.plan.step(step).and_then(|(_, step)| step.call(part)).map(|call| &call.service);
                let open_breaker =
                    service.filter(|service| why.contains(&format!("the breaker of `{service}` is open")));
                let kind = open_breaker.map_or(WaitKind::Retry, |service| WaitKind::Breaker(service.clone()));
                let tried = if part == StepPart::Probe { "is asked" } else { "is tried" };
                let what = format!("{prefix}`{step}` {tried} again: {why}");
                self.attempt(kind, about, next, what, "that time, or retry it now");
            }
            // The reason is added by the entry of the probe, or of the conflict over the call.
            Phase::Probing | Phase::AwaitsDecision => {}
        }
    }

    /// Adds an attempt that begins at a time, or later if the run is paused then.
    fn attempt(
        &mut self,
        kind: WaitKind,
        about: Option<(&StepId, Option<u32>)>,
        next: Timestamp,
        what: String,
        unblocked_by: &str,
    ) {
        let at = about.and_then(|(step, item)| self.since.at(step, item));
        let (until, unblocked_by) = self.pause_ends.map_or((Some(next), unblocked_by), |ends| (None, ends));
        self.push(kind, about, at, until, what, unblocked_by);
    }

    /// Adds actions that are due.
    fn due(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Child { step, item } => {
                    let Some(step) = self.plan.steps.get(step.0) else { continue };
                    let workflow = match &step.kind {
                        StepKind::Run(child) => child.workflow.as_str(),
                        _ => "another workflow",
                    };
                    let what = format!("`{}` is about to run `{workflow}`", step.id);
                    self.push(WaitKind::Due, Some((&step.id, *item)), self.since.last, None, what, "the engine");
                }
                Action::Decide(_) => {
                    if !self.reasons.iter().any(|reason| reason.kind == WaitKind::Due) {
                        let what = "it is about to go on".to_owned();
                        self.push(WaitKind::Due, None, self.since.last, None, what, "the engine");
                    }
                }
                Action::Held(_) | Action::Wait(_) | Action::CommandChild { .. } | Action::Lock { .. } => {}
            }
        }
    }
}
