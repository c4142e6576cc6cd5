//! Checks the content of each kind of file with the checks of `flag`, `workflow` and `compare`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::call_templates::{call_templates, intent_names};
use super::checked_files::{MainFile, Routes, Services, Workflows};
use super::effects::{workflows_with, workflows_with_shared_steps};
use super::files::FileKind;
use super::listener_tls::Context;
use super::referenced_files::ReferencedFiles;
use super::schema::schema;
use super::schema_check::{self, SchemaCheck};
use super::service_tls::{self, PlatformRoots};
use super::settings::{self, PointsmanDraft};
use super::setup::Overrides;
use super::tree::{Node, NodeKind};
use super::uncompared_steps::running_steps;
use crate::compare::{CompareContext, Rules, RulesDraft};
use crate::flag::Promote;
use crate::flag::file::{
    KnownNames, RouteDraft, ServiceDraft, ServiceTlsDraft, WorkflowFacts, check_routes, check_service,
    check_strata_key, guard_by_default, promote,
};
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::problem::{Problems, Segment, Severity, Site, nearest};
use crate::secret::RedactRules;
use crate::workflow::{Adoption, DeclaredNames, EffectClass, Plan};

/// Checks `pointsman.yaml`.
pub(crate) fn main(
    node: &Node,
    site: &Site,
    dir: &Path,
    overrides: &Overrides,
    referenced_files: &mut ReferencedFiles,
    problems: &mut Problems,
) -> MainFile {
    let by_schema = schema_check::check(node, schema(FileKind::Pointsman), site);
    let draft = pruned::<PointsmanDraft>(node.to_value(), site, &by_schema);
    problems.extend(by_schema.problems);
    let Some(draft) = draft else { return MainFile::default() };
    let mut services = Services::new();
    let mut platform_roots = PlatformRoots::default();
    let mut context = Context { dir, overrides, files: referenced_files };
    let mut tls = |draft: &ServiceTlsDraft, site: &Site, problems: &mut Problems| {
        service_tls::build(draft, site, &mut platform_roots, &mut context, problems)
    };
    for (name, value) in &draft.services {
        let site = site.key("services").key(name.as_str());
        // `problems` already has what the schema refuses.
        let service = serde_json::from_value::<ServiceDraft>(value.clone()).ok();
        let service = service.and_then(|draft| check_service(name, &draft, &site, &mut tls, problems));
        services.insert(name.as_str().into(), service.map(Arc::new));
    }
    let default_legacy = draft.default_legacy.as_deref().map(ServiceName::from);
    if default_legacy.is_none() && node.entry("default_legacy").is_some_and(|e| matches!(e.value.kind, NodeKind::Null))
    {
        problems
            .error(&site.key("default_legacy"), "`default_legacy` names no service")
            .hint("it is one of the names under `services:`");
    }
    if let Some(name) = default_legacy.as_ref().filter(|name| !services.contains_key(*name)) {
        let problem = problems.error(&site.key("default_legacy"), format!("no service is called `{name}`"));
        match nearest(name.as_str(), services.keys().map(ServiceName::as_str)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("it is one of the names under `services:`"),
        };
    }
    let settings = settings::check(&draft, site, dir, overrides, referenced_files, problems);
    let redact = settings.as_ref().map(|settings| settings.redact.clone()).unwrap_or_default();
    let strata_by = check_strata_key(&draft.promote, &[], &redact, &site.key("promote"), problems);
    let promote = promote(&draft.promote, &Promote::default(), strata_by, &site.key("promote"), problems);
    let guard = guard_by_default(draft.guard.as_ref(), services.keys(), &site.key("guard"), problems);
    let secrets = draft.secrets.keys().cloned().collect();
    MainFile {
        settings,
        services,
        default_legacy,
        limits: draft.limits,
        secrets,
        store_key: draft.store_key.is_some(),
        promote,
        guard,
        redact,
    }
}

