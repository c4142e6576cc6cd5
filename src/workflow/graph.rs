//! The graph of a plan, for people: its steps and which of them wait for which.
//!
//! Always true: it has every step of the plan, in topological order, and an edge for each step that another one needs
//! or takes the place of.

use http::Method;

use super::plan::{Plan, Step, StepKind};
use super::rules::{RiskSource, Until};
use super::{EffectClass, Risk};
use crate::names::{ServiceName, StepId, WorkflowName};

/// The steps of a plan, and the edges between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanGraph {
    /// In topological order.
    pub steps: Vec<GraphStep>,
    /// From a step to one that comes after it.
    pub edges: Vec<GraphEdge>,
}

/// A step, as far as its definition says what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphStep {
    /// Its name.
    pub step: StepId,
    /// What it does.
    pub action: StepAction,
    /// Whether it runs once for each item of a list.
    pub for_each: bool,
    /// Whether it has an `if:`.
    pub is_conditional: bool,
    /// Its own risk, if it declares a fixed one.
    pub risk: Option<Risk>,
    /// Whether it declares that what it does cannot be undone.
    pub is_irreversible: bool,
    /// Whether it has a call that reverses what it did.
    pub has_undo: bool,
    /// Whether it takes a lock.
    pub takes_lock: bool,
    /// The step whose place it takes when that one certainly did nothing.
    pub fallback_of: Option<StepId>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepAction {
    /// An HTTP call.
    Call {
        /// The method.
        method: Method,
        /// The service.
        service: ServiceName,
        /// The path, with `{}` for each segment that has a value in it.
        path: String,
        /// What it does to the world.
        effect: EffectClass,
    },
    /// Computes a value.
    Compute,
    /// Asks a person.
    Ask,
    /// Waits for a time.
    WaitForTime,
    /// Waits for a signal of this name.
    WaitForSignal(String),
    /// Runs another workflow.
    Run(WorkflowName),
    /// Ends the run with a failure.
    Fail,
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphEdge {
    /// The earlier step.
    pub from: StepId,
    /// The later step.
    pub to: StepId,
    /// Why it comes later.
    pub kind: EdgeKind,
}

/// Why one step comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// It needs the other one.
    Needs,
    /// It takes the other one's place.
    Fallback,
}

impl Plan {
    /// The plan as a graph.
    pub fn graph(&self) -> PlanGraph {
        let steps = self.steps.iter().map(|step| graph_step(self, step)).collect();
        let edges = self.steps.iter().flat_map(|step| {
            let edge = |from: &Step, kind| GraphEdge { from: from.id.clone(), to: step.id.clone(), kind };
            let needs = step.needs.iter().filter_map(|needed| self.steps.get(needed.0));
            let replaced = step.replaces.and_then(|replaced| self.steps.get(replaced.0));
            let needs = needs.filter(move |needed| replaced.is_none_or(|replaced| replaced.id != needed.id));
            needs
                .map(|needed| edge(needed, EdgeKind::Needs))
                .chain(replaced.map(|replaced| edge(replaced, EdgeKind::Fallback)))
                .collect::<Vec<_>>()
        });
        PlanGraph { steps, edges: edges.collect() }
    }
}

