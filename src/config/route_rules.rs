//! The rules of one route in force, and the check of other rules for it.
//!
//! The question it answers: "what would `check` say if the route's `compare:` were this text?" Nothing is changed, and
//! no file is read.

use std::sync::Arc;

use super::call_templates::{call_templates, intent_names};
use super::check_files::pruned;
use super::checked_files::{Services, Workflows};
use super::load::SetBuilder;
use super::render::Findings;
use super::schema::rules_schema;
use super::schema_check;
use super::setup::Setup;
use super::tree::NodeKind;
use super::uncompared_steps::running_steps;
use crate::compare::{CallTemplate, CompareContext, Rules, RulesDraft};
use crate::names::RouteId;
use crate::problem::{Problems, Site};
use crate::secret::RedactRules;

/// How the pairs of one route are compared, and what its rules may refer to.
#[derive(Clone)]
pub struct RouteRules {
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// The names under which the workflow, and those that it runs, may record intents.
    intents: Vec<String>,
    /// The steps that run other workflows.
    runs: Vec<String>,
    calls: Vec<CallTemplate>,
    services: Vec<String>,
    has_workflow: bool,
    /// What the route declares as secret.
    redact: RedactRules,
}

/// Rules that were checked, with the warnings of the check.
pub struct CheckedRules {
    /// The rules.
    pub rules: Rules,
    /// The warnings.
    pub warnings: Findings,
}

impl RouteRules {
    /// Rules that may refer to the intents with these names, and to no call or service.
    #[cfg(test)]
    pub fn of_intents(rules: Arc<Rules>, intents: &[&str]) -> Self {
        let intents = intents.iter().map(|&name| name.to_owned()).collect();
        let redact = RedactRules::default();
        Self { rules, intents, runs: Vec::new(), calls: Vec::new(), services: Vec::new(), has_workflow: true, redact }
    }
    /// The rules of a route of these files; `None` if they do not have the route.
    pub fn of(setup: &Setup, route: &RouteId) -> Option<Self> {
        let route = setup.routes.iter().find(|other| other.id == *route)?;
        let services: Services =
            setup.services.iter().map(|(name, service)| (name.clone(), Some(service.clone()))).collect();
        let site = Site::file("");
        let workflows: Workflows =
            setup.workflows.iter().map(|(name, plan)| (name.clone(), (site.clone(), Some(plan.clone())))).collect();
        let plan = route.workflow.as_ref().and_then(|name| setup.workflows.get(name));
        let calls = plan.map(|plan| call_templates(plan, &services, &workflows)).unwrap_or_default();
        Some(Self {
            rules: setup.rules.get(&route.id).cloned().unwrap_or_default(),
            intents: intent_names(&calls).into_iter().map(str::to_owned).collect(),
            runs: plan
                .map(|plan| running_steps(plan, |name| setup.workflows.get(name).map(|plan| &**plan)))
                .unwrap_or_default(),
            calls,
            services: setup.services.keys().map(ToString::to_string).collect(),
            has_workflow: route.workflow.is_some(),
            redact: route.redact.clone(),
        })
    }

    /// Calls a function with what the rules of the route may refer to.
    pub fn with_context<T>(&self, call: impl FnOnce(&CompareContext<'_>) -> T) -> T {
        let intents: Vec<&str> = self.intents.iter().map(String::as_str).collect();
        let runs: Vec<&str> = self.runs.iter().map(String::as_str).collect();
        let services: Vec<&str> = self.services.iter().map(String::as_str).collect();
        let has_workflow = self.has_workflow;
        let (calls, redact) = (&self.calls, Some(&self.redact));
        call(&CompareContext { has_workflow, intents: &intents, runs: &runs, calls, services: &services, redact })
    }

    /// Checks a text as the `compare:` of the route, with or without that key; `file` is its name in the findings.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included.
    pub fn check(&self, file: &str, text: &str) -> Result<CheckedRules, Findings> {
        let mut builder = SetBuilder::default();
        let Some(root) = builder.add_text(file, text) else { return Err(builder.report()) };
        let site = Site::file(file);
        let (node, site) = match root.get("compare") {
            Some(compare) if root.entries().len() == 1 => (compare, site.key("compare")),
            Some(_) | None => (&root, site),
        };
        let mut problems = Problems::default();
        let by_schema = schema_check::check(node, rules_schema(), &site);
        let draft = match node.kind {
            // As an empty `compare:` in a route.
            NodeKind::Null => Some(RulesDraft::default()),
            _ => pruned::<RulesDraft>(node.to_value(), &site, &by_schema),
        };
        if !matches!(node.kind, NodeKind::Null) {
            problems.extend(by_schema.problems);
        }
        let checked =
            draft.and_then(|draft| self.with_context(|context| Rules::check(&draft, &site, context, &mut problems)));
        builder.add_problems(problems);
        let findings = builder.report();
        match checked {
            Some(rules) if !findings.has_errors() => Ok(CheckedRules { rules, warnings: findings }),
            _ => Err(findings),
        }
    }

    /// As [`RouteRules::check`], for a draft; `None` if it is not valid.
    pub fn check_draft(&self, draft: &RulesDraft) -> Option<Rules> {
        let (site, mut problems) = (Site::file("compare"), Problems::default());
        self.with_context(|context| Rules::check(draft, &site, context, &mut problems))
    }
}
