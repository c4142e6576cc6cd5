//! All sensitive values that one run knows.
//!
//! This one set decides what is sealed in the run's events, what is marked in its answers and in the inputs of its
//! child runs, and what people are not shown of the run. It holds the values that the plan declares in the request, in
//! outputs and in headers of requests and replies; the values that a parent, a child or an earlier run of the job
//! marked in what it handed over; and values that were computed from any of these or entered in their place.
//!
//! Always true: the set follows from the plan and the run's events, and only [`Knowledge::learn`] adds to it. A run
//! collects the set once it is given its plan ([`Run::collect_sensitive`]), whichever process recorded the events.
//! Secrets of the files and a caller's credentials are not in the set, because no event contains them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::collector::{Collector, CollectorOfRun};
use super::known::KnownValues;
use super::parts::{SensitiveForm, SensitivePart, parts};
use super::sources::SensitiveSources;
use super::taint::Taint;
use crate::expression::parse_json;
use crate::names::{CheckpointId, StepId};
use crate::workflow::{CheckpointEvent, ChildEvent, Event, Plan, Run, Step, StepEvent, StepKind, Until, WaitEvent};

/// The sensitive values that a run knows, and where its events hold sensitive parts.
#[derive(Clone)]
pub struct Knowledge {
    plan: Arc<Plan>,
    sources: SensitiveSources,
    /// `None` while the run has no sensitive values.
    taint: Option<Arc<Taint>>,
    known: Arc<KnownValues>,
    /// The step that each checkpoint is about.
    checkpoint_steps: BTreeMap<CheckpointId, StepId>,
}

impl Knowledge {
    /// The knowledge of a run after these events: all of its events, or those since it was read from a snapshot.
    fn of<'a>(plan: &Arc<Plan>, run: &Run, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut events = events.into_iter().peekable();
        // From the first event on, everything is learnt in order, as in the process that recorded the events.
        let is_whole = matches!(events.peek(), Some(Event::RunStarted(_)));
        let (sources, checkpoint_steps) = match is_whole {
            true => (SensitiveSources::default(), BTreeMap::new()),
            false => {
                let asked = run.open_checkpoints().map(|asked| (asked.checkpoint.clone(), asked.step.clone()));
                (run.sensitive_sources().clone(), asked.collect())
            }
        };
        let mut knowledge = Self::new(plan, sources, checkpoint_steps);
        events.for_each(|event| knowledge.learn(event));
        knowledge
    }
    fn new(plan: &Arc<Plan>, sources: SensitiveSources, checkpoint_steps: BTreeMap<CheckpointId, StepId>) -> Self {
        let is_active = !plan.sensitive_values().is_empty() || sources.is_active();
        let taint = is_active.then(|| Arc::new(Taint::new(plan, &sources)));
        Self { plan: plan.clone(), sources, taint, known: Arc::default(), checkpoint_steps }
    }
    /// The knowledge of a run without events.
    #[cfg(test)]
    pub fn for_test(plan: Plan) -> Self {
        Self::new(&Arc::new(plan), SensitiveSources::default(), BTreeMap::new())
    }
    /// Adds the sensitive values in an event. An event that was learnt before adds nothing.
    pub fn learn(&mut self, event: &Event) {
        if let Event::Checkpoint(CheckpointEvent::Opened(asked)) = event {
            self.checkpoint_steps.insert(asked.checkpoint.clone(), asked.step.clone());
        }
        if self.sources.learn(event) && (self.taint.is_some() || self.sources.is_active()) {
            self.taint = Some(Arc::new(Taint::new(&self.plan, &self.sources)));
        }
        let Some(taint) = self.taint.clone() else { return };
        let mut declared = BTreeSet::new();
        self.plan.sensitive_values().collect(event, &self.checkpoint_steps, &mut declared);
        if let Event::Wait(WaitEvent::SignalReceived { name, payload, .. }) = event {
            let waits = |step: &&Step| match &step.kind {
                StepKind::Wait(wait) => matches!(&wait.until, Until::Signal { name: of, .. } if of == name),
                _ => false,
            };
            let waiting = self.plan.steps.iter().filter(waits).map(|step| &step.id);
            self.plan.sensitive_values().collect_payload(waiting, payload, &mut declared);
        }
        if !declared.is_empty() {
            let known = Arc::make_mut(&mut self.known);
            declared.into_iter().for_each(|value| known.add(value));
        }
        let parts = parts(&taint, event, &self.checkpoint_steps);
        if parts.is_empty() {
            return;
        }
        let Ok(written) = serde_json::to_value(event) else { return };
        let Some(content) = event_content(&written) else { return };
        let is_from_other = matches!(
            event,
            Event::RunStarted(_) | Event::Child(ChildEvent::Ended { .. }) | Event::Step(StepEvent::ResultTaken(_))
        );
        let known = Arc::make_mut(&mut self.known);
        let mut add = |text: String| match is_from_other {
            true => known.add_from_other(text),
            false => known.add_computed(text),
        };
        for part in parts {
            match &part.form {
                SensitiveForm::Value | SensitiveForm::Text => part.at.texts(content, &mut add),
                SensitiveForm::Within => part.at.texts_within(content, &mut add),
                SensitiveForm::Json(paths) => part.at.texts(content, &mut |text| match parse_json(text.as_bytes()) {
                    Ok(body) => paths.iter().for_each(|path| path.texts_within(&body, &mut add)),
                    Err(_) => add(text),
                }),
            }
        }
    }
    /// Which parts of the run's events are sensitive by their origin; `None` while the run has no sensitive values.
    pub fn taint(&self) -> Option<&Arc<Taint>> {
        self.taint.as_ref()
    }
    /// The sensitive values.
    pub fn known(&self) -> &KnownValues {
        &self.known
    }
    /// The sensitive parts of an event.
    pub fn parts(&self, event: &Event) -> Vec<SensitivePart> {
        self.taint.as_deref().map(|taint| parts(taint, event, &self.checkpoint_steps)).unwrap_or_default()
    }
}

/// The content of a serialised event, below the name of its kind.
pub fn event_content(written: &Value) -> Option<&Value> {
    written.as_object()?.values().next()
}

impl Collector for Knowledge {
    fn learn(&mut self, event: &Event) {
        self.learn(event);
    }
    fn known(&self) -> &Arc<KnownValues> {
        &self.known
    }
    fn known_after(&self, events: &[Event]) -> Arc<KnownValues> {
        let mut other = Self::new(&self.plan, SensitiveSources::default(), BTreeMap::new());
        events.iter().for_each(|event| other.learn(event));
        other.known
    }
    fn boxed(&self) -> Box<dyn Collector> {
        Box::new(self.clone())
    }
}

impl Run {
    /// Gives the run its plan. The run collects the sensitive values in `events`, and from now on those in each further
    /// event. `events` must be all events that were folded into the run; for a run that was read from a snapshot, those
    /// after the snapshot, because the run had no sensitive values until then. Returns what the run knows.
    pub fn collect_sensitive<'a>(
        &mut self,
        plan: &Arc<Plan>,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Knowledge {
        let knowledge = Knowledge::of(plan, self, events);
        self.collector = CollectorOfRun(Some(knowledge.boxed()));
        knowledge
    }
    /// The sensitive values that the run knows; everything if the run was not given its plan.
    pub(in crate::workflow) fn known_values(&self) -> Arc<KnownValues> {
        self.collector.known_values()
    }
}