/// Checks `workflows/*.yaml`.
pub(crate) fn workflows<'a>(
    files: impl Iterator<Item = (Site, &'a Node)>,
    main: &MainFile,
    problems: &mut Problems,
) -> Workflows {
    let services = main.services.iter();
    let services = services.map(|(name, service)| (name.clone(), service.as_ref().is_some_and(|s| s.keyed))).collect();
    let known = DeclaredNames {
        services: &services,
        secrets: &main.secrets,
        has_store_key: main.store_key,
        limits: &main.limits,
    };
    let mut workflows = Workflows::new();
    for (site, node) in files {
        let by_schema = schema_check::check(node, schema(FileKind::Workflow), &site);
        let value = prune(node.to_value(), &site, &by_schema);
        let fits_schema = by_schema.problems.is_empty();
        // If a key is missing, the plan is not checked, because the check would report the missing key again.
        let has_all_keys = by_schema.problems.len() == by_schema.refused.len();
        problems.extend(by_schema.problems);
        let value = value.filter(|_| has_all_keys);
        let name = node.get("workflow").and_then(Node::text);
        let plan = value.filter(|_| name.is_some()).and_then(|value| Plan::check(&value, &site, &known, problems));
        let Some(name) = name.map(WorkflowName::from) else { continue };
        if let Some((first, _)) = workflows.get(&name) {
            problems
                .error(&site.key("workflow"), format!("two workflows are called `{name}`"))
                .hint(format!("the other is in {}", first.file));
            continue;
        }
        workflows.insert(name, (site, plan.filter(|_| fits_schema).map(Arc::new)));
    }
    workflows
}