fn graph_step(plan: &Plan, step: &Step) -> GraphStep {
    let action = match &step.kind {
        StepKind::Call(call) => StepAction::Call {
            method: call.method.clone(),
            service: call.service.clone(),
            path: call.url.path_template(),
            effect: call.effect,
        },
        StepKind::Set(_) => StepAction::Compute,
        StepKind::Checkpoint(_) => StepAction::Ask,
        StepKind::Wait(wait) => match &wait.until {
            Until::For(_) | Until::At(_) => StepAction::WaitForTime,
            Until::Signal { name, .. } => StepAction::WaitForSignal(name.clone()),
        },
        StepKind::Run(run) => StepAction::Run(run.workflow.clone()),
        StepKind::Fail(_) => StepAction::Fail,
    };
    let safeguards = &step.safeguards;
    let risk = match safeguards.risk {
        Some(RiskSource::Fixed(risk)) => Some(risk),
        Some(RiskSource::Computed(_)) | None => None,
    };
    GraphStep {
        step: step.id.clone(),
        action,
        for_each: step.for_each.is_some(),
        is_conditional: step.condition.is_some(),
        risk,
        is_irreversible: safeguards.irreversible,
        has_undo: step.undo.is_some(),
        takes_lock: safeguards.lock.is_some(),
        fallback_of: step.replaces.and_then(|replaced| Some(plan.steps.get(replaced.0)?.id.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::limits::Limits;
    use crate::workflow::DeclaredNames;

    const ALL_KINDS: &str = "
workflow: all
steps:
  total: { set: '${request.body.a}' }
  charge:
    for_each: '${request.body.list}'
    call: 'POST ${services.bank}/charges/${steps.total.output}?all=yes'
    risk: high
    reversible: false
    undo: { call: 'DELETE ${services.bank}/charges/1' }
    lock: { key: bank }
    fallback: later
  later: { fallback_only: true, call: 'GET ${services.bank}/later', if: '${request.body.b}' }
  ask: { needs: [charge], checkpoint: { question: go on? } }
  pause: { needs: [ask], wait: { for: 3s } }
  signal: { needs: [pause], wait: { signal: paid } }
  child: { needs: [signal], run: other }
  stop: { needs: [child], fail: { status: 409, body: no } }
respond: { status: 200, body: done }
";

    fn plan(yaml: &str) -> Plan {
        let services = BTreeMap::from([(ServiceName::from("bank"), true)]);
        let (secrets, limits) = (BTreeSet::new(), Limits::default());
        let known = DeclaredNames { services: &services, secrets: &secrets, has_store_key: false, limits: &limits };
        Plan::from_source(&serde_saphyr::from_str(yaml).unwrap(), &known)
            .unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    #[test]
    fn every_kind_of_step_and_edge_is_in_the_graph() {
        let graph = plan(ALL_KINDS).graph();
        let step = |name: &str| graph.steps.iter().find(|step| step.step.as_str() == name).unwrap();
        let call =
            |method, path: &str, effect| StepAction::Call { method, service: "bank".into(), path: path.into(), effect };
        assert_eq!(step("total").action, StepAction::Compute);
        let charge = step("charge");
        assert_eq!(charge.action, call(Method::POST, "/charges/{}", EffectClass::Shared));
        assert!(
            charge.for_each && charge.has_undo && charge.takes_lock && charge.is_irreversible && !charge.is_conditional
        );
        assert_eq!((charge.risk, &charge.fallback_of), (Some(Risk::High), &None));
        let later = step("later");
        assert_eq!(later.action, call(Method::GET, "/later", EffectClass::Read));
        assert!(later.is_conditional);
        assert_eq!(later.fallback_of, Some("charge".into()));
        assert_eq!(step("ask").action, StepAction::Ask);
        assert_eq!(step("pause").action, StepAction::WaitForTime);
        assert_eq!(step("signal").action, StepAction::WaitForSignal("paid".into()));
        assert_eq!(step("child").action, StepAction::Run("other".into()));
        assert_eq!(step("stop").action, StepAction::Fail);
        let edge = |from: &str, to: &str, kind| GraphEdge { from: from.into(), to: to.into(), kind };
        assert!(graph.edges.contains(&edge("total", "charge", EdgeKind::Needs)), "{:?}", graph.edges);
        assert!(graph.edges.contains(&edge("charge", "ask", EdgeKind::Needs)));
        let to_later: Vec<_> = graph.edges.iter().filter(|edge| edge.to.as_str() == "later").collect();
        assert_eq!(to_later, [&edge("charge", "later", EdgeKind::Fallback)]);
        let position = |name: &StepId| graph.steps.iter().position(|step| step.step == *name).unwrap();
        assert!(graph.edges.iter().all(|edge| position(&edge.from) < position(&edge.to)), "{:?}", graph.edges);
    }
}