/// Checks `routes/*.yaml`, all together.
pub(crate) fn routes<'a>(
    files: impl Iterator<Item = (Site, &'a Node)>,
    main: &MainFile,
    workflows: &Workflows,
    read_file: &dyn Fn(&str) -> Result<Option<String>, String>,
    problems: &mut Problems,
) -> Routes {
    let mut drafts: Vec<(Site, RouteDraft)> = Vec::new();
    let mut incomplete: Vec<Site> = Vec::new();
    let mut refused_instances: Vec<Site> = Vec::new();
    for (site, node) in files {
        let by_schema = schema_check::check(node, schema(FileKind::Routes), &site);
        let items = node.get("routes").map_or(&[][..], Node::items);
        for (index, item) in items.iter().enumerate() {
            let site = site.key("routes").index(index);
            if let Some(draft) = pruned::<RouteDraft>(item.to_value(), &site, &by_schema) {
                if by_schema.refused.iter().any(|path| path.starts_with(&site.path)) {
                    incomplete.push(site.clone());
                }
                let instance = site.key("instance");
                if ["creates", "follows"].iter().any(|key| by_schema.refused.contains(&instance.key(*key).path)) {
                    refused_instances.push(instance);
                }
                drafts.push((site, draft));
            }
        }
        problems.extend(by_schema.problems);
    }
    let with_shared_steps = workflows_with_shared_steps(workflows);
    let with_private_steps = workflows_with(workflows, |effect| effect == EffectClass::Private);
    let facts = workflows.iter().map(|(name, (_, plan))| {
        let (shared_steps, private_steps) = (with_shared_steps.contains(name), with_private_steps.contains(name));
        let facts = plan.as_ref().map(|plan| WorkflowFacts {
            shared_steps,
            private_steps,
            reason_to_keep: plan.reason_to_keep(),
            streaming_step: plan.streaming_step().map(ToString::to_string),
            tells_legacy: matches!(plan.adoption, Some(Adoption::Release(_))),
        });
        (name.clone(), facts)
    });
    let facts = facts.collect();
    let mut route_problems = Problems::default();
    let services = &main.services;
    let known = KnownNames {
        services,
        workflows: &facts,
        promote: &main.promote,
        guard: main.guard.as_ref(),
        redact: &main.redact,
        read_file,
    };
    let checked = check_routes(&drafts, &known, &mut route_problems);
    // A warning about an incomplete draft may be caused by the parts that were removed from it.
    route_problems.retain(|p| p.severity == Severity::Error || !incomplete.iter().any(|site| p.site.is_within(site)));
    // An `instance:` whose `creates` or `follows` the schema refuses would be reported again as having neither.
    route_problems.retain(|p| !refused_instances.contains(&p.site));
    problems.extend(route_problems);
    let mut rules = BTreeMap::new();
    let redact_of: BTreeMap<&str, &RedactRules> =
        checked.iter().map(|route| (route.id.as_str(), &route.redact)).collect();
    let service_names: Vec<&str> = services.keys().map(ServiceName::as_str).collect();
    for (site, draft) in &drafts {
        let plan = draft.workflow.as_deref().and_then(|name| workflows.get(name)).and_then(|(_, plan)| plan.as_ref());
        let steps_are_known = draft.workflow.is_none() || plan.is_some();
        let site = site.key("compare");
        let value = draft.compare.clone().filter(|value| !value.is_null()).unwrap_or_else(|| serde_json::json!({}));
        let Ok(mut draft_rules) = serde_json::from_value::<RulesDraft>(value) else { continue };
        if !steps_are_known {
            // The steps are unknown because the workflow's file is invalid, which has been reported.
            draft_rules.assert.clear();
            draft_rules.effects.clear();
        }
        let calls = plan.map(|plan| call_templates(plan, services, workflows)).unwrap_or_default();
        let intents = intent_names(&calls);
        let plan_of = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
        let names = plan.map(|plan| running_steps(plan, plan_of)).unwrap_or_default();
        let runs: Vec<&str> = names.iter().map(String::as_str).collect();
        let context = CompareContext {
            has_workflow: draft.workflow.is_some(),
            intents: &intents,
            runs: &runs,
            calls: &calls,
            services: &service_names,
            redact: Some(redact_of.get(&*draft.id).copied().unwrap_or(&main.redact)),
        };
        if let Some(checked) = Rules::check(&draft_rules, &site, &context, problems) {
            rules.insert(draft.id.as_str().into(), Arc::new(checked));
        }
    }
    let site_of = |id: &RouteId| drafts.iter().find(|(_, draft)| draft.id == id.as_str()).map(|(site, _)| site.clone());
    let routes = checked.into_iter().filter_map(|route| Some((site_of(&route.id)?, Arc::new(route)))).collect();
    Routes { routes, rules }
}

/// Reads a value as a draft, without the parts that the schema refuses; `None` if it cannot be read without them.
pub(super) fn pruned<T: DeserializeOwned>(value: Value, site: &Site, by_schema: &SchemaCheck) -> Option<T> {
    serde_json::from_value(prune(value, site, by_schema)?).ok()
}

/// Removes the parts that the schema refuses from a value, so that the rest can be checked. `None` if the whole value
/// was refused.
fn prune(mut value: Value, site: &Site, by_schema: &SchemaCheck) -> Option<Value> {
    // The last path first, so that the indexes of the list items before it stay valid.
    let inside = by_schema.refused.iter().rev().filter_map(|path| path.strip_prefix(site.path.as_slice()));
    for path in inside {
        let (last, parents) = path.split_last()?;
        let parent = parents.iter().try_fold(&mut value, |at, segment| match segment {
            Segment::Key(key) => at.get_mut(&**key),
            Segment::Index(index) => at.get_mut(*index),
        });
        match (parent, last) {
            (Some(Value::Object(map)), Segment::Key(key)) => {
                map.shift_remove(&**key);
            }
            (Some(Value::Array(list)), Segment::Index(index)) if *index < list.len() => {
                list.remove(*index);
            }
            _ => {}
        }
    }
    Some(value)
}
